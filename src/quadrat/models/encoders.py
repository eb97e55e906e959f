"""Encoders: RGB to features at strides 2, 4, 8, ..., as many as a model asks for.

``small`` is quadrat's own and is trained from random weights. All others are networks of timm,
which can begin with ImageNet weights (:mod:`quadrat.models.pretrained`). timm is imported when one
of them is asked for, and not before: the import takes a second.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from quadrat.core.errors import ConfigError
from quadrat.models.pretrained import (
    Loaded,
    load_state,
    names_of_timm,
    read_state,
)
from quadrat.models.task import Normalisation

STEM = 2
"""The stride of the first feature."""
SMALL, LITE, TIMM = "small", "efficientnet_lite0", "timm/"
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""How the ImageNet weights of EfficientNet-Lite0 want RGB in 0-1 normalised (MEAN_RGB and
STDDEV_RGB of the TensorFlow original; timm rounds them to 0.5)."""
LITE_MOMENTUM = 0.01
"""Of its batch statistics, as TensorFlow trained it."""
HUB = ("hub", "imagenet")
"""Sources of weights that name no file: timm downloads its own pretrained weights."""
PROBE_PX = 64
"""Side of the image with which the sizes of features are checked."""


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """RGB (b, 3, h, w) to features at strides 2, 4, 8, ...; h and w are multiples of the last."""

    name: str
    """As the pipeline file has it."""
    channels: list[int]
    """Of each feature."""
    stride: int
    """Of the last feature, in px of the input."""
    beyond: frozenset[str] = frozenset()
    """Tensors of the complete network that this one has not: its classifier, and the layers after
    the last feature."""

    def forward(self, image: Tensor) -> list[Tensor]:
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class SmallEncoder(Encoder):
    """Space to depth, then two convolutions per stride: one stride per width. Has no pretrained
    weights."""

    name = SMALL

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


class TimmEncoder(Encoder):
    """A network of timm with random weights, cut after ``depth`` strides. Its tensors have timm's
    names, so that files of complete networks load as they are.

    EfficientNet-Lite0 has no global pooling inside, so it can answer exactly whatever the tiling;
    the other EfficientNets cannot. Its strided convolutions pad one px less before than after
    (TensorFlow's "SAME") where the sides of the image are multiples of the stride.

    Raises:
        ConfigError: timm has no such network, or the network has no features at these strides.
    """

    body: Any
    """The network."""

    def __init__(self, name: str, depth: int, *, top: bool) -> None:
        super().__init__()
        self.name, model = name, _timm_name(name)
        options = {"bn_momentum": LITE_MOMENTUM} if name == LITE else {}
        network = _timm().create_model(model, **options)
        if not hasattr(network, "prune_intermediate_layers"):
            raise ConfigError(
                f"model.encoder '{name}': timm {_timm().__version__} gives no features of it; use "
                "another network, or a newer timm"
            )
        complete = set(network.state_dict())
        strides = [feature["reduction"] for feature in network.feature_info]
        _check_strides(name, strides, depth)
        wanted = [strides.index(2**i) for i in range(1, depth + 1)]
        self.top = top and name == LITE and depth == len(strides)
        if self.top:
            network.reset_classifier(0)
        else:
            wanted = network.prune_intermediate_layers(wanted, prune_norm=True)
        self.body, self.wanted = network, wanted
        self.beyond = frozenset(complete - set(network.state_dict()))
        self.stride = 2**depth
        self.channels = _measured_channels(self, depth)
        self.register_load_state_dict_pre_hook(_take_old_names)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> list[Tensor]:
        found: Any = self.body.forward_intermediates(
            image, indices=self.wanted, intermediates_only=not self.top
        )
        return [*found[1][:-1], found[0]] if self.top else list(found)


