from pathlib import Path

import pytest

from quadrat.slides.recognise import recognise


@pytest.mark.parametrize("path", [".", "..", "../x.zarr", "../x.zarr/", "below/.."])
def test_a_folder_that_is_a_slide_has_its_own_name_however_it_is_given(path, tmp_path, monkeypatch):
    here = tmp_path / "x.zarr"
    (here / "below").mkdir(parents=True)
    (here / "zarr.json").write_text("{}")
    monkeypatch.chdir(here / "below" if path == ".." else here)
    assert recognise(Path(path)).name == "x.zarr"
