"""Slides that are done again otherwise, and compared byte by byte."""

import json
from pathlib import Path

import pytest

from helpers.runs import contents, quadrat
from quadrat.core.errors import ConfigError
from quadrat.core.files import remove
from quadrat.core.numerics import Numerics
from quadrat.engine import run as engine_run
from quadrat.engine.certify import certify
from quadrat.engine.executor import Serial
from quadrat.engine.progress import Reporter
from quadrat.engine.resume import results_folder


@pytest.fixture
def tiny(tiny_of):
    """Slides of four shards."""
    return tiny_of("instance", side=32)


def certified(tiny, **options):
    """A certificate of slides that are done again in this process."""
    return certify(tiny.out, workers=0, reporter=Reporter(quiet=True), **options)


def test_equal_results_are_certified_with_what_was_varied_and_nothing_else_is_left(tiny):
    tiny.run("a", "b", "c")
    before = contents(tiny.out / "results")
    made = certified(tiny, slides=2)
    assert made.verdict == "equal"
    assert (len(made.slides), made.finished) == (2, 3)
    (varied,) = made.varied
    assert varied.shards_per_unit == (1, 3)
    assert varied.slides_in_flight == (8, 1)
    (slide, _) = made.slides
    assert {f"{slide.slide}/{file}": digest for file, digest in slide.files.items()}.items() <= (
        before.items()
    )
    assert contents(tiny.out / "results") == before
    written = json.loads((tiny.out / "certificate.json").read_text())
    assert (written["verdict"], written["weights_sha256"]) == ("equal", ["0" * 64])
    text = (tiny.out / "certificate.md").read_text()
    assert text.startswith("# Certificate: equal\n")
    assert slide.computed_with[1] in text
    assert sorted(path.name for path in tiny.folder.iterdir() if path.is_dir()) == [
        "out",
        "package",
    ]


def test_one_changed_byte_is_found_and_named(tiny):
    tiny.run("a")
    table = results_folder(tiny.out, "a") / "counts.csv"
    content = table.read_bytes()
    table.write_bytes(content[:-3] + b"7" + content[-2:])
    made = certified(tiny)
    assert made.verdict == "different"
    (difference,) = made.slides[0].differences
    assert difference.file == "counts.csv"
    assert difference.what.startswith("lines ")
    assert "- a/counts.csv: lines" in (tiny.out / "certificate.md").read_text()


def test_a_file_too_many_and_one_too_few_are_found(tiny):
    tiny.run("a")
    (results_folder(tiny.out, "a") / "stray.txt").write_text("")
    (results_folder(tiny.out, "a") / "counts.csv").unlink()
    found = {one.file: one.what for one in certified(tiny).slides[0].differences}
    assert found == {"stray.txt": "is missing now", "counts.csv": "is missing then"}


def test_another_machine_is_said_to_be_one_and_only_where_bytes_differ(tiny, monkeypatch):
    tiny.run("a")
    there = Numerics("cpu", "an older processor")
    monkeypatch.setattr(Serial, "numerics", lambda self, device, threads: there)
    assert certified(tiny).verdict == "equal"
    (results_folder(tiny.out, "a") / "counts.csv").write_text("others")
    made = certified(tiny)
    assert made.verdict == "another machine"
    assert made.slides[0].computed_with[1] == "an older processor"
    assert "Certify on a machine of the same kind" in (tiny.out / "certificate.md").read_text()


def test_slides_that_are_others_now_are_not_compared(tiny):
    tiny.run("a", "b")
    (tiny.folder / "a.png").write_bytes((tiny.folder / "b.png").read_bytes() + b"more")
    assert [slide.slide for slide in certified(tiny).slides] == ["b"]
    Path(tiny.folder / "b.png").unlink()
    with pytest.raises(ConfigError, match="no finished slide can be done again"):
        certified(tiny)
    remove(tiny.out / "run" / "asked")
    with pytest.raises(ConfigError, match="no record under run/asked/"):
        certified(tiny)


@pytest.mark.parametrize("broken", ["empty", "gone"])
def test_a_slide_that_cannot_be_done_again_is_not_certified(tiny, monkeypatch, broken):
    tiny.run("a")
    real = engine_run.run

    def fails(pipeline, refs, out, **options):
        if broken == "empty":
            (tiny.folder / "a.png").write_bytes(b"")
        else:
            (tiny.folder / "a.png").unlink()
        return real(pipeline, refs, out, **options)

    monkeypatch.setattr(engine_run, "run", fails)
    made = certified(tiny)
    assert made.verdict == "not done"
    assert "a.png" in made.slides[0].reason


def test_the_number_of_slides_and_the_seed_choose_them(tiny):
    names = [f"s{i}" for i in range(6)]
    tiny.run(*names)
    chosen = {
        tuple(slide.slide for slide in certified(tiny, slides=2, seed=seed).slides)
        for seed in range(3)
    }
    assert len(chosen) > 1
    with pytest.raises(ConfigError, match="--slides is 0"):
        certified(tiny, slides=0)


def test_the_command_prints_the_verdict_and_ends_with_it(tiny):
    tiny.run("a")
    done = quadrat("certify", tiny.out, "--slides", "1", "-j", "0", "-q")
    assert done.code == 0, done.err
    assert "Every byte is equal." in done.out
    (results_folder(tiny.out, "a") / "counts.csv").write_text("others")
    done = quadrat("certify", tiny.out, "--slides", "1", "-j", "0", "-q")
    assert done.code == 1
    assert "counts.csv: lines" in done.out
