"""A large JPEG-tiled, pyramidal SVS-like slide composed of real tissue, written by repeating
compressed tiles.

The pixels are those of CMU-1-Small-Region.svs (folder QUADRAT_DATA/wsi; CC0): a square of 2,048 px,
repeated on an ellipse of tissue, the rest glass. Every tile of the file has bytes of its own on
disk, so reading one says nothing about the next; 100,000 x 80,000 px take seconds, because a tile
is encoded once and moved a thousand times.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile
from samples import REAL_SLIDE, sample

DOWNSAMPLES = (1, 4, 16)
PERIOD_PX = 2048
BLOCK_PX = 4096
"""Tissue and glass alternate in such blocks, so that a tile of every level is all one or all the
other."""
QUALITY = 75
Rgb = np.ndarray


@dataclass(frozen=True, slots=True)
class Mosaic:
    """A composed slide: its file, and the level-0 blocks (row, column) of BLOCK_PX that show
    tissue."""

    path: Path
    height: int
    width: int
    mpp: float
    tile: int
    blocks: tuple[tuple[int, int], ...]


def compose(
    path: Path,
    *,
    height: int,
    width: int,
    mpp: float = 0.25,
    tissue: float = 0.3,
    tile: int = 256,
    source: Path | None = None,
) -> Mosaic:
    """Write the slide; ``tissue`` is its share of the area, 1 for all. ``source``: a slide of at
    least 2,048 px a side.

    Raises:
        SystemExit: no source was given, and the folder QUADRAT_DATA does not hold the slide.
        ValueError: a tile would be neither tissue nor glass.
    """
    if BLOCK_PX // DOWNSAMPLES[-1] % tile:
        raise ValueError(f"tile {tile} does not divide {BLOCK_PX // DOWNSAMPLES[-1]} px")
    blocks = _tissue_blocks(math.ceil(height / BLOCK_PX), math.ceil(width / BLOCK_PX), tissue)
    picture = read_tissue(source)
    described = (
        f"Aperio Image Library v12.0.0\n{width}x{height} mosaic of CMU-1-Small-Region|AppMag = "
        f"40|MPP = {mpp:.4f}"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for down in DOWNSAMPLES:
            size = height // down, width // down
            tiff.write(
                _tiles(size, down, picture, blocks, tile),
                shape=(*size, 3),
                dtype=np.uint8,
                tile=(tile, tile),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                description=described,
                subfiletype=0 if down == 1 else 1,
                metadata=None,
                software=False,
            )
    return Mosaic(path, height, width, mpp, tile, tuple(sorted(blocks)))


def read_tissue(source: Path | None = None) -> Rgb:
    """The repeated square, uint8 (2048, 2048, 3)."""
    with openslide.OpenSlide(str(source or sample(REAL_SLIDE))) as slide:
        return np.ascontiguousarray(
            np.asarray(slide.read_region((100, 600), 0, (PERIOD_PX, PERIOD_PX)))[..., :3]
        )


def _tissue_blocks(rows: int, cols: int, share: float) -> set[tuple[int, int]]:
    """The blocks nearest the middle of the slide (in an ellipse of its shape) that make up the
    share."""
    order = sorted(
        ((r, c) for r in range(rows) for c in range(cols)),
        key=lambda at: (((at[0] + 0.5) / rows - 0.5) ** 2 + ((at[1] + 0.5) / cols - 0.5) ** 2, at),
    )
    return set(order[: max(1, round(share * rows * cols))])


def _tiles(
    size: tuple[int, int], down: int, picture: Rgb, blocks: set[tuple[int, int]], tile: int
) -> Iterator[bytes]:
    """Compressed tiles of one level in raster order."""
    reduced = (
        picture.reshape(PERIOD_PX // down, down, PERIOD_PX // down, down, 3)
        .mean(axis=(1, 3))
        .round()
        .astype(np.uint8)
    )
    shown: dict[tuple[int, int], bytes] = {}
    glass = _encode(np.full((tile, tile, 3), 243, np.uint8))
    block = BLOCK_PX // down
    period = len(reduced)
    for row in range(0, size[0], tile):
        for col in range(0, size[1], tile):
            if (row // block, col // block) not in blocks:
                yield glass
                continue
            at = row % period, col % period
            if at not in shown:
                rows, cols = (np.arange(start, start + tile) % period for start in at)
                shown[at] = _encode(reduced[np.ix_(rows, cols)])
            yield shown[at]


def _encode(rgb: Rgb) -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=QUALITY, colorspace="RGB", colorsubsampling="420"
    )
    return encoded


def main() -> None:
    """Write one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("path", type=Path)
    parser.add_argument("--height", type=int, default=80_000)
    parser.add_argument("--width", type=int, default=100_000)
    arguments = parser.parse_args()
    print(compose(arguments.path, height=arguments.height, width=arguments.width).path)


if __name__ == "__main__":
    main()
