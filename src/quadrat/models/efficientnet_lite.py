"""EfficientNet-Lite0 (Tan and Le 2019, doi:10.48550/arXiv.1905.11946; without squeeze and
excitation, with ReLU6).

Being free of global pooling inside, it can answer exactly whatever the tiling; the other
EfficientNets cannot. Padding is TensorFlow's "SAME", which the ImageNet weights were trained with:
strided convolutions pad one px less before than after. That depends on the input's size in general,
but not where the size is a multiple of 32, so it is fixed here. Names of parameters are timm's
(tf_efficientnet_lite0), whose files therefore load as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from quadrat.core.errors import ConfigError

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion, channels out."""
ENDS = (1, 2, 3, 5, 7)
"""Stages that are done where the features have strides 2, 4, 8, 16, 32."""
STEM_CHANNELS, TOP_CHANNELS, IMAGENET_CLASSES = 32, 1280, 1000
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""How the ImageNet weights want RGB in 0-1 normalised (MEAN_RGB and STDDEV_RGB of the TensorFlow
original)."""


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SameConv(nn.Conv2d):
    """A bias-free convolution padded as TensorFlow's "SAME" pads inputs whose sides are multiples
    of the stride."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        whole = kernel - stride
        self.sides = (whole // 2, whole - whole // 2) * 2
        if stride == 1:  # symmetric: the convolution pads by itself, which costs less
            self.padding, self.sides = (whole // 2, whole // 2), (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, self.sides) if any(self.sides) else x)


class Separable(nn.Module):
    """Depthwise convolution, then to another number of channels; no shortcut (its
    channels differ).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv(inputs, inputs, kernel, stride=stride, groups=inputs)
        self.bn1 = _norm(inputs)
        self.conv_pw = SameConv(inputs, outputs, 1)
        self.bn2 = _norm(outputs)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(x)))))
        return out


class Inverted(nn.Module):
    """Expansion, depthwise convolution, projection; a shortcut where size and channels stay."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.conv_pw = SameConv(inputs, wide, 1)
        self.bn1 = _norm(wide)
        self.conv_dw = SameConv(wide, wide, kernel, stride=stride, groups=wide)
        self.bn2 = _norm(wide)
        self.conv_pwl = SameConv(wide, outputs, 1)
        self.bn3 = _norm(outputs)
        self.act = nn.ReLU6(inplace=True)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn2(self.conv_dw(self.act(self.bn1(self.conv_pw(x))))))
        out = self.bn3(self.conv_pwl(out))
        return out + x if self.shortcut else out


class EfficientNetLite0(nn.Module):
    """(b, 3, h, w) to ImageNet logits (b, 1000), or by :meth:`features` to a pyramid; h and w are
    multiples of 2**depth.

    Args:
        depth: 1 to 5; only the stages up to stride 2**depth are built.
        top: the last 1 x 1 convolution to 1280 channels (depth 5 only) is the coarsest feature.
        classifier: the ImageNet head as well.
    """

    def __init__(self, *, depth: int = 5, top: bool = True, classifier: bool = True) -> None:
        super().__init__()
        if not 1 <= depth <= len(ENDS):
            raise ConfigError(
                f"model.widths has {depth} values, but efficientnet_lite0 has {len(ENDS)} strides "
                "(2 to 32)"
            )
        self.conv_stem = SameConv(3, STEM_CHANNELS, 3, stride=2)
        self.bn1 = _norm(STEM_CHANNELS)
        self.act = nn.ReLU6(inplace=True)
        self.blocks = nn.ModuleList()
        channels = STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in STAGES[: ENDS[depth - 1]]:
            stage = nn.Sequential()
            for index in range(repeats):
                step = stride if index == 0 else 1
                stage.append(
                    Separable(channels, outputs, kernel, step)
                    if expansion == 1
                    else Inverted(channels, outputs, kernel, step, expansion)
                )
                channels = outputs
            self.blocks.append(stage)
        self.channels = [STAGES[end - 1][-1] for end in ENDS[:depth]]
        self.top = top and depth == len(ENDS)
        if self.top:
            self.conv_head, self.bn2 = SameConv(channels, TOP_CHANNELS, 1), _norm(TOP_CHANNELS)
            self.channels[-1] = TOP_CHANNELS
        if classifier:
            self.classifier = nn.Linear(TOP_CHANNELS, IMAGENET_CLASSES)

    def features(self, image: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, ..., 2**depth."""
        x = self.act(self.bn1(self.conv_stem(image)))
        out = []
        for number, stage in enumerate(self.blocks, start=1):
            x = stage(x)
            if number in ENDS:
                out.append(x)
        if self.top:
            out[-1] = self.act(self.bn2(self.conv_head(x)))
        return out

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(image)[-1].mean(dim=(2, 3)))
        return logits


RENAMED = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
"""Names outside the blocks: efficientnet_lite_pytorch's, ours."""
RENAMED_FIRST = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
RENAMED_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Names inside the first block, which expands nothing, and inside the others."""


def is_foreign(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the key style of efficientnet_lite_pytorch."""
    return "_conv_stem.weight" in state


def convert_efficientnet_lite(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of efficientnet_lite_pytorch under the names of :class:`EfficientNetLite0`;
    tensors are not copied.

    Blocks are numbered through there and stage by stage here.

    Raises:
        ConfigError: a key that efficientnet_lite_pytorch's EfficientNet-Lite0 does not have.
    """
    places = [
        (stage, index) for stage, (repeats, *_) in enumerate(STAGES) for index in range(repeats)
    ]
    out = {}
    for key, tensor in state.items():
        parts = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)", key)
        renamed = None
        if parts is not None and parts[1] is None and parts[2] in RENAMED:
            renamed = f"{RENAMED[parts[2]]}.{parts[3]}"
        elif parts is not None and parts[1] is not None and int(parts[1]) < len(places):
            stage, index = places[int(parts[1])]
            names = RENAMED_FIRST if stage == 0 else RENAMED_INVERTED
            if parts[2] in names:
                renamed = f"blocks.{stage}.{index}.{names[parts[2]]}.{parts[3]}"
        if renamed is None:
            raise ConfigError(
                f"'{key}' is no key of an EfficientNet-Lite0 of efficientnet_lite_pytorch; is it "
                "another network's?"
            )
        out[renamed] = tensor
    return out
