"""Pictures with a known tissue mask for `benchmarks/tissue.py`: phantoms and pieces of real tissue
on glass, then spoilt.

A base is an overview of 8 um a pixel on even, near-white glass. A condition changes it the way
slides and scanners do. All changes of light and stain are made on optical densities (Beer-Lambert),
so what is tissue stays known. Bases and random numbers of the two splits have nothing in common:
"tune" is what the method was adjusted on, "judge" is not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from quadrat.phantom import REGION_NAMES, PhantomSpec, write_phantom
from quadrat.slides.opening import open_slide
from quadrat.slides.source import source_of

MPP = 8.0
SIDE = 256  # px of an overview: 2 mm
PHANTOM_PX = 4096
STAINS = np.array(
    [(0.60, 0.68, 0.42), (0.09, 0.86, 0.50)]
)  # haematoxylin, eosin, near those of the phantoms
COUNTERSTAIN = np.array((0.65, 0.70, 0.29))  # Ruifrok and Johnston 2001
DAB = np.array((0.27, 0.57, 0.78))
INKS = {
    "blue": (1.9, 1.3, 0.35),
    "green": (1.9, 0.45, 1.2),
    "black": (1.7, 1.7, 1.6),
    "red": (0.2, 1.9, 1.6),
}
GLASS = np.array((243.0, 242.0, 244.0))
# a real picture with more than this share of near-white px does not count as full of tissue
FULL_TILE = 0.10

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Light = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """An overview uint8 (h, w, 3) of MPP um/px, its true tissue bool (h, w), where it is from and
    what was done to it."""

    source: str
    condition: str
    rgb: Rgb
    truth: Mask


def cases(split: str, *, quick: bool) -> list[Case]:
    """Every base of a split under every condition; ``split`` is "tune" or "judge"."""
    bases = [*_phantoms(split, count=2 if quick else 4), *_mosaics(split, count=1 if quick else 3)]
    out = []
    for number, (source, rgb, truth) in enumerate(bases):
        rng = np.random.default_rng([number, 1 if split == "tune" else 2])
        for condition, change in CONDITIONS.items():
            light, tissue = change(rgb / 255.0, truth.copy(), rng)
            noise = rng.normal(0, 0.8, rgb.shape)
            out.append(
                Case(
                    source, condition, np.clip(light * 255 + noise, 0, 255).astype(np.uint8), tissue
                )
            )
    return out


def _phantoms(split: str, *, count: int) -> list[tuple[str, Rgb, Mask]]:
    first = {"tune": 500, "judge": 900}[split]
    out = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + count):
            spec = PhantomSpec(
                name=f"p{seed}",
                width=PHANTOM_PX,
                height=PHANTOM_PX,
                seed=seed,
                pen=False,
                dominant=REGION_NAMES[seed % 3],
                tissue_fraction=(0.15, 0.35, 0.55, 0.75)[seed % 4],
            )
            files = write_phantom(Path(folder), spec=spec)
            with open_slide(files.slide) as slide:
                source = source_of(slide, mpp=MPP)
                rgb = source.read(source.frame.box)
            fine = tifffile.imread(files.regions) > 0
            truth = fine.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)) >= 0.5
            out.append(("phantom", rgb, truth))
    return out


def _mosaics(split: str, *, count: int) -> list[tuple[str, Rgb, Mask]]:
    """Blobs cut from mosaics of real pictures that are full of tissue, laid on glass; none where
    QUADRAT_DATA is unset or does not hold the set."""
    root = os.environ.get("QUADRAT_DATA")
    if root is None:
        return []
    out = []
    for name, step, files in (
        ("BRCA-M2C", 16, sorted((Path(root) / "detection/brca_m2c/images").glob("*.png"))),
        (
            "EBHI",
            8,
            sorted((Path(root) / "classification_segmentation/ebhi_seg").glob("*/image/*.png")),
        ),
    ):
        if not files:
            continue
        own = files[0::2] if split == "tune" else files[1::2]
        tiles = [tile for tile in (_small(path, step) for path in own) if tile is not None]
        for k in range(count):
            rng = np.random.default_rng([k, step, 1 if split == "tune" else 2])
            truth = _blobs(rng)
            picture = _mosaic(tiles, rng)
            soft = ndimage.gaussian_filter(truth.astype(float), 0.5)[..., None]
            out.append((name, (picture * soft + GLASS * (1 - soft)).astype(np.uint8), truth))
    return out


def _small(path: Path, step: int) -> NDArray[np.float64] | None:
    """A picture at about MPP, or None if it shows more than FULL_TILE of glass."""
    rgb = np.asarray(Image.open(path).convert("RGB"), np.float64)
    if (rgb.min(axis=2) > 215).mean() > FULL_TILE:
        return None
    h, w = rgb.shape[0] // step, rgb.shape[1] // step
    return np.asarray(rgb[: h * step, : w * step].reshape(h, step, w, step, 3).mean(axis=(1, 3)))


def _mosaic(tiles: list[NDArray[np.float64]], rng: np.random.Generator) -> NDArray[np.float64]:
    side = min(min(tile.shape[:2]) for tile in tiles)
    many = -(-SIDE // side)
    rows = [
        np.hstack([tiles[k][:side, :side] for k in rng.integers(len(tiles), size=many)])
        for _ in range(many)
    ]
    return np.vstack(rows)[:SIDE, :SIDE]


def _noise(rng: np.random.Generator, sigma: float) -> NDArray[np.float64]:
    """A smooth random field of mean 0 and s.d. 1."""
    field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / field.std())


def _blobs(rng: np.random.Generator) -> Mask:
    rows, cols = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    field = _noise(rng, 18) + 0.25 * _noise(rng, 4) - 14 * (np.maximum(abs(rows), abs(cols)) > 0.44)
    return np.asarray(ndimage.binary_opening(field > rng.uniform(0.0, 0.9), iterations=2))


def _plain(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
    return light, tissue


def _stained(factor: float) -> Callable[[Light, Mask, np.random.Generator], tuple[Light, Mask]]:
    def change(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
        glass = GLASS / 255
        return glass * (np.maximum(light, 1 / 255) / glass) ** factor, tissue

    return change


def _ihc(strength: float) -> Callable[[Light, Mask, np.random.Generator], tuple[Light, Mask]]:
    """Haematoxylin stays as a counterstain, eosin fades to a haze, and DAB comes in patches."""

    def change(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
        density = -np.log(np.maximum(light, 1 / 255) / (GLASS / 255))
        amount = np.maximum(density @ np.linalg.pinv(STAINS), 0)
        brown = np.clip(_noise(rng, 7) - 0.2, 0, 1.5)
        blue = 0.55 * amount[..., 0] + 0.12 * amount[..., 1]
        dab = brown * (amount[..., 0] + 0.3 * amount[..., 1])
        mixed = strength * (blue[..., None] * COUNTERSTAIN + dab[..., None] * DAB)
        return GLASS / 255 * np.exp(-mixed), tissue

    return change


def _uneven(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
    """Light that falls off across the slide and towards its corners, by up to a third."""
    rows, cols = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.12, 0.22) * (np.cos(angle) * rows + np.sin(angle) * cols + 0.7)
    return light * (1 - slope - rng.uniform(0.05, 0.25) * (rows**2 + cols**2))[..., None], tissue


def _tinted(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
    tints = ((1.0, 0.975, 0.90), (0.93, 0.96, 1.0), (0.84, 0.84, 0.84), (0.90, 0.885, 0.85))
    return light * np.array(tints[rng.integers(len(tints))]), tissue


def _pen(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
    """Two strokes of two inks (each of its own strength and tint), partly across tissue."""
    for name in rng.choice(sorted(INKS), 2, replace=False):
        ink = np.maximum(
            np.array(INKS[name]) * rng.uniform(0.75, 1.15) + rng.normal(0, 0.08, 3), 0.05
        )
        stroke = _stroke(rng, rng.uniform(5, 14))
        soft = ndimage.gaussian_filter(stroke.astype(float), 0.8) * (1 + 0.1 * _noise(rng, 3))
        light = light * np.exp(-np.maximum(soft, 0)[..., None] * ink)
        tissue &= ~stroke
    return light, tissue


def _stroke(rng: np.random.Generator, half_width: float) -> Mask:
    centre, angle, path = (
        rng.uniform(50, SIDE - 50, 2),
        rng.uniform(0, 2 * np.pi),
        np.ones((SIDE, SIDE), bool),
    )
    for _ in range(int(rng.integers(60, 140))):
        angle += rng.normal(0, 0.12)
        centre = np.clip(np.add(centre, (np.cos(angle), np.sin(angle))), 0, SIDE - 1)
        path[int(centre[0]), int(centre[1])] = False
    return np.asarray(ndimage.distance_transform_edt(path) <= half_width)


def _border(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
    """A black frame on two sides, the edge of a coverslip, and its grey shadow."""
    frame = np.zeros((SIDE, SIDE), bool)
    frame[: int(rng.integers(4, 24))] = True
    frame[:, -int(rng.integers(4, 24)) :] = True
    rows, cols = np.mgrid[:SIDE, :SIDE]
    edge = rng.uniform(0.55, 0.9) * SIDE + rng.uniform(-0.1, 0.1) * cols - rows
    line = 0.5 * np.exp(-((edge / 1.2) ** 2)) + np.where(edge < 0, rng.uniform(0.05, 0.15), 0)
    light = light * np.exp(-line[..., None] * rng.uniform(0.95, 1.05, 3))
    return np.where(frame[..., None], rng.uniform(0, 0.08), light), tissue & ~frame


def _dirt(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
    """Grey and brownish specks of up to 60 um, hairs, and the ring of an air bubble."""
    density = np.zeros((SIDE, SIDE))
    rows, cols = np.mgrid[:SIDE, :SIDE]
    for _ in range(35):
        row, col, radius = *rng.uniform(0, SIDE, 2), rng.uniform(0.6, 1 + 6.5 * rng.random() ** 3)
        density += rng.uniform(0.3, 1.2) * (np.hypot(rows - row, cols - col) < radius)
    for _ in range(3):
        density += rng.uniform(0.3, 0.9) * _stroke(rng, 0.8)
    ring = abs(
        np.hypot(rows - rng.uniform(0, SIDE), cols - rng.uniform(0, SIDE)) - rng.uniform(20, 60)
    )
    density += 0.35 * np.exp(-((ring / 1.5) ** 2))
    tint = np.array((0.92, 1.0, 1.06)) * rng.uniform(0.97, 1.03, 3)
    return light * np.exp(-ndimage.gaussian_filter(density, 0.6)[..., None] * tint), tissue


def _empty(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
    """No tissue at all, but everything that is mistaken for it."""
    glass = np.broadcast_to(GLASS / 255, light.shape)
    return _border(*_pen(*_dirt(*_uneven(glass, np.zeros_like(tissue), rng), rng), rng), rng)


def _everything(light: Light, tissue: Mask, rng: np.random.Generator) -> tuple[Light, Mask]:
    """Pale stain on tinted glass under uneven light, with dirt, pen and frame."""
    light, tissue = _tinted(*_uneven(*_stained(0.5)(light, tissue, rng), rng), rng)
    return _border(*_pen(*_dirt(light, tissue, rng), rng), rng)


CONDITIONS: dict[str, Callable[[Light, Mask, np.random.Generator], tuple[Light, Mask]]] = {
    "H&E": _plain,
    "pale 1/3": _stained(1 / 3),
    "pale 1/6": _stained(1 / 6),
    "IHC": _ihc(1.0),
    "IHC weak": _ihc(0.4),
    "uneven light": _uneven,
    "tinted glass": _tinted,
    "pen": _pen,
    "frame, shadow": _border,
    "dirt": _dirt,
    "no tissue": _empty,
    "all at once": _everything,
}
UNSEEN = ("tinted glass", "all at once")
"""Conditions that were never looked at while the method was adjusted."""
