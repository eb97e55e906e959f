import os
from pathlib import Path

import pytest

from quadrat.core.errors import SlideError
from quadrat.slides.opening import open_slide
from quadrat.slides.recognise import recognise


@pytest.mark.parametrize("path", [".", "..", "../x.zarr", "../x.zarr/", "below/.."])
def test_a_folder_that_is_a_slide_has_its_own_name_however_it_is_given(path, tmp_path, monkeypatch):
    here = tmp_path / "x.zarr"
    (here / "below").mkdir(parents=True)
    (here / "zarr.json").write_text("{}")
    monkeypatch.chdir(here / "below" if path == ".." else here)
    assert recognise(Path(path)).name == "x.zarr"


def test_a_folder_one_may_not_read_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read everything
    with pytest.raises(SlideError, match="permission to read the folder is denied"):
        open_slide(tmp_path)


def test_a_dicom_folder_and_a_file_in_it_are_one_slide(wsi: Path) -> None:
    folder = wsi / "dicom_cmu-1-small-region_mistagged_rgb"
    with open_slide(folder) as whole, open_slide(folder / "level-3-frames-0-1.dcm") as one:
        assert whole.levels == one.levels
        assert len(whole.levels) == 12
        assert whole.name == one.name == folder.name
        assert whole.mpp == (0.499, 0.499)


def test_what_is_not_a_slide_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("not a slide at all")
    (tmp_path / "folder").mkdir()
    for name, reason in [
        ("none.svs", "no such file"),
        ("empty.svs", r"empty \(0 bytes\)"),
        ("text.svs", "neither a slide format"),
        ("folder", "is empty"),
    ]:
        with pytest.raises(SlideError, match=f"{name}: .*{reason}"):
            open_slide(tmp_path / name)


def test_a_file_one_may_not_read_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret.svs"
    file.write_bytes(b"II*\0")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(SlideError, match="permission"):
        open_slide(file)
