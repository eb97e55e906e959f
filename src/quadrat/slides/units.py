"""Micrometres in a unit of length, under the names that files use for it."""

from __future__ import annotations

_FACTORS = {
    1.0: ("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre", "\\u00b5m"),
    1e-6: ("pm", "picometer", "picometre"),
    1e-4: ("\u00c5", "\u212b", "A", "angstrom", "\u00e5ngstr\u00f6m"),
    1e-3: ("nm", "nanometer", "nanometre"),
    1e3: ("mm", "millimeter", "millimetre"),
    1e4: ("cm", "centimeter", "centimetre"),
    1e5: ("dm", "decimeter", "decimetre"),
    1e6: ("m", "meter", "metre"),
    25.4: ("thou", "mil", "mils"),
    25400 / 72: ("pt",),
    25400.0: ("in", "inch", "inches"),
    304800.0: ("ft", "foot"),
}
"""OME (UnitsLength), OME-NGFF and ImageJ. Both the micro sign and the Greek letter occur, and both
the letter and the sign of the angstrom."""
_BY_NAME = {name.lower(): um for um, names in _FACTORS.items() for name in names}


def micrometres(unit: str | None) -> float | None:
    """Micrometres in one of a unit; None if it is no unit of length, or an unknown one."""
    return _BY_NAME.get((unit or "").strip().lower())
