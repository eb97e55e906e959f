"""Which nuclei a slide holds: a pure function of the plan, cell by cell.

The plane is cut into layout cells of CELL_UM. A cell proposes nuclei from its own hash: on a
jittered grid, along the ring of its gland, and on the seam points. A proposal is kept if no
neighbour of lower rank is too close (Matérn's second hard-core process, 1960). So a nucleus depends
only on its own cell and the eight cells around it.

Seam points are the places (256 a, 256 b) where a or b is even, so every side and corner of a 512 px
tile inside tissue has a nucleus across it.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quadrat.core.kernel import kernel
from quadrat.phantom.field import (
    GLAND,
    GLASS,
    STROMA,
    Plan,
    gland_distance,
    gland_of_cell,
    near_dust,
    pen_distance,
    region_at,
    tissue_value,
)
from quadrat.phantom.noise import draw, hash3, smooth_noise

LYMPHOCYTE: Final = 0
EPITHELIAL: Final = 1
STROMAL: Final = 2

#: No nucleus reaches further than this from its centre, micrometres.
EXTENT_UM: Final = 10.5

_GRID: Final = 10  # proposals along a side of a cell
_SEAM: Final = 256
_PER_CELL: Final = 180
_LATER: Final = np.uint64(1 << 63)  # the top bit of a rank: set on all but the seam points' nuclei

#: One nucleus. key orders nuclei on a slide (cell row, cell column, number); x, y, a, b (semi-axes)
#: in level-0 px; bend and lobe shape the outline; tone scales the stain; rank decides who stands, z
#: who lies on top.
NUCLEUS: Final = np.dtype(
    [
        ("key", np.uint64),
        ("rank", np.uint64),
        ("z", np.uint64),
        ("x", np.float64),
        ("y", np.float64),
        ("a", np.float64),
        ("b", np.float64),
        ("cos", np.float64),
        ("sin", np.float64),
        ("bend", np.float64),
        ("lobe", np.float64),
        ("tone", np.float64),
        ("kind", np.uint8),
        ("faint", np.uint8),
    ]
)


def extent_px(plan: Plan) -> int:
    """Largest reach of a nucleus from its centre, whole px."""
    return math.ceil(EXTENT_UM * plan.um)


@kernel
def _choose_kind(region: int, in_ring: bool, u: float) -> int:
    """Nuclear class for a uniform number, by the mix of the region."""
    if in_ring:
        return EPITHELIAL if u < 0.93 else LYMPHOCYTE
    if region == STROMA:
        return STROMAL if u < 0.55 else (LYMPHOCYTE if u < 0.93 else EPITHELIAL)
    if region == GLAND:
        return LYMPHOCYTE if u < 0.58 else (STROMAL if u < 0.93 else EPITHELIAL)
    return EPITHELIAL if u < 0.66 else (LYMPHOCYTE if u < 0.88 else STROMAL)


@kernel
def _shape(plan: Plan, n: np.void, h: int, region: int, in_ring: bool) -> None:
    """Draw semi-axes, outline and tone of a nucleus of known class into its record."""
    u, v, w = draw(h, 20), draw(h, 21), draw(h, 22)
    if n["kind"] == LYMPHOCYTE:
        mean, aspect, n["tone"] = 5.45 + 0.85 * u, 1.0 + 0.2 * v, 1.0 + 0.25 * w
    elif n["kind"] == EPITHELIAL:
        mean, aspect, n["tone"] = 6.8 + 1.4 * u, 1.15 + 0.4 * v, 0.90 + 0.25 * w
        if in_ring:
            mean, aspect = 6.5 + 1.2 * u, 1.3 + 0.35 * v
        elif region != STROMA and region != GLAND:
            mean = 6.9 + 4.0 * u * (0.45 + 0.55 * draw(h, 23))
    else:
        mean, aspect, n["tone"] = 5.25 + 1.1 * u, 2.5 + 1.2 * v, 0.92 + 0.22 * w
    root = math.sqrt(aspect)
    n["a"], n["b"] = 0.5 * mean * root * plan.um, 0.5 * mean / root * plan.um
    wild = 1.6 if (region > GLAND and n["kind"] == EPITHELIAL) else 1.0
    n["lobe"] = (
        wild * 0.12 * (draw(h, 24) - 0.5) if n["kind"] != LYMPHOCYTE else 0.05 * (draw(h, 24) - 0.5)
    )
    n["bend"] = 0.5 * (draw(h, 25) - 0.5) if n["kind"] == STROMAL else 0.0
    n["faint"] = 1 if draw(h, 26) < 0.04 else 0


@kernel
def _orient(n: np.void, angle: float) -> None:
    n["cos"], n["sin"] = math.cos(angle), math.sin(angle)


@kernel
def _allowed(plan: Plan, x: float, y: float) -> bool:
    """Whether a nucleus may be centred here: in tissue with a margin, clear of pen and dust."""
    reach = EXTENT_UM * plan.um
    if tissue_value(plan, x, y) <= plan.tissue_cut + 5.0 * plan.um / plan.tissue_wave:
        return False
    return pen_distance(plan, x, y) > reach and not near_dust(plan, x, y, reach)


@kernel
def fibre_phase(plan: Plan, x: float, y: float) -> float:
    """A smooth field in micrometres; its level lines are the stroma's fibres."""
    fx, fy = x / plan.um, y / plan.um
    h = hash3(plan.seed, 0, 0, 103)
    lean = 2.0 * math.pi * draw(h, 0)
    swirl = 60.0 * smooth_noise(plan.seed, 12, fx / 130.0, fy / 130.0)
    swirl += 12.0 * smooth_noise(plan.seed, 13, fx / 31.0, fy / 31.0)
    return 0.55 * (math.cos(lean) * fx + math.sin(lean) * fy) + swirl


