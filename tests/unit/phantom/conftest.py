"""One written phantom, read back, for all tests of the room."""

import json
from typing import Any, NamedTuple

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray

from quadrat.phantom import PhantomFiles, PhantomSpec, write_phantom

SPEC = PhantomSpec(name="a", width=2304, height=2051, seed=5, dominant="tumour")


class Phantom(NamedTuple):
    """One written phantom, read back."""

    spec: PhantomSpec
    files: PhantomFiles
    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint32]
    regions: NDArray[np.uint8]
    features: list[dict[str, Any]]


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    files = write_phantom(tmp_path_factory.mktemp("phantom"), spec=SPEC)
    with openslide.OpenSlide(files.slide) as slide:
        rgb = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    features = json.loads(files.geojson.read_text())["features"]
    return Phantom(
        SPEC, files, rgb, tifffile.imread(files.nuclei), tifffile.imread(files.regions), features
    )
