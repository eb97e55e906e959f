"""What the header of a table of points, boxes or outlines says (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
)
_SIZES = (("x", "y", "width", "height"), ("x", "y", "w", "h"))
CLASS = ("class", "classification", "class_name", "label", "name")
SLIDE = ("slide", "image", "filename", "file")


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the values stand in a line (None: there is no such column)."""

    numbers: tuple[int, ...] = ()
    """Columns of the 2 numbers of a point or the 4 of a box."""
    sized: bool = False
    """The last two numbers of a box are width and height."""
    name: int | None = None
    """Column of the class."""
    slide: int | None = None
    """Column of the slide."""
    kind: int | None = None
    """Column of the kind."""
    wkt: int | None = None
    """Column of the well-known text."""
    shape: int | None = None
    """Column that tells how a record was drawn."""
    crowd: int | None = None
    """Column that marks crowds."""
    object_type: int | None = None
    """Column of QuPath's type of object."""
    um: bool = False
    """The numbers are in um, not in px."""

    @property
    def needed(self) -> int:
        """How many cells a line must have."""
        known = (*self.numbers, self.name, self.slide, self.kind, self.wkt, self.shape, self.crowd)
        return max(i for i in (*known, self.object_type) if i is not None) + 1


def columns_of(header: Sequence[str]) -> Columns | None:
    """The columns that a header names; None if it is not a header."""
    names = [cell.lower() for cell in header]
    name, slide, kind = first_of(names, CLASS), first_of(names, SLIDE), first_of(names, ("kind",))
    if "wkt" in names:
        shape, crowd = first_of(names, ("shape",)), first_of(names, ("crowd",))
        return Columns((), False, name, slide, kind, names.index("wkt"), shape, crowd)
    for wanted, sized in (
        *((c, False) for c in _CORNERS),
        *((s, True) for s in _SIZES),
        (("x", "y"), False),
    ):
        if set(wanted) <= set(names):
            return Columns(tuple(names.index(n) for n in wanted), sized, name, slide, kind)
    return _measured(names)


def _measured(names: Sequence[str]) -> Columns | None:
    """The columns of a table of measurements that QuPath exports; None if it is not one. Its micro
    sign is one of two."""
    plain = [name.replace("\u00b5", "u").replace("\u03bc", "u") for name in names]
    for unit in ("px", "um"):
        wanted = (f"centroid x {unit}", f"centroid y {unit}")
        if set(wanted) <= set(plain):
            return Columns(
                (plain.index(wanted[0]), plain.index(wanted[1])),
                name=first_of(names, ("classification", "class")),
                slide=first_of(names, ("image",)),
                object_type=first_of(names, ("object type",)),
                um=unit == "um",
            )
    return None


def first_of(names: Sequence[str], known: Sequence[str]) -> int | None:
    """Place of the first of the known names that is among ``names``."""
    return next((names.index(name) for name in known if name in names), None)