@kernel
def fibre_angle(plan: Plan, x: float, y: float) -> float:
    """Direction of the stroma's fibres at a place, radians."""
    step = 2.0
    dx = fibre_phase(plan, x + step, y) - fibre_phase(plan, x - step, y)
    dy = fibre_phase(plan, x, y + step) - fibre_phase(plan, x, y - step)
    return math.atan2(dx, -dy)


@kernel
def _propose_grid(plan: Plan, cx: int, cy: int, out: NDArray[np.void], count: int) -> int:
    """Nuclei on the cell's jittered grid; returns the new count."""
    step = plan.cell / _GRID
    for k in range(_GRID * _GRID):
        h = hash3(plan.seed, cx * 128 + k, cy, 104)
        x = cx * plan.cell + (k % _GRID + draw(h, 0)) * step
        y = cy * plan.cell + (k // _GRID + draw(h, 1)) * step
        region = region_at(plan, x, y)
        keep = 0.24 if region == STROMA else (0.50 if region == GLAND else 0.90)
        if region == GLASS or draw(h, 2) > keep or not _allowed(plan, x, y):
            continue
        if region == GLAND and gland_distance(plan, x, y) < 1.12:
            continue
        n = out[count]
        n["kind"] = _choose_kind(region, False, draw(h, 3))
        angle = draw(h, 4) * math.pi
        if n["kind"] == STROMAL:
            angle = fibre_angle(plan, x, y) + 0.5 * (draw(h, 4) - 0.5)
        _orient(n, angle)
        _shape(plan, n, h, region, False)
        n["x"], n["y"], n["rank"], n["z"] = x, y, h | _LATER, h
        count += 1
    return count


@kernel
def _propose_ring(plan: Plan, cx: int, cy: int, out: NDArray[np.void], count: int) -> int:
    """Nuclei along the ring of the cell's gland, radial; returns the new count."""
    gx, gy, radius = gland_of_cell(plan, cx, cy)
    if radius == 0.0:
        return count
    number = int(2.0 * math.pi * 0.74 * radius / (7.4 * plan.um))
    for k in range(number):
        h = hash3(plan.seed, cx * 64 + k, cy, 105)
        turn = (k + 0.5 * (draw(h, 0) - 0.5)) / number * 2.0 * math.pi
        goal = 0.68 + 0.16 * draw(h, 1)
        reach = goal * radius
        for _ in range(3):  # the outline is wavy: walk to the wanted gland distance
            reach += (
                goal
                - gland_distance(plan, gx + reach * math.cos(turn), gy + reach * math.sin(turn))
            ) * radius
        x, y = gx + reach * math.cos(turn), gy + reach * math.sin(turn)
        if reach < 0.4 * radius or reach > 1.2 * radius or draw(h, 2) > 0.94:
            continue
        if region_at(plan, x, y) != GLAND or not _allowed(plan, x, y):
            continue
        n = out[count]
        n["kind"] = _choose_kind(GLAND, True, draw(h, 3))
        _orient(n, turn + 0.5 * (draw(h, 4) - 0.5))
        _shape(plan, n, h, GLAND, True)
        n["x"], n["y"], n["rank"], n["z"] = x, y, h | _LATER, h
        count += 1
    return count


@kernel
def _propose_seam(plan: Plan, cx: int, cy: int, out: NDArray[np.void], count: int) -> int:
    """Nuclei on the seam points of the cell, which no other nucleus may displace; returns the new
    count."""
    for b in range(math.ceil(cy * plan.cell / _SEAM), math.ceil((cy + 1) * plan.cell / _SEAM)):
        for a in range(math.ceil(cx * plan.cell / _SEAM), math.ceil((cx + 1) * plan.cell / _SEAM)):
            if a % 2 != 0 and b % 2 != 0:
                continue
            h = hash3(plan.seed, a, b, 106)
            x, y = a * _SEAM + 3.0 * (draw(h, 0) - 0.5), b * _SEAM + 3.0 * (draw(h, 1) - 0.5)
            region = region_at(plan, x, y)
            if region == GLASS or not _allowed(plan, x, y):
                continue
            n = out[count]
            n["kind"] = _choose_kind(region, False, draw(h, 3))
            _orient(n, draw(h, 4) * math.pi)
            _shape(plan, n, h, region, False)
            n["x"], n["y"], n["rank"], n["z"] = x, y, h & ~_LATER, h | _LATER
            count += 1
    return count


@kernel
def _too_close(p: np.void, q: np.void) -> bool:
    """Whether two proposals cannot both stand. Most pairs keep apart, some may touch,
    few overlap.
    """
    u = draw(p["key"] ^ q["key"], 7)
    share = 0.66 if u < 0.06 else (0.96 if u < 0.45 else 1.06)
    for i in range(-1, 2):
        pi = i * max(0.0, p["a"] - p["b"])
        for j in range(-1, 2):
            qj = j * max(0.0, q["a"] - q["b"])
            dx = p["x"] + pi * p["cos"] - q["x"] - qj * q["cos"]
            dy = p["y"] + pi * p["sin"] - q["y"] - qj * q["sin"]
            if dx * dx + dy * dy < (share * (p["b"] + q["b"])) ** 2:
                return True
    return False


@kernel
def _propose(
    plan: Plan, cx0: int, cy0: int, nx: int, ny: int
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """All proposals of a rectangle of cells, and where each cell's begin."""
    out = np.empty(nx * ny * _PER_CELL, NUCLEUS)
    starts = np.zeros(nx * ny + 1, np.int64)
    count = 0
    for c in range(nx * ny):
        cx, cy = cx0 + c % nx, cy0 + c // nx
        first = count
        count = _propose_seam(plan, cx, cy, out, count)
        count = _propose_ring(plan, cx, cy, out, count)
        count = _propose_grid(plan, cx, cy, out, count)
        for k in range(first, count):
            out[k]["key"] = np.uint64(((cy + 1024) << 40) | ((cx + 1024) << 16) | (k - first))
        starts[c + 1] = count
    return out[:count], starts


@kernel
def nuclei_in(plan: Plan, x0: float, y0: float, x1: float, y1: float) -> NDArray[np.void]:
    """The nuclei whose centres lie in [x0, x1) x [y0, y1), as NUCLEUS records in order of key."""
    cx0, cy0 = math.floor(x0 / plan.cell) - 1, math.floor(y0 / plan.cell) - 1
    nx = math.floor(x1 / plan.cell) + 2 - cx0
    ny = math.floor(y1 / plan.cell) + 2 - cy0
    table, starts = _propose(plan, cx0, cy0, nx, ny)
    stands = np.zeros(len(table), np.bool_)
    for c in range(nx * ny):
        i, j = c % nx, c // nx
        if i == 0 or j == 0 or i == nx - 1 or j == ny - 1:
            continue
        for k in range(starts[c], starts[c + 1]):
            p = table[k]
            if not (x0 <= p["x"] < x1 and y0 <= p["y"] < y1):
                continue
            ok = True
            for row in range(j - 1, j + 2):
                for m in range(starts[row * nx + i - 1], starts[row * nx + i + 2]):
                    q = table[m]
                    if ok and m != k and q["rank"] < p["rank"] and _too_close(p, q):
                        ok = False
            stands[k] = ok
    return table[stands]
