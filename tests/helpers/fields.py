"""Fields of objects whose truth is known to the pixel, and the maps that a faultless network would
give for them.

A field is a label image, int32 (height, width), 0 = background; every label 1..k is one 4-connected
component.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from quadrat.tasks.instance import inner_distance

Labels = npt.NDArray[np.int32]
Shape = tuple[int, int]


def empty(shape: Shape) -> Labels:
    """Nothing at all."""
    return np.zeros(shape, np.int32)


def full(shape: Shape) -> Labels:
    """One object that covers everything."""
    return np.ones(shape, np.int32)


def one_pixel(shape: Shape, *, at: Shape | None = None) -> Labels:
    """One object of one pixel, in the middle unless told otherwise."""
    labels = empty(shape)
    labels[at if at is not None else (shape[0] // 2, shape[1] // 2)] = 1
    return labels


def checkerboard(shape: Shape, *, side: int = 1) -> Labels:
    """Squares that meet at their corners only, each an object: the worst case for connectivity."""
    row, col = np.indices(shape)
    return connected((((row // side) + (col // side)) % 2 == 0).astype(np.int32))


def ellipse(
    shape: Shape, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Pixels whose centre lies in an ellipse; it may reach outside. Centre in corner-based px."""
    row, col = np.indices(shape)
    y, x = row + 0.5 - centre[0], col + 0.5 - centre[1]
    along, across = np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y
    return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1


def ellipses(
    rng: np.random.Generator, shape: Shape, *, n: int, radius: tuple[float, float] = (3, 9)
) -> Labels:
    """Up to ``n`` ellipses anywhere, touching and covering each other, cut by the
    slide's border.
    """
    labels = empty(shape)
    for i in range(n):
        centre = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        labels[ellipse(shape, centre, tuple(rng.uniform(*radius, 2)), rng.uniform(0, np.pi))] = (
            i + 1
        )
    return connected(labels)


def disjoint_ellipses(
    rng: np.random.Generator, shape: Shape, *, n: int, radius: tuple[float, float] = (3, 9)
) -> Labels:
    """Up to ``n`` ellipses of which no two touch, not even at a corner: as many
    objects as labels.
    """
    labels = empty(shape)
    count = 0
    for _ in range(n):
        centre = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        own = ellipse(shape, centre, tuple(rng.uniform(*radius, 2)), rng.uniform(0, np.pi))
        if own.any() and not labels[ndimage.binary_dilation(own, np.ones((3, 3)))].any():
            count += 1
            labels[own] = count
    return connected(labels)


