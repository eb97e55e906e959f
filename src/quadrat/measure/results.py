"""The results of a run as they lie on disk, slide by slide.

Nothing is inferred and no slide is opened here: docs/artifacts.md describes the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.core.errors import ConfigError, QuadratError
from quadrat.core.objects import Polygons
from quadrat.core.text import did_you_mean
from quadrat.core.unit import named
from quadrat.measure.area import Tissue
from quadrat.measure.shapes import Shapes, circularity, shapes_of
from quadrat.outputs.objects import outlines_of, polygons_of, read_rows, row_groups
from quadrat.outputs.results import SlideResult, read_results
from quadrat.outputs.summary import SUMMARY
from quadrat.outputs.tissue import read_tissue

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a slide, without their outlines."""

    xy_l0: F64
    """(n, 2) x, y of the centroids in level-0 px: what decides which region an object is in."""
    class_id: npt.NDArray[np.uint8]
    """(n,) index into the run's classes."""
    area_um2: F64
    """(n,)."""
    sizes: dict[str, F64]
    """Of each measure of size or shape: (n,)."""

    def __len__(self) -> int:
        return len(self.class_id)

    def take(self, index: npt.NDArray[np.bool_]) -> Objects:
        """Those of a mask."""
        sizes = {name: values[index] for name, values in self.sizes.items()}
        return Objects(self.xy_l0[index], self.class_id[index], self.area_um2[index], sizes)


def finished(out: Path) -> list[SlideResult]:
    """The slides of a run that can be measured, by name.

    Raises:
        ConfigError: there are none, they are of another version, without objects, or of several
            models.
    """
    found = list(read_results(out).values())
    for one in found:
        one.need_objects()
    return _of_one_model(found)


def tissue_of(result: SlideResult) -> Tissue | None:
    """What was analysed of a slide; None where an older version wrote the results."""
    found = read_tissue(result.folder)
    return None if found is None else Tissue(*found)


def _of_one_model(found: list[SlideResult]) -> list[SlideResult]:
    first = found[0]
    for one in found[1:]:
        mine, theirs = (first.class_names, first.summary.task), (one.class_names, one.summary.task)
        if mine != theirs or first.summary.frame.unit != one.summary.frame.unit:
            raise ConfigError(
                f"{one.folder}: a run of {one.summary.task} with the classes "
                f"{', '.join(one.class_names)}, but {first.folder} is one of {first.summary.task} "
                f"with {', '.join(first.class_names)}; give each model a folder of its own"
            )
    return found


def check_class(name: str, classes: Sequence[str], *, where: str) -> None:
    """Raises ConfigError for a class that a run does not know."""
    if name not in classes:
        raise ConfigError(
            f"{where}: the run knows no class '{name}' (it has {', '.join(classes)})"
            f"{did_you_mean(name, classes)}"
        )


def read_objects(result: SlideResult, *, shapes: bool) -> Objects:
    """The objects of a slide; ``shapes``: with what their outlines say, row group by row group.

    Raises:
        QuadratError: the table cannot be read, or holds classes that the summary does not name.
    """
    path, unit = result.objects, result.summary.frame.unit
    area, perimeter = named("area_um2", unit), named("perimeter_um", unit)
    rows = read_rows(path, ["x_l0", "y_l0", "class_id", area, perimeter])
    class_id = rows["class_id"].to_numpy().astype(np.uint8)
    if len(class_id) and int(class_id.max()) >= len(result.class_names):
        raise QuadratError(
            f"{path}: class {class_id.max()} has no name in {SUMMARY}; run the slide again with "
            "--overwrite"
        )
    xy = np.stack([rows["x_l0"].to_numpy(), rows["y_l0"].to_numpy()], axis=1)
    areas, perimeters = rows[area].to_numpy(), rows[perimeter].to_numpy()
    sizes = {"area_um2": areas, "perimeter_um": perimeters}
    sizes["circularity"] = circularity(areas, perimeters)
    if shapes:
        parts = [_shapes_of_group(result, k) for k in range(row_groups(path))]
        whole = Shapes.concatenate(parts)
        sizes |= {name: getattr(whole, name) for name in Shapes.COLUMNS}
    return Objects(xy.astype(np.float64), class_id, areas, sizes)


def _shapes_of_group(result: SlideResult, group: int) -> Shapes:
    outlines = read_outlines(result, group=group)
    scaled = outlines.xy * np.array(result.um_per_l0)
    return shapes_of(Polygons(scaled, outlines.ring_starts, outlines.polygon_starts))


def read_outlines(
    result: SlideResult, *, group: int | None = None, class_id: int | None = None
) -> Polygons:
    """Outlines of a slide's objects in level-0 px: of one row group, and of one class.

    Raises:
        QuadratError: the table cannot be read.
    """
    rows = read_rows(result.objects, ["class_id", "geometry"], group=group)
    if class_id is not None:
        rows = rows.filter(rows["class_id"].to_numpy() == class_id)
    return polygons_of(outlines_of(rows))
