"""Measuring a foreign network: cells of its maps, stride, receptive radius, and whether two windows
agree where both see enough.

As :mod:`quadrat.models.probe` does for quadrat's own networks, a NaN and an impulse at one pixel
show what it can reach. But a file may take one window size only, compute in float32 only, and say
nothing of its strides. So it is measured inside its window where need be, in float64 where it can,
and else with an allowance for rounding that is measured too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from quadrat.core.errors import PackageError
from quadrat.models.foreign.files import Loaded
from quadrat.models.foreign.network import ForeignNetwork, is_map
from quadrat.models.probe import one_thread

FIRST, LARGEST = 256, 1024
"""Sides in px of the windows in which a network is measured, if it takes any."""
FIRST_STEP = 16
"""A window that is a multiple of it in px may be measured in one of FIRST."""
MORE = 64
"""px by which a window is made larger to see how the maps grow."""
SHIFTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64, 128)
"""Strides in px that are looked for."""
EQUAL = 1e-9
"""Share of a map's range by which equal answers may differ in float64, since kernels sum in other
orders."""
ROUNDINGS = 16
"""By how many times the effect of one rounding of the input equal answers may differ."""
AGREE = 1e-3
"""Share of a map's range by which two windows may differ and agree; what is stored has steps of
1/255."""
ALIKE = 1e-2
"""Share of a map's range by which float64 may differ from float32; more is another network."""
IMPULSE = 25.0
"""Height of the impulse over pixels in 0-1."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured, in input px."""

    any_size: bool
    """Whether windows of other sizes can be given."""
    out_stride: int
    """Input px per cell of the maps; 0: it has none."""
    stride: int | None = None
    """The least shift that only shifts the maps; None: none does."""
    structural: int | None = None
    """Radius to each side by NaN; None: unbounded, or the file swallows NaN."""
    impulse: int | None = None
    """Radius to each side by an impulse; None: unbounded."""

    @property
    def radius(self) -> int | None:
        """The larger of the two; None: unbounded."""
        return None if self.impulse is None else max(self.structural or 0, self.impulse)


def measure(
    network: ForeignNetwork, *, side: int | None, out_stride: int | None, dilation: int = 1
) -> Measured:
    """Measure a network. ``side``: of the window that it is meant for, if that is known;
    ``dilation``: the widest of its convolutions.

    Raises:
        PackageError: it cannot answer a window.
    """
    fixed = network.fixed.height
    side = fixed or side
    cells = _cells(network, side or FIRST, stated=side is not None)
    if not cells:
        return Measured(
            any_size=fixed is None and _takes_more(network, side or FIRST), out_stride=0
        )
    larger = None if fixed else _cells_or_none(network, (side or FIRST) + MORE)
    any_size = larger is not None and larger != cells
    cell = out_stride or _cell_px(
        side or FIRST, cells[0], larger[0] if any_size and larger else None
    )
    found = Measured(any_size=any_size, out_stride=cell)
    with one_thread():
        probed = _precise(_with_cell(network, cell), side or FIRST)
        for length in _lengths(side or FIRST, any_size=any_size):
            one = find_radii(probed, length, stride=cell, gap=dilation, phases=1)
            if one is None:
                continue
            stride = find_stride(probed, length)
            if stride is None and max(one[0] or 0, one[1]) < length // 8:
                return found  # there was room enough to see one
            if stride is None:
                continue
            found = replace(found, stride=stride)
            radii = find_radii(probed, length, stride=stride, gap=stride * dilation)
            if radii is not None:
                return replace(found, structural=radii[0], impulse=radii[1])
    return found


