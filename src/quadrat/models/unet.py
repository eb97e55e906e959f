"""A small U-Net whose window arithmetic is exact: strided by powers of two, frozen statistics, no resizing by factors.

Ronneberger et al. 2015 in structure; the first level works at half resolution on 2 x 2 pixel blocks (space to depth) and
the head brings full resolution back by depth to space, a quarter of the cost on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM = 2


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """RGB (b, 3, h, w) to features at strides 2, 4, 8, ... (one per width); h and w are multiples of the last stride."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = [3 * STEM * STEM, *widths[:-1]]
        self.blocks = nn.ModuleList(conv_block(i, o) for i, o in zip(inputs, widths, strict=True))
        self.stride = STEM * 2 ** (len(widths) - 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = functional.pixel_unshuffle(image, STEM)
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x if index == 0 else functional.max_pool2d(x, 2))
            features.append(x)
        return features


class UNet(nn.Module):
    """(b, 3, h, w) float -> (b, outputs, h / out_stride, w / out_stride) logits.

    ``out_stride`` is 1 (head by pixel shuffle), 2, 4, ...: the decoder stops where the head begins.
    """

    def __init__(self, widths: Sequence[int], *, outputs: int, out_stride: int) -> None:
        super().__init__()
        self.encoder = Encoder(widths)
        stop = max(out_stride, STEM)
        self.levels = [i for i in range(len(widths) - 2, -1, -1) if STEM * 2**i >= stop]
        self.decoder = nn.ModuleList(conv_block(widths[i + 1] + widths[i], widths[i]) for i in self.levels)
        last = widths[self.levels[-1]] if self.levels else widths[-1]
        self.shuffle = STEM if out_stride == 1 else 1
        self.head = nn.Conv2d(last, outputs * self.shuffle**2, 1)
        self.stride = self.encoder.stride
        self.out_stride = out_stride

    def forward(self, image: Tensor) -> Tensor:
        features = self.encoder(image)
        x = features[-1]
        for level, block in zip(self.levels, self.decoder, strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, features[level]], dim=1))
        out: Tensor = self.head(x)
        return functional.pixel_shuffle(out, self.shuffle) if self.shuffle > 1 else out


class TileClassifier(nn.Module):
    """(b, 3, h, w) -> (b, classes + d): class logits, then the d-dimensional embedding they were computed from."""

    def __init__(self, widths: Sequence[int], *, classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(widths)
        self.head = nn.Linear(widths[-1], classes)
        self.stride = self.encoder.stride
        self.out_stride = 0

    def forward(self, image: Tensor) -> Tensor:
        embedding = self.encoder(image)[-1].mean(dim=(2, 3))
        return torch.cat([self.head(embedding), embedding], dim=1)
