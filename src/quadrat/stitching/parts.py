"""The objects of one shard as plain arrays, which a stitching job writes and later jobs read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quadrat.core.objects import ObjectTable, Polygons
from quadrat.core.predictions import Array, Arrays
from quadrat.core.runs import Runs


def object_part(*, table: ObjectTable, polygons: Polygons, runs: Runs) -> Arrays:
    """The columns of the three in one mapping, with ``extent``: int64 (4,) row0, col0, row1, col1
    of all objects together."""
    extent = np.zeros(4, np.int64)
    if len(table):
        extent[:2], extent[2:] = table.bbox[:, :2].min(axis=0), table.bbox[:, 2:].max(axis=0)
    arrays: Arrays = {name: getattr(table, name) for name in ObjectTable.__slots__}
    arrays |= {f"polygons.{name}": getattr(polygons, name) for name in Polygons.__slots__}
    # outlines of pixels have whole coordinates: half the bytes
    whole = polygons.xy.astype(np.int32)
    if np.array_equal(whole, polygons.xy):
        arrays["polygons.xy"] = whole
    arrays |= {f"runs.{name}": getattr(runs, name) for name in Runs.__slots__}
    return arrays | {"extent": extent}


def load_table(part: Mapping[str, Array]) -> tuple[ObjectTable, Polygons]:
    """Table and outlines of :func:`object_part`."""
    polygons = {name: part[f"polygons.{name}"] for name in Polygons.__slots__}
    return (
        ObjectTable(**{name: part[name] for name in ObjectTable.__slots__}),
        Polygons(**polygons | {"xy": polygons["xy"].astype(np.float64)}),
    )


def load_runs(part: Mapping[str, Array]) -> Runs:
    """The pixels of :func:`object_part`."""
    return Runs(**{name: part[f"runs.{name}"] for name in Runs.__slots__})


def load_objects(part: Mapping[str, Array]) -> tuple[ObjectTable, Polygons, Runs]:
    """The inverse of :func:`object_part`."""
    return *load_table(part), load_runs(part)
