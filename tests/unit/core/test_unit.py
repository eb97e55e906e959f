"""Names of columns, keys and labels in um and in px."""

import pytest

from quadrat.core.unit import (
    in_um,
    large_area,
    length,
    named,
    plain_area,
    renamed,
    small_area,
    um_or_none,
)

NAMES = {
    "area_um2": "area_px2",
    "perimeter_um": "perimeter_px",
    "tissue_mm2": "tissue_mpx",
    "per_mm2": "per_mpx",
    "excluded_mm2": "excluded_mpx",
    "um": "px",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_um_has_one_in_px_and_back(name):
    assert named(name, "px") == NAMES[name]
    assert in_um(NAMES[name], "px") == name
    assert named(name, "um") == in_um(name, "um") == name


@pytest.mark.parametrize("name", ["count", "score", "album", "minimum", "x_l0", "um_like", "mm2x"])
def test_a_name_that_is_not_in_um_stays(name):
    assert named(name, "px") == in_um(name, "px") == name


def test_labels_and_mappings_are_named_alike():
    assert (length("px"), small_area("px"), large_area("px"), plain_area("px")) == (
        "px",
        "px^2",
        "Mpx",
        "Mpx",
    )
    assert (length("um"), small_area("um"), large_area("um"), plain_area("um")) == (
        "µm",
        "µm^2",
        "mm²",
        "mm2",
    )
    assert renamed({"cap_um": 3.0, "seed": 0.5}, "px") == {"cap_px": 3.0, "seed": 0.5}
    assert (um_or_none("px"), um_or_none(0.5), um_or_none(None)) == (None, 0.5, None)
