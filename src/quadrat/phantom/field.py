"""Where tissue, regions, glands, pen and dust lie: pure functions of seed and place.

Coordinates are level-0 px, corner-based. `Plan` holds the numbers that are fixed for a slide.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quadrat.core.kernel import kernel
from quadrat.phantom.noise import draw, hash3, smooth_noise
from quadrat.phantom.spec import REGION_NAMES, PhantomSpec

#: Region codes, as in the region map.
GLASS: Final = 0
STROMA: Final = 1
GLAND: Final = 2
TUMOUR: Final = 3

#: Side of a layout cell (it may hold one gland), micrometres.
CELL_UM: Final = 84.0
#: Side of a square that may hold one dust speck, micrometres.
_DUST_CELL_UM: Final = 200.0
_DOMINANT_SHARE: Final = 0.60
_SAMPLES: Final = 256


class Plan(NamedTuple):
    """The numbers that are fixed for a slide. Lengths are in level-0 px. (A NamedTuple, because
    numba can compile with it.)"""

    seed: int
    """Of all random numbers."""
    width: float
    """Of the slide."""
    height: float
    """Of the slide."""
    um: float
    """A micrometre."""
    cell: float
    """Side of a layout cell."""
    dust_cell: float
    """Side of a square that may hold one dust speck."""
    dust: bool
    """Whether there is dust."""
    tissue_wave: float
    """Wavelength of the tissue field."""
    region_wave: float
    """Wavelength of the region fields."""
    centre_x: float
    """Column of the central seam corner."""
    centre_y: float
    """Row of the central seam corner."""
    bump: float
    """Radius in which the centre is kept in tissue."""
    tissue_cut: float
    """Tissue is where the tissue field is above this value."""
    first_cut: float
    """The dominant region is where the first region field is at most this value."""
    second_cut: float
    """The second region is where the second region field is at most this value."""
    order: tuple[int, int, int]
    """Region codes of the dominant, the second and the third region."""
    strokes: NDArray[np.float64]
    """Pen strokes (n, 5): x0, y0, x1, y1, half width."""


@kernel
def tissue_value(plan: Plan, x: float, y: float) -> float:
    """Tissue field at a place; tissue is where it exceeds `plan.tissue_cut`."""
    wx, wy = x / plan.tissue_wave, y / plan.tissue_wave
    value = smooth_noise(plan.seed, 1, wx, wy)
    value += 0.40 * smooth_noise(plan.seed, 2, 2.1 * wx, 2.1 * wy)
    value += 0.16 * smooth_noise(plan.seed, 3, 5.3 * wx, 5.3 * wy)
    value += 0.05 * smooth_noise(plan.seed, 4, 17.0 * wx, 17.0 * wy)
    inset = min(min(x, plan.width - x), min(y, plan.height - y))
    rim = 0.10 * min(plan.width, plan.height)
    if inset < rim:
        value -= 0.9 * (1.0 - inset / rim) ** 2
    dx, dy = (x - plan.centre_x) / plan.bump, (y - plan.centre_y) / plan.bump
    return value + 0.9 * math.exp(-dx * dx - dy * dy)


@kernel
def region_values(plan: Plan, x: float, y: float) -> tuple[float, float]:
    """Two fields that divide the tissue: (dominant or not, second or third)."""
    wx, wy = x / plan.region_wave, y / plan.region_wave
    first = smooth_noise(plan.seed, 5, wx, wy) + 0.3 * smooth_noise(
        plan.seed, 6, 2.7 * wx, 2.7 * wy
    )
    second = smooth_noise(plan.seed, 7, 0.8 * wx, 0.8 * wy)
    ripple = 0.05 * smooth_noise(plan.seed, 8, 9.0 * wx, 9.0 * wy)
    return first + ripple, second + 0.25 * smooth_noise(plan.seed, 9, 2.9 * wx, 2.9 * wy) + ripple


@kernel
def pen_distance(plan: Plan, x: float, y: float) -> float:
    """Distance to the edge of the nearest pen stroke, px; negative under ink."""
    best = 1e9
    for k in range(plan.strokes.shape[0]):
        x0, y0 = plan.strokes[k, 0], plan.strokes[k, 1]
        ax, ay = plan.strokes[k, 2] - x0, plan.strokes[k, 3] - y0
        along = ((x - x0) * ax + (y - y0) * ay) / (ax * ax + ay * ay)
        along = min(1.0, max(0.0, along))
        dx, dy = x - x0 - along * ax, y - y0 - along * ay
        best = min(best, math.sqrt(dx * dx + dy * dy) - plan.strokes[k, 4])
    return best


@kernel
def region_at(plan: Plan, x: float, y: float) -> int:
    """Region code at a place: 0 glass or pen, then stroma, gland, tumour."""
    if tissue_value(plan, x, y) <= plan.tissue_cut or pen_distance(plan, x, y) <= 0.0:
        return GLASS
    first, second = region_values(plan, x, y)
    if first <= plan.first_cut:
        return plan.order[0]
    return plan.order[1] if second <= plan.second_cut else plan.order[2]


@kernel
def gland_of_cell(plan: Plan, cx: int, cy: int) -> tuple[float, float, float]:
    """The gland that layout cell (cx, cy) may hold: (x, y, radius), radius 0 if none."""
    h = hash3(plan.seed, cx, cy, 101)
    x = (cx + 0.40 + 0.20 * draw(h, 0)) * plan.cell
    y = (cy + 0.40 + 0.20 * draw(h, 1)) * plan.cell
    radius = plan.cell * (0.38 + 0.10 * draw(h, 2))
    if draw(h, 3) < 0.03 or region_at(plan, x, y) != GLAND:
        radius = 0.0
    return x, y, radius


@kernel
def gland_distance(plan: Plan, x: float, y: float) -> float:
    """Distance to the nearest gland centre in units of its radius; 9 if there is none near."""
    cx, cy = math.floor(x / plan.cell), math.floor(y / plan.cell)
    best = 9.0
    for j in range(cy - 1, cy + 2):
        for i in range(cx - 1, cx + 2):
            gx, gy, radius = gland_of_cell(plan, i, j)
            if radius > 0.0:
                dx, dy = x - gx, y - gy
                best = min(best, math.sqrt(dx * dx + dy * dy) / radius)
    wave = 0.35 * plan.cell
    return best + 0.22 * smooth_noise(plan.seed, 10, x / wave, y / wave)


@kernel
def dust_of_cell(plan: Plan, cx: int, cy: int) -> tuple[float, float, float, float]:
    """The dust speck of dust cell (cx, cy): (x, y, radius, optical density), radius 0 if none."""
    h = hash3(plan.seed, cx, cy, 102)
    if not plan.dust or draw(h, 0) > 0.16:
        return 0.0, 0.0, 0.0, 0.0
    x = (cx + draw(h, 1)) * plan.dust_cell
    y = (cy + draw(h, 2)) * plan.dust_cell
    reach = 60.0 * plan.um  # the central seam corner stays clean
    if (x - plan.centre_x) ** 2 + (y - plan.centre_y) ** 2 < reach * reach:
        return 0.0, 0.0, 0.0, 0.0
    return x, y, (1.5 + 5.0 * draw(h, 3) ** 2) * plan.um, 0.7 + 0.9 * draw(h, 4)


@kernel
def near_dust(plan: Plan, x: float, y: float, reach: float) -> bool:
    """Whether a dust speck comes within `reach` px of a place."""
    if not plan.dust:
        return False
    cx, cy = math.floor(x / plan.dust_cell), math.floor(y / plan.dust_cell)
    for j in range(cy - 1, cy + 2):
        for i in range(cx - 1, cx + 2):
            dx, dy, radius, _ = dust_of_cell(plan, i, j)
            if radius > 0.0 and (dx - x) ** 2 + (dy - y) ** 2 < (radius * 1.3 + reach) ** 2:
                return True
    return False


@kernel
def region_map(plan: Plan, reduction: int, rows: int, cols: int) -> NDArray[np.uint8]:
    """Region codes (rows, cols) uint8, sampled at the centres of reduction x reduction cells."""
    out = np.zeros((rows, cols), np.uint8)
    for r in range(rows):
        for c in range(cols):
            out[r, c] = region_at(plan, (c + 0.5) * reduction, (r + 0.5) * reduction)
    return out


@kernel
def _sample_fields(plan: Plan, count: int) -> NDArray[np.float64]:
    out = np.empty((3, count, count))
    for r in range(count):
        for c in range(count):
            x, y = (c + 0.5) / count * plan.width, (r + 0.5) / count * plan.height
            out[0, r, c] = tissue_value(plan, x, y)
            out[1, r, c], out[2, r, c] = region_values(plan, x, y)
    return out


def make_plan(spec: PhantomSpec) -> Plan:
    """The numbers of one slide: wavelengths, cuts that give the wanted shares, pen strokes."""
    um = 1.0 / spec.mpp
    short = float(min(spec.width, spec.height))
    code = {name: k + 1 for k, name in enumerate(REGION_NAMES)}
    others = [code[n] for n in REGION_NAMES if n != spec.dominant]
    draft = Plan(
        seed=spec.seed,
        width=float(spec.width),
        height=float(spec.height),
        um=um,
        cell=CELL_UM * um,
        dust_cell=_DUST_CELL_UM * um,
        dust=spec.dust,
        tissue_wave=min(0.55 * short, 3_000 * um),
        region_wave=min(max(0.36 * short, 330 * um), 1_100 * um),
        centre_x=_central_seam(spec.width),
        centre_y=_central_seam(spec.height),
        bump=max(0.10 * short, 120 * um),
        tissue_cut=0.0,
        first_cut=0.0,
        second_cut=0.0,
        order=(code[spec.dominant], others[0], others[1]),
        strokes=np.zeros((0, 5)),
    )
    tissue, first, second = _sample_fields(draft, _SAMPLES)
    tissue_cut = float(np.quantile(tissue, 1.0 - spec.tissue_fraction))
    inside = tissue > tissue_cut
    first_cut = float(np.quantile(first[inside], _DOMINANT_SHARE))
    second_cut = float(np.median(second[inside & (first > first_cut)]))
    plan = draft._replace(tissue_cut=tissue_cut, first_cut=first_cut, second_cut=second_cut)
    return plan._replace(strokes=_pen_strokes(plan, inside)) if spec.pen else plan


def _central_seam(side: int) -> float:
    """The multiple of 512 px nearest to the middle of a side: kept in tissue, for a corner seam."""
    return 512.0 * round(side / 1024.0)


def _pen_strokes(plan: Plan, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Two or three wavy strokes that cross the tissue's edge, away from the central seam corner."""
    rng = np.random.default_rng([plan.seed, 11])
    edge = np.argwhere(inside[1:-1, 1:-1] & ~inside[2:, 1:-1]) + 1.0
    place = (edge[:, ::-1] + 0.5) / len(inside) * (plan.width, plan.height)
    short = min(plan.width, plan.height)
    length = 0.16 * short
    far = np.hypot(place[:, 0] - plan.centre_x, place[:, 1] - plan.centre_y) > 1.8 * length
    place = place[far]
    if len(place) == 0:
        return np.zeros((0, 5))
    half_width = min(max(0.006 * short, 6 * plan.um), 200 * plan.um)
    parts: list[list[float]] = []
    for _ in range(int(rng.integers(2, 4))):
        x, y = place[rng.integers(len(place))]
        angle = float(rng.uniform(0, math.pi))
        x, y = x - 0.5 * length * math.cos(angle), y - 0.5 * length * math.sin(angle)
        for _step in range(6):
            angle += float(rng.normal(0, 0.22))
            x1 = x + length / 6 * math.cos(angle)
            y1 = y + length / 6 * math.sin(angle)
            parts.append([x, y, x1, y1, half_width * float(rng.uniform(0.9, 1.1))])
            x, y = x1, y1
    return np.array(parts)
