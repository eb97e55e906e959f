"""``quadrat export``: the objects of a run as files of other tools, one slide after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import shapely

from quadrat.annotations.exporting import write_coco
from quadrat.annotations.formats.table import Entry
from quadrat.annotations.record import Sheet
from quadrat.annotations.shapes import record_of
from quadrat.core.errors import ConfigError
from quadrat.engine.drivers import slides_asked
from quadrat.exchange.qupath import write_qupath
from quadrat.exchange.scverse import check_installed, write_anndata, write_spatialdata
from quadrat.exchange.tables import write_csv, write_napari, write_omero
from quadrat.outputs.objects import outlines_of, read_rows, row_groups
from quadrat.outputs.results import REGIONAL, SlideResult, read_results

To = Literal["qupath", "csv", "coco", "napari", "anndata", "spatialdata", "omero-csv"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    folder: Path
    """Where."""
    slides: int
    """How many slides."""
    objects: int
    """How many objects."""


def export_run(
    out: Path,
    to: To,
    *,
    folder: Path | None = None,
    named: Sequence[str] = (),
    overwrite: bool = False,
) -> Exported:
    """Write the objects of a run for another tool. ``folder``: where; None: OUT/export/TO.

    Raises:
        ConfigError: there are no results or no objects, the folder is not empty, or a library is
            missing.
        WriteError: a file cannot be written.
    """
    check_installed(to)
    folder = folder or out / "export" / to
    results = list(read_results(out, named=named).values())
    for result in results:
        result.need_objects()  # before anything is written
    objects = sum(result.counts[-1].count for result in results)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(f"{folder} is not empty; choose another --out, or say --overwrite")
    files = {name: Path(ref.path).name for name, ref in slides_asked(out).items()}
    names = {result.name: files.get(result.name, result.name) for result in results}
    _WRITERS[to](folder, results, names)
    return Exported(folder, len(results), objects)


def _each(
    write: Callable[[Path, SlideResult], None],
) -> Callable[[Path, Sequence[SlideResult], dict[str, str]], None]:
    """A writer of one slide as one of all slides."""

    def write_all(folder: Path, results: Sequence[SlideResult], names: dict[str, str]) -> None:
        for result in results:
            write(folder, result)

    return write_all


def _write_coco(folder: Path, results: Sequence[SlideResult], names: dict[str, str]) -> None:
    """coco.json of all slides: so that a class has one number in all of them."""
    entries = [Entry(result.name, _sheet(result)) for result in results]
    pictures = [names[result.name] for result in results]
    write_coco(folder / "coco.json", entries, pictures=pictures)


def _sheet(result: SlideResult) -> Sheet:
    """The objects as records, as annotations are."""
    width, height = result.size_l0
    kind = "region" if result.summary.task == REGIONAL else "object"
    shape = "box" if result.summary.task == "detection" else "polygon"
    records = (
        record_of(outline, place=f"object {number}", name=name, kind=kind, shape=shape)
        for number, name, outline in _outlined(result.objects)
    )
    source = str(result.objects)
    return Sheet(source, "quadrat", tuple(records), size=(round(height), round(width)))


def _outlined(path: Path) -> Iterator[tuple[int, str, shapely.Geometry]]:
    for group in range(row_groups(path)):
        rows = read_rows(path, ["id", "class", "geometry"], group=group)
        outlines = outlines_of(rows)
        yield from zip(rows["id"].to_pylist(), rows["class"].to_pylist(), outlines, strict=True)


_WRITERS: dict[str, Callable[[Path, Sequence[SlideResult], dict[str, str]], None]] = {
    "qupath": write_qupath,
    "csv": _each(write_csv),
    "coco": _write_coco,
    "napari": _each(write_napari),
    "anndata": _each(write_anndata),
    "spatialdata": _each(write_spatialdata),
    "omero-csv": write_omero,
}
