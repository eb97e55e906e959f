"""The seam report of files: a slide's folder under results/, or the GeoJSON of any tool."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import shapely

from quadrat.annotations.formats.geojson import load_annotations
from quadrat.core.errors import ConfigError, QuadratError
from quadrat.core.objects import Frame, ObjectTable, Polygons
from quadrat.core.seams import SeamFigures
from quadrat.core.text import aligned
from quadrat.core.unit import MPP_OF_PX, PX, Mpp, Unit, plain_area
from quadrat.evaluation.results import finished_summary
from quadrat.outputs.objects import (
    object_columns,
    object_table,
    outlines_of,
    polygons_of,
    read_rows,
    row_groups,
)
from quadrat.outputs.summary import SUMMARY, ObjectFigures
from quadrat.stitching.seams import Parts, seam_report, tile_lattice

UNCLASSIFIED = "(no class)"
LEAST_TILE_PX = 32
"""Smaller tiles leave no room to compare a seam with."""


def read_seams(
    result: Path, *, tile: float | None, origin: tuple[float, float], mpp: Mpp | None
) -> SeamFigures:
    """The seam report (as in ``summary.json``) of a result.

    Args:
        result: a slide's folder under results/, or a GeoJSON file (level-0 px).
        tile: side of the tiles in level-0 px; None: take the report from the result's summary.
        origin: level-0 (x, y) of the corner of any tile.
        mpp: um per level-0 px, or "px"; None: that of the result's summary.

    Raises:
        ConfigError: an option is missing or is not a length.
        QuadratError: a file is missing or broken, or its summary has no seam report.
    """
    for name, value in (("--tile", tile), ("--mpp", mpp)):
        if isinstance(value, float | int) and not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value:g}; it must be a number above 0")
    if tile is not None and tile < LEAST_TILE_PX:
        raise ConfigError(f"--tile is {tile:g} px; it must be at least {LEAST_TILE_PX} level-0 px")
    if not result.exists():
        raise QuadratError(
            f"there is no result {result}; name a slide's folder under results/, or a GeoJSON file"
        )
    if result.is_dir():
        summary = finished_summary(result)
        if tile is None:
            answer = summary.figures.answer
            if not isinstance(answer, ObjectFigures) or answer.seams is None:
                raise QuadratError(
                    f"{result / SUMMARY} has no seam report (the task {summary.task} finds no "
                    "objects, they were imported, or an older version wrote it); state --tile to "
                    "have one made from objects.parquet"
                )
            return answer.seams
        frame = summary.frame
        table, parts = read_objects(result / "objects.parquet", frame)
        if mpp is None:
            mpp = PX if frame.unit == PX else frame.mpp / frame.scale_col
        elif (mpp == PX) != (frame.unit == PX):
            raise ConfigError(
                f"--mpp is {mpp}, but the lengths of {result} are in {frame.unit}; leave --mpp out"
            )
    else:
        if tile is None or mpp is None:
            missing = "--tile" if tile is None else "--mpp"
            raise ConfigError(
                f"{result} does not say how it was cut into tiles; state {missing} (level-0 px, um "
                "per level-0 px, or px where nobody knows it)"
            )
        table, parts = read_geojson(result)
    lattice = tile_lattice(table, tile=tile, origin=(origin[1], origin[0]))
    unit: Unit = "px" if mpp == PX else "um"
    own = MPP_OF_PX if mpp == PX else mpp
    return seam_report(table, parts, lattice, mpp=own).figures(unit)


def read_objects(path: Path, frame: Frame) -> tuple[ObjectTable, Parts]:
    """objects.parquet in level-0 px: all objects, and a part per row group with its outlines.
    ``frame``: the slide's grid.

    Raises:
        QuadratError: the file is missing or damaged.
    """
    side = math.sqrt(frame.scale_row * frame.scale_col)
    level0 = replace(frame, mpp=frame.mpp / side, scale_row=1.0, scale_col=1.0)

    def part(group: int) -> tuple[ObjectTable, Polygons]:
        rows = read_rows(path, [*object_columns(frame), "geometry"], group=group)
        outlines = outlines_of(rows)
        return object_table(rows, level0), polygons_of(outlines)

    table = object_table(read_rows(path, object_columns(frame)), level0)
    return table, [partial(part, group) for group in range(row_groups(path))]


def read_geojson(path: Path) -> tuple[ObjectTable, Parts]:
    """The polygons of a GeoJSON file of any tool, in level-0 px: its objects, or its regions if it
    has no objects. Of the table only places, classes and areas are filled in.

    Shapes without a class get one class of their own. Points have no outline; they only count.

    Raises:
        AnnotationError: not such a file. QuadratError: more than 256 classes.
    """
    found = load_annotations(path, kind="object", unclassified=UNCLASSIFIED)
    if not len(found):
        found = load_annotations(path, kind="region", unclassified=UNCLASSIFIED)
    if len(found.classes) > 256:
        raise QuadratError(
            f"{path} has {len(found.classes)} classes; the seam report takes at most 256"
        )
    polygons, n = found.polygons, len(found)
    shapes = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, polygons.xy, (polygons.ring_starts, polygons.polygon_starts)
    )
    middle = shapely.centroid(shapes)
    xy = np.stack([shapely.get_x(middle), shapely.get_y(middle)], axis=1)
    drawn = ~np.isnan(found.points_l0[:, 0])
    xy[drawn] = found.points_l0[drawn]
    centroid = xy[:, ::-1]
    table = ObjectTable(
        anchor=np.floor(centroid).astype(np.int64),
        class_id=found.class_id.astype(np.uint8),
        score=np.zeros(n, np.float32),
        bbox=found.bbox,
        centroid=centroid,
        area_px=shapely.area(shapes),
        perimeter_px=np.zeros(n),
        flags=np.zeros(n, np.uint8),
    )
    return table, [lambda: (table, polygons)]


def seams_text(report: SeamFigures) -> str:
    """The report as a small table under its verdict."""
    rows = [
        ("", "near seams", "inside", "", f"{100 * report.confidence:.0f} % interval", "objects")
    ]
    for one, title, compared in (
        (report.density, f"objects per {plain_area(report.unit)}", "ratio"),
        (report.straight_edges, "share with a straight edge on the line", "difference"),
        (report.duplicates, "duplicates per 1,000 objects", "difference"),
    ):
        interval = f"{_figure(one.low)} to {_figure(one.high)}" if one.judged else "too few"
        rows.append(
            (
                title,
                _figure(one.near),
                _figure(one.inside),
                f"{compared} {_figure(one.value)}",
                interval,
                f"{one.objects:,}",
            )
        )
    near = f"{report.near_um:g} {report.unit}"
    about = f"{report.seams:,} seams, every {report.pitch_px:g} px; near: within {near}"
    return "\n".join([report.verdict, about, *aligned(rows)])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
