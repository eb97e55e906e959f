"""A small U-Net with exact window arithmetic (strides are powers of two, statistics are frozen,
nothing is resized by other factors), and a classifier on the same encoders.

The structure is that of Ronneberger et al. 2015. The first level works at half resolution on 2 x 2
pixel blocks (space to depth), and the head brings full resolution back (depth to space): a quarter
of the cost on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from quadrat.models.encoders import STEM, build_encoder, conv_block


class UNet(nn.Module):
    """(b, 3, h, w) float -> (b, outputs, h / out_stride, w / out_stride) logits.

    ``out_stride`` is 1 (the head shuffles pixels), 2, 4, ...: there the decoder stops. Its channels
    are ``widths``; the encoder has its own (:func:`~quadrat.models.encoders.build_encoder`).
    """

    def __init__(
        self, widths: Sequence[int], *, outputs: int, out_stride: int, encoder: str = "small"
    ) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder, widths)
        channels = self.encoder.channels
        stop = max(out_stride, STEM)
        self.levels = [i for i in range(len(widths) - 2, -1, -1) if STEM * 2**i >= stop]
        last = channels[-1]
        self.decoder = nn.ModuleList()
        for i in self.levels:
            self.decoder.append(conv_block(last + channels[i], widths[i]))
            last = widths[i]
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
    """(b, 3, h, w) -> (b, classes + d): class logits, then the d-dimensional embedding from which
    they were computed.

    ``dropout``: share of the embedding's values that the head does not see in training.
    """

    def __init__(
        self, widths: Sequence[int], *, classes: int, encoder: str = "small", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder, widths, top=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.encoder.channels[-1], classes)
        self.stride = self.encoder.stride
        self.out_stride = 0

    def forward(self, image: Tensor) -> Tensor:
        embedding = self.encoder(image)[-1].mean(dim=(2, 3))
        return torch.cat([self.head(self.dropout(embedding)), embedding], dim=1)
