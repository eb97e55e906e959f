"""What is taken from OME-XML, and what hostile OME-XML does."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from quadrat.annotations.formats.label_image import load_label_image
from quadrat.core.errors import AnnotationError, SlideError
from quadrat.slides.ome_xml import OmeImage, colours_are_rgb, parse_ome
from quadrat.slides.opening import open_slide

NUMBERS = ("NaN", "nan", "INF", "-inf", "1e999", "", "red", "1_0x")


def ome(pixels: str = "", channels: str = "", *, before: str = "", size: str = "30") -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{before}'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Instrument ID="Instrument:0">'
        '<Objective ID="Objective:0" NominalMagnification="NaN"/></Instrument>'
        '<Image ID="Image:0" Name="a"><ObjectiveSettings ID="Objective:0"/>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{size}" SizeY="20" '
        f'SizeC="3" SizeZ="1" SizeT="1" {pixels}>{channels or CHANNELS}'
        '<TiffData IFD="0" PlaneCount="3"/></Pixels></Image></OME>'
    )


def channels(*colours: str) -> str:
    return "".join(
        f'<Channel ID="Channel:0:{i}" Color="{colour}" SamplesPerPixel="1"/>'
        for i, colour in enumerate(colours)
    )


CHANNELS = channels("-16776961", "16711935", "65535")
"""Red, green and blue as RGBA in one signed integer."""


def write(file: Path, xml: str, *, planes: int = 3, page: tuple[int, int] = (20, 30)) -> Path:
    with tifffile.TiffWriter(file) as tiff:
        for plane in range(planes):
            tiff.write(
                np.full(page, plane + 1, np.uint8),
                description=xml.encode() if plane == 0 else None,
                contiguous=False,
                metadata=None,
                photometric="minisblack",
            )
    return file


def test_red_green_and_blue_channels_are_a_picture(tmp_path: Path) -> None:
    with open_slide(write(tmp_path / "a.ome.tif", ome())) as slide:
        assert slide.info.format == "OME-TIFF"
        assert (slide.mpp, slide.info.objective) == (None, None)
        assert slide.read(0, slide.levels[0].box)[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_physical_size_that_is_no_number_is_no_mpp(tmp_path: Path, number: str) -> None:
    pixels = f'PhysicalSizeX="{number}" PhysicalSizeY="0.5"'
    with open_slide(write(tmp_path / "a.ome.tif", ome(pixels))) as slide:
        assert slide.mpp is None


@pytest.mark.parametrize("number", NUMBERS)
def test_a_channel_colour_that_is_no_number_is_refused_by_what_it_says(
    tmp_path: Path, number: str
) -> None:
    file = write(tmp_path / "a.ome.tif", ome(channels=channels(number, "16711935", "65535")))
    with pytest.raises(SlideError, match=rf"a\.ome\.tif: .*colours {number}, 00FF00, 0000FF, not"):
        open_slide(file)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_size_that_is_no_number_is_no_traceback(tmp_path: Path, number: str) -> None:
    file = write(tmp_path / "a.ome.tif", ome(size=number))
    with pytest.raises(SlideError, match=r"a\.ome\.tif: "):
        open_slide(file)


def test_an_objective_that_is_no_number_is_none() -> None:
    assert parse_ome(ome()).objective is None
    assert parse_ome(ome().replace('"NaN"', '"20"')).objective == 20


def test_what_is_no_ome_xml_states_nothing() -> None:
    for text in (None, "", "text", "<OME><Image>", "<OME/>", "<OME><Image/></OME>"):
        assert parse_ome(text) == OmeImage()
    assert parse_ome(ome(), index=1) == OmeImage()
    assert parse_ome("<!DOCTYPE a>" + "<OME/>") == OmeImage()


def test_white_channels_may_be_red_green_and_blue() -> None:
    assert colours_are_rgb(("FFFFFF",) * 3)
    assert colours_are_rgb(())
    assert not colours_are_rgb(("FF0000", "00FF00", "FFFFFF"))


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE OME SYSTEM "http://127.0.0.1:9/ome.dtd">',
    ],
)
@pytest.mark.parametrize("planes", [1, 3])
def test_ome_xml_with_a_document_type_is_refused(
    tmp_path: Path, declared: str, planes: int
) -> None:
    file = write(tmp_path / "a.ome.tif", ome(before=declared), planes=planes)
    with pytest.raises(
        SlideError, match=r"a\.ome\.tif: its XML description declares a document type.*remove it"
    ):
        open_slide(file)
    with pytest.raises(AnnotationError, match=r"a\.ome\.tif: .*declares a document type"):
        load_label_image(file)
