"""Who works, or worked, in a run's folder, and what was asked for: small records from which another
process can say what is still to be done, and do a slide again.

::

    run/asked/DIGEST.json     a pipeline as it was resolved, and the slides
    run/drivers/ID.json       a driver that had something to do
    run/workers/ID/           the logs of its workers
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quadrat.config.manifest import SlideRef
from quadrat.core.errors import WriteError
from quadrat.core.files import remove, touch, write_file
from quadrat.core.records import from_json, to_json
from quadrat.engine.holder import Holder, this_process

if TYPE_CHECKING:
    from quadrat.config.pipeline import Pipeline

ASKED, DRIVERS, WORKERS = "asked", "drivers", "workers"
LOGS_KEPT = 16
"""Folders of workers' logs that stay of drivers that are over."""
GIVEN = (
    *("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"),
    *("SLURM_ARRAY_TASK_COUNT", "SLURM_RESTART_COUNT", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS"),
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"),
    *("SLURM_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME"),
)
"""What SLURM says of the job that it gave."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command was asked for."""

    until: str
    """Where it was to end ("tile", "predict", "results")."""
    pipeline: Pipeline
    """As it was resolved; its package is an absolute path."""
    slides: tuple[SlideRef, ...]
    """With absolute paths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A process that took slides to their end."""

    id: str
    """Names it in this folder."""
    holder: Holder
    """Which process on which host."""
    asked: str
    """What it was asked for: the name of a record under ``run/asked/``."""
    workers: int
    """Processes that computed; 0: it did all itself."""
    threads: int = 1
    """Of torch in each of them."""
    numerics: str = ""
    """What the network was computed with (:mod:`quadrat.core.numerics`)."""
    began: float = 0.0
    """When it began, in seconds since 1970."""
    ended: float | None = None
    """When it ended; None: it is at work, or was killed."""
    peak_mb: float = 0.0
    """Largest size of a process of it, in MiB."""
    given: Mapping[str, str] = field(default_factory=dict)
    """What SLURM gave to its job, by variable."""


def note_asked(
    out: Path, pipeline: Pipeline, slides: Sequence[SlideRef], *, package: Path, until: str
) -> str:
    """Keep what is asked for, once; the name of the record.

    Raises:
        WriteError: it cannot be written.
    """
    model = replace(pipeline.model, package=os.path.abspath(package))
    return _note(out, until, to_json(replace(pipeline, model=model)), slides)


def note_imported(out: Path, slide: SlideRef) -> str:
    """Keep where the file of a slide with imported results lies; the name of the record.

    Raises:
        WriteError: it cannot be written.
    """
    return _note(out, "import", None, [slide])


def _note(
    out: Path, until: str, pipeline: dict[str, Any] | None, slides: Sequence[SlideRef]
) -> str:
    shown = [_shown(ref) for ref in slides]
    text = json.dumps({"until": until, "pipeline": pipeline, "slides": shown})
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    place = out / "run" / ASKED / f"{digest}.json"
    if place.exists():
        touch(place)  # the last one that was asked for
    else:
        write_file(place, text)
    return digest


def _shown(ref: SlideRef) -> dict[str, Any]:
    """The fields of a slide that are filled."""
    values = {name: getattr(ref, name) for name in _REF}
    values |= {name: os.path.abspath(values[name]) for name in ("path", "regions") if values[name]}
    return {name: value for name, value in values.items() if value not in ("", None)}


_REF = tuple(one.name for one in fields(SlideRef))


def names_asked(out: Path) -> dict[str, str]:
    """All slides that commands were asked for, each with the place where the last of them was to
    end. (Cheap: no pipeline is checked.)"""
    found: dict[str, str] = {}
    for path in _by_age(out / "run" / ASKED):
        try:
            values = json.loads(path.read_bytes())
            found |= {str(slide["name"]): str(values["until"]) for slide in values["slides"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def slides_asked(out: Path) -> dict[str, SlideRef]:
    """The slides that commands were asked for, by name, as the last command gave them. (Cheap: no
    pipeline is checked.)"""
    found: dict[str, SlideRef] = {}
    for path in _by_age(out / "run" / ASKED):
        try:
            slides = json.loads(path.read_bytes())["slides"]
            found |= {str(slide["name"]): SlideRef(**slide) for slide in slides}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def read_asked(out: Path) -> Iterator[Asked]:
    """What commands were asked for, the last one first. Records of another version are left
    out."""
    from pydantic import TypeAdapter

    from quadrat.config.pipeline import Pipeline  # here: it takes long to import

    adapter = TypeAdapter(Pipeline)
    for path in reversed(_by_age(out / "run" / ASKED)):
        try:
            values = json.loads(path.read_bytes())
            pipeline = adapter.validate_json(json.dumps(values["pipeline"]))
            slides = tuple(SlideRef(**ref) for ref in values["slides"])
            yield Asked(str(values["until"]), pipeline, slides)
        except (OSError, ValueError, KeyError, TypeError):  # pydantic's is a ValueError
            continue


Alone = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(slots=True)
class AtWork:
    """This process as a driver; its record is written again as more is known of it."""

    out: Path
    """The run's folder."""
    driver: Driver
    """What is known of it."""
    alone: Alone = contextlib.nullcontext
    """Keeps other drivers from tidying the folder up while a file of it is half written."""

    @property
    def logs(self) -> Path:
        """Folder for the logs of its workers."""
        return self.out / "run" / WORKERS / self.driver.id

    def note(self, **values: Any) -> None:
        """Write down more of it.

        Raises:
            WriteError: it cannot be written.
        """
        self.driver = replace(self.driver, **values)
        place = self.out / "run" / DRIVERS / f"{self.driver.id}.json"
        with self.alone():
            write_file(place, json.dumps(to_json(self.driver), indent=1) + "\n")


@contextlib.contextmanager
def at_work(
    out: Path,
    asked: str,
    *,
    workers: int,
    threads: int = 1,
    environ: Mapping[str, str] = os.environ,
    alone: Alone = contextlib.nullcontext,
) -> Iterator[AtWork]:
    """This process drives slides in the block. ``alone``: entered around each writing of its
    record (see :func:`quadrat.engine.folder.alone`).

    Raises:
        WriteError: its record cannot be written.
    """
    holder, began = this_process("driver", environ), time.time()
    driver = Driver(
        id=f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(began))}-{holder.nonce[:8]}",
        holder=holder,
        asked=asked,
        workers=workers,
        threads=threads,
        began=began,
        given={name: environ[name] for name in GIVEN if name in environ},
    )
    here = AtWork(out, driver, alone)
    here.note()
    try:
        yield here
    finally:
        with contextlib.suppress(WriteError):  # then it looks as if it had been killed
            here.note(ended=time.time())


def read_drivers(out: Path) -> list[Driver]:
    """All that are known, in the order in which they began."""
    found = []
    for path in (out / "run" / DRIVERS).glob("*.json"):
        try:
            found.append(from_json(Driver, json.loads(path.read_bytes())))
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda driver: driver.began)


def drop_logs(out: Path) -> None:
    """Remove the oldest logs of workers; only while no driver is at work.

    Raises:
        WriteError: they cannot be removed.
    """
    for folder in sorted((out / "run" / WORKERS).glob("*"))[:-LOGS_KEPT]:
        remove(folder)


def _by_age(folder: Path) -> list[Path]:
    """The records in a folder, the oldest first."""

    def age(path: Path) -> int:
        with contextlib.suppress(OSError):
            return path.stat().st_mtime_ns
        return 0

    return sorted(folder.glob("*.json"), key=age)
