"""Which slides the arguments of a run name."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.runs import quadrat
from quadrat.cli.runs import Options, found, part_of
from quadrat.core.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    """A folder of three slides among other things."""
    slides = tmp_path / "slides"
    slides.mkdir()
    for name in ("b.svs", "a.tif", "c.PNG", "notes.txt", "a.geojson", ".hidden.svs"):
        (slides / name).touch()
    (slides / "below").mkdir()
    (slides / "below" / "d.svs").touch()
    (slides / "z.zarr").mkdir()
    (slides / "z.zarr" / "zarr.json").touch()
    return slides


def names(paths):
    return [path.name for path in paths]


def test_a_folder_is_all_slides_in_it_sorted_and_their_number_is_told(folder, capsys):
    assert names(found([folder])) == ["a.tif", "b.svs", "c.PNG", "z.zarr"]
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"{folder}: 4 slides\n")
    found([folder], quiet=True)
    assert capsys.readouterr().err == ""


def test_a_pattern_is_all_that_match_sorted_folders_below_among_them(folder, capsys):
    assert names(found([folder / "*.svs"])) == ["b.svs"]
    assert names(found([folder / "**" / "*.svs"])) == ["b.svs", "d.svs"]
    assert capsys.readouterr().err.endswith(": 2 slides\n")
    with pytest.raises(ConfigError, match=r"no file matches .*\*\.ndpi"):
        found([folder / "*.ndpi"])


def test_what_is_a_slide_by_itself_is_taken_as_it_is_even_if_it_looks_like_a_pattern(folder):
    odd = folder / "x[1].svs"
    odd.touch()
    (folder / "x1.svs").touch()
    given = [odd, folder / "missing.svs", folder / "z.zarr"]
    assert found(given) == given


def test_a_folder_without_slides_is_left_to_whoever_opens_it(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert found([tmp_path]) == [tmp_path]
    assert capsys.readouterr().err == ""


def test_the_home_of_the_user_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert names(found([Path("~/slides/b.svs"), Path("~/slides/*.tif")])) == ["b.svs", "a.tif"]


def test_regions_belong_to_one_slide_however_it_is_named(folder):
    regions = Options(regions=Path("r.geojson"))
    assert [s.regions for s in regions.slides([folder / "b.*"])] == ["r.geojson"]
    for given in ([folder], [], [folder / "a.tif", folder / "b.svs"]):
        with pytest.raises(ConfigError, match="--regions belongs to one slide"):
            regions.slides(given)


def test_an_mpp_of_the_command_line_is_for_slides_of_the_manifest_that_state_none(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("slide,mpp\na.svs,0.3\nb.svs,\n")
    assert [s.mpp for s in Options(manifest=manifest).slides([])] == [0.3, None]
    assert [s.mpp for s in Options(manifest=manifest, mpp=0.5).slides([])] == [0.3, 0.5]
    with pytest.raises(ConfigError, match="not both"):
        Options(manifest=manifest).slides([Path("a.svs")])


def test_an_mpp_of_the_command_line_is_refused_where_the_model_works_in_pixels(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("task: detection\nclasses: [{name: a}]\nmodel: {package: p, mpp: px}\n")
    done = quadrat("run", file, "a.png", "--mpp", "0.5", "--out", tmp_path / "out")
    assert done.code == 2
    assert "--mpp is 0.5, but model.mpp of mine is px" in done.err
    assert not (tmp_path / "out").exists()


def test_all_slides_of_a_folder_are_inspected(tmp_path):
    for name in ("b.png", "a.png"):
        Image.fromarray(np.full((40, 50, 3), 200, np.uint8)).save(tmp_path / name)
    done = quadrat("inspect", tmp_path)
    assert done.code == 0
    lines = [line for line in done.out.splitlines() if not line.startswith(" ")]
    assert lines == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_a_folder_whose_slides_lie_in_folders_below_says_how_to_name_them(folder):
    outer = folder.parent / "outer"
    (outer / "uuid").mkdir(parents=True)
    (outer / "uuid" / "a.svs").touch()
    with pytest.raises(ConfigError, match=r"below it hold 1; name .* in quotes: '.*/\*\*/\*\.svs'"):
        found([outer])
    assert names(found([outer / "**" / "*.svs"])) == ["a.svs"]


@pytest.mark.parametrize(
    ("files", "slides"),
    [
        (["IM1", "IM2"], ["."]),
        (["a/IM1", "b/IM2"], ["."]),
        (["a/IM1", "IM2"], ["."]),
        (["a/IM1", "a/IM2"], ["a"]),
        (["p/s/a/IM1", "p/s/a/IM2"], ["."]),
        (["a/IM1", "a/IM2", "b.svs"], ["a", "b.svs"]),
        (["a/IM1", "b/other"], ["a", "b"]),
        (["p/a/IM1", "p/b/other"], ["."]),
        (["IM1", "other"], ["."]),
    ],
)
def test_dicom_files_are_one_slide_or_the_folders_of_several(tmp_path, files, slides):
    """IM1 and IM2 are of one series, ``other`` is of another; a folder of both is left to whoever
    opens it, who says which series there are."""
    data = os.environ.get("QUADRAT_DATA")
    if data is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    wsi = Path(data) / "wsi"
    first = wsi / "dicom_cmu-1-small-region_mistagged_rgb"
    contents = {
        "IM1": (first / "level-2-frames-0-4.dcm").read_bytes(),
        "IM2": (first / "level-3-frames-0-1.dcm").read_bytes(),
        "other": next((wsi / "dicom_camelyon_jpeg").iterdir()).read_bytes(),
        "b.svs": b"",
    }
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents[Path(name).name])
    assert found([tmp_path]) == [tmp_path / slide for slide in slides]


def test_the_parts_of_an_array_are_all_slides_each_once(monkeypatch):
    slides = list(range(10))
    parts = [part_of(slides, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(slide for part in parts for slide in part) == slides
    assert part_of(slides, "11/12") == []
    for name, value in {"ID": "7", "MIN": "5", "COUNT": "3", "STEP": "1"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert part_of(slides, "array") == parts[2]


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "array"])
def test_a_part_that_is_none_is_refused(part, monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    with pytest.raises(ConfigError, match=r"--part"):
        part_of([1, 2, 3], part)
