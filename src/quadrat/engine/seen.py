"""What can be seen in a run's folder by a process that takes no part in the run: on any node, while
the run goes on. Nothing is written, and torch is not imported."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quadrat.config.manifest import NO_FOLDERS
from quadrat.engine.drivers import WORKERS, Driver, names_asked, read_drivers
from quadrat.engine.failures import FailedSlide, read_failures
from quadrat.engine.folder import FOLDER, LEASES
from quadrat.engine.journal import JOURNAL, KEPT, Journal, Planned
from quadrat.engine.lease import Held, Leases
from quadrat.engine.timings import Timing, read_timings
from quadrat.outputs.summary import SUMMARY

_TAIL_BYTES = 1 << 14
_KEPT = json.dumps({"step": KEPT})[1:-1].encode()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a slide is, as its journal says."""

    step: str = ""
    """The last step with a receipt."""
    shards: int = 0
    """How many the network is to infer; 0: that is not known yet."""
    inferred: int = 0
    """How many of them are."""


@dataclass(frozen=True, slots=True)
class AtJob:
    """A worker that has begun a job and not ended it, as its log says."""

    worker: str
    """Host and process."""
    slide: str
    """Name of the slide."""
    step: str
    """Name of the step."""
    since: float
    """When the job began, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a folder shows at one moment."""

    time: float
    """The moment, in seconds since 1970."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """All slides that commands were asked for, each with where that was to end."""
    finished: frozenset[str] = frozenset()
    """Slides with results."""
    tissue_mm2: Mapping[str, float] = field(default_factory=dict)
    """Analysed tissue of slides with results."""
    kept: frozenset[str] = frozenset()
    """Slides of which a complete store is kept on request."""
    begun: frozenset[str] = frozenset()
    """Slides with a working folder."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """Of slides that somebody holds."""
    failed: Sequence[FailedSlide] = ()
    """Why slides failed."""
    holders: Mapping[str, Held] = field(default_factory=dict)
    """Who holds a slide."""
    timings: Mapping[str, Timing] = field(default_factory=dict)
    """What finished slides took, in the order in which they were done."""
    drivers: Sequence[Driver] = ()
    """All that had something to do."""
    jobs: Sequence[AtJob] = ()
    """What workers are at."""


class Folder:
    """A run's folder that is looked at, once or again and again."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._leases = Leases(out / "run" / LEASES)  # none is taken
        self._tissue: dict[str, float] = {}
        """Of results that were made by an older version."""

    def look(self) -> Seen:
        """What is there now."""
        out = self.out
        holders = {name: held for name, held in self._leases.holders().items() if name != FOLDER}
        finished = frozenset(self._finished())
        timings = read_timings(out)
        begun = frozenset(path.name for path in _folders(out / "run" / "work"))
        drivers = read_drivers(out)
        return Seen(
            time=time.time(),
            asked=names_asked(out),
            finished=finished,
            tissue_mm2={name: self._tissue_of(name, timings) for name in finished},
            kept=frozenset(name for name in begun if _is_kept(self._journal(name))),
            begun=begun,
            progress={name: _progress(self._journal(name)) for name in holders if name in begun},
            failed=tuple(read_failures(out)),
            holders=holders,
            timings=timings,
            drivers=drivers,
            jobs=tuple(jobs_of(out, drivers)),
        )

    def _journal(self, name: str) -> Path:
        return self.out / "run" / "work" / name / JOURNAL

    def _finished(self) -> list[str]:
        found = _folders(self.out / "results")
        return [path.name for path in found if os.path.exists(os.path.join(path, SUMMARY))]

    def _tissue_of(self, name: str, timings: Mapping[str, Timing]) -> float:
        if name in timings and timings[name].time:
            return timings[name].tissue_mm2
        if name not in self._tissue:
            try:
                values = json.loads((self.out / "results" / name / SUMMARY).read_bytes())
                self._tissue[name] = float(values.get("tissue_mm2", values.get("tissue_mpx", 0.0)))
            except (OSError, ValueError, KeyError, TypeError):
                return 0.0
        return self._tissue[name]


def jobs_of(out: Path, drivers: Sequence[Driver]) -> list[AtJob]:
    """What the workers of drivers that have not ended are at. (Those of a cluster have their logs
    in one folder.)"""
    folder, there = out / "run" / WORKERS, [d for d in drivers if d.ended is None]
    logs = [log for driver in there for log in sorted((folder / driver.id).glob("*.jsonl"))]
    logs += sorted(folder.glob("*.jsonl")) if there else []
    found = [job for log in logs if (job := last_job(_tail(log))) is not None]
    return [job for job in found if job.since >= min(driver.began for driver in there)]


def last_job(lines: Sequence[bytes]) -> AtJob | None:
    """The job that a worker is at, by the last lines of its log; None: it has none now."""
    worker, at = "", None
    for line in lines:
        try:
            values = json.loads(line)
            event = values["event"]
            worker = f"{values['host']}:{values['pid']}" if "pid" in values else worker
            if event == "begin":
                slide, _, step = str(values["job"]).partition("/")
                at = AtJob("", slide, step.partition("/")[0], float(values["time"]))
            else:
                at = None
        except (ValueError, KeyError, TypeError):
            continue
    return None if at is None else AtJob(worker, at.slide, at.step, at.since)


def _progress(path: Path) -> Progress:
    try:
        receipts = Journal(path).receipts
    except OSError:
        return Progress()
    plans = [receipt for receipt in receipts.values() if isinstance(receipt, Planned)]
    inferred = [key for key in receipts if key.step == "predict"]
    of_now = sum(key.fingerprint == inferred[-1].fingerprint for key in inferred)
    last = next(reversed(receipts)).step if receipts else ""
    return Progress(last, len(plans[-1].shards) if plans else 0, of_now)


def _is_kept(path: Path) -> bool:
    try:
        return _KEPT in path.read_bytes()
    except OSError:
        return False


def _tail(path: Path) -> list[bytes]:
    """The last lines of a file, and its first one, which says what the worker is."""
    try:
        with path.open("rb") as stream:
            first = stream.readline()
            stream.seek(max(len(first), os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
            return [first, *stream.read().splitlines()]
    except OSError:
        return []


def _folders(place: Path) -> list[Path]:
    """Folders of slides."""
    try:
        with os.scandir(place) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    return [place / name for name in sorted(names) if not NO_FOLDERS.fullmatch(name)]
