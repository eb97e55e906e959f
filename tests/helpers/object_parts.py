"""Objects of a slide as they are handed to the writers of outputs."""

import numpy as np
from scipy import ndimage

from quadrat.core.objects import ClassInfo, Frame
from quadrat.core.outlines import trace
from quadrat.stitching.features import measure, nearest_distances

CLASSES = [ClassInfo("tumour", (200, 0, 0)), ClassInfo('odd "name", µ', (0, 150, 0))]
FRAME = Frame(height=300, width=400, mpp=0.5, scale_row=2.0, scale_col=4.0)


def sample(*, seed=0, side=60):
    """Random 4-connected blobs with holes: table, polygons, nearest distances."""
    rng = np.random.default_rng(seed)
    labels, n = ndimage.label(
        ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.2) > 0.08
    )
    labels = labels.astype(np.int32)
    moments = measure(labels, n=n, origin=(10, 20))
    class_id = rng.integers(0, 2, n).astype(np.uint8)
    table = moments.table(class_id=class_id, score=rng.random(n).astype(np.float32))
    nearest = nearest_distances(moments.centroid * FRAME.mpp, class_id, 2)
    return table, trace(labels, n=n, origin=(10, 20)), nearest


def write(writer, path, parts, **options):
    with writer(path, frame=FRAME, classes=CLASSES, slide="slide-1", **options) as out:
        first_id = 1
        for table, polygons, nearest in parts:
            out.append(table, polygons, nearest=nearest, first_id=first_id)
            first_id += len(table)
    return path.read_bytes()
