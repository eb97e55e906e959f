"""The import card: what its owner says of a network that was not made here (docs/models.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic.json_schema import WithJsonSchema

from quadrat.config.pipeline import STRICT, ClassSection, model_mpp
from quadrat.config.yaml_file import read_yaml, validated
from quadrat.core.errors import ConfigError
from quadrat.core.unit import Mpp

MEASURE = "measure"
PLACE = re.compile(r"(?P<name>[^\[\]]+?)(\[(?P<first>\d+):(?P<stop>\d+)\])?$")
"""Where an output is in what the file gives: a name or a number, then perhaps channels."""


def _size(name: str) -> Any:
    """A whole number of px, or ``measure``."""

    def check(value: object) -> int | Literal["measure"]:
        if value == "measure":
            return "measure"
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a whole number of px, or {MEASURE}")
        return value

    schema = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": MEASURE}]}
    return Annotated[int | Literal["measure"], PlainValidator(check), WithJsonSchema(schema)]


def _places(value: object) -> dict[str, str]:
    """The value of ``outputs``: a list has the decoder's names in the order of the file's."""
    if isinstance(value, list):
        value = {name: number for number, name in enumerate(value)}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(
            f"outputs is {value!r}; it must be a list of names in the order of the file's outputs, "
            "or a section like np: nucleus_prediction"
        )
    for name, place in value.items():
        if isinstance(place, bool) or not PLACE.match(str(place)):
            raise ValueError(
                f"outputs.{name} is {place!r}; it must be the name or number of one of the file's "
                "outputs, with channels in brackets if it is a part of one, like 0[0:2]"
            )
    return {name: str(place) for name, place in value.items()}


Places = Annotated[
    Mapping[str, str],
    PlainValidator(_places),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]
Scalar = float | int | str | bool | None


def _scalars(name: str) -> Any:
    """A section of plain values."""

    def check(value: object) -> dict[str, Scalar]:
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be a section of keys, not {value!r}")
        for key, one in value.items():
            if not isinstance(one, Scalar):
                raise ValueError(f"{name}.{key} is {one!r}; it must be one number or text")
        return value

    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    return Annotated[Mapping[str, Scalar], PlainValidator(check), WithJsonSchema(schema)]


def _licence(value: object) -> str:
    """The value of ``license``."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"license is {value!r}; it must be the licence of the weights, such as MIT, or unknown "
            "if nobody knows"
        )
    return value


def _mpp(value: object) -> Mpp:
    """The value of ``mpp``."""
    try:
        return model_mpp(value)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("model.")) from error


Three = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class InputSection:
    """What the network's input is made of a window's pixels."""

    color: Literal["RGB", "BGR"] = "RGB"
    """Order of the channels."""
    range: Literal["0-1", "0-255"] = "0-1"
    """Values of black and white before ``mean`` and ``std``."""
    mean: Three = (0.0, 0.0, 0.0)
    """Taken off each channel, in the network's order, as values of ``range``."""
    std: Three = (1.0, 1.0, 1.0)
    """Each channel is divided by it after that."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """Order of the axes, of the outputs too."""
    dtype: Literal["float32", "uint8"] = "float32"
    """Type of the values; ``uint8`` needs the range 0-255 and no mean and std."""
    by_window: Literal["none", "mean_std", "percentiles"] = "none"
    """What each channel of each window is normalised by after ``mean`` and ``std``: nothing; its
    mean and standard deviation; or two of its ``percentiles``, which become 0 and 1. What depends
    on the window cannot be tiling-exact."""
    percentiles: Annotated[tuple[float, ...], Field(min_length=2, max_length=2)] = (1.0, 99.0)
    """The two percentiles."""
    batched: Literal["tensor", "list"] = "tensor"
    """``list``: the network takes a list of images (detection models of torchvision)."""

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise ValueError(f"input.std is {list(self.std)}; each must be above 0")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(
                f"input.percentiles is {[low, high]}; they must rise, and lie in 0 to 100"
            )
        plain = self.range == "0-255" and set(self.mean) == {0} and set(self.std) == {1}
        if self.dtype == "uint8" and not plain:
            raise ValueError(
                "input.dtype is uint8; it needs input.range 0-255, and neither mean nor std"
            )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ImportCard:
    """A card needs a decoder, classes, mpp and a licence; the rest has a default or is measured."""

    decoder: str
    """How the outputs become objects, regions or scores (docs/decoders.md)."""
    classes: Annotated[tuple[ClassSection, ...], Field(min_length=1)]
    """The classes in the network's order, background left out."""
    mpp: Annotated[Mpp, PlainValidator(_mpp), WithJsonSchema({"type": "number"})]
    """Scale that the network was trained at in um/px, or ``px``."""
    license: Annotated[str, PlainValidator(_licence), WithJsonSchema({"type": "string"})]
    """Licence of the weights; ``unknown`` if nobody knows."""
    window: _size("window") = MEASURE  # type: ignore[valid-type]
    """Side of the square that the network is given. ``measure``: what the file fixes, else a good
    one."""
    core: _size("core") = MEASURE  # type: ignore[valid-type]
    """Side of the square in its middle that is kept. ``measure``: as large as the network's reach
    allows."""
    out_stride: _size("out_stride") = MEASURE  # type: ignore[valid-type]
    """Input px per cell of the output maps."""
    input: InputSection = field(default_factory=InputSection)
    """What is done to pixels."""
    outputs: Places = field(default_factory=dict)
    """Which of the file's outputs is what the decoder wants. Left out: in the decoder's order, or
    by its names."""
    activation: Literal["logits", "probabilities"] | None = None
    """What scores are: before softmax or sigmoid, or after it. Left out: as is usual for the
    decoder."""
    options: _scalars("options") = field(default_factory=dict)  # type: ignore[valid-type]
    """Options of the decoder."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The task's decisions, as in a pipeline file."""
    architecture: str = ""
    """For a file of weights alone: ``timm/NAME``, ``torchvision/NAME`` or ``smp/NAME``."""
    architecture_options: _scalars("architecture_options") = field(  # type: ignore[valid-type]
        default_factory=dict
    )
    """Further arguments of its constructor."""
    name: str = ""
    """Name of the model."""
    description: str = ""
    """One line on what it does."""
    source: str = "not stated"
    """Where the network is from."""
    citation: str = "not stated"
    """What to cite."""

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        if len(set(names)) < len(names):
            raise ValueError(f"classes must have each name once (they are: {', '.join(names)})")
        if self.window != MEASURE and self.core != MEASURE:
            if self.core > self.window:
                raise ValueError(f"core is {self.core}; it must be at most window, {self.window}")
            if (self.window - self.core) % 2:
                raise ValueError(
                    f"core is {self.core} and window {self.window}; the border around the core "
                    "must be equal on both sides, so their difference must be even"
                )


def read_keys(path: Path) -> dict[str, Any]:
    """The keys and values of a card's file, not yet checked.

    Raises:
        ConfigError: no such file, or broken YAML.
    """
    if not path.is_file():
        raise ConfigError(
            f"there is no import card {path}; print one to begin with by 'quadrat models import "
            "--example hovernet'"
        )
    return read_yaml(path)


def import_card(content: Mapping[str, Any], *, where: str) -> ImportCard:
    """A card from its keys and values; ``where`` begins the message of an error.

    Raises:
        ConfigError: wrong keys and values; all of them are listed.
    """
    adapter = TypeAdapter(ImportCard)
    try:
        text = json.dumps(content)
    except TypeError as error:
        raise ConfigError(f"{where}: keys must be text, and values plain: {error}") from error
    return validated(text, adapter, adapter.json_schema, where=where)
