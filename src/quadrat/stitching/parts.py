"""Objects of one shard as plain arrays: what a stitching work unit hands on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quadrat.results import ObjectTable, Polygons
from quadrat.stitching.runs import Runs
from quadrat.task import Array, Arrays


def object_part(*, table: ObjectTable, polygons: Polygons, runs: Runs) -> Arrays:
    """Columns of the three in one mapping, with ``extent``: int64 (4,) row0, col0, row1, col1 of all objects together."""
    extent = np.zeros(4, np.int64)
    if len(table):
        extent[:2], extent[2:] = table.bbox[:, :2].min(axis=0), table.bbox[:, 2:].max(axis=0)
    arrays: Arrays = {name: getattr(table, name) for name in ObjectTable.__slots__}
    arrays |= {f"polygons.{name}": getattr(polygons, name) for name in Polygons.__slots__}
    arrays |= {f"runs.{name}": getattr(runs, name) for name in Runs.__slots__}
    return arrays | {"extent": extent}


def load_objects(part: Mapping[str, Array]) -> tuple[ObjectTable, Polygons, Runs]:
    """The inverse of :func:`object_part`."""
    return (
        ObjectTable(**{name: part[name] for name in ObjectTable.__slots__}),
        Polygons(**{name: part[f"polygons.{name}"] for name in Polygons.__slots__}),
        Runs(**{name: part[f"runs.{name}"] for name in Runs.__slots__}),
    )
