"""A foreign network as one module that runs like quadrat's own: preprocessing, file, decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from quadrat.config.import_card import PLACE, InputSection
from quadrat.core.errors import PackageError
from quadrat.models.decoders.decoder import Decoder
from quadrat.models.foreign.files import Fixed, Loaded
from quadrat.models.foreign.formats import Format
from quadrat.models.foreign.head import Activation, ForeignHead, Option
from quadrat.models.task import Output

WHITE = 255
SMALL = 1e-6
"""Added to what is divided by, so that a window of one colour can be normalised."""
Outputs = dict[str, Any]
"""What a decoder reads, by its own names: tensors, batch first, or lists with one per image."""


@dataclass(frozen=True, slots=True)
class ForeignSection:
    """What a package's card keeps of an imported network besides its specification."""

    format: Format
    """Of the file."""
    file: str
    """Its name in the package."""
    sha256: str
    """Of its content."""
    decoder: str
    """A name of :mod:`quadrat.models.decoders`."""
    stride: int
    """Of the network in input px; the lattice is in multiples of it."""
    out_stride: int
    """Input px per cell of its maps; 0: it has no maps."""
    radius: int | None
    """Receptive radius in px with that of the decoder; None: unbounded."""
    exact: bool = False
    """Whether its answer was found not to depend on the window."""
    input: InputSection = field(default_factory=InputSection)
    """What is done to pixels."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Which of the file's outputs is what the decoder wants."""
    activation: Activation = "logits"
    """What scores are."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Options of the decoder."""
    architecture: str = ""
    """Of a file of weights alone."""
    architecture_options: Mapping[str, float | int | str | bool | None] = field(
        default_factory=dict
    )
    """Further arguments of its constructor."""


class ForeignNetwork(nn.Module):
    """(b, 3, h, w) RGB in 0-1 to what the decoder's task decodes. Has no parameters of its own: the
    file keeps them, and moves to the device of what it is given."""

    def __init__(
        self,
        loaded: Loaded,
        decoder: Decoder,
        head: ForeignHead,
        *,
        input: InputSection,
        outputs: Mapping[str, str],
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.loaded, self.decoder, self.head = loaded, decoder, head
        self.input, self.places = input, dict(outputs)
        self.stride, self.out_stride = stride, head.out_stride
        self.fixed = Fixed.of(loaded.dims, input.layout)
        self.batch = self.fixed.batch
        """Windows that the file takes at once; None: any number."""

    def forward(self, image: Tensor) -> Output:
        answer = self.decoder.adapt(self.outputs(image), self.head)
        cell = self.head.out_stride
        if isinstance(answer, Tensor) and answer.ndim == 4 and cell > 1:
            answer = answer.repeat_interleave(cell, dim=2).repeat_interleave(cell, dim=3)
        return answer

    def outputs(self, image: Tensor) -> Outputs:
        """What the decoder reads of a batch; maps are as large as the window, in cells."""
        step = self.batch
        if step is None or len(image) == step:
            return self._outputs(image)
        parts = []
        for start in range(0, len(image), step):
            part = image[start : start + step]
            missing = step - len(part)
            whole = torch.cat([part, part[:1].expand(missing, -1, -1, -1)])
            parts.append({k: v[: len(part)] for k, v in self._outputs(whole).items()})
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}

    def _outputs(self, image: Tensor) -> Outputs:
        rows, cols = image.shape[2:]
        cell = max(1, self.head.out_stride)
        return {
            name: padded(value, (rows, cols), cell) if is_map(value) else value
            for name, value in self.given(image).items()
        }

    def given(self, image: Tensor) -> Outputs:
        """What the file gives for a batch, by the decoder's names; maps are (batch, channels, rows,
        columns), of as many cells as they come in."""
        found = pick(self.loaded(self.prepared(image)), self.places, self.decoder)
        return {name: self._map(name, value, image.shape) for name, value in found.items()}

    def prepared(self, image: Tensor) -> Any:
        """What the file is given for a batch of RGB in 0-1."""
        if self.input.range == "0-255":
            image = (image * WHITE).round()  # the very bytes again
        return self.normalised(image)

    def normalised(self, image: Tensor) -> Any:
        """The same for a batch of RGB with values in the card's range."""
        section = self.input
        x = image if section.color == "RGB" else image.flip(1)
        if section.dtype == "uint8":
            x = x.clamp(0, WHITE).to(torch.uint8)
        if set(section.mean) != {0.0}:
            x = x - torch.tensor(section.mean, device=x.device).view(1, 3, 1, 1)
        if set(section.std) != {1.0}:
            x = x / torch.tensor(section.std, device=x.device).view(1, 3, 1, 1)
        x = by_window(x, section)
        x = x.permute(0, 2, 3, 1) if section.layout == "NHWC" else x
        return list(x) if section.batched == "list" else x.contiguous()

    def _map(self, name: str, value: Any, shape: torch.Size) -> Any:
        """An output as (batch, channels, rows, columns) of the window, if it is a map."""
        if not isinstance(value, Tensor):
            return value
        rows, cols = shape[2:]
        like = value.ndim == 3 and value.shape[1] * cols == value.shape[2] * rows
        if like and min(value.shape[1:]) > 4:  # not a list of boxes
            value = value[:, None]
        if value.ndim != 4:
            return value
        if self.input.layout == "NHWC":
            value = value.permute(0, 3, 1, 2)
        match = PLACE.match(self.places.get(name, ""))
        if match and match["first"]:
            value = value[:, int(match["first"]) : int(match["stop"])]
        return value


