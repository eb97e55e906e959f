"""A fifth task in one file: nuclei as points, found as peaks of a heat map (docs/tasks.md).

The network gives one map per class that is 1 at the centre of an object and falls off around it
(centre heat maps: Zhou et al. 2019, "Objects as Points"). Maps are stitched first. A peak of the
stitched map is an object; it belongs to the shard that holds its pixel, so each is counted once.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from quadrat.core.geometry import Box
from quadrat.core.lattice import CoreIndex, ShardIndex
from quadrat.core.objects import ObjectTable, Polygons
from quadrat.core.predictions import Array, Arrays, Prediction
from quadrat.metrics.detection import METRICS
from quadrat.models.task import (
    Crop,
    ModelSpec,
    Parts,
    SlideView,
    Stitched,
    Task,
    ThresholdGrid,
    TruthWindow,
)
from quadrat.models.unet import UNet
from quadrat.stitching.maps import crop_core, quantise
from quadrat.store.predictions import MapStorage, MapStore

SPREAD_UM = 1.5
"""Standard deviation of an object's heat."""
REACH_UM = 3.0
"""A peak has no higher pixel within this distance in rows and columns."""
SIDE_UM = 10.0
"""Side of the box that stands for a point in the tables."""
Maps = SlideView[MapStore]


def peaks(maps: Array, box: Box, *, reach: int, least: int, width: int) -> tuple[Array, Array]:
    """Rows and columns (grid px) of the peaks in maps (classes, h, w) that cover ``box``.

    Of equal neighbours the first in the slide's raster order is the peak: so whatever else the box
    shows, a pixel with ``reach`` px around it in view gets the same answer. ``width``: the slide's.
    """
    heat = maps.max(axis=0).astype(np.int64)
    rows, cols = np.arange(box.row0, box.row1), np.arange(box.col0, box.col1)
    place = rows[:, None] * width + cols[None, :]
    order = heat * 2**40 - place  # higher first, then earlier; no two pixels are equal
    best = ndimage.maximum_filter(order, size=2 * reach + 1, mode="constant", cval=-(2**62))
    row, col = np.nonzero((order == best) & (heat >= least))
    return row + box.row0, col + box.col0


def stitch(view: Maps, shard: ShardIndex) -> Arrays:
    """The points of one shard: those with their pixel in it."""
    frame, own = view.frame, view.spec.lattice.shard_box(shard).intersect(view.frame.box)
    reach = max(1, round(REACH_UM / frame.mpp))
    box = own.pad(reach).intersect(frame.box)
    maps = view.predictions.read(box)
    least = round(view.spec.thresholds["peak"] * 255)
    row, col = peaks(maps, box, reach=reach, least=least, width=frame.width)
    mine = (row >= own.row0) & (row < own.row1) & (col >= own.col0) & (col < own.col1)
    mine &= view.allows(row, col)
    row, col = row[mine], col[mine]
    heat = maps[:, row - box.row0, col - box.col0]
    centre = np.stack([row, col], axis=1) + 0.5
    half = SIDE_UM / frame.mpp / 2
    table = ObjectTable(
        anchor=np.stack([row, col], axis=1).astype(np.int64),
        class_id=np.argmax(heat, axis=0).astype(np.uint8),
        score=(heat.max(axis=0, initial=0) / 255).astype(np.float32),
        bbox=np.concatenate([centre - half, centre + half], axis=1),
        centroid=centre,
        area_px=np.full(len(row), (2 * half) ** 2),
        perimeter_px=np.full(len(row), 8 * half),
        flags=np.zeros(len(row), np.uint8),
    )
    return {name: getattr(table, name) for name in ObjectTable.COLUMNS}


def part_of(view: Maps, shard: ShardIndex) -> tuple[ObjectTable, Polygons]:
    """The points of one shard, each with its box."""
    part = view.part(shard)
    table = ObjectTable(**{name: part[name] for name in ObjectTable.COLUMNS})
    return table, Polygons.boxes(table.bbox)


class PointDensity(Task):
    """Maps are uint8 (classes, h, w): the heat of each class."""

    name = "point_density"
    default_thresholds: Mapping[str, float] = {"peak": 0.4}
    threshold_grid = ThresholdGrid({"peak": (0.4, 0.3, 0.5, 0.6)})
    learns_from_partial = True
    metrics = METRICS
    parts = Parts(stitch)

    def build(self, spec: ModelSpec) -> nn.Module:
        network = UNet(spec.widths, outputs=len(spec.classes), out_stride=1, encoder=spec.encoder)
        assert network.head.bias is not None
        nn.init.constant_(network.head.bias.detach(), -3.0)  # most pixels are far from any centre
        return network

    def prepare(self, truth: TruthWindow, spec: ModelSpec) -> Crop:
        return Crop(truth.known.shape, {"known": truth.known}, truth.boxes, truth.box_class)

    def targets(self, crop: Crop, spec: ModelSpec) -> Arrays:
        rows, cols = np.arange(crop.shape[0]) + 0.5, np.arange(crop.shape[1]) + 0.5
        heat, spread = np.zeros((len(spec.classes), *crop.shape), np.float32), SPREAD_UM / spec.mpp
        for (row0, col0, row1, col1), k in zip(crop.boxes, crop.box_class, strict=True):
            down = np.exp(-(((rows - (row0 + row1) / 2) / spread) ** 2) / 2)
            right = np.exp(-(((cols - (col0 + col1) / 2) / spread) ** 2) / 2)
            np.maximum(heat[k], down[:, None] * right[None, :], out=heat[k])
        return {"heat": heat, "known": crop.maps["known"].astype(np.float32)}

    def loss(
        self, output: Tensor, targets: Mapping[str, Tensor], spec: ModelSpec
    ) -> dict[str, Tensor]:
        heat = targets["heat"]
        weight = targets["known"][:, None] * (1 + 20 * heat)
        entropy = functional.binary_cross_entropy_with_logits(
            output, heat, weight=weight, reduction="sum"
        )
        return {"loss": entropy / weight.sum().clamp(min=1)}

    def answer(self, output: Tensor, spec: ModelSpec) -> Tensor:
        return crop_core(quantise(output.sigmoid()), halo=spec.lattice.halo)

    def decode(
        self, answer: Tensor, cells: Sequence[CoreIndex], spec: ModelSpec
    ) -> list[Prediction]:
        return list(answer.numpy())

    def storage(self, spec: ModelSpec) -> MapStorage:
        return MapStorage(len(spec.classes))

    def merge(self, view: Maps) -> Stitched:
        return Stitched(objects=[partial(part_of, view, shard) for shard in view.shards])


TASK = PointDensity()
