"""Objects for the tools of scverse, written with their own libraries (extras of quadrat)."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quadrat.core.errors import ConfigError
from quadrat.core.files import make_folder, new_file, place_folder
from quadrat.outputs.objects import outlines_of, read_rows
from quadrat.outputs.results import SlideResult

NEEDED = {"anndata": ("anndata",), "spatialdata": ("spatialdata",)}
"""What of the formats needs a library, which is also the name of the extra."""
SHAPES, TABLE = "objects", "table"
"""Elements of a SpatialData."""
_PLACES = ("x_l0", "y_l0", "x0_l0", "y0_l0", "x1_l0", "y1_l0")


def check_installed(to: str) -> None:
    """Raises ConfigError if a format needs a library that is not there."""
    for library in NEEDED.get(to, ()):
        if importlib.util.find_spec(library) is None:
            raise ConfigError(
                f"--to {to} needs the library {library}, which is not installed; install it with "
                f"pip install 'quadrat[{to}]'"
            )


def write_anndata(folder: Path, result: SlideResult) -> None:
    """SLIDE.h5ad: a row an object; sizes, distances and scores are ``X``, id and class ``obs``, the
    centroids in level-0 px ``obsm["spatial"]``."""
    made = anndata_of(result)
    with TemporaryDirectory(prefix="quadrat-h5ad-") as name:  # the library writes to paths alone
        place = Path(name) / "objects.h5ad"
        made.write_h5ad(place)
        with place.open("rb") as source, new_file(folder / f"{result.name}.h5ad") as stream:
            shutil.copyfileobj(source, stream)


def write_spatialdata(folder: Path, result: SlideResult) -> None:
    """SLIDE.zarr: the outlines as shapes and the rest as a table that annotates them; coordinate
    systems are "global" (level-0 px) and "um"."""
    made = spatialdata_of(result)
    make_folder(folder)
    with TemporaryDirectory(prefix=".quadrat-", dir=folder) as name:
        place = Path(name) / "objects.zarr"
        made.write(place)
        place_folder(place, folder / f"{result.name}.zarr")


def anndata_of(result: SlideResult, *, region: str = "") -> Any:
    """The objects of a slide as ``anndata.AnnData``."""
    import anndata
    import pandas as pd

    path = result.objects
    names = [n for n in pq.read_schema(path).names if n != "geometry"]
    rows = read_rows(path, names)
    fixed = ("id", "class", "class_id", "flags", *_PLACES)
    figures = [name for name in names if name not in fixed]
    ids = rows["id"].to_numpy()
    known = [c.name for c in result.classes]
    classes = pd.Categorical(rows["class"].cast(pa.string()).to_pylist(), categories=known)
    columns = {"id": ids, "class": classes, "flags": rows["flags"].to_numpy()}
    obs = pd.DataFrame(columns, index=pd.Index([str(one) for one in ids]))
    if region:
        obs["region"] = pd.Categorical([region] * len(ids))
    values = [rows[name].to_numpy().astype(np.float64) for name in figures]
    made = anndata.AnnData(
        X=np.stack(values, axis=1).astype(np.float32),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(figures)),
    )
    made.obsm["spatial"] = np.stack([rows[name].to_numpy() for name in _PLACES[:2]], axis=1)
    frame = result.summary.frame
    made.uns["quadrat"] = {
        "slide": result.name,
        "coordinates": "level-0 px, x right, y down",
        "unit": frame.unit,
        "mpp_l0": frame.mpp_l0,
        "tissue_mm2": result.summary.figures.area.tissue_mm2,
    }
    return made


def spatialdata_of(result: SlideResult) -> Any:
    """The objects of a slide as ``spatialdata.SpatialData``."""
    import geopandas
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    rows = read_rows(result.objects, ["id", "geometry"])
    outlines = outlines_of(rows)
    drawn = geopandas.GeoDataFrame(geometry=outlines, index=rows["id"].to_numpy())
    frame = result.summary.frame
    um = Scale([frame.mpp / frame.scale_col, frame.mpp / frame.scale_row], axes=("x", "y"))
    transformations = {"global": Identity(), frame.unit: um}
    shapes = ShapesModel.parse(drawn, transformations=transformations)
    table = TableModel.parse(
        anndata_of(result, region=SHAPES), region=SHAPES, region_key="region", instance_key="id"
    )
    return SpatialData(shapes={SHAPES: shapes}, tables={TABLE: table})
