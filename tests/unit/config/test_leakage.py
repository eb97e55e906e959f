"""Leakage is refused with the place and the way out."""

from dataclasses import replace

import pytest

from helpers.rows import slide
from quadrat.config.leakage import check_leakage, check_training, content_digests
from quadrat.config.manifest import SlideRef
from quadrat.core.errors import ConfigError


@pytest.mark.parametrize(
    ("refs", "words"),
    [
        (
            [slide("a", "x", split="train"), slide("b", "x", split="test")],
            "'x' is on two sides: a is in split 'train' and b in",
        ),
        (
            [slide("a", "x"), slide("b", "x", split="val")],
            "a is in split 'train' and b in split 'val'",
        ),
        ([slide("a", "b", split="train"), slide("b", split="test")], "case 'b' is on two sides"),
        ([slide("a", "x", fold=0), slide("b", "x", fold=1)], "fold 0 and b in fold 1"),
        ([slide("a"), replace(slide("b"), path="./a.svs")], "listed twice"),
    ],
)
def test_leakage_is_refused_with_both_slides_named(refs, words):
    with pytest.raises(ConfigError, match=words):
        check_leakage(refs)


def test_nothing_to_train_on_is_refused():
    with pytest.raises(ConfigError, match="none of the 1 slides is of split 'train'"):
        check_training([slide("a", split="test")])


def test_one_file_under_two_names_is_found_and_only_files_of_one_size_are_read(tmp_path):
    content = {"a.png": b"12345", "b.png": b"12345", "c.png": b"54321", "d.png": b"1"}
    refs = []
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
        refs.append(SlideRef(name[0], str(tmp_path / name)))
    digests = content_digests([ref.path for ref in refs])
    assert set(digests) == {ref.path for ref in refs[:3]}
    check_leakage([refs[0], refs[2], refs[3]], digests)
    with pytest.raises(ConfigError, match=r"a\.png and .*b\.png hold the same bytes.*keep one row"):
        check_leakage(refs, digests)


def test_folders_are_compared_by_all_their_files(tmp_path):
    for name, data in (("a", b"12"), ("b", b"12"), ("c", b"21")):
        (tmp_path / name / "0").mkdir(parents=True)
        (tmp_path / name / "0" / "chunk").write_bytes(data)
    digests = content_digests([str(tmp_path / n) for n in ("a", "b", "c", "missing")])
    assert (
        digests[str(tmp_path / "a")] == digests[str(tmp_path / "b")] != digests[str(tmp_path / "c")]
    )
