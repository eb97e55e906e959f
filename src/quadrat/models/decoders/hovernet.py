"""HoVer-Net (Graham et al. 2019): nuclear pixels ``np``, horizontal and vertical distances ``hv``,
and classes ``type``.

Where two nuclei touch, the distances jump from +1 to -1, and the paper finds the jump by a Sobel
filter. It scales filtered maps by their least and greatest value in the tile, subtracts them from
the foreground, cuts at 0.4, opens the pieces and floods from them: all inside of a tile.

Here the same energy comes from filters of a fixed size and scale, so that it is the same in every
window that sees a place: the Sobel response is 1 for a full jump from +1 to -1 and 1/2 for the side
towards background. Foreground times (1 - ``edge_gain`` * response), opened as a grey-value map, is
the marker map. Seeds and watershed are then decided by the task ``instance`` on the stitched map.
Besides the scaling, it differs in this: holes of markers are not filled, a clump without a marker
is one object and not none, and an object's class is that of the greatest sum of probabilities, not
of the most pixels.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from quadrat.core.errors import ConfigError
from quadrat.models.decoders.decoder import Decoder, Outputs
from quadrat.models.decoders.maps import (
    activated,
    as_logits,
    class_logits,
    highest,
    map_of,
    softmaxed,
    weighted,
    whole,
)
from quadrat.models.foreign.head import ForeignHead, Option

OPTIONS: dict[str, Option | None] = {"sobel": 21.0, "open": 5.0, "edge_gain": 2.0}


def adapt(outputs: Outputs, head: ForeignHead) -> Tensor:
    """Logits (b, 2 + classes, h, w) of foreground, marker energy and classes."""
    nuclear = map_of(outputs, "np", decoder="hovernet", channels=(1, 2))
    distances = map_of(outputs, "hv", decoder="hovernet", channels=(2,))
    what = "decoder hovernet: output 'np'"
    if nuclear.shape[1] == 2:
        foreground = softmaxed(nuclear, head, what=what)[:, 1:]
    else:
        foreground = activated(nuclear, head, what=what)
    energy = markers(foreground, distances, head)
    classes = class_logits(outputs, head, decoder="hovernet", like=nuclear)
    return torch.cat([as_logits(foreground), as_logits(energy), classes], dim=1)


def markers(foreground: Tensor, distances: Tensor, head: ForeignHead) -> Tensor:
    """Marker energy (b, 1, h, w) in 0-1, of the foreground's probability and the distances (b, 2,
    h, w)."""
    size, opening = _odd(head, "sobel", least=3), _odd(head, "open", least=1)
    smooth, slope = sobel(size)
    distances = distances.clamp(-1, 1)
    across = weighted(weighted(distances[:, :1], slope, dim=3), smooth, dim=2)
    down = weighted(weighted(distances[:, 1:], slope, dim=2), smooth, dim=3)
    edge = (-torch.minimum(across, down) / 2).clamp(min=0)
    gain = head.number("edge_gain", float(OPTIONS["edge_gain"] or 0))
    energy = foreground * (1 - (gain * edge).clamp(max=1))
    return highest(-highest(-energy, opening // 2), opening // 2)


def sobel(size: int) -> tuple[list[float], list[float]]:
    """The two factors of a Sobel filter with ``size`` taps: binomial weights that sum to 1, and a
    slope that answers a step by 1 with 1."""
    smooth = [comb(size - 1, k) / 2 ** (size - 1) for k in range(size)]
    inner = [0, 0, *(comb(size - 3, k) for k in range(size - 2)), 0, 0]
    slope = [inner[k] - inner[k + 2] for k in range(size)]
    step = sum(value for value in slope if value > 0)
    return smooth, [value / step for value in slope]


def reach(head: ForeignHead) -> int:
    """Half a Sobel filter, and an opening."""
    cells = _odd(head, "sobel", least=3) // 2 + 2 * (_odd(head, "open", least=1) // 2)
    return cells * head.out_stride


def _odd(head: ForeignHead, name: str, *, least: int) -> int:
    value = whole(head, name, float(OPTIONS[name] or 0), least=least, decoder="hovernet")
    if value % 2 == 0:
        raise ConfigError(f"decoder hovernet: option {name} is {value}; it must be odd")
    return value


HOVERNET = Decoder(
    name="hovernet",
    task="instance",
    outputs=("np", "hv"),
    optional=("type",),
    options=OPTIONS,
    reach=reach,
    adapt=adapt,
)
