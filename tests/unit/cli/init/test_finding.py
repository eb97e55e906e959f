"""Slides and annotations are found below the folders that are given."""

from pathlib import Path

import pytest

from helpers.flat_images import slides
from quadrat.cli.init.finding import one_slide, slides_below

DICOM = bytes(128) + b"DICM"


def test_a_folder_is_gone_through_once_however_many_links_lead_to_it(tmp_path):
    slides(tmp_path / "slides", ["a.png", "more/b.png"])
    (tmp_path / "slides" / "back").symlink_to("..")
    (tmp_path / "slides" / "other").symlink_to("more")
    assert sorted(path.name for path in slides_below(tmp_path / "slides")) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("files", "slide"),
    [
        (["s/1.dcm", "s/2.dcm"], "s"),
        (["s/1.dcm", "s/a.png"], None),
        (["s/IM1", "s/IM2"], "s"),
        (["s/zarr.json"], "s"),
        (["s/Slidedat.ini", "s.mrxs"], "s.mrxs"),
        (["s/Slidedat.ini"], None),
        (["s"], "s"),
        (["s/a.png"], None),
    ],
)
def test_a_path_may_be_a_slide_by_itself(tmp_path, monkeypatch, files, slide):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(DICOM if "IM" in name or name.endswith(".dcm") else b"")
    assert one_slide(tmp_path / "s") == (slide and tmp_path / slide)
    if (tmp_path / "s").is_dir():
        monkeypatch.chdir(tmp_path / "s")
        assert one_slide(Path()) == (slide and tmp_path / slide)
