"""DICOM headers, sound and hostile: what is read of them, and the sentence on what is not."""

import io
import random
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from quadrat.core.errors import SlideError
from quadrat.core.geometry import Box
from quadrat.slides.dicom import WSI_CLASS, jpeg_colours, read_instance
from quadrat.slides.dicom_series import series_in, series_of
from quadrat.slides.opening import open_slide
from quadrat.slides.recognise import recognise

SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.22"


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((48, 32), 90).convert("RGB").save(stream, "JPEG", **options)
    return stream.getvalue()


def header(*, syntax: str = JPEGBaseline8Bit, sop_class: str = WSI_CLASS) -> Dataset:
    """The header of a slide of three frames."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = sop_class
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3.4"
    data.SeriesInstanceUID = "1.2.3"
    data.PhotometricInterpretation = "YBR_FULL_422"
    data.Rows, data.Columns, data.SamplesPerPixel, data.NumberOfFrames = 32, 48, 3, 3
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.PlanarConfiguration = 7, 0, 0
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = 32, 144
    return data


def write(path: Path, data: Dataset, *, frames: int = 3) -> Path:
    if frames and data.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
        data.PixelData = encapsulate([jpeg()] * frames)
        data["PixelData"].is_undefined_length = True
    elif frames:
        data.PixelData = bytes(32 * 48 * 3 * frames)
        data["PixelData"].VR = "OB"
    dcmwrite(path, data, enforce_file_format=True)
    return path


def with_frame_groups(data: Dataset, number: int) -> Dataset:
    """Groups of every frame in sequences of undefined length, as Java's writers leave them."""
    groups = []
    for frame in range(number):
        place = Dataset()
        place.ColumnPositionInTotalImagePixelMatrix = 48 * frame + 1
        group = Dataset()
        group.PlanePositionSlideSequence = Sequence([place])
        groups.append(group)
        for item, holder in ((group, None), (place, group["PlanePositionSlideSequence"])):
            item.is_undefined_length_sequence_item = True
            if holder is not None:
                holder.is_undefined_length = True
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    data["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    return data


@pytest.mark.parametrize("groups", [0, 3])
def test_the_header_of_a_slide_is_read(tmp_path: Path, groups: int) -> None:
    file = write(tmp_path / "a.dcm", with_frame_groups(header(), groups) if groups else header())
    found = read_instance(file)
    assert found is not None
    assert found.is_slide
    assert (found.syntax, found.series) == (JPEGBaseline8Bit, "1.2.3")
    assert (found.photometric, found.size, found.missing_bytes) == ("YBR_FULL_422", (32, 144), 0)
    assert jpeg_colours(found.frame_head) == "ycbcr"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("groups", [0, 3])
def test_frames_that_are_not_compressed_are_measured(
    tmp_path: Path, syntax: str, groups: int
) -> None:
    data = header(syntax=syntax)
    file = write(tmp_path / "a.dcm", with_frame_groups(data, groups) if groups else data)
    whole = file.read_bytes()
    found = read_instance(file)
    assert found is not None
    assert (found.size, found.frame_head, found.missing_bytes) == ((32, 144), b"", 0)
    file.write_bytes(whole[:-100])
    found = read_instance(file)
    assert found is not None
    assert found.missing_bytes == 100


def test_frames_that_do_not_end_the_file_are_followed_to_their_end(tmp_path: Path) -> None:
    data = header()
    data.add_new(0xFFFCFFFC, "OB", bytes(64))
    file = write(tmp_path / "a.dcm", data)
    found = read_instance(file)
    assert found is not None
    assert found.missing_bytes == 0


def refusal(file: Path) -> str:
    """The sentence on a file that is refused; empty if its series is read."""
    try:
        series_of(file).check_whole()
    except SlideError as error:
        return str(error)
    return ""


def test_a_file_cut_anywhere_is_truncated_or_no_dicom(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", with_frame_groups(header(), 3))
    whole = file.read_bytes()
    lengths = (*range(360, len(whole) - 40, 7), *range(len(whole) - 40, len(whole)))
    for length in lengths:
        file.write_bytes(whole[:length])
        assert refusal(file).startswith((f"{file}: truncated", f"{file}: damaged"))
    for length in range(0, 360, 7):  # within the file meta group, which says what the file is
        file.write_bytes(whole[:length])
        assert refusal(file).startswith(str(file)) or not series_of(file).files


@pytest.mark.parametrize("seed", range(8))
def test_a_garbled_header_is_a_slide_error_or_is_read(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    file = write(tmp_path / "a.dcm", with_frame_groups(header(), 3))
    whole = file.read_bytes()
    for _ in range(50):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8, 64))):
            content[draw.randrange(132, 1400)] = draw.choice((0, 0xFF, draw.randrange(256)))
        file.write_bytes(content)
        reason = refusal(file)
        assert not reason or reason.startswith(f"{file}: ")


