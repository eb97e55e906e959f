"""Networks by name, for files that hold weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from quadrat.core.errors import ConfigError
from quadrat.core.text import did_you_mean

LIBRARIES = ("timm", "torchvision", "smp")


def build(architecture: str, options: Mapping[str, Any], *, classes: int) -> nn.Module:
    """The network ``LIBRARY/NAME`` with random weights. ``classes`` is its number of outputs unless
    ``options``, which its constructor takes, say another.

    Raises:
        ConfigError: the library is unknown or not installed, or has no such network.
    """
    library, _, name = architecture.partition("/")
    if library not in LIBRARIES or not name:
        raise ConfigError(
            f"architecture is '{architecture}'; write it as LIBRARY/NAME, with one of the "
            f"libraries {', '.join(LIBRARIES)}"
        )
    make = {"timm": _timm, "torchvision": _torchvision, "smp": _smp}[library]
    try:
        return make(name, dict(options), classes)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"architecture {architecture} cannot be built with {dict(options)} "
            f"({type(error).__name__}: {error})"
        ) from error


def _timm(name: str, options: dict[str, Any], classes: int) -> nn.Module:
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise ConfigError(f"timm has no network '{name}'{did_you_mean(name, timm.list_models())}")
    model: nn.Module = timm.create_model(
        name, pretrained=False, **{"num_classes": classes, **options}
    )
    return model


def _torchvision(name: str, options: dict[str, Any], classes: int) -> nn.Module:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise ConfigError(f"torchvision has no network '{name}'{did_you_mean(name, known)}")
    given = {"weights": None, "num_classes": classes, **options}
    if "weights_backbone" not in given and not _classifies(name):
        given["weights_backbone"] = None  # nothing is downloaded
    model: nn.Module = models.get_model(name, **given)
    return model


def _classifies(name: str) -> bool:
    from torchvision import models

    return name in models.list_models(module=models)


def _smp(name: str, options: dict[str, Any], classes: int) -> nn.Module:
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise ConfigError(
            f"architecture smp/{name} needs segmentation-models-pytorch, which is not installed "
            "here; pip install segmentation-models-pytorch"
        ) from error
    model: nn.Module = smp.create_model(
        name, **{"encoder_weights": None, "classes": classes, **options}
    )
    return model
