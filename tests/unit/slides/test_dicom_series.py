"""Which files make a DICOM slide, as PACS and viewers export them."""

import pickle
import shutil
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import generate_uid

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box
from quadrat.slides.dicom_series import choose_series, is_dicom, series_in, series_of
from quadrat.slides.identity import slide_identity
from quadrat.slides.opening import open_slide

SLIDE, OTHER = "dicom_cmu-1-small-region_mistagged_rgb", "dicom_camelyon_jpeg"
WHOLE = Box(0, 0, 370, 277)
LEVEL = 3


@pytest.fixture
def instances(wsi: Path) -> list[Path]:
    """The twelve files of a slide, the largest level first."""
    return sorted((wsi / SLIDE).iterdir(), key=lambda file: -file.stat().st_size)


@pytest.fixture
def pixels(wsi: Path) -> np.ndarray:
    with open_slide(wsi / SLIDE) as slide:
        return slide.read(LEVEL, WHOLE)


@pytest.fixture(autouse=True)
def _no_folder_of_links_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Temporary folders are made where the test sees them, and are gone at its end."""
    place = tmp_path.parent / f"{tmp_path.name}_temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert list(place.iterdir()) == []


NAMES = {
    "UIDs": lambda number: f"1.2.826.0.1.3680043.{number}",
    "no suffix": lambda number: f"IM{number:04d}",
    ".dic": lambda number: f"{number}.dic",
    ".DCM": lambda number: f"{number}.DCM",
    ".img": lambda number: f"{number}.img",
    "one folder below": lambda number: f"DICOM/{number}",
    "as in a DICOMDIR": lambda number: f"PAT00/ST00/SE00/IM{number}",
    "two folders": lambda number: f"{number % 2}/{number}",
    "a folder for each file": lambda number: f"{number}/1.dcm",
    "here and below": lambda number: f"{'more/' * (number % 2)}{number}.dcm",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_a_slide_is_found_whatever_its_files_are_called_and_wherever_they_lie(
    tmp_path: Path, instances: list[Path], pixels: np.ndarray, name
) -> None:
    for number, file in enumerate(instances):
        place = tmp_path / name(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    (tmp_path / "readme").write_text("no slide")
    with open_slide(tmp_path) as slide:
        assert len(slide.levels) == 12
        assert slide.levels[0].box.shape == (2967, 2220)
        assert np.array_equal(slide.read(LEVEL, WHOLE), pixels)
        with pickle.loads(pickle.dumps(slide)) as again:  # as a worker gets it
            assert np.array_equal(again.read(LEVEL, WHOLE), pixels)


def test_one_file_stands_for_those_next_to_it_and_its_identity_for_all_of_them(
    tmp_path: Path, instances: list[Path], pixels: np.ndarray
) -> None:
    for number, file in enumerate(instances):
        shutil.copyfile(file, tmp_path / f"1.2.3.{number}")
    one = tmp_path / "1.2.3.5"
    with open_slide(one) as slide:
        assert np.array_equal(slide.read(LEVEL, WHOLE), pixels)
    before = slide_identity(str(one))
    (tmp_path / "1.2.3.0").write_bytes(instances[0].read_bytes()[:-1] + b"\1")
    assert slide_identity(str(one)) != before


def test_a_truncated_file_without_suffix_is_named(tmp_path: Path, instances: list[Path]) -> None:
    for number, file in enumerate(instances):
        shutil.copyfile(file, tmp_path / f"IM{number}")
    (tmp_path / "IM1").write_bytes(instances[1].read_bytes()[:-5000])
    for path in (tmp_path, tmp_path / "IM0"):
        with pytest.raises(SlideError, match="IM1: truncated"):
            open_slide(path)


@pytest.fixture
def two(tmp_path: Path, wsi: Path, instances: list[Path]) -> Path:
    """A folder of two series without an order."""
    for number, file in enumerate(instances):
        shutil.copyfile(file, tmp_path / f"IM{number}")
    shutil.copyfile(next((wsi / OTHER).iterdir()), tmp_path / "IM99")
    return tmp_path


def test_several_series_are_refused_with_their_names_and_one_is_chosen(two: Path) -> None:
    with pytest.raises(SlideError) as refused:
        open_slide(two)
    for words in (
        "holds 2 DICOM series: 0 'x' (2220 x 2967 px)",
        "1 'Congo Red-Lung test' (1152 x 700 px)",
        "--scene",
    ):
        assert words in str(refused.value)
    uid = series_of(two / "IM99").uid
    for scene in ("Congo Red-Lung test", "1", uid):
        with open_slide(two, scene=scene) as slide:
            assert slide.levels[0].box.shape == (700, 1152)
    with open_slide(two, scene="0") as slide:
        assert slide.levels[0].box.shape == (2967, 2220)
    with open_slide(two / "IM99") as slide:
        assert slide.levels[0].box.shape == (700, 1152)
    with pytest.raises(SlideError, match="no DICOM series are called 'HE'; it holds 0 'x'"):
        open_slide(two, scene="HE")


def test_series_of_one_name_are_told_apart_by_number(two: Path) -> None:
    series = series_in(two)
    with pytest.raises(SlideError, match="2 DICOM series are called 'x'"):
        choose_series([series[0], series[0]], scene="x", path=two)


def test_a_label_in_a_series_of_its_own_is_not_another_slide(
    tmp_path: Path, wsi: Path, instances: list[Path]
) -> None:
    shutil.copyfile(instances[3], tmp_path / "b")
    label = dcmread(next((wsi / OTHER).iterdir()))
    label.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    label.save_as(tmp_path / "a")
    with open_slide(tmp_path) as slide:
        assert slide.levels[0].box.shape == WHOLE.shape
    assert [one.size for one in series_in(tmp_path)] == [(0, 0), WHOLE.shape]


def concatenated(file: Path, folder: Path, cuts: tuple[int, ...]) -> list[Path]:
    """A level whose frames are in several files."""
    data = dcmread(file)
    frames = list(generate_frames(data.PixelData, number_of_frames=int(data.NumberOfFrames)))
    name, parts = generate_uid(), []
    for number, (first, end) in enumerate(zip((0, *cuts), (*cuts, len(frames)), strict=True), 1):
        part = deepcopy(data)
        part.PixelData = encapsulate(frames[first:end])
        part["PixelData"].is_undefined_length = True
        part.NumberOfFrames = end - first
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        part.ConcatenationUID, part.InConcatenationNumber = name, number
        part.SOPInstanceUIDOfConcatenationSource = data.SOPInstanceUID
        part.InConcatenationTotalNumber = len(cuts) + 1
        part.ConcatenationFrameOffsetNumber = first
        parts.append(folder / f"part{number}")
        part.save_as(parts[-1])
    return parts


@pytest.mark.parametrize("apart", [False, True])
def test_a_level_in_several_files_is_read_and_one_that_lacks_a_file_is_refused(
    tmp_path: Path, wsi: Path, instances: list[Path], apart: bool
) -> None:
    parts = concatenated(instances[0], tmp_path, (12, 20))
    if apart:
        (tmp_path / "more").mkdir()
        parts[1] = parts[1].rename(tmp_path / "more" / "part2")
    box = Box(1000, 500, 1500, 1100)
    with open_slide(wsi / SLIDE) as slide, open_slide(tmp_path) as found:
        assert np.array_equal(found.read(0, box), slide.read(0, box))
    if apart:
        parts[2].rename(tmp_path / "more" / "part3")
    parts[1].unlink()
    for path in (tmp_path, parts[0]):
        with pytest.raises(SlideError, match=r"dicom slide \((Missing|Found only one) SOP inst"):
            open_slide(path)
    with pytest.raises(SlideError, match="give the folder that holds all its files"):
        open_slide(parts[0])


def test_without_room_for_links_the_way_out_is_said(
    tmp_path: Path, instances: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, file in enumerate(instances[2:4]):
        (tmp_path / str(number)).mkdir()
        shutil.copyfile(file, tmp_path / str(number) / "a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.symlink", full)
    with pytest.raises(SlideError, match=r"several folders.*No space left.*put them into one"):
        open_slide(tmp_path)


def test_what_is_dicom_is_known_by_its_content(tmp_path: Path) -> None:
    for name, content in {
        "a": bytes(128) + b"DICM",
        "b.dcm": bytes(200),
        "c.dcm": b"",
        "d.svs": bytes(128) + b"DICM",
    }.items():
        (tmp_path / name).write_bytes(content)
    assert [path.name for path in sorted(tmp_path.iterdir()) if is_dicom(path)] == ["a"]
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "none")