def test_a_deflated_file_is_not_inflated(tmp_path: Path) -> None:
    data = header(syntax=DeflatedExplicitVRLittleEndian)
    data.add_new(0x00091010, "OB", bytes(1 << 27))
    file = write(tmp_path / "bomb.dcm", data, frames=0)
    assert file.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(SlideError, match=r"bomb\.dcm: DICOM in the transfer .*deflated"):
            recognise(file)
        assert series_in(tmp_path) == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


def test_a_big_endian_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    data = header(syntax=ExplicitVRBigEndian)
    file = write(tmp_path / "a.dcm", data)
    with pytest.raises(SlideError, match=r"a\.dcm: DICOM in .*big endian.*dcmconv"):
        recognise(file)


def test_a_length_beyond_the_file_is_truncated(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", header())
    content = file.read_bytes()
    series = content.index(b"\x20\x00\x0e\x00UI")
    huge = content[:series] + b"\x20\x00\x0e\x00UT\0\0" + struct.pack("<I", 0xFFFFFFF0)
    file.write_bytes(huge + content[series + 8 :])
    with pytest.raises(SlideError, match=r"a\.dcm: truncated: its DICOM header reaches"):
        series_of(file).check_whole()


def test_thousands_of_nested_sequences_are_damage(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", header(), frames=0)
    nested = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    file.write_bytes(file.read_bytes() + nested * 5000)
    with pytest.raises(SlideError, match=r"a\.dcm: damaged: its DICOM header makes no sense"):
        read_instance(file)


def test_items_without_number_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quadrat.slides.dicom.HEADER_BYTES", 1 << 22)
    file = write(tmp_path / "a.dcm", header(), frames=0)
    items = b"\x48\x00\x05\x01SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 50_000
    file.write_bytes(file.read_bytes() + items)
    tracemalloc.start()
    try:
        with pytest.raises(SlideError, match=r"a\.dcm: damaged: its DICOM header makes no sense"):
            read_instance(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [(0x00480006, "DS", b"wide"), (0x00480006, "SQ", b""), (0x00480007, "US", b"\1\0\2\0")],
)
def test_a_size_that_is_no_number_is_damage(
    tmp_path: Path, tag: int, kind: str, value: bytes
) -> None:
    file = write(tmp_path / "a.dcm", header())
    content = file.read_bytes()
    name = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    at = content.index(name + b"UL")
    length = struct.pack("<HI", 0, len(value)) if kind == "SQ" else struct.pack("<H", len(value))
    element = name + kind.encode() + length + value
    file.write_bytes(content[:at] + element + content[at + 12 :])
    with pytest.raises(SlideError, match=r"a\.dcm: damaged: its DICOM header makes no sense"):
        read_instance(file)


def test_a_size_of_another_kind_of_number_is_understood(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", header())
    content = file.read_bytes()
    at = content.index(b"\x48\x00\x06\x00UL")
    file.write_bytes(content[:at] + b"\x48\x00\x06\x00DS\x04\x00144 " + content[at + 12 :])
    found = read_instance(file)
    assert found is not None
    assert found.size == (32, 144)


def test_missing_facts_are_empty(tmp_path: Path) -> None:
    data = header()
    for name in ("SeriesInstanceUID", "PhotometricInterpretation", "TotalPixelMatrixRows"):
        delattr(data, name)
    found = read_instance(write(tmp_path / "a.dcm", data))
    assert found is not None
    assert (found.series, found.photometric, found.size) == ("", "", (0, 144))


def test_a_slide_without_pixels_has_lost_them(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", header(), frames=0)
    with pytest.raises(SlideError, match=r"a\.dcm: truncated: its DICOM header reaches"):
        read_instance(file)


def test_other_dicom_files_are_no_slides_and_need_no_pixels(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", header(sop_class=SR_CLASS), frames=0)
    write(tmp_path / "b.dcm", header())
    found = read_instance(file)
    assert found is not None
    assert (found.sop_class, found.is_slide) == (SR_CLASS, False)
    assert [file.name for one in series_in(tmp_path) for file in one.files] == ["b.dcm"]
    with pytest.raises(SlideError, match=rf"a\.dcm: .*not a whole-slide image .*{SR_CLASS}"):
        recognise(file)


def test_what_is_not_dicom_is_none(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("short", bytes(130)), ("other", bytes(500))):
        (tmp_path / name).write_bytes(content)
        assert read_instance(tmp_path / name) is None


def test_other_slides_do_not_load_the_dicom_library(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    code = (
        "import sys; from quadrat.slides.opening import open_slide; open_slide(sys.argv[1]); "
        "assert 'pydicom' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


def test_a_jpeg_stream_says_its_colours_or_leaves_them_open() -> None:
    jfif = jpeg()
    assert jpeg_colours(jfif) == "ycbcr"
    assert jpeg_colours(jpeg(keep_rgb=True)) == "rgb"
    bare = jfif.replace(b"JFIF\0", b"XXXX\0")
    assert jpeg_colours(bare) == "ycbcr"  # by its coarser chroma
    assert jpeg_colours(jpeg(subsampling=0).replace(b"JFIF\0", b"XXXX\0")) is None
    assert jpeg_colours(b"") is None
    assert jpeg_colours(jfif[:30]) == "ycbcr"


def test_a_truncated_dicom_file_is_refused_in_one_sentence(wsi: Path, tmp_path: Path) -> None:
    content = next((wsi / "dicom_camelyon_jpeg").glob("*.dcm")).read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[:9000])
    with pytest.raises(SlideError, match=r"truncated|DICOM"):
        open_slide(tmp_path).read(0, Box(0, 0, 600, 600))


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("shared", "openslide.mpp"),
        ("top", "DICOM PixelSpacing"),
        ("frames", "DICOM ImagedVolume"),
        ("nowhere", ""),
    ],
)
def test_the_spacing_of_pixels_is_read_wherever_a_writer_puts_it(
    wsi: Path, tmp_path: Path, place: str, source: str
) -> None:
    (file,) = (wsi / "dicom_camelyon_jpeg").iterdir()
    data = dcmread(file)
    groups = data.SharedFunctionalGroupsSequence[0]
    measures = groups.PixelMeasuresSequence
    if place != "shared":
        del groups.PixelMeasuresSequence
    if place == "top":
        data.PixelSpacing = measures[0].PixelSpacing
    if place == "frames":
        frame = Dataset()
        frame.PixelMeasuresSequence = measures
        data.PerFrameFunctionalGroupsSequence = Sequence([frame])
    if place == "nowhere":
        del data.ImagedVolumeHeight
    data.save_as(tmp_path / "a.dcm")
    with open_slide(tmp_path / "a.dcm") as slide:
        assert slide.info.mpp_source == source
        assert slide.mpp == (pytest.approx((28.968, 28.969), rel=1e-3) if source else None)
