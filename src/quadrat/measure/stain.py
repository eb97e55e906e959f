"""Optical density of haematoxylin and DAB, by colour deconvolution (pure).

Density is -log10(value / white) of each channel; a pixel's three densities are a mixture of the two
stains and of what is left over, the direction square to both (Ruifrok and Johnston, Anal. Quant.
Cytol. Histol. 23, 2001). Values are not clipped: of a stain that is not there, noise is around 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quadrat.annotations.scan import scan_fill
from quadrat.core.errors import SlideError
from quadrat.core.kernel import kernel
from quadrat.core.objects import Frame
from quadrat.measure.rows import Figure

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Rgb = npt.NDArray[np.uint8]
HEMATOXYLIN, DAB = (0.65, 0.70, 0.29), (0.27, 0.57, 0.78)
"""Densities of red, green and blue of the stains, as Ruifrok and Johnston measured them."""
LEAST_OD, TAIL = 0.15, 1.0
"""For estimates: thinner pixels are left out, and so many per cent of angles at either end."""
LEAST_PIXELS = 1000


@dataclass(frozen=True, slots=True)
class Stains:
    """Directions of the two stains, each of length 1."""

    hematoxylin: tuple[float, float, float]
    """Of red, green, blue."""
    dab: tuple[float, float, float]
    """The same."""
    white: float = 255.0
    """What light is where nothing absorbs."""

    def densities(self, rgb: Rgb) -> F64:
        """Densities of haematoxylin and DAB, float64 (h, w, 2), of pixels uint8 (h, w, 3)."""
        found: F64 = optical_density(rgb, self.white) @ self.unmixing
        return found

    @property
    def unmixing(self) -> F64:
        """(3, 2): what turns densities of the channels into those of the stains."""
        stains = np.array([_unit(self.hematoxylin), _unit(self.dab)])
        rest = np.cross(*stains)
        mixing = np.concatenate([stains, _unit(rest)[None]])
        inverse: F64 = np.linalg.inv(mixing)[:, :2]
        return inverse


def optical_density(rgb: Rgb, white: float) -> F64:
    """-log10(value / white) of each channel; 0 counts as 1."""
    table = -np.log10(np.maximum(np.arange(256), 1) / white)
    found: F64 = table[rgb]
    return found


def estimated(pixels: Rgb, *, slide: str, white: float = 255.0) -> Stains:
    """The stains of a slide from pixels (n, 3) of its tissue (Macenko et al., ISBI 2009): the plane
    that holds most of their densities, and the outermost directions in it.

    Raises:
        SlideError: too few pixels are stained.
    """
    od = optical_density(pixels, white)
    od = od[(od >= LEAST_OD).all(axis=1)]
    if len(od) < LEAST_PIXELS:
        raise SlideError(
            f"{slide}: its stains cannot be estimated from {len(od)} stained pixels (want "
            f"{LEAST_PIXELS}); give stain.hematoxylin and stain.dab"
        )
    _, vectors = np.linalg.eigh(np.cov(od.T))
    plane = vectors[:, :0:-1]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    angle = np.arctan2(*(od @ plane).T[::-1])
    low, high = np.percentile(angle, [TAIL, 100 - TAIL])
    ends = [plane @ np.array([np.cos(a), np.sin(a)]) for a in (low, high)]
    ends = [_unit(end if end.sum() > 0 else -end) for end in ends]
    like = [end @ _unit(HEMATOXYLIN) - end @ _unit(DAB) for end in ends]
    first = 0 if like[0] > like[1] else 1
    blue, brown = (tuple(float(v) for v in ends[k]) for k in (first, 1 - first))
    return Stains((blue[0], blue[1], blue[2]), (brown[0], brown[1], brown[2]), white)


def _unit(vector: Sequence[float] | F64) -> F64:
    values = np.asarray(vector, np.float64)
    unit: F64 = values / np.linalg.norm(values)
    return unit


def add_pixels(
    sums: F64,
    densities: F64,
    corner: tuple[int, int],
    frame: Frame,
    xy: F64,
    ring_starts: Ids,
    polygon_starts: Ids,
    boxes: Ids,
    index: Ids,
) -> None:
    """Add to ``sums`` (n, 5) of the objects ``index``: pixels with their centre inside, and of both
    stains the densities and their squares.

    ``densities``: (h, w, 2) of a window with its upper left pixel at ``corner``; ``boxes``: (n, 4)
    row0, col0, row1, col1 of all objects in grid px, half-open.
    """
    _add_pixels(
        sums, densities, *corner, frame.scale_row, frame.scale_col, xy, ring_starts,
        polygon_starts, boxes, index,
    )  # fmt: skip


@kernel
def _add_pixels(
    sums: F64,
    densities: F64,
    row0: int,
    col0: int,
    scale_row: float,
    scale_col: float,
    xy: F64,
    ring_starts: Ids,
    polygon_starts: Ids,
    boxes: Ids,
    index: Ids,
) -> None:
    one, some = np.ones(1, np.int32), np.zeros(1, np.int64)
    for k in index:
        top, left = max(boxes[k, 0], row0), max(boxes[k, 1], col0)
        bottom = min(boxes[k, 2], row0 + densities.shape[0])
        right = min(boxes[k, 3], col0 + densities.shape[1])
        if bottom <= top or right <= left:
            continue
        inside = np.zeros((bottom - top, right - left), np.int32)
        some[0] = k
        scan_fill(
            inside, top, left, scale_row, scale_col, xy, ring_starts, polygon_starts, some, one
        )
        for r in range(bottom - top):
            for c in range(right - left):
                if inside[r, c]:
                    sums[k, 0] += 1
                    for stain in range(2):
                        value = densities[r + top - row0, c + left - col0, stain]
                        sums[k, 1 + 2 * stain] += value
                        sums[k, 2 + 2 * stain] += value * value


def means_and_deviations(sums: F64) -> dict[str, F64]:
    """Mean and standard deviation (n) of each object's densities; NaN without a pixel."""
    n = np.where(sums[:, 0] > 0, sums[:, 0], np.nan)
    found = {}
    for k, name in ((1, "hematoxylin"), (3, "dab")):
        mean = sums[:, k] / n
        found[f"od_{name}_mean"] = mean
        found[f"od_{name}_std"] = np.sqrt(np.maximum(sums[:, k + 1] / n - mean**2, 0))
    return found


