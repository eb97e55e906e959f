"""The seam report of files: a slide's folder under results/, or the GeoJSON of any tool."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from quadrat.annotations.formats.geojson import load_annotations
from quadrat.core.errors import ConfigError, QuadratError
from quadrat.core.objects import ObjectTable, Polygons
from quadrat.stitching.seams import Parts, seam_report, tile_lattice

UNCLASSIFIED = "(no class)"
LEAST_TILE_PX = 32
"""Smaller tiles leave no room beside a seam to compare it with."""


def read_seams(
    result: Path, *, tile: float | None, origin: tuple[float, float], mpp: float | None
) -> dict[str, Any]:
    """The seam report (as in ``summary.json``) of a result.

    Args:
        result: a slide's folder under results/, or a GeoJSON file (level-0 px). tile: side of the
        tiles in level-0 px. None: the cores of a result of quadrat, as its summary has it. origin:
        level-0 (x, y) of the corner of any tile. mpp: um per level-0 px; None: that of the result's
        summary.

    Raises:
        ConfigError: an option is missing or no length. QuadratError: a file is missing or
        broken, or has no objects' report.
    """
    for name, value in (("--tile", tile), ("--mpp", mpp)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value:g}; it must be a number above 0")
    if tile is not None and tile < LEAST_TILE_PX:
        raise ConfigError(f"--tile is {tile:g} px; it must be at least {LEAST_TILE_PX} level-0 px")
    if not result.exists():
        raise QuadratError(
            f"there is no result {result}; name a slide's folder under results/, or a GeoJSON file"
        )
    if result.is_dir():
        summary = _summary(result)
        if tile is None:
            if "seams" not in summary:
                raise QuadratError(
                    f"{result / 'summary.json'} has no seam report (the task {summary.get('task')} "
                    "finds no objects, or an older "
                    "version wrote it); state --tile to have one made from objects.parquet"
                )
            return dict(summary["seams"])
        try:
            own = float(summary["frame"]["mpp"]) / float(summary["frame"]["scale_col"])
        except (KeyError, TypeError, ValueError) as error:
            raise QuadratError(
                f"{result / 'summary.json'} has no frame ({error}); state --mpp"
            ) from error
        table, parts = read_objects(result / "objects.parquet")
        mpp = own if mpp is None else mpp
    else:
        if tile is None or mpp is None:
            missing = "--tile" if tile is None else "--mpp"
            raise ConfigError(
                f"{result} does not say how it was cut into tiles; state {missing} (level-0 px, um "
                "per level-0 px)"
            )
        table, parts = read_geojson(result)
    lattice = tile_lattice(table, tile=tile, origin=(origin[1], origin[0]))
    return seam_report(table, parts, lattice, mpp=mpp).to_json()


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise QuadratError(
            f"{path} cannot be read ({error}); RESULT is a slide's folder under results/, or a "
            "GeoJSON"
        ) from error
    if not isinstance(summary, dict):
        raise QuadratError(f"{path} must hold keys and values, not {type(summary).__name__}")
    return summary


def read_objects(path: Path) -> tuple[ObjectTable, Parts]:
    """objects.parquet in level-0 px: all objects, and a part a row group with its outlines.

    Raises:
        QuadratError: the file is missing or damaged.
    """
    columns = ["class_id", "score", "flags", "x_l0", "y_l0", "x0_l0", "y0_l0", "x1_l0", "y1_l0"]

    def part(group: int) -> tuple[ObjectTable, Polygons]:
        with pq.ParquetFile(path) as file:
            rows = file.read_row_group(group, columns=[*columns, "geometry"])
        outlines = shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False))
        return _table(rows, shapely.area(outlines)), polygons_of(outlines)

    try:
        with pq.ParquetFile(path) as file:
            groups = file.num_row_groups
        # the area in level-0 px is not among the columns: outlines are read for it, a row group at
        # a time
        table = ObjectTable.concatenate([part(group)[0] for group in range(groups)])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise QuadratError(f"{path} cannot be read as objects.parquet ({error})") from error
    return table, [partial(part, group) for group in range(groups)]


def polygons_of(outlines: npt.NDArray[Any]) -> Polygons:
    """Shapely polygons as ragged arrays."""
    if not len(outlines):
        return Polygons(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    kind, xy, offsets = shapely.to_ragged_array(outlines)
    if kind is not shapely.GeometryType.POLYGON:
        raise QuadratError(f"outlines must be polygons, not {kind.name.lower()}")
    return Polygons(xy[:, :2], offsets[0].astype(np.int64), offsets[1].astype(np.int64))


def _table(rows: pa.Table, area: npt.NDArray[np.float64]) -> ObjectTable:
    column = {name: rows[name].to_numpy() for name in rows.column_names if name != "geometry"}
    centroid = np.stack([column["y_l0"], column["x_l0"]], axis=1)
    bbox = np.stack([column[n] for n in ("y0_l0", "x0_l0", "y1_l0", "x1_l0")], axis=1)
    return _objects(centroid, bbox, area, column["class_id"])


def _objects(
    centroid: npt.NDArray[np.float64],
    bbox: npt.NDArray[np.float64],
    area: npt.NDArray[np.float64],
    class_id: npt.NDArray[np.integer],
) -> ObjectTable:
    """A table of what the report looks at; the rest is empty."""
    n = len(centroid)
    return ObjectTable(
        anchor=np.floor(centroid).astype(np.int64),
        class_id=class_id.astype(np.uint8),
        score=np.zeros(n, np.float32),
        bbox=bbox.astype(np.float64),
        centroid=centroid.astype(np.float64),
        area_px=area.astype(np.float64),
        perimeter_px=np.zeros(n),
        flags=np.zeros(n, np.uint8),
    )


def read_geojson(path: Path) -> tuple[ObjectTable, Parts]:
    """The polygons of a GeoJSON file of any tool in level-0 px, objects first; without those, its
    regions.

    What has no class is taken as one class of its own; points have no outline and only count.

    Raises:
        AnnotationError: not such a file.
    """
    found = load_annotations(path, kind="object", unclassified=UNCLASSIFIED)
    if not len(found):
        found = load_annotations(path, kind="region", unclassified=UNCLASSIFIED)
    if len(found.classes) > 256:
        raise QuadratError(
            f"{path} has {len(found.classes)} classes; the seam report takes at most 256"
        )
    polygons = found.polygons
    shapes = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, polygons.xy, (polygons.ring_starts, polygons.polygon_starts)
    )
    middle = shapely.centroid(shapes)
    xy = np.stack([shapely.get_x(middle), shapely.get_y(middle)], axis=1)
    drawn = ~np.isnan(found.points_l0[:, 0])
    xy[drawn] = found.points_l0[drawn]
    table = _objects(xy[:, ::-1], found.bbox, shapely.area(shapes), found.class_id)
    return table, [lambda: (table, polygons)]


def seams_text(report: dict[str, Any]) -> str:
    """The report as a small table under its verdict."""
    rows = [
        ("", "near seams", "inside", "", f"{100 * report['confidence']:.0f} % interval", "objects")
    ]
    for name, title, compared in (
        ("density", "objects per mm2", "ratio"),
        ("straight_edges", "share with a straight edge on the line", "difference"),
        ("duplicates", "duplicates per 1,000 objects", "difference"),
    ):
        one = report[name]
        low, high = (_figure(one[end]) for end in ("low", "high"))
        interval = "not judged" if one["low"] is None else f"{low} to {high}"
        rows.append(
            (
                title,
                _figure(one["near"]),
                _figure(one["inside"]),
                f"{compared} {_figure(one['value'])}",
                interval,
                f"{one['objects']:,}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    about = (
        f"{report['seams']:,} seams, every {report['pitch_px']:g} px; near: within "
        f"{report['near_um']:g} um"
    )
    return "\n".join([report["verdict"], about, *lines])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