def find_stride(network: ForeignNetwork, side: int) -> int | None:
    """The least shift on both axes that only shifts the middle of the maps of a window of ``side``
    px; None where none does, or the answer is the same everywhere."""
    cell = network.out_stride
    image = picture(side, side)
    base = answer(network, image)
    tolerance = _tolerance(network, image, base)
    middle = side // cell // 2
    if not bool((_range(base) > 0).any()):
        return None
    for shift in SHIFTS:
        if shift % cell or shift > side // 4:
            continue
        half, step = max(shift, side // 16) // cell, shift // cell
        low, high = middle - half, middle + half
        moved = answer(network, torch.roll(image, (shift, shift), dims=(2, 3)))
        want = base[:, low:high, low:high]
        found = moved[:, low + step : high + step, low + step : high + step]
        if found.shape == want.shape and _same(found, want, tolerance):
            return shift
    return None


def find_radii(
    network: ForeignNetwork, side: int, *, stride: int, gap: int, phases: int = 0
) -> tuple[int | None, int] | None:
    """Radii (by NaN, by an impulse) in a window of ``side`` px, at every phase of the stride (or
    the first ``phases``). The first is None where no NaN arrives. None: a pixel reaches to within
    ``gap`` px of the border."""
    image = picture(side, side)
    base = answer(network, image)
    middle = side // 2 // stride * stride
    structural, impulse = -1, 0
    for phase in range(phases or stride):
        at = middle + phase
        for mark in (math.nan, IMPULSE):
            touched = image.clone()
            touched[0, :, at, at] += mark
            out = answer(network, touched)
            reached = torch.isnan(out) if math.isnan(mark) else out != base
            found = _reached(reached.any(dim=0), at, cell=network.out_stride, side=side, gap=gap)
            if found is None:
                return None
            if math.isnan(mark):
                structural = max(structural, found)
            else:
                impulse = max(impulse, found)
    return (None if structural < 0 else structural), max(impulse, 0)


def _reached(reached: Tensor, at: int, *, cell: int, side: int, gap: int) -> int | None:
    """The radius from pixel (at, at) to cells (h, w) that are True; -1: none is."""
    radius = -1
    for axis in (0, 1):
        cells = torch.nonzero(reached.any(dim=1 - axis)).flatten()
        if not len(cells):
            continue
        first, last = int(cells[0]) * cell, (int(cells[-1]) + 1) * cell - 1
        if first < gap or side - 1 - last < gap:
            return None
        radius = max(radius, at - first, last - at)
    return radius


def windows_disagree(network: ForeignNetwork, *, side: int, halo: int, shift: int) -> float:
    """The largest difference, as a share of a map's range, between two windows ``shift`` px apart
    where both see ``halo`` px or more around a place. Beyond that they see different pictures, one
    of them very dark and one very bright."""
    both = picture(side + shift, side + shift)
    both[:, :, :shift] *= 0.1
    both[:, :, side:] = 1 - both[:, :, side:] * 0.1
    one = answer(network, both[:, :, :side, :side])
    other = answer(network, both[:, :, shift:, shift:])
    cell = network.out_stride
    low, high = (shift + halo) // cell, (side - halo) // cell
    if low >= high:
        return 0.0
    step = shift // cell
    gap = one[:, low:high, low:high] - other[:, low - step : high - step, low - step : high - step]
    return float((gap.abs() / _range(one).clamp(min=1e-12)[:, None, None]).max())


def answer(network: ForeignNetwork, image: Tensor) -> Tensor:
    """All maps (c, h, w) that a decoder reads, of one image (1, 3, h, w), in float64."""
    image = image if isinstance(network, _Doubled) else image.float()
    with torch.inference_mode():
        found = network.outputs(image)
    return torch.cat([one[0].to(torch.float64) for one in found.values() if is_map(one)])


def picture(rows: int, cols: int) -> Tensor:
    """A test image (1, 3, rows, cols) in 0-1: blobs of several sizes and noise."""
    chance = torch.Generator().manual_seed(0)
    image = 0.3 * torch.rand(1, 3, rows, cols, generator=chance, dtype=torch.float64)
    for size in (6, 24):
        blobs = torch.rand(1, 3, rows // size + 2, cols // size + 2, generator=chance).double()
        image += 0.35 * functional.interpolate(blobs, size=(rows, cols), mode="bilinear")
    return image


class _Doubled(ForeignNetwork):
    """One that computes in float64."""


def _precise(network: ForeignNetwork, side: int) -> ForeignNetwork:
    """The same network in float64 if it can be had, and answers the same."""
    try:
        loaded = None if network.input.dtype == "uint8" else network.loaded.doubled()
        if loaded is None:
            return network
        other = _like(_Doubled, network, loaded)
        image = picture(side, side)
        one, two = answer(network, image), answer(other, image)
    except Exception:  # a file may raise whatever it likes; then it has one precision
        return network
    limit = ALIKE * _range(one)[:, None, None]
    return other if one.shape == two.shape and bool(((one - two).abs() <= limit).all()) else network


def _like(kind: type[ForeignNetwork], network: ForeignNetwork, loaded: Loaded) -> ForeignNetwork:
    return kind(loaded, network.decoder, network.head, input=network.input, outputs=network.places)


def _range(maps: Tensor) -> Tensor:
    """(c,) from the least to the greatest value of each map."""
    flat = maps.flatten(1)
    return flat.amax(dim=1) - flat.amin(dim=1)


def _tolerance(network: ForeignNetwork, image: Tensor, base: Tensor) -> Tensor:
    """(c,) by how much equal values of each map may differ."""
    least = _range(base) * EQUAL
    if isinstance(network, _Doubled):
        return least
    nudged = answer(network, image.float() * (1 + torch.finfo(torch.float32).eps))
    return least + ROUNDINGS * (nudged - base).abs().flatten(1).amax(dim=1)


def _same(one: Tensor, other: Tensor, tolerance: Tensor) -> bool:
    return bool(((one - other).abs() <= tolerance[:, None, None]).all())


def _with_cell(network: ForeignNetwork, cell: int) -> ForeignNetwork:
    other = _like(ForeignNetwork, network, network.loaded)
    other.head, other.out_stride = replace(network.head, out_stride=cell), cell
    return other


def _lengths(side: int, *, any_size: bool) -> Iterator[int]:
    """Sides of the windows to try, the cheap ones first."""
    side = min(side, FIRST) if any_size and side % FIRST_STEP == 0 else side
    yield side
    while any_size and side < LARGEST:
        side *= 2
        yield min(side, LARGEST)


def _cell_px(side: int, cells: int, larger: int | None) -> int:
    """Input px per cell, from the cells of one window, and of one MORE px larger."""
    if larger is not None and larger > cells and MORE % (larger - cells) == 0:
        return MORE // (larger - cells)
    return side // cells if side % cells == 0 else 1


def _takes_more(network: ForeignNetwork, side: int) -> bool:
    try:
        _cells(network, side + MORE, stated=True)
    except PackageError:
        return False
    return True


def _cells_or_none(network: ForeignNetwork, side: int) -> tuple[int, ...] | None:
    try:
        return _cells(network, side, stated=True) or None
    except PackageError:
        return None


def _cells(network: ForeignNetwork, side: int, *, stated: bool) -> tuple[int, ...]:
    """Rows and columns of the maps of a window; empty where there are no maps.

    Raises:
        PackageError: the network cannot answer it, or its maps are of several sizes.
    """
    image = picture(side, side).float().expand(network.fixed.batch or 1, -1, -1, -1)
    try:
        with torch.inference_mode():
            found = network.given(image)
    except PackageError:
        raise
    except Exception as error:  # a file may raise whatever it likes
        said = str(error).strip().partition("\n")[0][:200]
        remedy = "see input in the card" if stated else "state the card's window"
        raise PackageError(
            f"the network cannot answer a window of {side} x {side} px "
            f"({type(error).__name__}: {said}); {remedy}"
        ) from error
    shapes = {tuple(value.shape[2:]) for value in found.values() if is_map(value)}
    if len(shapes) > 1:
        sizes = ", ".join(f"{name} {tuple(v.shape)}" for name, v in found.items() if is_map(v))
        raise PackageError(f"the network's maps are of several sizes ({sizes}); they must be alike")
    return next(iter(shapes), ())
