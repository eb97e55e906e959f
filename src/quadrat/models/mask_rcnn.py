"""Mask R-CNN (He et al. 2017) from torchvision's parts, without the steps that make torchvision's
own differ between windows.

``forward`` does not resize, normalise, cut to top-k or suppress detections. It gives the dense part
alone: features, and what the region proposal network says of each anchor. The second stage runs on
the regions that the task asks for, in chunks of one size, because kernels may depend on shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from quadrat.core.errors import ConfigError
from quadrat.models.encoders import build_encoder

FIRST_STRIDE = 4
"""Input px per cell of the finest feature level. Finer levels of the encoder are used only to
compute it."""
ANCHOR_SIDES = (3.0, 4.25)
"""Sides of the square anchors of a level, in cells of that level: half an octave apart through all
levels."""
MASK_SIDE = 28
"""Cells per side of a predicted mask, whatever the size of its box."""
BOX_CHUNK, MASK_CHUNK = 64, 16
"""Regions that go through the box head and the mask head together."""
REGION_POOL, MASK_POOL = 7, 14
"""Cells per side to which a region's features are pooled for either head."""


@dataclass(frozen=True, slots=True)
class RegionOutput:
    """The dense part of a batch: one tensor per feature level, the finest first. It can be cut
    along the batch and cast like a tensor."""

    network: MaskRCNN
    """What made them; holds the second stage."""
    features: tuple[Tensor, ...]
    """(b, c, h, w) each."""
    objectness: tuple[Tensor, ...]
    """Logits (b, anchors, h, w) each."""
    deltas: tuple[Tensor, ...]
    """Of the anchors' boxes, (b, 4 * anchors, h, w) each."""

    def __len__(self) -> int:
        return len(self.features[0])

    def __getitem__(self, index: slice | list[int]) -> RegionOutput:
        return RegionOutput(
            self.network, *(tuple(t[index] for t in group) for group in self._groups())
        )

    def float(self) -> RegionOutput:
        """All tensors as float32."""
        return RegionOutput(
            self.network, *(tuple(t.float() for t in group) for group in self._groups())
        )

    def tensors(self) -> Iterator[Tensor]:
        """Everything that was computed."""
        for group in self._groups():
            yield from group

    def _groups(self) -> tuple[tuple[Tensor, ...], ...]:
        return self.features, self.objectness, self.deltas

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the input in px."""
        rows, cols = self.features[0].shape[-2:]
        return rows * FIRST_STRIDE, cols * FIRST_STRIDE

    def anchors(self) -> Tensor:
        """(anchors in all, 4) x0, y0, x1, y1 in px of the input, in the order of :meth:`proposals`'
        columns."""
        return self.network.anchors(
            [(f.shape[-2], f.shape[-1]) for f in self.features], self.features[0].device
        )

    def proposals(self) -> tuple[Tensor, Tensor]:
        """Objectness logits (b, anchors in all) and box deltas (b, anchors in all, 4): level, row,
        column, size."""
        # torchvision permutes the lists that it is given in place
        objectness, deltas = concat_box_prediction_layers(list(self.objectness), list(self.deltas))
        return objectness.reshape(len(self), -1), deltas.reshape(len(self), -1, 4)


class MaskRCNN(nn.Module):
    """(b, 3, h, w) float to :class:`RegionOutput`, with feature levels at strides 4, 8, ..., as
    many as the encoder has.

    Raises:
        ConfigError: fewer than two widths (the encoder would not reach stride 4).
    """

    out_stride = 0
    """Global: regions are pooled from anywhere in the window, so there is no finite receptive
    radius."""

    def __init__(self, widths: Sequence[int], *, classes: int, encoder: str = "small") -> None:
        super().__init__()
        if len(widths) < 2:
            raise ConfigError(
                f"model.widths is {list(widths)}; a mask model needs two or more (strides 2, 4, "
                "...)"
            )
        self.encoder = build_encoder(encoder, widths)
        self.stride = self.encoder.stride
        channels = widths[-1]
        self.strides = [FIRST_STRIDE * 2**i for i in range(len(widths) - 1)]
        names = [str(i) for i in range(len(self.strides))]
        self.pyramid = FeaturePyramidNetwork(self.encoder.channels[1:], channels)
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(
                sizes=tuple(
                    tuple(stride * side for side in ANCHOR_SIDES) for stride in self.strides
                ),
                aspect_ratios=((1.0,),) * len(self.strides),
            ),
            RPNHead(channels, len(ANCHOR_SIDES)),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.3,
            batch_size_per_image=128,
            positive_fraction=0.5,
            # only training uses these, and there chance decides which regions are looked at anyway
            pre_nms_top_n={"training": 400, "testing": 400},
            post_nms_top_n={"training": 150, "testing": 150},
            nms_thresh=0.7,
        )
        pool = [
            MultiScaleRoIAlign(names, side, 2, canonical_scale=48, canonical_level=4)
            for side in (REGION_POOL, MASK_POOL)
        ]
        self.regions = RoIHeads(
            pool[0],
            TwoMLPHead(channels * REGION_POOL**2, 4 * channels),
            FastRCNNPredictor(4 * channels, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=96,
            positive_fraction=0.33,
            bbox_reg_weights=None,
            score_thresh=0.0,
            nms_thresh=1.0,
            detections_per_img=1,
            mask_roi_pool=pool[1],
            mask_head=MaskRCNNHeads(channels, (channels, channels), 1),
            mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
        )

    @property
    def head(self) -> nn.Linear:
        """The layer that scores the classes (background first)."""
        layer: nn.Linear = self.regions.box_predictor.cls_score
        return layer

    def forward(self, image: Tensor) -> RegionOutput:
        levels = {str(i): f for i, f in enumerate(self.encoder(image)[1:])}
        features = tuple(self.pyramid(levels).values())
        objectness, deltas = self.rpn.head(list(features))
        return RegionOutput(self, features, tuple(objectness), tuple(deltas))

    def anchors(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """Anchors centred in the cells of levels of the given (rows, columns)."""
        generator = self.rpn.anchor_generator
        generator.set_cell_anchors(torch.float32, device)
        strides = [[torch.tensor(s, device=device)] * 2 for s in self.strides]
        # torchvision puts anchors on the cells' corners, which would favour one direction
        levels = zip(
            generator.grid_anchors([list(s) for s in sizes], strides), self.strides, strict=True
        )
        return torch.cat([anchors + stride / 2 for anchors, stride in levels])

    def anchor_pixels(self, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(anchors in all, 2) int64 row, column: a pixel of the anchor's cell that belongs to no
        other anchor.

        Level strides are powers of two, so the middle rows of their cells never coincide; sizes lie
        next to each other.
        """
        out = []
        for (rows, cols), stride in zip(sizes, self.strides, strict=True):
            r = torch.arange(rows) * stride + stride // 2
            c = torch.arange(cols) * stride + stride // 2
            size = torch.arange(len(ANCHOR_SIDES))
            grid = torch.meshgrid(r, c, size, indexing="ij")
            out.append(torch.stack([grid[0].flatten(), (grid[1] + grid[2]).flatten()], dim=1))
        return torch.cat(out)

    def classify(self, output: RegionOutput, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (n, 1 + classes) and refined boxes (n, 1 + classes, 4) of regions (n, 4) of
        a batch of one."""
        heads = self.regions
        logits, deltas = [], []
        for chunk in _chunks(boxes, BOX_CHUNK):
            pooled = heads.box_roi_pool(_named(output.features), [chunk], [output.shape])
            scored = heads.box_predictor(heads.box_head(pooled))
            logits.append(scored[0])
            deltas.append(scored[1])
        n = len(boxes)
        refined = heads.box_coder.decode(torch.cat(deltas)[:n], [boxes])
        return torch.cat(logits)[:n], refined.reshape(n, -1, 4)

    def masks(self, output: RegionOutput, boxes: Tensor, class_id: Tensor) -> Tensor:
        """Mask probabilities (n, 28, 28) of boxes (n, 4) for their classes (n,), 0-based, of a
        batch of one."""
        heads = self.regions
        out = []
        for chunk in _chunks(boxes, MASK_CHUNK):
            pooled = heads.mask_roi_pool(_named(output.features), [chunk], [output.shape])
            out.append(heads.mask_predictor(heads.mask_head(pooled)))
        logits = torch.cat(out)[: len(boxes)]
        return torch.sigmoid(logits[torch.arange(len(boxes), device=logits.device), class_id + 1])


def _named(features: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(i): f for i, f in enumerate(features)}


def _chunks(boxes: Tensor, size: int) -> Iterator[Tensor]:
    """(size, 4) pieces of n >= 1 boxes; the last is filled up with copies of its first box."""
    for start in range(0, len(boxes), size):
        chunk = boxes[start : start + size]
        yield torch.cat([chunk, chunk[:1].expand(size - len(chunk), 4)])
