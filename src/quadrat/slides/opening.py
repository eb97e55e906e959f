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
    found = recognise(Path(path))
    override = None if mpp is None else (float(mpp), float(mpp))
    if found.reader == "openslide":
        from quadrat.slides.openslide import open_openslide

        return open_openslide(found, mpp=override)
    if found.reader == "tiff":
        from quadrat.slides.tiff import open_tiff

        return open_tiff(found, mpp=override)
    if found.reader == "ome-zarr":
        from quadrat.slides.ome_zarr import open_ome_zarr

        return open_ome_zarr(found, mpp=override)
    from quadrat.slides.flat import open_flat

    return open_flat(found, mpp=override)
