"""Where a TIFF states its mpp, and what is no mpp."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from quadrat.slides.opening import open_slide

PICTURE = np.random.default_rng(4).integers(0, 256, (64, 80, 3), np.uint8)
PRINTERS = (72, 96, 150, 300, 600, 1200, 2400)


def stated(path: Path, **options: Any) -> tuple[Any, str]:
    tifffile.imwrite(path, PICTURE, **{"photometric": "rgb", "metadata": None} | options)
    with open_slide(path) as slide:
        return slide.mpp, slide.info.mpp_source


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("dpi", PRINTERS)
@pytest.mark.parametrize(("unit", "factor"), [("INCH", 1.0), ("CENTIMETER", 2.54)])
def test_the_resolution_of_a_printer_is_no_mpp_in_any_unit(
    tmp_path: Path, tile: tuple[int, int] | None, dpi: int, unit: str, factor: float
) -> None:
    resolution = dpi / factor, dpi / factor
    found = stated(tmp_path / "a.tif", resolution=resolution, resolutionunit=unit, tile=tile)
    assert found == (None, "")


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("mpp", [0.1, 0.2325, 0.25, 0.5, 1.0, 4.0])
@pytest.mark.parametrize(("unit", "um"), [("INCH", 25400.0), ("CENTIMETER", 1e4)])
def test_the_resolution_of_a_microscope_is_read_in_any_unit(
    tmp_path: Path, tile: tuple[int, int] | None, mpp: float, unit: str, um: float
) -> None:
    resolution = um / mpp, um / mpp
    found, source = stated(
        tmp_path / "a.tif", resolution=resolution, resolutionunit=unit, tile=tile
    )
    assert found == pytest.approx((mpp, mpp), rel=1e-6)
    assert source == f"TIFF resolution per {'inch' if unit == 'INCH' else 'centimetre'}"


@pytest.mark.parametrize(
    ("unit", "um"),
    [
        ("um", 1.0),
        ("micron", 1.0),
        ("\\u00B5m", 1.0),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("cm", 1e4),
        ("inch", 25400.0),
    ],
)
def test_the_unit_of_imagej_is_read(tmp_path: Path, unit: str, um: float) -> None:
    found, source = stated(
        tmp_path / "a.tif",
        imagej=True,
        resolution=(2 * um, 2 * um),
        metadata={"unit": unit},
        photometric=None,
    )
    assert found == pytest.approx((0.5, 0.5), rel=1e-6)
    assert source.startswith("ImageJ unit")


@pytest.mark.parametrize("unit", ["pixel", "", "s"])
def test_imagej_without_a_unit_of_length_states_no_mpp(tmp_path: Path, unit: str) -> None:
    options = {"imagej": True, "resolution": (2, 2), "metadata": {"unit": unit}}
    assert stated(tmp_path / "a.tif", photometric=None, **options) == (None, "")


@pytest.mark.parametrize(("unit", "um"), [("inch", 25400.0), ("cm", 1e4), ("mm", 1e3)])
@pytest.mark.parametrize("dpi", [1200, 2400])
def test_a_scan_of_paper_that_imagej_saved_states_no_mpp(
    tmp_path: Path, unit: str, um: float, dpi: int
) -> None:
    resolution = dpi * um / 25400, dpi * um / 25400
    options = {"imagej": True, "resolution": resolution, "metadata": {"unit": unit}}
    assert stated(tmp_path / "a.tif", photometric=None, **options) == (None, "")


@pytest.mark.parametrize("axis", "XY")
def test_where_one_axis_alone_is_stated_pixels_are_square(tmp_path: Path, axis: str) -> None:
    metadata = {"axes": "YXS", f"PhysicalSize{axis}": 0.25, f"PhysicalSize{axis}Unit": "µm"}
    found = stated(tmp_path / "a.ome.tif", ome=True, metadata=metadata)
    assert found == ((0.25, 0.25), "OME PhysicalSize")


@pytest.mark.parametrize(
    ("unit", "um"),
    [("in", 25400.0), ("thou", 25.4), ("mil", 25.4), ("Å", 1e-4), ("nm", 1e-3), ("mm", 1e3)],
)
def test_every_unit_of_length_of_ome_is_read(tmp_path: Path, unit: str, um: float) -> None:
    sizes = {f"PhysicalSize{axis}": 0.5 / um for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    found, _ = stated(
        tmp_path / "a.ome.tif", ome=True, tile=(32, 32), metadata={"axes": "YXS"} | sizes | units
    )
    assert found == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("number", ["0.4990", "0,4990"])
def test_an_aperio_mpp_is_read_with_a_decimal_point_or_comma(tmp_path: Path, number: str) -> None:
    note = f"Aperio Image Library v1\n80x64 [0,0 80x64] (32x32)|AppMag = 20|MPP = {number}"
    found, source = stated(tmp_path / "a.svs", tile=(32, 32), compression="jpeg", description=note)
    assert found == pytest.approx((0.499, 0.499))
    assert source
