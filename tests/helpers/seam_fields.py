"""Fields of boxes and octagons on patchy tissue, and the ways in which tiling spoils them."""

import numpy as np

from quadrat.core.objects import ObjectTable, Polygons
from quadrat.stitching.seam_tally import SeamLattice

SIDE, CORE = 4096, 256


def table_of(bbox, class_id=None, area=None):
    """An ObjectTable of boxes (n, 4) row0, col0, row1, col1."""
    bbox = np.asarray(bbox, np.float64).reshape(-1, 4)
    n = len(bbox)
    sides = bbox[:, 2:] - bbox[:, :2]
    centroid = (bbox[:, :2] + bbox[:, 2:]) / 2
    return ObjectTable(
        anchor=np.floor(centroid).astype(np.int64),
        class_id=np.zeros(n, np.uint8) if class_id is None else np.asarray(class_id, np.uint8),
        score=np.ones(n, np.float32),
        bbox=bbox,
        centroid=centroid,
        area_px=sides.prod(axis=1) if area is None else np.asarray(area, np.float64),
        perimeter_px=2 * sides.sum(axis=1),
        flags=np.zeros(n, np.uint8),
    )


def octagons(bbox):
    """Regular octagons in boxes: their axis-aligned sides are too short to count as
    straight edges.
    """
    row0, col0, row1, col1 = np.asarray(bbox, np.float64).T
    a, b = 0.3 * (col1 - col0), 0.3 * (row1 - row0)
    xs = np.stack(
        [col0 + a, col1 - a, col1, col1, col1 - a, col0 + a, col0, col0, col0 + a], axis=1
    )
    ys = np.stack([row0, row0, row0 + b, row1 - b, row1, row1, row1 - b, row0 + b, row0], axis=1)
    n = len(xs)
    return Polygons(
        np.stack([xs.ravel(), ys.ravel()], axis=1), np.arange(n + 1) * 9, np.arange(n + 1)
    )


def parts_of(bbox, *, boxed, shuffle=False):
    """Two parts, as a slide has them: octagons, and boxes where ``boxed``; the table is in the
    order of the parts."""
    order = np.concatenate([np.flatnonzero(~boxed), np.flatnonzero(boxed)])
    split = int((~boxed).sum())
    first, second = table_of(bbox[order[:split]]), table_of(bbox[order[split:]])
    parts = [lambda: (first, octagons(first.bbox)), lambda: (second, Polygons.boxes(second.bbox))]
    return ObjectTable.concatenate([first, second]), parts


def tissue(rng, shape):
    """Cores of a blob with a ragged edge, as an analysed area has it."""
    r, c = np.indices(shape)
    middle = np.array(shape) / 2 + rng.uniform(-1, 1, 2)
    return np.hypot((r - middle[0]) / shape[0], (c - middle[1]) / shape[1]) < rng.uniform(
        0.35, 0.45
    ) + rng.uniform(-0.06, 0.06, shape)


def clustered_boxes(rng, *, clusters=300, per_cluster=40, spread=50.0, side=SIDE):
    """Boxes of 10 to 22 px in clumps (a Thomas process) over half as many alone; whole coordinates,
    (n, 4)."""
    parents = rng.uniform(0, side, (clusters, 2))
    members = np.repeat(parents, rng.poisson(per_cluster, clusters), axis=0)
    centre = np.concatenate(
        [
            members + spread * rng.standard_normal(members.shape),
            rng.uniform(0, side, (len(members) // 2, 2)),
        ]
    )
    half = rng.uniform(5, 11, centre.shape)
    bbox = np.floor(np.concatenate([centre - half, centre + half], axis=1) + 0.5)
    return bbox[((bbox[:, :2] >= 0) & (bbox[:, 2:] <= side)).all(axis=1)]


def in_cores(bbox, analysed, core=CORE):
    """Those whose centre lies in an analysed core."""
    cell = ((bbox[:, :2] + bbox[:, 2:]) / 2 // core).astype(int)
    return bbox[analysed[cell[:, 0], cell[:, 1]]]


def pieces(bbox, core=CORE, origin=(0, 0)):
    """Every box cut at the lines of a lattice: all pieces, and the index of the box
    each came from.
    """
    index = np.arange(len(bbox))
    for axis in (0, 1):
        line = origin[axis] + (np.floor((bbox[:, axis] - origin[axis]) / core) + 1) * core
        cut = line < bbox[:, axis + 2]
        later = bbox[cut].copy()
        later[:, axis] = line[cut]
        bbox = bbox.copy()
        bbox[cut, axis + 2] = line[cut]
        bbox, index = np.concatenate([bbox, later]), np.concatenate([index, index[cut]])
    return bbox, index


def everywhere(side=SIDE, core=CORE):
    n = -(-side // core)
    return SeamLattice(
        core, (0.0, 0.0), np.ones((n, n), bool), (0.0, 0.0, float(side), float(side))
    )
