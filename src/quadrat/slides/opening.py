"""Open any slide: the reader is chosen by what lies at the path."""

from __future__ import annotations

from pathlib import Path

from quadrat.slides.protocol import Slide
from quadrat.slides.recognise import recognise


def open_slide(path: str | Path, *, mpp: float | None = None, scene: str = "") -> Slide:
    """Open a slide file, a flat image (TIFF, PNG, JPEG, BMP ...), an OME-TIFF, an OME-Zarr folder
    or a folder of DICOM instances. docs/formats.md lists what can be read.

    ``scene`` names one of several pictures in a TIFF file, by name or number; without it, the
    largest is the slide. In a folder of several DICOM series it names one of them. ``mpp`` (um/px
    of rows and columns) replaces what the file states. The mpp of a slide is not checked here: it
    may be missing or absurd, and ``core.geometry.check_mpp`` judges it.

    Raises:
        SlideError: the path is missing, empty, truncated, unreadable, or not a picture that can be
            read, it has no such scene, or it has several pictures of like size and none is named.
    """
    found = recognise(Path(path), scene=scene)
    override = None if mpp is None else (float(mpp), float(mpp))
    if found.reader == "openslide":
        from quadrat.slides.openslide import OpenSlideSlide

        return OpenSlideSlide(found, mpp=override)
    if found.reader == "tiff":
        from quadrat.slides.tiff import TiffSlide

        return TiffSlide(found, mpp=override)
    if found.reader == "ome-zarr":
        from quadrat.slides.ome_zarr import ZarrSlide

        return ZarrSlide(found, mpp=override)
    from quadrat.slides.flat import FlatSlide

    return FlatSlide(found, mpp=override)