def _take_old_names(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Packages of earlier versions have another name for ``body``."""
    old = f"{prefix}getter.model."
    for key in [key for key in state if key.startswith(old)]:
        state[f"{prefix}body.{key.removeprefix(old)}"] = state.pop(key)


def build_encoder(name: str, widths: Sequence[int], *, top: bool = False) -> Encoder:
    """An encoder with random weights, of as many strides (2, 4, 8, ...) as there are widths.

    Args:
        name: "small" (:class:`SmallEncoder`, of these widths), "efficientnet_lite0", or a network
            of timm ("resnet18" or "timm/resnet18").
        widths: channels of "small"; of the others only their number counts.
        top: for a model that pools the last feature. At five strides, the last feature of
            efficientnet_lite0 is then the 1280 channels before its ImageNet classifier.

    Raises:
        ConfigError: the network is unknown, or has no features at one of the strides.
    """
    return SmallEncoder(widths) if name == SMALL else TimmEncoder(name, len(widths), top=top)


def load_encoder_weights(encoder: Encoder, source: str) -> Loaded:
    """Begin an encoder with pretrained weights.

    Args:
        encoder: what :func:`build_encoder` made; its tensors are overwritten.
        source: a local state dict (.safetensors, .pth, .pt or .bin; never a pickled object), or
            "hub" (also "imagenet"): the weights that timm offers, downloaded by timm.
            EfficientNet-Lite0 takes the names of timm and of efficientnet_lite_pytorch.

    Raises:
        ConfigError: there is nothing to begin with, a file that cannot be read, a tensor that is
            missing or has another shape, a name that is neither the encoder's nor that of a layer
            of the complete network, or no network to download.
    """
    if not isinstance(encoder, TimmEncoder):
        raise ConfigError(
            "model.encoder 'small' has no pretrained weights; use efficientnet_lite0 or another "
            "network of timm (e.g. resnet18), or leave out the weights"
        )
    state: Mapping[str, Tensor]
    state = _hub_state(encoder.name) if source in HUB else read_state(source)
    if encoder.name == LITE:
        state = names_of_timm(state)
    return load_state(
        encoder.body, state, network=encoder.name, source=source, beyond=encoder.beyond
    )


def encoder_normalisation(name: str) -> Normalisation | None:
    """(mean, std) of RGB in 0-1 that an encoder's ImageNet weights were trained with; None where
    there are no such weights.

    Raises:
        ConfigError: the network is unknown.
    """
    if name == SMALL:
        return None
    if name == LITE:
        return LITE_MEAN, LITE_STD
    stated = _timm().get_pretrained_cfg(_timm_name(name))
    return None if stated is None else (_three(stated.mean), _three(stated.std))


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _timm() -> ModuleType:
    return importlib.import_module("timm")


def _timm_name(name: str) -> str:
    """What timm calls an encoder.

    Raises:
        ConfigError: timm has no such network; the nearest ones are named.
    """
    model = "tf_efficientnet_lite0" if name == LITE else name.removeprefix(TIMM)
    if not _timm().is_model(model):
        near = _timm().list_models(f"*{model}*")[:3]
        raise ConfigError(
            f"model.encoder '{name}' is unknown; use {SMALL}, {LITE}, or another network of timm"
            + (f" (it has {', '.join(near)})" if near else " (e.g. resnet18)")
        )
    return model


def _hub_state(name: str) -> dict[str, Tensor]:
    """The state dict of a complete network that timm downloads."""
    try:
        network = _timm().create_model(_timm_name(name), pretrained=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the pretrained weights of {name} could not be downloaded ({reason}); where there is "
            "no network, give the path of a local .safetensors or .pth file"
        ) from error
    state: dict[str, Tensor] = network.state_dict()
    return state


def _measured_channels(encoder: Encoder, depth: int) -> list[int]:
    """Channels of the features. Their sizes are checked: some networks pad too little, or state
    other strides than they have."""
    try:
        with torch.no_grad():
            found = encoder.eval().forward(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
    except RuntimeError as error:
        raise ConfigError(
            f"model.encoder '{encoder.name}' cannot take an image of {PROBE_PX} px ({error}); use "
            "another"
        ) from error
    sizes = [tuple(f.shape[2:]) for f in found]
    wanted = [(PROBE_PX >> i, PROBE_PX >> i) for i in range(1, depth + 1)]
    if sizes != wanted:
        raise ConfigError(
            f"model.encoder '{encoder.name}' makes features of {sizes} px from {PROBE_PX} px, not "
            f"{wanted}; use another"
        )
    return [int(f.shape[1]) for f in found]


def _check_strides(name: str, found: Iterable[int], depth: int) -> None:
    strides = sorted(set(found))
    missing = [2**i for i in range(1, depth + 1) if 2**i not in strides]
    if missing:
        raise ConfigError(
            f"model.encoder '{name}' has no features at stride {missing[0]} (it has some at "
            f"{', '.join(map(str, strides))}), but model.widths asks for {depth} strides from 2 "
            "on; use another network or fewer widths"
        )
