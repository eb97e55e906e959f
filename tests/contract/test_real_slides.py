"""The real slides of QUADRAT_DATA/wsi: each with the values that their SOURCES.md states, and the
known defects handled."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import pytest
import simplejpeg

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box
from quadrat.slides.dicom import read_instance
from quadrat.slides.opening import open_slide

DICOM_BAD = "dicom_cmu-1-small-region_mistagged_rgb"
DICOM_GOOD = "dicom_camelyon_jpeg"


@pytest.fixture
def wsi() -> Path:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    return Path(folder) / "wsi"


@dataclass(frozen=True)
class Stated:
    """What SOURCES.md says of a file; sizes are (width, height) as it writes them."""

    file: str
    format: str
    first: tuple[int, int]
    last: tuple[int, int]
    levels: int
    mpp: tuple[float, float] | None
    objective: float | None
    associated: tuple[str, ...]
    icc: str | None = None
    notes: int = 0


STATED = [
    Stated(
        "CMU-1-Small-Region.svs",
        "aperio",
        (2220, 2967),
        (2220, 2967),
        1,
        (0.499, 0.499),
        20,
        ("label", "macro", "thumbnail"),
    ),
    Stated(
        "TCGA-CR-7395-01A-01-TS1.svs",
        "aperio",
        (4443, 3567),
        (2221, 1783),
        2,
        None,
        None,
        ("thumbnail",),
        "sRGB IEC61966-2.1",
    ),
    Stated(
        "generic_tiff_asap/example.tif",
        "generic-tiff",
        (1472, 690),
        (368, 172),
        3,
        (0.987, 0.987),
        None,
        (),
    ),
    # it states 28.35 px/cm, which is 72 dots per inch and no microscope's
    Stated("small_HE_levels.tiff", "generic-tiff", (300, 250), (37, 31), 4, None, None, ()),
    Stated(
        "test3-TRITC-2-560.ndpi",
        "hamamatsu",
        (3968, 4864),
        (62, 76),
        7,
        (0.2282, 0.2282),
        40,
        ("macro",),
    ),
    Stated(DICOM_BAD, "dicom", (2220, 2967), (1, 1), 12, (0.499, 0.499), None, (), notes=1),
    Stated(DICOM_GOOD, "dicom", (1152, 700), (1152, 700), 1, (28.968, 28.969), None, ()),
]


@pytest.mark.parametrize("stated", STATED, ids=lambda stated: stated.file)
def test_a_real_slide_is_what_its_source_states(wsi: Path, stated: Stated) -> None:
    with open_slide(wsi / stated.file) as slide:
        info = slide.info
        sizes = [level.box.shape for level in slide.levels]
        assert sizes[0] == stated.first[::-1]
        assert (len(sizes), sizes[-1]) == (stated.levels, stated.last[::-1])
        assert slide.mpp == (None if stated.mpp is None else pytest.approx(stated.mpp, rel=5e-4))
        assert (info.format, info.objective, info.associated) == (
            stated.format,
            stated.objective,
            stated.associated,
        )
        assert (info.icc_profile, len(info.notes), info.bounds) == (stated.icc, stated.notes, None)


def test_every_real_slide_is_among_the_stated_ones(wsi: Path) -> None:
    found = {path.name for path in wsi.iterdir()}
    assert found == {Path(stated.file).parts[0] for stated in STATED}


def test_the_mistagged_dicom_has_the_colours_of_the_slide_it_was_made_from(wsi: Path) -> None:
    with (
        open_slide(wsi / DICOM_BAD) as slide,
        open_slide(wsi / "CMU-1-Small-Region.svs") as original,
    ):
        box = original.levels[0].box
        want = original.read(0, box).astype(np.int16)
        difference = slide.read(0, box) - want
        assert (
            np.abs(difference).mean() < 4
        )  # it was compressed anew; OpenSlide's colours are 66 off
        assert np.abs(difference.mean(axis=(0, 1))).max() < 0.5
        assert "converted" in slide.info.notes[0]
    with openslide.OpenSlide(str(wsi / DICOM_BAD / "level-0-frames-0-30.dcm")) as theirs:
        wrong = np.asarray(theirs.read_region((0, 0), 0, (box.width, box.height)))[..., :3]
        assert np.abs(wrong - want).mean() > 50


def test_the_mistagged_dicom_shows_exactly_what_its_frames_hold(wsi: Path) -> None:
    for level, name in [(0, "level-0-frames-0-30.dcm"), (3, "level-3-frames-0-1.dcm")]:
        content = (wsi / DICOM_BAD / name).read_bytes()
        at = content.index(b"\xff\xd8\xff")
        frame = simplejpeg.decode_jpeg(
            content[at : at + int.from_bytes(content[at - 4 : at], "little")]
        )
        with open_slide(wsi / DICOM_BAD) as slide:
            box = Box(0, 0, *frame.shape[:2]).intersect(slide.levels[level].box)
            np.testing.assert_array_equal(slide.read(level, box)[:200, :200], frame[:200, :200])


def test_a_dicom_that_says_what_it_holds_is_not_touched(wsi: Path) -> None:
    file = next((wsi / DICOM_GOOD).glob("*.dcm"))
    with open_slide(wsi / DICOM_GOOD) as slide, openslide.OpenSlide(str(file)) as theirs:
        want = np.asarray(theirs.read_region((0, 0), 0, theirs.dimensions))[..., :3]
        np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), want)
        assert slide.info.notes == ()


def test_a_dicom_whose_frames_state_rgb_under_a_ybr_header_is_refused(
    wsi: Path, tmp_path: Path
) -> None:
    content = next((wsi / DICOM_GOOD).glob("*.dcm")).read_bytes()
    jfif = content[content.index(b"\xff\xe0\x00\x10JFIF") :][:18]
    adobe = (b"\xff\xee\x00\x0eAdobe\x00\x64" + b"\0" * 5).rjust(18, b"\xff")  # transform 0: RGB
    (tmp_path / "a.dcm").write_bytes(content.replace(jfif, adobe))
    with pytest.raises(
        SlideError, match=r"a\.dcm: .*says YBR_FULL_422 but the JPEG frames state RGB"
    ):
        open_slide(tmp_path / "a.dcm")


def test_the_header_of_a_real_dicom_file_is_read(wsi: Path) -> None:
    instance = read_instance(wsi / DICOM_BAD / "level-1-frames-0-9.dcm")
    assert instance is not None
    assert (instance.photometric, instance.size, instance.missing_bytes) == ("RGB", (1483, 1110), 0)
    assert instance.series == "1.2.276.0.7230010.3.1.3.2425734838.4124713.1626788322.499658"
    assert instance.is_slide
    assert read_instance(wsi / "small_HE_levels.tiff") is None


def test_a_folder_of_two_dicom_series_is_refused_and_a_file_of_it_is_not(
    wsi: Path, tmp_path: Path
) -> None:
    shutil.copyfile(next((wsi / DICOM_GOOD).glob("*.dcm")), tmp_path / "a.dcm")
    shutil.copyfile(wsi / DICOM_BAD / "level-2-frames-0-4.dcm", tmp_path / "b.dcm")
    with pytest.raises(SlideError, match=r"holds 2 DICOM series: .*--scene"):
        open_slide(tmp_path)
    with open_slide(tmp_path / "b.dcm") as slide:
        assert slide.levels[0].box.shape == (741, 555)


def test_a_dicom_cut_off_anywhere_is_refused_or_shows_what_it_showed(
    wsi: Path, tmp_path: Path
) -> None:
    content = next((wsi / DICOM_GOOD).glob("*.dcm")).read_bytes()
    file = tmp_path / "a.dcm"
    with open_slide(wsi / DICOM_GOOD) as slide:
        want = slide.read(0, slide.levels[0].box)
    lengths = [
        *(int(len(content) * share) for share in np.linspace(0.001, 0.99, 17)),
        *(len(content) - cut for cut in (1, 8, 12)),
    ]
    for length in lengths:
        file.write_bytes(content[:length])
        for path in (file, tmp_path):
            refusal = None
            try:
                with open_slide(path) as slide:
                    np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), want)
            except SlideError as error:
                refusal = str(error)
            assert refusal is None or str(path) in refusal


def test_one_truncated_instance_spoils_the_series(wsi: Path, tmp_path: Path) -> None:
    for file in (wsi / DICOM_BAD).iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    cut = tmp_path / "level-1-frames-0-9.dcm"
    cut.write_bytes(cut.read_bytes()[:200_000])
    for path in (tmp_path, tmp_path / "level-0-frames-0-30.dcm"):
        with pytest.raises(SlideError, match=r"level-1-frames-0-9\.dcm: truncated"):
            open_slide(path)
