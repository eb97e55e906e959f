"""Slides of every kind of file, written small: OME-TIFFs of two levels and flat images, and what
they show."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

from quadrat.slides.protocol import Slide

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
PICTURE = np.ascontiguousarray(ndimage.zoom(NOISE, (7.5, 6.5, 1), order=1))
"""300 x 390 px, smooth enough for JPEG."""
HALF = np.ascontiguousarray(PICTURE[::2, ::2])


def pixels(slide: Slide, level: int = 0) -> np.ndarray:
    return slide.read(level, slide.levels[level].box)


def write_pyramid(file: Path, *, axes: str = "YXS", **options: object) -> None:
    """An OME-TIFF of two levels (the second in a SubIFD), with mpp, objective and a macro image."""
    level = [PICTURE, HALF] if axes == "YXS" else [np.moveaxis(p, 2, 0) for p in (PICTURE, HALF)]
    meta = {"axes": axes, "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.251, "Name": "slide"}
    photometric = options.pop("photometric", "rgb" if axes == "YXS" else "minisblack")
    with tifffile.TiffWriter(file, ome=True) as tiff:
        tiff.write(level[0], subifds=1, metadata=meta, photometric=photometric, **options)
        tiff.write(level[1], subfiletype=1, photometric=photometric, **options)
        tiff.write(PICTURE[:50, :60], metadata={"axes": "YXS", "Name": "macro"}, photometric="rgb")


def save(format: str) -> Callable[[Path], None]:
    return lambda file: Image.fromarray(PICTURE).save(file, format)
