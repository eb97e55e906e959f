"""One level of a TIFF picture as planes of tiles: one plane if colours are interleaved, else three.

A strip is a tile as wide as the picture. Uncompressed strips are cut into bands of about 1 MiB, so
that a small region of a picture in one strip does not need the whole strip.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile

from quadrat.core.errors import SlideError
from quadrat.slides.native import JPEG, RGB, YCBCR, NativeLevel, decoded, native_level
from quadrat.slides.protocol import Rgb, on_white
from quadrat.slides.tile_codec import TileCodec

MAX_SEGMENT_PX = 1 << 30
"""A tile or compressed strip is decoded whole: 3 GiB of RGB is the limit."""
BAND_BYTES = 1 << 20
WHITE_IS_ZERO, PALETTE = 0, 3
YCBCR_CODECS = (JPEG, 33003, 34712, 50001, 50002, 52546)
"""Compressions that turn YCbCr into RGB themselves: JPEG, JPEG 2000, WebP, JPEG XL."""
PHOTOMETRICS = (WHITE_IS_ZERO, 1, RGB, PALETTE, YCBCR)
_ASSOCIATED_ALPHA, _ALPHA = 1, 2


def unsupported(page: tifffile.TiffPage) -> str | None:
    """Why the pixels of a page are not read here; None if they are."""
    compression, photometric = int(page.compression), int(page.photometric)
    if not _is_decoded(compression):
        return f"its TIFF compression {compression} ({_codec_name(compression)}) is not read"
    if photometric not in PHOTOMETRICS or (
        photometric == YCBCR and compression not in YCBCR_CODECS
    ):
        return (
            f"its colours (photometric interpretation {photometric}, "
            f"{_colours_name(photometric)}, compression {compression}) are not RGB, grey or a "
            "palette"
        )
    if page.bitspersample != 8 or page.samplesperpixel not in (1, 3, 4):
        return (
            f"{page.samplesperpixel} samples of {page.bitspersample} bits a pixel are not 8-bit "
            "RGB, RGBA or grey"
        )
    return None


def _is_decoded(compression: int) -> bool:
    """Whether tifffile, with imagecodecs, decodes a compression to pixels."""
    try:
        return callable(tifffile.TIFF.DECOMPRESSORS[compression])
    except KeyError:
        return False


def _codec_name(compression: int) -> str:
    known = {int(codec): codec.name for codec in tifffile.COMPRESSION}
    return known.get(compression, "unknown")


def _colours_name(photometric: int) -> str:
    known = {int(kind): kind.name for kind in tifffile.PHOTOMETRIC}
    return known.get(photometric, "unknown")


def plane_levels(
    series: tifffile.TiffPageSeries, *, tiff: tifffile.TiffFile, path: Path
) -> list[NativeLevel]:
    """The planes of one level: one, or three of one sample each.

    Raises:
        SlideError: the pages lie in several files, there are not 1, 3 or 4 channels, or a segment
            is too large to decode.
    """
    page: tifffile.TiffPage = series.keyframe
    size = int(page.imagelength), int(page.imagewidth)
    separate = int(page.planarconfig) == 2 and page.samplesperpixel > 1
    samples = 1 if separate else int(page.samplesperpixel)
    number = (
        page.samplesperpixel
        if separate
        else int(np.prod(series.shape)) // (size[0] * size[1] * samples)
    )
    if number not in (1, 3) or (number == 3 and samples != 1):
        raise SlideError(
            f"{path}: {number} planes of {samples} samples; a picture has 1 (grey), 3 (RGB) or 4 "
            "(RGBA) channels"
        )
    height, width = (
        (page.tilelength, page.tilewidth)
        if page.is_tiled
        else (min(page.rowsperstrip, size[0]), size[1])
    )
    if series.dataoffset is not None and not page.is_tiled:
        return [
            _bands(page, series.dataoffset + plane * size[0] * size[1], size, samples)
            for plane in range(number)
        ]
    if height * width > MAX_SEGMENT_PX:
        raise SlideError(
            f"{path}: its pixels lie in one piece of {width} x {height} px, more than the "
            f"{MAX_SEGMENT_PX} px that are decoded "
            "at once; convert it to a tiled pyramid (OME-TIFF or generic tiled TIFF)"
        )
    pages = (
        [page] * number
        if separate
        else [found.aspage() for found in series.pages if found is not None]
    )
    if len(pages) != number or any(found.parent is not tiff for found in pages):
        raise SlideError(f"{path}: its planes lie in several files; join them into one OME-TIFF")
    fast = native_level(page) if number == 1 else None
    if fast is not None:
        return [fast]
    return [
        _segments(found, size, (height, width), plane if separate else 0)
        for plane, found in enumerate(pages)
    ]


def _segments(
    page: tifffile.TiffPage, size: tuple[int, int], tile: tuple[int, int], plane: int
) -> NativeLevel:
    """A plane by the tiles or strips that the page lists."""
    across = -(-size[1] // tile[1])
    number = -(-size[0] // tile[0]) * across
    first = plane * number
    offsets, counts = (
        np.array(v[first : first + number], np.int64)
        for v in (page.dataoffsets, page.databytecounts)
    )
    if len(offsets) != number or len(counts) != number or counts.min() < 0:
        raise ValueError(f"{number} tiles or strips are needed, {len(offsets)} are listed")
    finish = _finish(page)
    raw = _raw_decoder(page)

    def decode(data: bytes, index: int) -> Rgb:
        row, col = divmod(index, across)
        wanted = min(tile[0], size[0] - row * tile[0]), min(tile[1], size[1] - col * tile[1])
        pixels = raw(data, first + index)
        if pixels.shape[0] < wanted[0] or pixels.shape[1] < wanted[1]:
            raise ValueError(
                f"it is {pixels.shape[1]} x {pixels.shape[0]} px, not {wanted[1]} x {wanted[0]}"
            )
        return finish(pixels[: wanted[0], : wanted[1]])

    return NativeLevel(size, tile, offsets, counts, None, decode)


def _bands(page: tifffile.TiffPage, start: int, size: tuple[int, int], samples: int) -> NativeLevel:
    """An uncompressed plane in one piece, as bands of whole rows."""
    row_bytes = size[1] * samples
    rows = min(size[0], max(1, BAND_BYTES // row_bytes))
    starts = np.arange(0, size[0], rows, dtype=np.int64)
    counts = np.minimum(rows, size[0] - starts) * row_bytes
    finish = _finish(page)

    def decode(data: bytes, index: int) -> Rgb:
        return finish(np.frombuffer(data, np.uint8).reshape(-1, size[1], samples))

    return NativeLevel(size, (rows, size[1]), start + starts * row_bytes, counts, None, decode)


def _raw_decoder(page: tifffile.TiffPage) -> Callable[[bytes, int], Rgb]:
    """From the bytes and the index of a segment to uint8 (h, w, samples). It raises ValueError if
    the segment is damaged.

    JPEG is decoded in strict mode: otherwise libjpeg fills the missing part of a damaged stream
    with grey (see ``tile_codec``).
    """
    tables = page.jpegtables or b""
    contiguous = int(page.planarconfig) == 1 or page.samplesperpixel == 1
    if int(page.compression) == JPEG and contiguous and page.samplesperpixel == 3:
        codec = TileCodec("jpeg", "rgb" if int(page.photometric) == RGB else "ycbcr", tables)
        return lambda data, index: codec.decode(data)
    if int(page.compression) == JPEG and (page.samplesperpixel == 1 or not contiguous):
        return partial(_grey_jpeg, tables)
    page.decode  # noqa: B018 - it looks into the file once and remembers, so ask while that is open
    return partial(decoded, page)


def _grey_jpeg(tables: bytes, data: bytes, index: int) -> Rgb:
    stream = b"".join((b"\xff\xd8", tables[2:-2], memoryview(data)[2:]))
    return np.asarray(simplejpeg.decode_jpeg(stream, colorspace="GRAY", strict=True), np.uint8)


def palette_colours(page: tifffile.TiffPage) -> Rgb:
    """The colours of a palette, uint8 (entries, 3). TIFF says 16 bits. Some writers put 8 bits
    there, and viewers then take them so."""
    colours = np.asarray(page.colormap, np.uint16).T
    return (colours if colours.max(initial=0) < 256 else colours >> 8).astype(np.uint8)


def _finish(page: tifffile.TiffPage) -> Callable[[Rgb], Rgb]:
    """From samples (h, w, 1, 3 or 4) as stored to colours (h, w, 1 or 3)."""
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if photometric == WHITE_IS_ZERO:
        return lambda pixels: np.uint8(255) - pixels
    if photometric == PALETTE:
        table = palette_colours(page)
        return lambda pixels: table[pixels[..., 0]]
    extra = int(page.extrasamples[0]) if samples == 4 and page.extrasamples else 0
    if samples == 4 and extra == _ALPHA:
        return on_white
    if samples == 4 and extra == _ASSOCIATED_ALPHA:
        return lambda pixels: np.asarray(
            np.minimum(pixels[..., :3] + (255 - pixels[..., 3:].astype(np.uint16)), 255), np.uint8
        )
    # a fourth sample of no stated meaning is not alpha
    return lambda pixels: np.ascontiguousarray(pixels[..., :3])
