"""How large core and halo of an imported network are: pure arithmetic on what was measured."""

from __future__ import annotations

import math

from quadrat.config.import_card import MEASURE, ImportCard
from quadrat.core.errors import ConfigError
from quadrat.core.lattice import Lattice
from quadrat.models.foreign.measure import Measured

RATIO = 1.5
"""Most that the window's area is to be over the core's, where both can be chosen."""
LEAST_CORE, LARGEST_WINDOW = 256, 1536
"""px, where they can be chosen."""
SHARD = 2048
"""About the side of a shard in px."""


def step_of(measured: Measured) -> int:
    """px of which core and halo are multiples: of stride and cells."""
    return math.lcm(measured.stride or 1, max(1, measured.out_stride))


def lattice_of(
    card: ImportCard, measured: Measured, *, fixed: int | None, reach: int | None
) -> Lattice:
    """The lattice of a network. ``fixed``: the side that its file fixes; ``reach``: the radius in
    px that the halo has to cover, None if none can.

    Raises:
        ConfigError: the card asks for a window or a core that the network cannot have.
    """
    window = fixed if fixed is not None else None if card.window == MEASURE else card.window
    if fixed is not None and card.window not in (MEASURE, fixed):
        raise ConfigError(f"window is {card.window}, but the file takes {fixed} px only")
    step = step_of(measured)
    if reach is None or (window is not None and window % step):
        step = max(1, measured.out_stride)
        reach = None
    halo = None if reach is None else step * math.ceil(reach / step)
    if card.core != MEASURE:
        return _with_core(card.core, window, halo, step)
    if measured.out_stride == 0 and card.decoder == "classes":
        if window is None:
            raise ConfigError(
                "window is not stated, and the file takes any; state the side of the tiles that "
                "the network was trained on"
            )
        return _lattice(window, 0, 1)
    if window is None and halo is not None:
        return _chosen(halo, step)
    window = window or 2 * LEAST_CORE
    if halo is None or 2 * halo >= window:
        halo = step * max(1, window // 8 // step)
    return _lattice(window - 2 * halo, halo, step)


def _chosen(halo: int, step: int) -> Lattice:
    """The smallest core whose window is not too much larger."""
    wanted = max(LEAST_CORE, math.ceil(2 * halo / (math.sqrt(RATIO) - 1)))
    most = LARGEST_WINDOW - 2 * halo
    core = step * math.ceil(wanted / step)
    if core > most:
        core = max(step, most // step * step)
    return _lattice(core, halo, step)


def _with_core(core: int, window: int | None, halo: int | None, step: int) -> Lattice:
    if window is not None:
        halo = (window - core) // 2
    elif halo is None:
        halo = step * max(1, core // 8 // step)
    if core % step or halo % step:
        raise ConfigError(
            f"core is {core} and its border {halo}; both must be multiples of the network's stride "
            f"{step}, or core must be left out"
        )
    return _lattice(core, halo, step)


def _lattice(core: int, halo: int, step: int) -> Lattice:
    return Lattice(core=core, halo=halo, stride=step, shard=core * max(1, round(SHARD / core)))
