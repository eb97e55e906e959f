"""Label images in OME-Zarr: level 0 of one label image as an array of integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

from quadrat.core.errors import AnnotationError, SlideError
from quadrat.slides.ome_zarr import _attributes
from quadrat.slides.zarr_files import DurableStore


def read_ome_zarr_labels(path: Path) -> npt.NDArray[np.integer]:
    """The pixels (h, w) of a label image: signed or unsigned integers, as stored.

    ``path``: the label image (".../labels/nuclei"), or an image that has exactly one label image.

    Raises:
        AnnotationError: there is no label image or more than one, or it is not one plane of
            integers.
    """
    folder = _label_folder(path)
    try:
        entry = _attributes(folder)["multiscales"][0]
        axes = [str(axis["name"]) for axis in entry["axes"]]
        level = folder / str(entry["datasets"][0]["path"])
    except (KeyError, IndexError, TypeError) as error:
        raise AnnotationError(
            f"{folder}: no OME-Zarr label image (multiscales): {error!r}"
        ) from error
    except SlideError as error:
        raise AnnotationError(str(error)) from error
    try:
        array = zarr.open_array(DurableStore(level, read_only=True), mode="r")
        sizes = dict(zip(axes, array.shape, strict=True))
        if array.dtype.kind not in "ui" or any(
            n != 1 for axis, n in sizes.items() if axis not in "yx"
        ):
            raise AnnotationError(
                f"{folder}: {array.dtype}{array.shape} with axes {', '.join(axes)} is not one "
                "plane of labels"
            )
        pixels = np.asarray(array[...])
    except AnnotationError:
        raise
    except Exception as error:  # zarr, its codecs and JSON raise many; none of them names the file
        raise AnnotationError(
            f"{folder}: level 0 cannot be read ({type(error).__name__}: {error})"
        ) from error
    plane = pixels[tuple(slice(None) if axis in "yx" else 0 for axis in axes)]
    return plane if axes.index("y") < axes.index("x") else plane.T


def _label_folder(path: Path) -> Path:
    """The folder of the label image itself.

    Raises:
        AnnotationError: the image has no label image, or more than one.
    """
    if not (path / "labels").is_dir():
        return path
    names = sorted(sub.name for sub in (path / "labels").iterdir() if sub.is_dir())
    if len(names) != 1:
        shown = ", ".join(str(path / "labels" / name) for name in names[:3]) or "none"
        raise AnnotationError(
            f"{path}: {len(names)} label images in it ({shown}); name the folder of one"
        )
    return path / "labels" / names[0]
