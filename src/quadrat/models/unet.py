"""A small U-Net whose window arithmetic is exact: strided by powers of two, frozen statistics, no resizing by factors.

Ronneberger et al. 2015 in structure; the first level works at half resolution on 2 x 2 pixel blocks (space to depth) and
the head brings full resolution back by depth to space, a quarter of the cost on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model, list_models
from torchvision.models.feature_extraction import create_feature_extractor

from quadrat.errors import ConfigError

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
        self.channels = list(widths)
        self.stride = STEM * 2 ** (len(widths) - 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = functional.pixel_unshuffle(image, STEM)
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x if index == 0 else functional.max_pool2d(x, 2))
            features.append(x)
        return features


class TorchvisionEncoder(nn.Module):
    """A ResNet of torchvision (random weights) cut after ``depth`` strides: features at strides 2, 4, 8, ...

    Raises:
        ConfigError: torchvision has no such network, or it is not a ResNet.
    """

    NODES = ("relu", "layer1", "layer2", "layer3", "layer4")

    def __init__(self, name: str, depth: int) -> None:
        super().__init__()
        if name not in list_models(torchvision.models) or "resnet" not in name:
            raise ConfigError(f"model.encoder '{name}' is unknown; use 'small' or a ResNet of torchvision, e.g. resnet18")
        network = get_model(name, weights=None)
        nodes = {node: str(i) for i, node in enumerate(self.NODES[:depth])}
        self.body = create_feature_extractor(network, return_nodes=nodes)
        self.stride = 2**depth
        with torch.no_grad():
            self.channels = [int(f.shape[1]) for f in self.eval().forward(torch.zeros(1, 3, 64, 64))]

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.body(image).values())


def build_encoder(name: str, widths: Sequence[int]) -> Encoder | TorchvisionEncoder:
    """``small`` (see :class:`Encoder`), or a ResNet of torchvision of as many strides as there are widths."""
    return Encoder(widths) if name == "small" else TorchvisionEncoder(name, len(widths))


class UNet(nn.Module):
    """(b, 3, h, w) float -> (b, outputs, h / out_stride, w / out_stride) logits.

    ``out_stride`` is 1 (head by pixel shuffle), 2, 4, ...: the decoder stops where the head begins.
    """

    def __init__(self, widths: Sequence[int], *, outputs: int, out_stride: int, encoder: str = "small") -> None:
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
    """(b, 3, h, w) -> (b, classes + d): class logits, then the d-dimensional embedding they were computed from."""

    def __init__(self, widths: Sequence[int], *, classes: int, encoder: str = "small") -> None:
        super().__init__()
        self.encoder = build_encoder(encoder, widths)
        self.head = nn.Linear(self.encoder.channels[-1], classes)
        self.stride = self.encoder.stride
        self.out_stride = 0

    def forward(self, image: Tensor) -> Tensor:
        embedding = self.encoder(image)[-1].mean(dim=(2, 3))
        return torch.cat([self.head(embedding), embedding], dim=1)