def on_seams(shape: Shape, *, pitch: int, radius: float, shift: Shape = (0, 0)) -> Labels:
    """Discs of at most ``pitch / 4`` on every corner and seam middle of a ``pitch`` px lattice,
    moved by ``shift`` px."""
    labels = empty(shape)
    count = 0
    for row in range(0, shape[0] + 1, pitch // 2):
        for col in range(0, shape[1] + 1, pitch // 2):
            own = ellipse(
                shape, (row + shift[0], col + shift[1]), (min(radius, pitch / 4 - 1),) * 2
            )
            if (row % pitch == 0 or col % pitch == 0) and own.any():
                count += 1
                labels[own] = count
    return labels


def chain(shape: Shape, *, row: float, radius: float, step: float) -> Labels:
    """Discs along a row of the whole slide, each touching the next: one clump longer than any
    shard."""
    labels = empty(shape)
    for i, col in enumerate(np.arange(radius, shape[1], step)):
        own = ellipse(shape, (row, float(col)), (radius, radius))
        labels[own & (labels == 0)] = i + 1
    return connected(labels)


def ring(shape: Shape, *, thickness: float, hole: Labels | None = None) -> Labels:
    """A ring as large as the slide, with a small object in its hole if there is room."""
    centre = (shape[0] / 2, shape[1] / 2)
    outer = (shape[0] / 2 - 1, shape[1] / 2 - 1)
    labels = ellipse(shape, centre, outer).astype(np.int32)
    labels[ellipse(shape, centre, (outer[0] - thickness, outer[1] - thickness))] = 0
    labels[ellipse(shape, centre, (3, 4))] = 2
    return connected(labels)


def u_shape(shape: Shape, *, thickness: int) -> Labels:
    """An object whose two arms meet only at the far end of the slide, and one that lies between
    them."""
    labels = empty(shape)
    height, width = shape
    labels[1 : height - 1, 1 : 1 + thickness] = 1
    labels[1 : height - 1, width - 1 - thickness : width - 1] = 1
    labels[height - 1 - thickness : height - 1, 1 : width - 1] = 1
    labels[ellipse(shape, (height / 3, width / 2), (5, 4))] = 2
    return labels


def connected(labels: Labels) -> Labels:
    """The field with every 4-connected part of a label as a label of its own, numbered by its first
    pixel."""
    out = empty(labels.shape)
    count = 0
    for value in np.unique(labels[labels > 0]):
        parts, n = ndimage.label(labels == value)
        out[parts > 0] = parts[parts > 0] + count
        count += n
    _, first, back = np.unique(out, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(np.where(out.ravel()[first] > 0, first, -1)))
    shifted = rank if (out == 0).any() else rank + 1
    return shifted[back].reshape(labels.shape).astype(np.int32)


def fields(shape: Shape, seed: int) -> dict[str, Labels]:
    """One field of every kind, by name."""
    rng = np.random.default_rng(seed)
    return {
        "empty": empty(shape),
        "full": full(shape),
        "one pixel": one_pixel(shape),
        "corner pixels": connected(
            one_pixel(shape, at=(0, 0)) + one_pixel(shape, at=(shape[0] - 1, shape[1] - 1))
        ),
        "checkerboard": checkerboard(shape),
        "coarse checkerboard": checkerboard(shape, side=7),
        "crowded ellipses": ellipses(rng, shape, n=60),
        "disjoint ellipses": disjoint_ellipses(rng, shape, n=60),
        "on seams": on_seams(shape, pitch=32, radius=6),
        "one pixel off the seams": on_seams(shape, pitch=32, radius=6, shift=(1, -1)),
        "chain": chain(shape, row=shape[0] / 2, radius=6, step=10),
        "ring": ring(shape, thickness=6),
        "u shape": u_shape(shape, thickness=6),
    }


KINDS = tuple(fields((40, 40), 0))


def random_classes(labels: Labels, n_classes: int, seed: int) -> npt.NDArray[np.uint8]:
    """A class, 0-based, for each label 1..k."""
    k = int(labels.max(initial=0))
    return np.random.default_rng(seed).integers(0, n_classes, k).astype(np.uint8)


def maps_of(
    labels: Labels, classes: npt.NDArray[np.uint8], *, n_classes: int
) -> npt.NDArray[np.uint8]:
    """What the instance task stores for a field: uint8 (2 + n_classes, h, w) foreground, inner
    distance, class one-hot."""
    maps = np.zeros((2 + n_classes, *labels.shape), np.uint8)
    maps[0][labels > 0] = 255
    maps[1] = inner_distance(labels)
    by_label = np.concatenate([[n_classes], classes]).astype(np.int64)[labels]
    for index in range(n_classes):
        maps[2 + index][by_label == index] = 255
    return maps


def noisy_maps(
    rng: np.random.Generator, shape: Shape, *, smooth: float, levels: int = 256
) -> npt.NDArray[np.uint8]:
    """Foreground and inner distance of no sane network: smoothed noise in ``levels`` steps, so
    plateaus and ties abound."""
    noise = np.stack(
        [ndimage.gaussian_filter(rng.standard_normal(shape), smooth) for _ in range(2)]
    )
    low, high = noise.min(), noise.max()
    steps = np.floor((noise - low) / max(high - low, 1e-9) * (levels - 1) + 0.5)
    return (steps * (255 // (levels - 1))).astype(np.uint8)


def squares(shape: Shape, side: int) -> Iterable[tuple[int, int, int, int]]:
    """(row0, col0, row1, col1) of the cells of a lattice at (0, 0), clipped to the slide, in raster
    order."""
    for row in range(0, shape[0], side):
        for col in range(0, shape[1], side):
            yield row, col, min(row + side, shape[0]), min(col + side, shape[1])


def reader(
    maps: npt.NDArray[np.uint8], seen: list[Shape] | None = None
) -> Callable[[object], npt.NDArray[np.uint8]]:
    """``read(box)`` of maps in memory; the shapes that were asked for are added to ``seen``."""

    def read(box):  # type: ignore[no-untyped-def]
        assert 0 <= box.row0 <= box.row1 <= maps.shape[1], f"{box} leaves the slide"
        assert 0 <= box.col0 <= box.col1 <= maps.shape[2], f"{box} leaves the slide"
        if seen is not None:
            seen.append(box.shape)
        return maps[:, box.row0 : box.row1, box.col0 : box.col1]

    return read
