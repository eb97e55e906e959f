"""A finished run in Python: ``quadrat.open_run``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from quadrat.core.errors import ConfigError, QuadratError
from quadrat.core.geometry import Box
from quadrat.core.text import aligned
from quadrat.engine.report import SUMMARY_CSV
from quadrat.outputs.results import SlideResult, read_results
from quadrat.outputs.summary import Summary
from quadrat.outputs.tables import CountRow
from quadrat.store.array import ShardedArray

_IMAGE, _LABELS = "slide.ome.zarr", ("objects", "classes")


class LabelImage:
    """The label image of a slide at the grid's mpp. It is read by parts: ``image[100:200, :50]``,
    and ``numpy.asarray(image)`` reads all of it."""

    def __init__(self, path: Path) -> None:
        self._array = ShardedArray.open(path / "0")
        self.name = path.name
        self.shape: tuple[int, int] = (self._array.shape[-2], self._array.shape[-1])
        self.dtype: np.dtype[Any] = np.dtype(self._array.dtype)

    def __getitem__(self, at: Any) -> npt.NDArray[Any]:
        """Slices of rows and columns; steps other than 1 are not taken."""
        both = at if isinstance(at, tuple) else (at, slice(None))
        if len(both) != 2 or not all(isinstance(one, slice) for one in both):
            raise TypeError("a label image is read by slices of rows and columns: image[0:9, 0:9]")
        spans = [one.indices(size) for one, size in zip(both, self.shape, strict=True)]
        if any(step != 1 for _, _, step in spans):
            raise ValueError("a label image is read in steps of 1")
        (row0, row1, _), (col0, col1, _) = spans
        box = Box(row0, col0, max(row0, row1), max(col0, col1))
        return self._array.read(box).reshape(box.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        whole = self[:, :]
        return whole if dtype is None else whole.astype(dtype)

    def __repr__(self) -> str:
        return f"LabelImage({self.name}, {self.shape[0]} x {self.shape[1]}, {self.dtype})"


@dataclass(frozen=True)
class RunSlide:
    """A slide with results."""

    result: SlideResult
    """Where they lie, and what they say of themselves."""

    @property
    def name(self) -> str:
        """The slide."""
        return self.result.name

    @property
    def folder(self) -> Path:
        """Where its results lie."""
        return self.result.folder

    @property
    def summary(self) -> Summary:
        """summary.json."""
        return self.result.summary

    @property
    def counts(self) -> dict[str, CountRow]:
        """counts.csv: of each class, and of "all"; empty where the task scores tiles."""
        return {row.class_name: row for row in self.result.counts}

    @property
    def count(self) -> int:
        """All objects.

        Raises:
            ConfigError: the task scores tiles.
        """
        if not self.result.counts:
            raise ConfigError(f"{self.folder}: the task {self.summary.task} counts nothing")
        return self.result.counts[-1].count

    @cached_property
    def objects(self) -> pa.Table:
        """objects.parquet; outlines are WKB in level-0 px.

        Raises:
            QuadratError: there is none, or it cannot be read.
        """
        path = self.result.objects
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise QuadratError(f"{path} cannot be read as objects.parquet ({error})") from error

    def to_geopandas(self) -> Any:
        """The objects as ``geopandas.GeoDataFrame``.

        Raises:
            ConfigError: geopandas is not installed.
        """
        try:
            import geopandas
        except ImportError as error:
            raise ConfigError(
                "geopandas is not installed; pip install geopandas, or use .objects (pyarrow)"
            ) from error
        return geopandas.read_parquet(self.result.objects)

    @cached_property
    def label_image(self) -> LabelImage | None:
        """Ids of objects, or class + 1, at the grid's mpp; None where the task makes none."""
        places = (self.folder / _IMAGE / "labels" / name for name in _LABELS)
        found = next((place for place in places if place.is_dir()), None)
        return None if found is None else LabelImage(found)

    def __repr__(self) -> str:
        return f"RunSlide({self.name!r}, {self.summary.task}, {self.folder})"


@dataclass(frozen=True)
class Run:
    """A folder that ``quadrat run`` or ``quadrat import`` has written."""

    out: Path
    """The folder."""
    slides: Mapping[str, RunSlide]
    """Slides with results, by name."""

    @cached_property
    def summary(self) -> pa.Table:
        """results/summary.csv: a row a slide, failed ones among them.

        Raises:
            QuadratError: there is none, or it cannot be read.
        """
        path = self.out / "results" / SUMMARY_CSV
        try:
            return pyarrow.csv.read_csv(path)
        except (OSError, pa.ArrowException) as error:
            raise QuadratError(f"{path} cannot be read ({error})") from error

    def __getitem__(self, name: str) -> RunSlide:
        return self.slides[name]

    def __iter__(self) -> Iterator[RunSlide]:
        return iter(self.slides.values())

    def __len__(self) -> int:
        return len(self.slides)

    def __repr__(self) -> str:
        rows = [["slide", "task", "objects"]]
        for slide in self:
            count = str(slide.count) if slide.counts else ""
            rows.append([slide.name, slide.summary.task, count])
        return "\n".join([f"Run({str(self.out)!r})", *aligned(rows)])


def open_run(out: str | Path) -> Run:
    """The results in the folder of a run.

    Raises:
        ConfigError: there are none, or some cannot be read.
    """
    found = read_results(Path(out))
    return Run(Path(out), {name: RunSlide(result) for name, result in found.items()})
