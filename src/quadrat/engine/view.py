"""A slide as stitching sees it: its predictions, and the parts that earlier steps made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quadrat.annotations.regions import inside
from quadrat.core.errors import StoreError
from quadrat.core.files import new_file
from quadrat.core.lattice import ShardIndex
from quadrat.core.objects import Frame
from quadrat.core.predictions import Array, Arrays
from quadrat.engine.work import SlideWork
from quadrat.models.task import ModelSpec
from quadrat.slides.tissue.mask import TissueMap
from quadrat.store.predictions import PredictionStore
from quadrat.tasks import get_task


class WorkView:
    """A slide as stitching sees it (see :class:`quadrat.models.task.SlideView`)."""

    def __init__(self, work: SlideWork, predictions: PredictionStore | None = None) -> None:
        """``predictions``: the slide's store, if it is open already."""
        self.work = work
        self.predictions: Any = predictions or get_task(work.task).storage(work.spec).open(
            work.predictions
        )

    @property
    def spec(self) -> ModelSpec:
        return self.work.spec

    @property
    def frame(self) -> Frame:
        frame: Frame = self.predictions.layout.frame
        return frame

    @property
    def shards(self) -> Sequence[ShardIndex]:
        shards: Sequence[ShardIndex] = self.predictions.layout.shards
        return shards

    def allows(self, rows: Array, cols: Array) -> npt.NDArray[np.bool_]:
        if self._tissue is None:
            return np.ones(np.broadcast_shapes(rows.shape, cols.shape), np.bool_)
        return inside(self._tissue, rows, cols, frame=self.frame)

    @cached_property
    def _tissue(self) -> TissueMap | None:
        """The mask, if the user drew regions."""
        return self.work.load_tissue() if self.work.ref.regions else None

    def selection(self) -> Mapping[str, Array]:
        return load_part(self.work.selection)

    def part(self, shard: ShardIndex) -> Mapping[str, Array]:
        return load_part(self.work.part(shard))

    @cached_property
    def first_id(self) -> dict[ShardIndex, int]:
        """The id of each shard's first object: ids count from 1 through the shards in raster order.

        Merging keeps it in a file, or every unit that paints would open every part.
        """
        ids = (
            load_part(self.work.first_ids)["first_id"]
            if self.work.first_ids.exists()
            else self._count_ids()
        )
        return dict(zip(self.shards, ids.tolist(), strict=True))

    def keep_first_ids(self) -> None:
        """Count the parts as they are now and write the file that ``first_id`` reads; all shards
        must be stitched."""
        save_part(self.work.first_ids, {"first_id": self._count_ids()})

    def _count_ids(self) -> npt.NDArray[np.int64]:
        counts = [len(self.part(shard)["class_id"]) for shard in self.shards]
        return 1 + np.cumsum([0, *counts], dtype=np.int64)[:-1]


def save_part(path: Path, arrays: Arrays) -> None:
    """Write arrays as an uncompressed npz (no pickles), complete or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    with new_file(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load_part(path: Path) -> Mapping[str, Array]:
    """The arrays of :func:`save_part`; each is read when it is asked for."""
    try:
        part: Mapping[str, Array] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); run again to stitch it") from error
    return part