def stain_figures(
    dab: F64,
    class_id: npt.NDArray[np.uint8],
    classes: Sequence[str],
    bands: Sequence[float],
    *,
    flags: tuple[str, ...] = (),
) -> Iterator[Figure]:
    """Objects in the bands 0, 1+, 2+ and 3+ of their mean DAB density, H-score and Allred score of
    each class that has objects, then of all."""
    for k, name in enumerate((*classes, "all")):
        values = dab if k == len(classes) else dab[class_id == k]
        values = values[~np.isnan(values)]
        n = len(values)
        if not n:
            continue
        band = np.searchsorted(np.asarray(bands), values, side="right")
        counts = np.bincount(band, minlength=4).tolist()
        for label, count in zip(("0", "1+", "2+", "3+"), counts, strict=True):
            yield Figure(name, f"count_dab_{label}", count, "", n, flags=flags)
        positive = n - counts[0]
        yield Figure(name, "positive_percent", 100 * positive / n, "%", n, flags=flags)
        yield Figure(name, "h_score", 100 * float(band.sum()) / n, "score", n, flags=flags)
        proportion, intensity = allred(counts)
        yield Figure(name, "allred_proportion", proportion, "", n, flags=flags)
        yield Figure(name, "allred_intensity", intensity, "", n, flags=flags)
        yield Figure(name, "allred_score", proportion + intensity, "", n, flags=flags)


def allred(counts: Sequence[int]) -> tuple[int, int]:
    """Proportion score (0 to 5) and intensity score (0 to 3) of the numbers of objects in the bands
    0 to 3+ (Allred et al., Mod. Pathol. 11, 1998): the share of positive ones (none, up to 1/100,
    1/10, 1/3, 2/3, more), and the mean band of the positive ones, rounded half up."""
    n, positive = sum(counts), sum(counts[1:])
    if not positive:
        return 0, 0
    limits = ((1, 100), (1, 10), (1, 3), (2, 3))
    proportion = 1 + sum(positive * below > above * n for above, below in limits)
    weight = sum(k * count for k, count in enumerate(counts))
    return proportion, (2 * weight + positive) // (2 * positive)