def by_window(x: Tensor, section: InputSection) -> Tensor:
    """Each channel of each window (b, c, h, w) normalised by its own values."""
    if section.by_window == "none":
        return x
    if section.by_window == "mean_std":
        mean, std = x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3), keepdim=True, correction=0)
        return (x - mean) / (std + SMALL)
    shares = torch.tensor(section.percentiles, device=x.device, dtype=x.dtype) / 100
    ranked = x.flatten(2).sort(dim=2).values  # torch.quantile takes 16 M values only
    places = shares * (ranked.shape[2] - 1)
    below, above = ranked[..., places.floor().long()], ranked[..., places.ceil().long()]
    low, high = torch.lerp(below, above, places - places.floor()).unbind(dim=2)
    return (x - low[..., None, None]) / (high - low + SMALL)[..., None, None]


def is_map(value: Any) -> bool:
    """Whether an output is (batch, channels, rows, columns)."""
    return isinstance(value, Tensor) and value.ndim == 4


def pick(raw: Any, places: Mapping[str, str], decoder: Decoder) -> Outputs:
    """The outputs that a decoder reads, of what a file gives.

    Raises:
        PackageError: one is missing, or it is not clear which one is which.
    """
    found = _named(raw)
    if places:
        missing = [
            place
            for place in places.values()
            if (match := PLACE.match(place)) is None or match["name"] not in found
        ]
        if missing:
            raise PackageError(
                f"the network has no output {missing[0]} (it gives {', '.join(found)}); name "
                "them in the card's outputs"
            )
        return {name: found[place.partition("[")[0]] for name, place in places.items()}
    needed, known = decoder.outputs, (*decoder.outputs, *decoder.optional)
    if all(name in found for name in needed):
        return {name: found[name] for name in known if name in found}
    if len(needed) <= len(found) <= len(known):
        numbered = all(name.isdecimal() for name in found)
        if numbered or len(found) == len(needed) == 1:
            return dict(zip(known, found.values(), strict=False))
    raise PackageError(
        f"the decoder {decoder.name} reads {', '.join(known)}, and the network gives "
        f"{', '.join(found) or 'nothing'}; say in the card's outputs which is which"
    )


def _named(raw: Any) -> dict[str, Any]:
    """What a file gives, by name or number."""
    if isinstance(raw, tuple) and len(raw) == 2 and isinstance(raw[1], list):
        raw = raw[1]  # detection models of torchvision as TorchScript: losses, detections
    if isinstance(raw, Tensor):
        return {"0": raw}
    if isinstance(raw, Mapping):
        return {str(name): value for name, value in raw.items()}
    if isinstance(raw, Sequence) and raw and all(isinstance(one, Mapping) for one in raw):
        return {str(name): [one[name] for one in raw] for name in raw[0]}
    if isinstance(raw, Sequence):
        return {str(number): value for number, value in enumerate(raw)}
    raise PackageError(f"the network gives {type(raw).__name__}; it must give tensors")


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return [one for part in parts for one in part]


def padded(maps: Tensor, shape: tuple[int, int], cell: int) -> Tensor:
    """Maps (b, c, h, w) of the middle of a window of ``shape`` px as maps of all of it. What is
    added repeats the border, and lies in the halo.

    Raises:
        PackageError: they are larger than the window, or not in its middle.
    """
    missing = [side - n * cell for side, n in zip(shape, maps.shape[2:], strict=True)]
    if not any(missing):
        return maps
    if min(missing) < 0 or any(m % (2 * cell) for m in missing):
        raise PackageError(
            f"the network answers a window of {shape[0]} x {shape[1]} px with maps of "
            f"{maps.shape[2]} x {maps.shape[3]} cells of {cell} px, which do not lie in its "
            "middle; choose another window, or state out_stride"
        )
    rows, cols = (m // (2 * cell) for m in missing)
    if maps.is_floating_point():
        return functional.pad(maps, (cols, cols, rows, rows), mode="replicate")
    return functional.pad(maps, (cols, cols, rows, rows))
