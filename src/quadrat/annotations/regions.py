"""What users draw to say where to look: regions to include and to exclude, laid on top of the
tissue.

The file is a QuPath GeoJSON with annotations in level-0 px. Exclusion wins over inclusion. If there
is a region to include, only the inside of such regions counts. A mask pixel belongs to a region if
its centre does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.annotations.drawn import Annotations
from quadrat.annotations.formats.geojson import records_of
from quadrat.annotations.orientation import turn_of
from quadrat.annotations.origin import Origin, move
from quadrat.annotations.record import to_annotations
from quadrat.core.errors import AnnotationError
from quadrat.core.objects import Frame
from quadrat.slides.scanned_part import scanned_part
from quadrat.slides.tissue.mask import OUTSIDE_INCLUSION, USER_EXCLUSION, TissueMap

INCLUDE = ("Include", "ROI", "Region*", "Tissue")
EXCLUDE = ("Exclude", "Artefact", "Artifact", "Pen", "Fold", "Ignore*")
"""Default class names, compared in any case. ``*`` stands for any text, or for the asterisk of
QuPath."""

_IN, _OUT = 0, 1


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of one file."""

    drawn: Annotations
    """Class 0 is included, class 1 excluded, in this order."""
    name: str
    """The file, for messages."""
    notes: tuple[str, ...] = ()
    """How the file was understood otherwise than it stands there."""

    @property
    def includes(self) -> bool:
        """Whether any region is to be included."""
        return bool((self.drawn.class_id == _IN).any())


def load_regions(
    path: Path,
    *,
    include: Sequence[str] = INCLUDE,
    exclude: Sequence[str] = EXCLUDE,
    picture: str = "",
    origin: Origin = "auto",
) -> Regions:
    """Read the regions of a QuPath GeoJSON file. Detections and cells in it are ignored.
    ``picture``: the slide's file, "" for one that is surely stored upright. ``origin``: from which
    corner they count, where only a part of the slide was scanned.

    Raises:
        AnnotationError: the picture is shown turned, or only a part of it was scanned, and nobody
            can tell on what the regions were drawn; the file cannot be read or has no regions, or a
            region has no class, has no area, or has a class that is neither included nor excluded,
            or both.
    """
    turn = turn_of(picture)
    if turn is not None:
        raise AnnotationError(
            f"{path}: the picture {picture} is shown turned (EXIF orientation "
            f"{turn.orientation.value}), and nobody can tell whether the regions were drawn on "
            "that or on the pixels as they are stored; save the picture upright and draw on that"
        )
    records = records_of(path, kind="region")
    part = scanned_part(picture)
    moved = ""
    if part is not None and records:
        key = "slide.regions_origin"
        found, moved = move(records, part, origin=origin, where=str(path), key=key)
        records = list(found)
    nameless = sum(not record.name for record in records)
    if nameless:
        raise AnnotationError(
            f"{path}: {nameless} regions have no class, so that nobody can tell whether they are "
            f"to be analysed; give them one of: {', '.join((*include, *exclude))}"
        )
    if not records:
        raise AnnotationError(
            f"{path}: holds no region (annotation); draw what to include or exclude, or leave the "
            "file away"
        )
    if any(len(record.points) for record in records):
        raise AnnotationError(
            f"{path}: a region is a point and has no area; draw an outline, or delete it"
        )
    names = sorted({record.name for record in records})
    meaning = {name: _meaning(name, include, exclude, where=str(path)) for name in names}
    records.sort(key=lambda record: meaning[record.name])  # a later region covers an earlier one
    targets = [meaning[record.name] for record in records]
    drawn = to_annotations(records, targets, classes=("include", "exclude"), kind="region")
    return Regions(drawn, str(path), (f"the regions: {moved}",) if moved else ())


def restrict(tissue: TissueMap, regions: Regions) -> TissueMap:
    """The tissue without what the regions exclude. If they include anything, everything outside
    that is left out, too.

    Raises:
        AnnotationError: no region touches the slide (the file of another slide, or coordinates that
            are not level-0 px).
    """
    frame = tissue.frame
    _, _, width, height = frame.scale.box_l0(frame.box)
    box = regions.drawn.bbox
    if not ((box[:, 2] > 0) & (box[:, 0] < height) & (box[:, 3] > 0) & (box[:, 1] < width)).any():
        (row0, col0), (row1, col1) = (
            box[:, :2].min(axis=0).tolist(),
            box[:, 2:].max(axis=0).tolist(),
        )
        raise AnnotationError(
            f"{regions.name}: no region touches the slide: they span x {col0:.0f}-{col1:.0f}, y "
            f"{row0:.0f}-{row1:.0f}, and the slide has {width:.0f} x {height:.0f} px; is it the "
            "file of another slide, or not in px of the full resolution?"
        )
    inside = regions.drawn.regions(frame.box, frame.scale)
    codes = tissue.codes | np.where(inside == _OUT + 1, np.uint8(USER_EXCLUSION), np.uint8(0))
    if regions.includes:
        codes |= np.where(inside == 0, np.uint8(OUTSIDE_INCLUSION), np.uint8(0))
    return TissueMap.of_codes(codes, frame=frame)


def inside(
    tissue: TissueMap,
    rows: npt.NDArray[np.int64 | np.float64],
    cols: npt.NDArray[np.int64 | np.float64],
    *,
    frame: Frame,
) -> npt.NDArray[np.bool_]:
    """Where the regions of the user allow analysis; bool (n,) for (n,) rows and columns in grid px
    of ``frame``.

    Only user regions count, not the tissue mask: without such regions every place is inside.
    Integers are pixels (an anchor counts by its centre); other numbers are corner-based coordinates
    (centroids). A place belongs to the mask pixel that it falls into, so counts and the analysed
    area follow the same outline.
    """
    mask, ratio = tissue.frame, frame.scale.per(tissue.frame.scale)
    places = []
    for value, factor, size in ((rows, ratio.row, mask.height), (cols, ratio.col, mask.width)):
        middle = value + 0.5 if np.issubdtype(value.dtype, np.integer) else value
        places.append(np.clip(np.floor(middle * factor).astype(np.int64), 0, size - 1))
    return np.asarray(tissue.allowed[places[0], places[1]])


def _meaning(name: str, include: Sequence[str], exclude: Sequence[str], *, where: str) -> int:
    """_IN or _OUT, by class name."""
    wanted, unwanted = (
        any(fnmatchcase(name.lower(), p.lower()) for p in patterns)
        for patterns in (include, exclude)
    )
    if wanted != unwanted:
        return _IN if wanted else _OUT
    problem = "both included and excluded" if wanted else "neither included nor excluded"
    raise AnnotationError(
        f"{where}: class '{name}' is {problem} (slide.include: {', '.join(include)}; "
        f"slide.exclude: {', '.join(exclude)}); name it in one of the two, or rename the region"
    )
