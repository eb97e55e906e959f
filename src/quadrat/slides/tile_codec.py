"""How one compressed tile of a slide becomes pixels, without access to a file: moved tiles decode
the same anywhere.

JPEG streams in TIFF files are abbreviated: their tables are stored once, in the directory (TIFF
Technical Note 2, JPEGTables). simplejpeg decodes them in strict mode. Without it, libjpeg fills the
missing part of a damaged stream with grey and only warns; imagecodecs returns this as pixels, while
OpenSlide and strict mode treat it as damage. JPEG 2000 tiles are bare codestreams; compression
33003 holds YCbCr and 33005 RGB (Aperio).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg

_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""An APP14 marker without its last byte, the colour transform: 0 none, 1 YCbCr. A JPEG stream
states its colours with it."""
_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JFIF = b"\xff\xd8\xff\xe0"
_JPEG2000_STARTS, _JPEG2000_END = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "), b"\xff\xd9"
_PADDING = 64
"""Writers align tiles: the end marker is searched in this many last bytes."""


@dataclass(frozen=True, slots=True)
class TileCodec:
    """How the tiles of a level are compressed."""

    kind: Literal["jpeg", "jpeg2000"]
    """The compression."""
    colorspace: Literal["ycbcr", "rgb"]
    """What the stream holds; ``decode`` always returns RGB."""
    tables: bytes = b""
    """Quantisation and Huffman tables of abbreviated JPEG streams, themselves a JPEG stream; may be
    empty."""

    def __post_init__(self) -> None:
        if self.kind not in ("jpeg", "jpeg2000") or self.colorspace not in ("ycbcr", "rgb"):
            raise ValueError(f"no tile codec is called {self.kind!r} in {self.colorspace!r}")

    def decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Pixels of a whole tile, uint8 (h, w, 3) RGB.

        Raises:
            ValueError: the stream is damaged or truncated, or does not hold three 8-bit samples per
                pixel.
        """
        try:
            pixels = self._jpeg(data) if self.kind == "jpeg" else self._jpeg2000(data)
        # what the codecs raise
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(
                f"it decodes to {pixels.dtype}{pixels.shape}, not to uint8 (height, width, 3)"
            )
        return pixels

    def flaw(self, data: bytes) -> str | None:
        """What is wrong with a tile by its first and last bytes, without decoding it; None if
        nothing is."""
        if self.kind == "jpeg":
            whole = data.startswith(_START) and data.rfind(_JPEG_END, -_PADDING) >= 0
            return None if whole else "the JPEG stream does not begin with SOI and end with EOI"
        whole = data.startswith(_JPEG2000_STARTS) and data.rfind(_JPEG2000_END, -_PADDING) >= 0
        return None if whole else "the JPEG 2000 stream does not begin and end as one"

    def to_json(self) -> dict[str, str]:
        """The codec as JSON values; tables in base64."""
        return {
            "kind": self.kind,
            "colorspace": self.colorspace,
            "tables": base64.b64encode(self.tables).decode("ascii"),
        }

    @staticmethod
    def from_json(found: dict[str, Any]) -> TileCodec:
        """The codec that ``to_json`` wrote.

        Raises:
            ValueError: unknown kind or colour space, or tables that are not base64.
            KeyError: a part is missing.
        """
        return TileCodec(
            found["kind"], found["colorspace"], base64.b64decode(found["tables"], validate=True)
        )

    def _jpeg(self, data: bytes) -> npt.NDArray[np.uint8]:
        if not data.startswith(_START):
            raise ValueError("the JPEG stream does not begin with SOI")
        transform, begin = b"\1", len(_START)
        if self.colorspace == "rgb":
            transform = b"\0"
            # JFIF would mean YCbCr; the TIFF tag decides, as in OpenSlide
            if data.startswith(_JFIF):
                begin += 2 + int.from_bytes(data[4:6], "big")
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            b"".join((_START, _ADOBE, transform, self.tables[2:-2], memoryview(data)[begin:])),
            colorspace="RGB",
            strict=True,
        )
        return pixels

    def _jpeg2000(self, data: bytes) -> npt.NDArray[np.uint8]:
        # the decoder accepts a stream with a second half of zeros
        reason = self.flaw(data)
        if reason is not None:
            raise ValueError(reason)
        pixels: npt.NDArray[np.uint8] = imagecodecs.jpeg2k_decode(data, numthreads=1)
        return ycbcr_to_rgb(pixels) if self.colorspace == "ycbcr" else pixels


def ycbcr_to_rgb(ycbcr: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Full-range YCbCr (JFIF 1.02) to RGB, uint8 (h, w, 3), in integers.

    For all 65,536 pairs of Cb and Cr the result is that of OpenSlide's tables: red and blue in the
    16-bit fixed point of libjpeg, green by decimal factors.
    """
    luma = ycbcr[..., 0].astype(np.int32)
    blue, red = (ycbcr[..., index].astype(np.int32) - 128 for index in (1, 2))
    out = np.empty(ycbcr.shape, np.int32)
    out[..., 0] = luma + ((91881 * red + 32768) >> 16)  # 1.402
    out[..., 1] = luma + (-34414 * blue - 71414 * red + 50000) // 100000
    out[..., 2] = luma + ((116130 * blue + 32768) >> 16)  # 1.772
    return np.clip(out, 0, 255).astype(np.uint8)
