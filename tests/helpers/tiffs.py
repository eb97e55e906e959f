"""TIFF slides made for tests: tiled pyramids as scanners write them, and the ways in which single
tiles go wrong."""

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import tifffile
from scipy.ndimage import gaussian_filter

from quadrat.core.geometry import Box
from quadrat.slides import openslide as openslide_module

APERIO = (
    "Aperio Image Library v11.2.1\n{width}x{height} [0,0 {width}x{height}] ({tile}x{tile})|AppMag "
    "= 20|MPP = 0.5"
)
JPEG = ("jpeg", "jpeg_rgb", "jpeg2000", "jpeg2000_ycbcr")
LOST = Box(256, 384, 384, 512)
"""Tile (2, 3) of level 0, the 19th of 8 columns of 128 px."""
LOST_TILE = 19


def picture(height: int = 700, width: int = 900, *, seed: int = 0) -> np.ndarray:
    """Smooth colours, uint8 (height, width, 3), no two tiles alike."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (5, 5, 0))
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    kind: str,
    aperio: bool = True,
    tile: int = 128,
    levels: int = 2,
) -> Path:
    """A pyramid whose levels are every second pixel; kind: jpeg, jpeg_rgb, jpeg2000,
    jpeg2000_ycbcr, zlib, lzw or none.

    Level 0 has the picture's size; choose sides that halve without a rest to keep OpenSlide from
    shifting.
    """
    height, width = pixels.shape[:2]
    note = APERIO.format(height=height, width=width, tile=tile) if aperio else None
    with tifffile.TiffWriter(path) as out:
        for level in range(levels):
            shown = np.ascontiguousarray(pixels[:: 2**level, :: 2**level])
            common = {
                "tile": (tile, tile),
                "metadata": None,
                "photometric": "rgb",
                "description": note,
            }
            common["subfiletype"] = 0 if aperio or level == 0 else 1
            if kind in ("jpeg", "zlib", "lzw", "none"):
                out.write(shown, compression=None if kind == "none" else kind, **common)
            else:
                out.write(
                    _compressed(shown, kind, tile),
                    shape=shown.shape,
                    dtype=np.uint8,
                    compression=_COMPRESSION[kind],
                    **common,
                )
            if level == 0 and aperio:  # the second page of an Aperio file is its thumbnail
                out.write(pixels[::8, ::8], photometric="rgb", metadata=None, description=note)
    if kind == "jpeg_rgb":  # tifffile calls every JPEG YCbCr
        for level in range(levels):
            state_photometric(path, level, 2)
    return path


_COMPRESSION = {"jpeg_rgb": 7, "jpeg2000": 33005, "jpeg2000_ycbcr": 33003}


def _compressed(pixels: np.ndarray, kind: str, tile: int):
    """The tiles of one level in raster order."""
    height, width = pixels.shape[:2]
    for row in range(0, height, tile):
        for col in range(0, width, tile):
            part = pixels[row : row + tile, col : col + tile]
            full = np.pad(
                part, ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)), mode="edge"
            )
            if kind == "jpeg_rgb":
                yield imagecodecs.jpeg8_encode(
                    full, level=90, colorspace="rgb", outcolorspace="rgb", subsampling="444"
                )
            elif kind == "jpeg2000":
                yield imagecodecs.jpeg2k_encode(full, level=40, codecformat="j2k", mct=True)
            else:
                yield imagecodecs.jpeg2k_encode(
                    _ycbcr(full), level=40, codecformat="j2k", mct=False
                )


def _ycbcr(rgb: np.ndarray) -> np.ndarray:
    """JFIF's full-range YCbCr in floating point."""
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    return np.clip(np.rint(rgb @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def tiled_page(path: Path, level: int) -> tifffile.TiffPage:
    """A level's page; its tags and places may be looked at though the file is closed."""
    with tifffile.TiffFile(path) as tiff:
        return [page for page in tiff.pages if page.is_tiled][level]


def place_of(path: Path, level: int, tile: int) -> tuple[int, int]:
    """(offset, bytes) of one compressed tile."""
    page = tiled_page(path, level)
    return page.dataoffsets[tile], page.databytecounts[tile]


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Change some bytes in place."""
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(content)


def zero_tile(path: Path, level: int, tile: int) -> None:
    """Fill a tile's bytes with 0, as a bad disk or a broken download does."""
    offset, nbytes = place_of(path, level, tile)
    overwrite(path, offset, bytes(nbytes))


def drop_tile(path: Path, level: int, tile: int) -> None:
    """State that a tile has 0 bytes, as scanners do for places that they did not visit."""
    tag = tiled_page(path, level).tags[325]
    item = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
    overwrite(path, tag.valueoffset + tile * item, bytes(item))


def state_photometric(path: Path, level: int, value: int) -> None:
    """Change what a level says of its colours: 2 RGB, 6 YCbCr."""
    overwrite(path, tiled_page(path, level).tags[262].valueoffset, struct.pack("<H", value))


def reference(path: Path, level: int, box: Box) -> np.ndarray:
    """What OpenSlide shows of a box of a level, on white."""
    with openslide.OpenSlide(str(path)) as slide:
        down = 2**level
        rgba = np.asarray(
            slide.read_region((box.col0 * down, box.row0 * down), level, (box.width, box.height))
        )
    return openslide_module.on_white(rgba)
