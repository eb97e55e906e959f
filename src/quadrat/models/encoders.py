"""Encoders: RGB to a pyramid of features at strides 2, 4, 8, ..., cut after as many as a model asks
for.

``small`` is trained from scratch; the others can begin from ImageNet weights
(:mod:`quadrat.models.pretrained`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.feature_extraction import create_feature_extractor

from quadrat.core.errors import ConfigError
from quadrat.models import efficientnet_lite
from quadrat.models.efficientnet_lite import EfficientNetLite0
from quadrat.models.pretrained import Loaded, load_state, read_state

STEM = 2
SMALL, LITE, TIMM = "small", "efficientnet_lite0", "timm/"
KNOWN = f"{SMALL}, {LITE}, a network of torchvision (e.g. resnet18), or timm/<model>"
HUB = ("hub", "imagenet")
"""Sources of weights that name no file: the library's own pretrained weights, downloaded by it."""
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


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
    """RGB (b, 3, h, w) to features at strides 2, 4, 8, ...; h and w are multiples of the last
    stride.

    ``channels`` of the features; ``stride`` of the last; ``beyond`` the names of a complete
    network's tensors that are not in this one: its classifier head, and its layers beyond the cut.
    """

    name: str
    channels: list[int]
    stride: int
    beyond: frozenset[str] = frozenset()

    def forward(self, image: Tensor) -> list[Tensor]:
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class SmallEncoder(Encoder):
    """Space to depth, then two convolutions a stride: one stride a width. Has no pretrained
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


class LiteEncoder(Encoder):
    """EfficientNet-Lite0; with ``top``, the 1280 channels before its ImageNet head are the coarsest
    feature at depth 5."""

    name = LITE

    def __init__(self, depth: int, *, top: bool) -> None:
        super().__init__()
        self.body = EfficientNetLite0(depth=depth, top=top, classifier=False)
        self.channels, self.stride = self.body.channels, 2**depth
        with torch.device("meta"):
            self.beyond = frozenset(EfficientNetLite0().state_dict()) - set(self.body.state_dict())

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.body.features(image)


class TorchvisionEncoder(Encoder):
    """A network of torchvision (random weights) cut after ``depth`` strides: features at strides 2,
    4, 8, ...

    A stride's feature is the output of the last module that has it, among the network's children
    and theirs.

    Raises:
        ConfigError: torchvision has no such network, or it has no features at these strides.
    """

    def __init__(self, name: str, depth: int) -> None:
        super().__init__()
        if name not in list_models(torchvision.models):
            raise ConfigError(f"model.encoder '{name}' is unknown; use {KNOWN}")
        self.name = name
        network = get_model(name, weights=None).eval()
        self.stride = 2**depth
        ends = _stride_ends(network)
        _check_strides(name, ends, depth)
        nodes = {ends[2**i]: str(i - 1) for i in range(1, depth + 1)}
        self.body = create_feature_extractor(network, return_nodes=nodes)
        self.beyond = frozenset(network.state_dict()) - set(self.body.state_dict())
        self.channels = _measured_channels(self, depth)

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.body(image).values())


class TimmEncoder(Encoder):
    """A network of timm (random weights) cut after ``depth`` strides, by its ``features_only`` (the
    kind that prunes).

    Raises:
        ConfigError: timm is not installed, has no such network, or the network has no features
        at these strides.
    """

    def __init__(self, name: str, depth: int) -> None:
        super().__init__()
        timm = _timm()
        self.name, model = name, name.removeprefix(TIMM)
        if not timm.is_model(model):
            near = ", ".join(timm.list_models(f"*{model}*")[:3])
            raise ConfigError(
                f"model.encoder '{name}' is unknown to timm" + (f"; it has {near}" if near else "")
            )
        options = {"features_only": True, "feature_cls": "getter"}
        try:
            whole = timm.create_model(model, **options)
        except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
            raise ConfigError(
                f"model.encoder '{name}' offers no features to timm ({error}); use another network"
            ) from error
        reductions = whole.feature_info.reduction()
        _check_strides(name, reductions, depth)
        wanted = [reductions.index(2**i) for i in range(1, depth + 1)]
        getter = timm.create_model(model, **options, out_indices=wanted)
        self.getter, self.stride = getter, 2**depth
        with torch.device("meta"):
            self.beyond = frozenset(timm.create_model(model).state_dict()) - set(
                getter.model.state_dict()
            )
        self.channels = _measured_channels(self, depth)

    @property
    def body(self) -> nn.Module:
        """The pruned network, whose tensors are named as in the complete one."""
        network: nn.Module = self.getter.model
        return network

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.getter(image))


def build_encoder(name: str, widths: Sequence[int], *, top: bool = False) -> Encoder:
    """An encoder with random weights, of as many strides (2, 4, 8, ...) as there are widths.

    Args:
        name: "small" (:class:`SmallEncoder`, of these widths), "efficientnet_lite0", a network of
        torchvision, or "timm/<model>". widths: channels of "small"; of the others only their number
        counts. top: for a model that pools the last feature: take along what the network computes
        before its classifier.

    Raises:
        ConfigError: the network is unknown, or lacks features at one of the strides.
    """
    if name == SMALL:
        return SmallEncoder(widths)
    if name == LITE:
        return LiteEncoder(len(widths), top=top)
    return (
        TimmEncoder(name, len(widths))
        if name.startswith(TIMM)
        else TorchvisionEncoder(name, len(widths))
    )


def load_encoder_weights(encoder: Encoder, source: str) -> Loaded:
    """Begin an encoder from pretrained weights.

    Args:
        encoder: what :func:`build_encoder` made; its tensors are overwritten. source: a local
        state dict (.safetensors, .pth, .pt or .bin; never a pickled object), or "hub" (also
        "imagenet"):
            the weights that torchvision or timm offer for the network, downloaded by them.
            EfficientNet-Lite0 takes the keys of timm and of efficientnet_lite_pytorch.

    Raises:
        ConfigError: nothing to begin from, a file that cannot be read, a tensor that lacks or
        has another shape, a key that
            is neither the encoder's nor in the complete network's head or layers beyond the cut, or
            no network to download.
    """
    if encoder.name == SMALL:
        raise ConfigError(
            f"model.encoder 'small' has no pretrained weights; choose another ({KNOWN}), or leave "
            "out the weights"
        )
    state = _hub_state(encoder.name) if source in HUB else read_state(source)
    if encoder.name == LITE and efficientnet_lite.is_foreign(state):
        state = efficientnet_lite.convert_efficientnet_lite(state)
    body = encoder.body
    assert isinstance(body, nn.Module)  # all but the small one have it
    return load_state(body, state, network=encoder.name, source=source, beyond=encoder.beyond)


def encoder_normalisation(name: str) -> Normalisation | None:
    """(mean, std) of RGB in 0-1 that an encoder's ImageNet weights were trained with; None where
    there are no such weights.

    Raises:
        ConfigError: timm is needed and not installed.
    """
    if name == SMALL:
        return None
    if name == LITE:
        return efficientnet_lite.MEAN, efficientnet_lite.STD
    if name.startswith(TIMM):
        stated = _timm().get_pretrained_cfg(name.removeprefix(TIMM))
        return None if stated is None else (_three(stated.mean), _three(stated.std))
    if name not in list_models(torchvision.models):
        raise ConfigError(f"model.encoder '{name}' is unknown; use {KNOWN}")
    transforms = get_model_weights(name).DEFAULT.transforms()
    return _three(transforms.mean), _three(transforms.std)


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "encoders named timm/... need timm: pip install 'quadrat[timm]'"
        ) from error


def _hub_state(name: str) -> dict[str, Tensor]:
    """The state dict of a complete network that its library downloads."""
    try:
        if name == LITE or name.startswith(TIMM):
            model = "tf_efficientnet_lite0" if name == LITE else name.removeprefix(TIMM)
            network = _timm().create_model(model, pretrained=True)
        else:
            network = get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the pretrained weights of {name} could not be downloaded ({reason}); where there is "
            "no network, "
            "give the path of a local .safetensors or .pth file"
        ) from error
    state: dict[str, Tensor] = network.state_dict()
    return state


def _stride_ends(network: nn.Module) -> dict[int, str]:
    """For each stride of a network in eval mode, the last child or grandchild whose output (b, c,
    h, w) has it."""
    side, ends = 64, dict[int, str]()

    def note(name: str, output: object) -> None:
        if (
            isinstance(output, Tensor)
            and output.ndim == 4
            and output.shape[2] == output.shape[3] > 1
        ):
            ends[side // output.shape[2]] = name

    modules = [
        (name, module) for name, module in network.named_modules() if name and name.count(".") < 2
    ]
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: note(name, output))
        for name, module in modules
    ]
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError):
        return {}  # a network of one input size: transformers, Inception
    finally:
        for hook in hooks:
            hook.remove()
    return ends


def _measured_channels(encoder: Encoder, depth: int) -> list[int]:
    """Channels of the features, whose sizes are checked: some networks pad too little, or state
    other strides than they have."""
    side = 64
    try:
        with torch.no_grad():
            found = encoder.eval().forward(torch.zeros(1, 3, side, side))
    except RuntimeError as error:
        raise ConfigError(
            f"model.encoder '{encoder.name}' cannot take an image of {side} px ({error}); use "
            "another"
        ) from error
    sizes = [tuple(f.shape[2:]) for f in found]
    wanted = [(side >> i, side >> i) for i in range(1, depth + 1)]
    if sizes != wanted:
        raise ConfigError(
            f"model.encoder '{encoder.name}' makes features of {sizes} px from {side} px, not "
            f"{wanted}; use another"
        )
    return [int(f.shape[1]) for f in found]


def _check_strides(name: str, found: Iterable[int], depth: int) -> None:
    strides = sorted(set(found))
    missing = [2**i for i in range(1, depth + 1) if 2**i not in strides]
    if missing:
        has = f"some at {', '.join(map(str, strides))}" if strides else "none of a pyramid"
        raise ConfigError(
            f"model.encoder '{name}' has no features at stride {missing[0]} (it has {has}), but "
            "model.widths asks for "
            f"{depth} strides from 2 on; use another network or fewer widths"
        )
