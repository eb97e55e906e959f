"""Open any slide: the reader is chosen by what lies at the path."""

from __future__ import annotations

from pathlib import Path

from quadrat.slides.protocol import Slide
from quadrat.slides.recognise import recognise


def open_slide(path: str | Path, *, mpp: float | None = None) -> Slide:
    """Open a slide file, a flat image (PNG, JPEG, TIFF), an OME-TIFF, an OME-Zarr folder or a
    folder of DICOM instances.

    ``mpp`` (um/px, rows and columns alike) stands in for what the file states. The slide's own mpp
    is passed on as it is found, missing and absurd values included: ``geometry.check_mpp`` judges
    it. docs/formats.md lists what is read.

    Raises:
        SlideError: the path is missing, empty, truncated, unreadable, or not a picture that
        quadrat reads.
    """
    return reopen(str(path), None if mpp is None else (float(mpp), float(mpp)))


def reopen(path: str, mpp: tuple[float, float] | None) -> Slide:
    """As ``open_slide``, with the mpp of rows and of columns; what a pickled slide is made of."""
    found = recognise(Path(path))
    if found.reader == "openslide":
        from quadrat.slides.openslide import OpenSlideSlide

        return OpenSlideSlide(found, mpp=mpp)
    if found.reader == "tiff":
        from quadrat.slides.tiff import TiffSlide

        return TiffSlide(found, mpp=mpp)
    if found.reader == "ome-zarr":
        from quadrat.slides.ome_zarr import ZarrSlide

        return ZarrSlide(found, mpp=mpp)
    from quadrat.slides.flat import FlatSlide

    return FlatSlide(found, mpp=mpp)
