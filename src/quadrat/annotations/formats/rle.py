"""Run-length masks of COCO, compressed and not (pure).

The pixels of a picture are counted column by column; runs of 0 and 1 take turns, and the first is
of 0. The compressed form writes each run in groups of five bits with a continuation bit, as
characters from "0" on, from the third run on as the difference to the run before the last (Lin et
al., Microsoft COCO, 2014; the format as pycocotools reads it).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Runs = npt.NDArray[np.int64]
MAX_PIXELS = 1 << 30
"""Pixels in the columns of a mask; so many need 3 GiB."""


def decompress(text: str) -> Runs:
    """The run lengths of a compressed mask.

    Raises:
        ValueError: a character that the format does not have, or a text that ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"the character {character!r} in compressed counts")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed counts that end within a number")
    return np.array(counts, np.int64)


def compress(runs: Sequence[int]) -> str:
    """The compressed form of run lengths; the inverse of ``decompress``."""
    text: list[str] = []
    for i, run in enumerate(runs):
        value = int(run) - (int(runs[i - 2]) if i > 2 else 0)
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr((bits | (32 if more else 0)) + 48))
    return "".join(text)


def mask_of(runs: Runs, size: tuple[int, int]) -> tuple[npt.NDArray[np.bool_], tuple[int, int]]:
    """The part of a mask that holds its pixels, bool (h, w), and its (row, col). Empty if the mask
    has no pixel.

    ``size``: (height, width) of the picture. Memory depends on the columns of the mask, not on the
    picture.

    Raises:
        ValueError: a run below 0, runs that do not add up to the picture, or a mask over more than
            MAX_PIXELS.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"a mask of {width} x {height} px")
    if len(runs) and runs.min() < 0:
        raise ValueError(f"a run of {runs.min()} pixels")
    total = sum(runs.tolist())
    if total != height * width:
        raise ValueError(f"runs of {total} pixels for a picture of {width} x {height}")
    ends = np.cumsum(runs)
    starts, stops = ends[0::2][: len(runs) // 2], ends[1::2]
    starts, stops = starts[stops > starts], stops[stops > starts]
    if len(starts) == 0:
        return np.zeros((0, 0), np.bool_), (0, 0)
    first, last = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    if (last - first) * height > MAX_PIXELS:
        raise ValueError(
            f"a mask over {last - first} x {height} px; {MAX_PIXELS} px are the limit, so draw it "
            "as polygons"
        )
    steps = np.zeros((last - first) * height + 1, np.int8)
    steps[starts - first * height] += 1
    steps[stops - first * height] -= 1
    mask = (np.cumsum(steps[:-1], dtype=np.int8) > 0).reshape(last - first, height).T
    rows = np.flatnonzero(mask.any(axis=1))
    return mask[rows[0] : rows[-1] + 1], (int(rows[0]), first)


def runs_of_mask(mask: npt.NDArray[np.bool_]) -> Runs:
    """The run lengths of a whole picture's mask (h, w); the inverse of ``mask_of``."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    return np.diff(np.flatnonzero(np.diff(flat)), prepend=0).astype(np.int64)
