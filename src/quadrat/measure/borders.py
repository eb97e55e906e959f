"""Exact distances from points to borders (pure)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from quadrat.core.outlines import trace
from quadrat.measure.area import Tissue

F64 = npt.NDArray[np.float64]
_QUERY = 1 << 16


def border_distance(xy_um: F64, segments: F64, *, most: float | None = None) -> F64:
    """Distance of points (n, 2) to the nearest of line segments (m, 4) x0, y0, x1, y1, all in um;
    infinite where there is none, or none within ``most``."""
    out = np.full(len(xy_um), np.inf)
    if not len(segments):
        return out
    tree = shapely.STRtree(shapely.linestrings(segments.reshape(-1, 2, 2)))
    for start in range(0, len(out), _QUERY):
        points = shapely.points(xy_um[start : start + _QUERY])
        index, distance = tree.query_nearest(
            points, max_distance=most, return_distance=True, all_matches=False
        )
        out[start + index[0]] = distance
    return out


def segments_of(shape: shapely.Geometry, um_per_l0: tuple[float, float]) -> F64:
    """The border of a region (level-0 px) as line segments (m, 4) in um."""
    rings = shapely.get_rings(shapely.get_parts(shape))
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    xy = xy * np.array(um_per_l0)
    joined = ring[1:] == ring[:-1]
    segments: F64 = np.concatenate([xy[:-1][joined], xy[1:][joined]], axis=1)
    return segments


def tissue_border(tissue: Tissue, um_per_l0: tuple[float, float]) -> F64:
    """The border of the analysed area, the edge of the slide included, as line segments in um."""
    labels, n = ndimage.label(tissue.mask)
    outlines = trace(labels.astype(np.int32), n=n, origin=(0, 0))
    factor = np.array(tissue.scale) * np.array(um_per_l0)
    last = np.zeros(len(outlines.xy), np.bool_)
    last[outlines.ring_starts[1:] - 1] = True
    begin = np.flatnonzero(~last)
    xy = outlines.xy * factor
    segments: F64 = np.concatenate([xy[begin], xy[begin + 1]], axis=1)
    return segments
