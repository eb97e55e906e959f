"""The look of a phantom: optical densities of stains, ink and dust, and the light that passes them.

Stains follow the Beer-Lambert law, I = I0 * exp(-sum of amount x vector), with absorption vectors
in the manner of Ruifrok & Johnston 2001 (Anal. Quant. Cytol. Histol. 23:291), fitted to an Aperio
scan of skin and varied from slide to slide.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quadrat.core.kernel import kernel
from quadrat.phantom.field import (
    GLAND,
    TUMOUR,
    Plan,
    dust_of_cell,
    gland_distance,
    pen_distance,
    region_values,
    tissue_value,
)
from quadrat.phantom.noise import draw, hash3, smooth_noise, texture
from quadrat.phantom.nuclei import EPITHELIAL, LYMPHOCYTE, fibre_phase

#: Distance of the nodes on which smooth fields are computed, level-0 px.
NODE_PX: Final = 8
#: Planes of the optical-density array.
_H, _E, _PEN, _DUST = 0, 1, 2, 3
#: Channels of the node array.
_TISSUE, _GLAND, _TUMOUR, _RING, _HAZE, _THICK, _PHASE, _LIGHT, _INK, _EOSIN, _VEIL = range(11)

_HAEMATOXYLIN: Final = (0.60, 0.68, 0.42)
_EOSIN_VECTOR: Final = (0.09, 0.86, 0.50)
_INKS: Final = ((1.9, 1.3, 0.35), (1.9, 0.45, 1.2), (1.7, 1.7, 1.6))  # blue, green, black marker


class Palette(NamedTuple):
    """The colours and textures of a slide. Textures are periodic, of mean 0 and s.d. 1."""

    vectors: NDArray[np.float32]
    """(4, 3) absorption of red, green, blue by one unit of H, E, pen and dust."""
    light: NDArray[np.float32]
    """(3,) level of bare glass, 0-255."""
    strength: NDArray[np.float32]
    """(2,) factors of the amounts of H and E."""
    fine: NDArray[np.float32]
    """(512, 512) texture."""
    medium: NDArray[np.float32]
    """(480, 480) texture."""
    coarse: NDArray[np.float32]
    """(448, 448) texture."""
    fibre: NDArray[np.float32]
    """(4096,) texture along a line."""


def make_palette(seed: int) -> Palette:
    """Draw the stains, the light and the textures of one slide."""
    rng = np.random.default_rng([seed, 12])
    vectors = np.array([_HAEMATOXYLIN, _EOSIN_VECTOR, _INKS[rng.integers(3)], (0.85, 0.9, 0.95)])
    vectors[:2] += rng.normal(0, 0.018, (2, 3))
    vectors[:2] /= np.linalg.norm(vectors[:2], axis=1, keepdims=True)
    return Palette(
        vectors=np.maximum(vectors, 0.01).astype(np.float32),
        light=(242.0 + rng.uniform(-1.5, 1.5) + rng.uniform(-0.6, 0.6, 3)).astype(np.float32),
        strength=rng.uniform(0.95, 1.12, 2).astype(np.float32),
        fine=texture(rng, (512, 512), 0.8),
        medium=texture(rng, (480, 480), 2.2),
        coarse=texture(rng, (448, 448), 7.0),
        fibre=texture(rng, (4096,), 5.0),
    )


@kernel
def node_fields(plan: Plan, x0: int, y0: int, rows: int, cols: int) -> NDArray[np.float32]:
    """Smooth fields (rows, cols, channels) on nodes NODE_PX apart, the first at (x0, y0)."""
    out = np.empty((rows, cols, 11), np.float32)
    weights = np.zeros(4)
    um = plan.um
    for r in range(rows):
        for c in range(cols):
            x, y = float(x0 + c * NODE_PX), float(y0 + r * NODE_PX)
            node = out[r, c]
            node[_TISSUE] = (tissue_value(plan, x, y) - plan.tissue_cut) * 0.5 * plan.tissue_wave
            first, second = region_values(plan, x, y)
            soft = 0.03 * 250.0 * um / plan.region_wave
            rest = min(1.0, max(0.0, 0.5 + (first - plan.first_cut) / soft))
            last = min(1.0, max(0.0, 0.5 + (second - plan.second_cut) / soft))
            weights[plan.order[0]] = 1.0 - rest
            weights[plan.order[1]] = rest * (1.0 - last)
            weights[plan.order[2]] = rest * last
            node[_GLAND], node[_TUMOUR] = weights[GLAND], weights[TUMOUR]
            node[_RING] = gland_distance(plan, x, y) if weights[GLAND] > 0.0 else 9.0
            node[_HAZE] = max(
                0.0, smooth_noise(plan.seed, 20, x / (110 * um), y / (110 * um)) - 0.18
            )
            node[_THICK] = 1.0 + 0.42 * smooth_noise(plan.seed, 21, x / (170 * um), y / (170 * um))
            node[_PHASE] = fibre_phase(plan, x, y)
            wide = 900.0 * um
            node[_LIGHT] = 1.0 + 0.022 * smooth_noise(plan.seed, 22, x / wide, y / wide)
            node[_INK] = pen_distance(plan, x, y)
            node[_EOSIN] = 1.0 + 0.45 * smooth_noise(plan.seed, 23, x / (140 * um), y / (140 * um))
            node[_VEIL] = smooth_noise(plan.seed, 24, x / (26 * um), y / (26 * um))
    return out


@kernel
def _between(nodes: NDArray[np.float32], r: int, c: int, out: NDArray[np.float32]) -> None:
    """Bilinear values of all node channels at the centre of pixel (r, c); the window begins on a
    node."""
    i, j = r // NODE_PX, c // NODE_PX
    fy, fx = np.float32((r % NODE_PX + 0.5) / NODE_PX), np.float32((c % NODE_PX + 0.5) / NODE_PX)
    a, b = (np.float32(1) - fy) * (np.float32(1) - fx), (np.float32(1) - fy) * fx
    d, e = fy * (np.float32(1) - fx), fy * fx
    for k in range(out.shape[0]):
        out[k] = (
            a * nodes[i, j, k]
            + b * nodes[i, j + 1, k]
            + d * nodes[i + 1, j, k]
            + e * nodes[i + 1, j + 1, k]
        )


@kernel
def _ground(
    s: NDArray[np.float32],
    fine: float,
    medium: float,
    coarse: float,
    fibre: float,
    stain: NDArray[np.float32],
) -> None:
    """Stain amounts (H, E) of tissue between nuclei, from the smooth fields `s` and the textures at
    a pixel."""
    cleft = min(1.0, max(0.08, (fibre + 0.45 * medium + 0.9 * s[_VEIL] + 1.10) * 2.5))
    shade = 1.1 * min(1.0, max(0.0, 1.3 * coarse + 1.2 * medium - 2.3))
    veil = 0.16 * max(0.0, s[_VEIL])
    h_stroma = (
        cleft * 0.14 + 0.045 * coarse + 0.03 * fine + 0.10 * max(fibre - 0.4, 0.0) + veil + shade
    )
    e_stroma = (1.02 + 0.40 * fibre + 0.18 * medium + 0.10 * fine) * cleft
    ring = s[_RING]
    if ring < 0.36:
        h_gland, e_gland = 0.05 + 0.03 * medium, 0.05 + 0.02 * medium
    elif ring < 1.0:
        apical = max(0.0, 1.0 - (ring - 0.36) / 0.22)
        h_gland = 0.30 + 0.05 * medium + 0.05 * fine - 0.12 * apical + 0.10 * max(0.0, s[_VEIL])
        e_gland = 0.60 + 0.09 * medium + 0.06 * fine - 0.36 * apical
    else:
        near = max(0.0, 1.0 - (ring - 1.0) / 0.06)
        h_gland = 0.24 + 0.06 * coarse + 0.05 * medium + 0.05 * fine + shade
        e_gland = (0.58 + 0.09 * fibre + 0.18 * medium + 0.12 * fine) * (
            0.4 + 0.6 * cleft
        ) + 0.3 * near
    h_tumour = 0.50 + 0.14 * coarse + 0.09 * medium + 0.06 * fine + shade + veil
    e_tumour = 0.64 + 0.20 * coarse + 0.15 * medium + 0.11 * fine
    gland, tumour = s[_GLAND], s[_TUMOUR]
    stroma = 1.0 - gland - tumour
    hole = 1.0 - 0.8 * min(1.0, max(0.0, -1.3 - coarse - 0.5 * medium) * 2.0)
    stain[_H] = hole * max(
        0.0, stroma * h_stroma + gland * h_gland + tumour * h_tumour + 0.55 * s[_HAZE]
    )
    stain[_E] = hole * max(0.0, stroma * e_stroma + gland * e_gland + tumour * e_tumour) * s[_EOSIN]


@kernel
def _chromatin(n: np.void, depth: float, x: float, y: float, fine: float, medium: float) -> float:
    """Haematoxylin of a nucleus at a pixel."""
    rim = min(1.0, max(0.0, (depth - 0.62) / 0.25))
    if n["kind"] == LYMPHOCYTE:
        level = 3.3 + 0.20 * medium + 0.06 * fine
    elif n["kind"] == EPITHELIAL:
        level = 1.15 + 1.05 * rim + 0.38 * medium + 0.10 * fine
        turn = draw(n["key"], 30) * 2.0 * math.pi
        for k in range(2):
            u = n["x"] + 0.33 * n["a"] * math.cos(turn + 2.4 * k) - x
            v = n["y"] + 0.33 * n["b"] * math.sin(turn + 2.4 * k) - y
            size = 0.16 * n["b"] * (1.0 - 0.45 * k)
            level += 1.2 * math.exp(-(u * u + v * v) / (2.0 * size * size))
    else:
        level = 1.85 + 0.24 * medium + 0.08 * fine + 0.15 * rim
    level *= n["tone"] * (1.0 - 0.52 * min(1.0, max(0.0, (depth - 0.78) / 0.22)))
    if n["faint"] == 1:
        level = 0.36 * level * (1.15 - 0.5 * depth * depth) + 0.22
    return float(max(0.25, level))


@kernel
def densities(
    plan: Plan,
    look: Palette,
    nodes: NDArray[np.float32],
    table: NDArray[np.void],
    labels: NDArray[np.int32],
    depth: NDArray[np.float32],
    x0: int,
    y0: int,
) -> NDArray[np.float32]:
    """Amounts (4, h, w) of H, E, pen and dust in a window whose corner (x0, y0) is a node."""
    rows, cols = labels.shape
    out = np.zeros((4, rows, cols), np.float32)
    s = np.empty(11, np.float32)
    stain = np.zeros(2, np.float32)
    for r in range(rows):
        y = y0 + r
        for c in range(cols):
            x = x0 + c
            _between(nodes, r, c, s)
            fine, medium = look.fine[y % 512, x % 512], look.medium[y % 480, x % 480]
            coarse = look.coarse[y % 448, x % 448]
            ink = s[_INK] + 2.0 * medium
            if ink < 2.0:
                out[_PEN, r, c] = min(1.0, max(0.0, 0.5 - 0.25 * ink)) * (
                    0.95 + 0.10 * coarse + 0.05 * medium
                )
            solid = min(1.0, (s[_TISSUE] + 4.0 * coarse + 2.5 * medium) * 0.25 + 0.6)
            if labels[r, c] == 0 and solid <= 0.0:
                continue
            line = s[_PHASE] * 26.0 + 5.0 * medium + 3.0 * coarse
            fibre = look.fibre[math.floor(line) & 4095]
            _ground(s, fine, medium, coarse, fibre, stain)
            if labels[r, c] > 0:
                n = table[labels[r, c] - 1]
                level = _chromatin(n, depth[r, c], x + 0.5, y + 0.5, fine, medium)
                stain[_H] = level + 0.25 * stain[_H]
                stain[_E] = 0.30 + 0.35 * stain[_E]
                solid = 1.0
            out[_H, r, c] = stain[_H] * s[_THICK] * solid
            out[_E, r, c] = stain[_E] * (0.5 + 0.5 * s[_THICK]) * solid
    return out


@kernel
def add_debris(
    plan: Plan, amounts: NDArray[np.float32], labels: NDArray[np.int32], x0: int, y0: int
) -> None:
    """Tiny dark dots of dead cells, in small clusters, in tissue between nuclei. They are not
    objects of the truth."""
    rows, cols = labels.shape
    cell = plan.cell
    for cy in range(math.floor((y0 - 30) / cell), math.floor((y0 + rows + 30) / cell) + 1):
        for cx in range(math.floor((x0 - 30) / cell), math.floor((x0 + cols + 30) / cell) + 1):
            for k in range(4):
                h = hash3(plan.seed, cx * 64 + k, cy, 107)
                if draw(h, 0) > 0.5:
                    continue
                for m in range(1 + int(4 * draw(h, 1))):
                    x = (cx + draw(h, 2)) * cell + 9.0 * plan.um * (draw(h, 10 + 3 * m) - 0.5)
                    y = (cy + draw(h, 3)) * cell + 9.0 * plan.um * (draw(h, 11 + 3 * m) - 0.5)
                    radius = (0.45 + 0.45 * draw(h, 12 + 3 * m)) * plan.um
                    for r in range(
                        max(0, int(y - radius) - y0), min(rows, int(y + radius) + 2 - y0)
                    ):
                        for c in range(
                            max(0, int(x - radius) - x0), min(cols, int(x + radius) + 2 - x0)
                        ):
                            near = math.hypot(x0 + c + 0.5 - x, y0 + r + 0.5 - y) < radius
                            if near and labels[r, c] == 0 and amounts[_E, r, c] > 0.15:
                                amounts[_H, r, c] = max(amounts[_H, r, c], 1.7)


@kernel
def add_dust(plan: Plan, amounts: NDArray[np.float32], x0: int, y0: int) -> None:
    """Dark specks out of focus: soft ragged discs."""
    rows, cols = amounts.shape[1:]
    cell, reach = plan.dust_cell, 12.0 * plan.um
    for cy in range(math.floor((y0 - reach) / cell), math.floor((y0 + rows + reach) / cell) + 1):
        for cx in range(
            math.floor((x0 - reach) / cell), math.floor((x0 + cols + reach) / cell) + 1
        ):
            x, y, radius, density = dust_of_cell(plan, cx, cy)
            if radius == 0.0:
                continue
            wide = 1.3 * radius
            for r in range(max(0, int(y - wide) - y0), min(rows, int(y + wide) + 2 - y0)):
                for c in range(max(0, int(x - wide) - x0), min(cols, int(x + wide) + 2 - x0)):
                    dx, dy = x0 + c + 0.5 - x, y0 + r + 0.5 - y
                    ragged = 1.0 + 0.5 * smooth_noise(
                        plan.seed, 25, dx / radius + 7 * cx, dy / radius + 7 * cy
                    )
                    d = math.hypot(dx, dy) / (radius * ragged)
                    amounts[_DUST, r, c] += density * max(0.0, 1.0 - d * d)


@kernel
def expose(
    plan: Plan,
    look: Palette,
    amounts: NDArray[np.float32],
    nodes: NDArray[np.float32],
    x0: int,
    y0: int,
) -> NDArray[np.uint8]:
    """Light through the stains: (h - 2, w - 2, 3) uint8 RGB, with the lens's blur and the sensor's
    noise.

    The rim of one px of `amounts` serves the blur (binomial, s.d. 0.6 px). x0, y0: corner of
    `amounts`.
    """
    rows, cols = amounts.shape[1:]
    out = np.empty((rows - 2, cols - 2, 3), np.uint8)
    side, centre = np.float32(0.16), np.float32(0.68)
    level = np.empty(4, np.float32)
    lines = np.zeros((4, cols), np.float32)
    for r in range(1, rows - 1):
        for k in range(4):
            for c in range(cols):
                lines[k, c] = centre * amounts[k, r, c] + side * (
                    amounts[k, r - 1, c] + amounts[k, r + 1, c]
                )
        for c in range(1, cols - 1):
            for k in range(4):
                level[k] = centre * lines[k, c] + side * (lines[k, c - 1] + lines[k, c + 1])
            level[_H] *= look.strength[0]
            level[_E] *= look.strength[1]
            h = hash3(plan.seed, x0 + c, y0 + r, 108)
            light = nodes[r // NODE_PX, c // NODE_PX, _LIGHT]
            common = float(h & np.uint64(255)) + float((h >> np.uint64(8)) & np.uint64(255)) - 255.0
            for k in range(3):
                density = np.float32(0)
                for m in range(4):
                    density += level[m] * look.vectors[m, k]
                own = float((h >> np.uint64(16 + 16 * k)) & np.uint64(255)) - 127.5
                value = (
                    look.light[k] * light * math.exp(-density) + 0.009 * common + 0.014 * own + 3.0
                )
                out[r - 1, c - 1, k] = np.uint8(min(255.0, max(0.0, value)))
    return out
