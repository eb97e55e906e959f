"""Draws the tissue mask on the real slides and on some cases of `tissue_cases.py`, for
docs/tissue.md.

QUADRAT_DATA=<folder> python benchmarks/tissue_picture.py docs/pictures/tissue.png

`--quick` draws two slides and three cases. Without a path the picture is not kept. The last line is
one JSON object.

Left each picture as it is, right what was found: tissue has its own colours and a green outline;
the rest is tinted by reason: glass blue, shadow and dust grey, pen green, frame black, specks
magenta.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from samples import sample
from scipy import ndimage
from tissue_cases import MPP, cases

from quadrat.core.geometry import check_mpp, plan_read
from quadrat.slides.opening import open_slide
from quadrat.slides.source import SlideSource
from quadrat.slides.tissue.mask import find_tissue, read_strips
from quadrat.slides.tissue.overview import classify_overview, is_tissue

TINTS = np.array(
    [(255, 255, 255), (90, 90, 255), (120, 120, 120), (0, 200, 0), (0, 0, 0), (255, 0, 255)],
    np.uint8,
)
REAL = (  # file, mpp where the file states none
    ("CMU-1-Small-Region.svs", None),
    ("TCGA-CR-7395-01A-01-TS1.svs", 0.25),
    ("generic_tiff_asap/example.tif", None),
    ("dicom_camelyon_jpeg", None),
)
SHOWN = (
    "pale 1/6",
    "IHC weak",
    "uneven light",
    "tinted glass",
    "pen",
    "frame, shadow",
    "dirt",
    "all at once",
)
HEIGHT, WIDTH = 190, 1000

Rgb = NDArray[np.uint8]


def pair(rgb: Rgb, codes: NDArray[np.uint8], height: int) -> Rgb:
    """The picture, and beside it what was found, scaled to ``height`` px."""
    found = rgb.copy()
    left = ~is_tissue(codes)
    found[left] = (found[left] * 0.65 + TINTS[codes[left]] * 0.35).astype(np.uint8)
    thick = max(1, round(rgb.shape[0] / 200))
    found[~left & ndimage.binary_dilation(left, iterations=thick)] = (0, 190, 0)
    both = Image.fromarray(np.hstack([rgb, found]))
    return np.asarray(
        both.resize((round(both.width * height / both.height), height), Image.Resampling.LANCZOS)
    )


def rows_of(pictures: list[Rgb]) -> list[Rgb]:
    """Pictures of one height laid into rows of at most WIDTH px."""
    rows: list[list[Rgb]] = [[]]
    for picture in pictures:
        if rows[-1] and sum(p.shape[1] + 4 for p in rows[-1]) + picture.shape[1] > WIDTH:
            rows.append([])
        rows[-1].append(np.pad(picture, ((0, 4), (0, 4), (0, 0)), constant_values=255))
    joined = [np.hstack(row) for row in rows]
    widest = max(row.shape[1] for row in joined)
    return [
        np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255)
        for row in joined
    ]


def main() -> None:
    """Read the slides, make the cases, write the PNG."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?", help="the PNG (default: it is not kept)")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    real, shown = (REAL[:2], SHOWN[:3]) if options.quick else (REAL, SHOWN)
    pictures = []
    for file, mpp in real:
        with open_slide(sample("wsi") / file, mpp=mpp) as slide:
            slide_mpp = check_mpp(slide.mpp, slide=slide.name)
            tissue = find_tissue(slide, slide_mpp=slide_mpp)
            plan = plan_read(
                slide.levels, slide_mpp=slide_mpp, mpp=tissue.um_per_px, slide=slide.name
            )
            pictures.append(pair(read_strips(SlideSource(slide, plan)), tissue.codes, HEIGHT))
    judged = cases("judge", quick=True)
    for number, condition in enumerate(shown):
        own = [case for case in judged if case.condition == condition]
        case = own[number % len(own)]
        pictures.append(pair(case.rgb, classify_overview(case.rgb, mpp=MPP), 160))
    rows = [*rows_of(pictures[: len(real)]), *rows_of(pictures[len(real) :])]
    widest = max(row.shape[1] for row in rows)
    whole = np.vstack(
        [
            np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255)
            for row in rows
        ]
    )
    picture = Image.fromarray(whole).quantize(192, dither=Image.Dither.NONE)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(options.out, optimize=True)
    print(json.dumps({"pictures": len(pictures), "width": picture.width, "height": picture.height}))


if __name__ == "__main__":
    main()
