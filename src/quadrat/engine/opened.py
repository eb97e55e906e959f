"""What a process keeps open of slides it has worked on: the file, the plan, the prediction store.

Opening a slide, parsing its plan and laying hands on its stores costs more than the work on one
shard, so a few of the slides used last stay open. What was kept counts only as long as the plan and
the store are the same files.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from quadrat.core.errors import SlideError
from quadrat.core.lattice import CoreIndex, ShardIndex
from quadrat.engine.staging import Copy, clear_stage, staged
from quadrat.engine.work import PLAN, SlidePlan, SlideWork, unchanged
from quadrat.slides.source import SlideSource, open_source
from quadrat.store.predictions import ABOUT, PredictionStore

MOST_OPEN = 4
"""Slides that a process keeps open."""
Stamp = tuple[int, int, int]
STAMPS: tuple[Callable[[SlideWork], Path], ...] = (
    lambda work: work.path / PLAN,
    lambda work: work.predictions / ABOUT,
)
"""Files that are kept open, or in memory, as they were."""


class Opened:
    """One slide that is open; each part is opened when it is first asked for."""

    def __init__(self, work: SlideWork) -> None:
        self._work = work
        self._copy: Copy | None = None

    @cached_property
    def source(self) -> SlideSource:
        """The slide at the model's mpp, by its one read plan; or a copy of it on this machine."""
        self._copy = staged(self._work.ref.path, self._work.identity)
        return open_work_source(self._work, path=self._copy.path if self._copy else "")

    @cached_property
    def plan(self) -> SlidePlan:
        return self._work.load_plan()

    @cached_property
    def cells(self) -> dict[ShardIndex, list[CoreIndex]]:
        """The analysed cores of each shard."""
        return self._work.spec.lattice.by_shard(self.plan.cells)

    @cached_property
    def predictions(self) -> PredictionStore:
        from quadrat.tasks import get_task  # here: a worker that starts is not to wait for torch

        storage: Any = get_task(self._work.task).storage(self._work.spec)
        store: PredictionStore = storage.open(self._work.predictions)
        return store

    def close(self) -> None:
        """Close the slide's file, if it was opened."""
        if "source" in self.__dict__:
            self.source.close()
        if self._copy is not None:
            self._copy.release()

    def begin_again(self, work: SlideWork) -> bool:
        """Forget plan and store; whether that is all that is to be forgotten."""
        self._work = work
        for name in ("plan", "cells", "predictions"):
            self.__dict__.pop(name, None)
        return "source" not in self.__dict__ or not self.source.damage

    def name_the_slide(self, error: SlideError) -> None:
        """Let an error name the slide's own file in place of that of its copy."""
        if self._copy is not None:
            text = str(error).replace(self._copy.path, self._work.ref.path)
            error.args = (text, *error.args[1:])


_open: OrderedDict[tuple[object, ...], Opened] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def opened(work: SlideWork, *, reading: bool = False) -> Iterator[Opened]:
    """A slide, opened once per process. After an error it is closed, since a library that failed
    may never read from the same handle again.

    ``reading``: pixels are read from the slide, so its file must be the one that was planned.

    Raises:
        SlideError: the file was replaced or written to (see :func:`unchanged`).
    """
    key = _key(work)
    with _lock:
        found = _open.pop(key, None) or _successor(key, work)
    try:
        if reading:
            with unchanged(work):
                yield found
        else:
            yield found
    except SlideError as error:
        found.close()
        found.name_the_slide(error)
        raise
    except BaseException:
        found.close()
        raise
    with _lock:
        other = _open.pop(key, None)  # another thread opened the same slide meanwhile
        _open[key] = found
        gone = [other] if other is not None else []
        while len(_open) > MOST_OPEN:
            gone.append(_open.popitem(last=False)[1])
    for one in gone:
        one.close()


def _successor(key: tuple[object, ...], work: SlideWork) -> Opened:
    """A slide whose plan or store is another by now: its file stays open, unless damage was met in
    it that the next receipts are not to name."""
    same = (other for other in _open if other[: -len(STAMPS)] == key[: -len(STAMPS)])
    before = next(same, None)
    if before is None:
        return Opened(work)
    old = _open.pop(before)
    if old.begin_again(work):
        return old
    old.close()
    return Opened(work)


def close_all() -> None:
    """Close every slide that this process keeps open."""
    with _lock:
        gone = list(_open.values())
        _open.clear()
    for one in gone:
        one.close()


def leave_slides() -> None:
    """Close every slide, and remove the copies on this machine that nobody else uses."""
    close_all()
    clear_stage()


atexit.register(close_all)


def open_work_source(work: SlideWork, *, path: str = "") -> SlideSource:
    """The slide itself at the model's mpp, by its one read plan. ``path``: of a copy of it."""
    return open_source(
        path or work.ref.path,
        scene=work.ref.scene,
        mpp=work.spec.mpp,
        slide_mpp=work.ref.mpp if work.ref.mpp is not None else work.slide.mpp,
        allow_upsampling=work.slide.allow_upsampling,
        damaged=damage_mode(work),
        unit=work.spec.unit,
    )


def damage_mode(work: SlideWork) -> Literal["fail", "mark"]:
    """What happens at a tile that cannot be decoded (see :class:`SlideSource`)."""
    return "mark" if work.slide.damaged == "mark" else "fail"


def _key(work: SlideWork) -> tuple[object, ...]:
    """All that decides what is read, and the plan and the store as they are now on disk."""
    how = work.slide
    return (
        *(work.folder, work.identity, work.task, work.margin, work.ref.path, work.ref.scene),
        *(work.ref.mpp, how.mpp, how.allow_upsampling, how.damaged, work.spec.mpp),
        work.spec.unit,
        work.spec.lattice,
        *(_stamp(of(work)) for of in STAMPS),
    )


def _stamp(path: Path) -> Stamp | None:
    """Tells a file from one that replaces it; None: there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
