"""Names of units of length, as files write them."""

import pytest

from quadrat.slides.units import micrometres


@pytest.mark.parametrize(
    ("um", "names"),
    [
        (1.0, ["µm", "μm", "um", "UM", " micron ", "micrometer", "\\u00B5m"]),
        (1e-4, ["Å", "\u212b", "angstrom"]),
        (1e-3, ["nm", "nanometer"]),
        (1e3, ["mm", "millimeter"]),
        (1e4, ["cm"]),
        (1e6, ["m", "meter"]),
        (25.4, ["thou", "mil"]),
        (25400.0, ["in", "inch"]),
        (304800.0, ["ft", "foot"]),
    ],
)
def test_units_of_length_are_known_in_any_case(um: float, names: list[str]) -> None:
    assert {micrometres(name) for name in names} == {um}


@pytest.mark.parametrize("name", [None, "", "pixel", "reference frame", "second", "red"])
def test_what_is_no_unit_of_length_has_no_micrometres(name: str | None) -> None:
    assert micrometres(name) is None
