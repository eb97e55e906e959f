"""Where a run stands: pure functions on what is seen in its folder (:mod:`quadrat.engine.seen`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quadrat.core.unit import PX, Unit
from quadrat.engine.drivers import Driver
from quadrat.engine.failures import FailedSlide
from quadrat.engine.holder import Holder
from quadrat.engine.lease import SILENCE_S, Held
from quadrat.engine.seen import Progress, Seen
from quadrat.engine.timings import Spent, Timing, spent

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A slide that a driver has."""

    slide: str
    """Its name."""
    stage: str
    """The step that is underway."""
    percent: float
    """How much of the network's work is done, 0 to 100."""
    driver: str
    """Process, host and job that has it."""
    workers: tuple[str, ...]
    """Workers (host and process) that are at it, with the step."""
    silent_s: float | None
    """How long there was no sign of its driver, if that is long and nothing else is known of it;
    clocks of two hosts may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A slide that failed."""

    slide: str
    """Its name."""
    stage: str
    """The step that failed."""
    reason: str
    """Why."""
    remedy: str
    """What can be done; "": the reason says it, or nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a run stands."""

    slides: int
    """How many were asked for, or are there."""
    done: int
    """How many have results, or the store that was asked for."""
    running: tuple[Running, ...]
    """Those that a driver has."""
    failed: tuple[Failed, ...]
    """Those that failed."""
    interrupted: tuple[str, ...]
    """Those that were begun, and that nobody has now."""
    waiting: tuple[str, ...]
    """Those that were asked for and are not begun."""
    tissue_mm2: float
    """Analysed tissue of all results."""
    drivers: int
    """How many are at work on slides."""
    slides_per_h: float | None
    """Since the first of these drivers began; if none is at work, of the last one. None: not known
    yet."""
    area_per_h: float | None
    """The same, in mm² of tissue."""
    eta_s: float | None
    """Seconds until all is done, if the slides that are left are like those that are done; None:
    nobody is at work, or it is not known yet."""
    spent: Spent
    """Where the time of workers went, on slides that are done."""
    unit: Unit = "um"
    """In px areas are in megapixels."""


def status_of(seen: Seen) -> Status:
    """Where a run stands at the moment at which it was looked at."""
    failures = {failure.slide: failure for failure in seen.failed}
    running = tuple(_running(name, seen) for name, held in seen.holders.items() if _lives(held))
    held = {one.slide for one in running}
    failed = [failure for name, failure in failures.items() if name not in held]
    out = held | failures.keys()
    begun = seen.begun - seen.kept
    interrupted = begun - out
    done = ((seen.finished - begun) | _kept(seen)) - out
    every = held | failures.keys() | begun | done | seen.asked.keys()
    waiting = every - out - interrupted - done
    places = {_place(held.holder) for held in seen.holders.values() if held.holder and _lives(held)}
    rate = _rate(seen, running)
    left = sum(1 - one.percent / 100 for one in running) + len(interrupted) + len(waiting)
    eta = left / rate.slides * HOUR_S if rate is not None and rate.slides and running else None
    return Status(
        slides=len(every),
        done=len(done),
        running=tuple(sorted(running, key=lambda one: one.slide)),
        failed=tuple(map(_failed, failed)),
        interrupted=tuple(sorted(interrupted)),
        waiting=tuple(sorted(waiting)),
        tissue_mm2=round(sum(seen.tissue_mm2.values()), 4),
        drivers=len(places),
        slides_per_h=None if rate is None else round(rate.slides, 3),
        area_per_h=None if rate is None else round(rate.mm2, 3),
        eta_s=None if eta is None else round(eta, 1),
        spent=spent(seen.timings.values()),
        unit=PX if any(one.unit == PX for one in seen.timings.values()) else "um",
    )


@dataclass(frozen=True, slots=True)
class _Rate:
    """How fast a run goes."""

    slides: float
    mm2: float


def _lives(held: Held) -> bool:
    """Whether a driver has a slide, as far as is known."""
    return held.fate != "dead"


def _kept(seen: Seen) -> frozenset[str]:
    """Slides that were to end in a store, and did; or of which a store was kept by an earlier
    version, that did not say what it was asked for."""
    return frozenset(name for name in seen.kept if seen.asked.get(name) != "results")


def _place(holder: Holder) -> tuple[str, str, int, int]:
    """One process, whatever it holds."""
    return holder.host, holder.namespace, holder.pid, holder.started


def _running(name: str, seen: Seen) -> Running:
    held, progress = seen.holders[name], seen.progress.get(name, Progress())
    workers = tuple(f"{job.worker} ({job.step})" for job in seen.jobs if job.slide == name)
    silent = seen.time - held.sign_s if held.fate == "unknown" else 0.0
    return Running(
        slide=name,
        stage=_stage(progress),
        percent=round(100 * _share(progress), 1),
        driver=str(held),
        workers=workers,
        silent_s=round(silent, 1) if silent > SILENCE_S else None,
    )


def _stage(progress: Progress) -> str:
    """The step that is underway: inference until it is complete, then what was last booked."""
    if progress.shards == 0:
        return "plan"
    if 0 < progress.inferred < progress.shards:
        return "predict"
    return progress.step


def _share(progress: Progress) -> float:
    return min(1.0, progress.inferred / progress.shards) if progress.shards else 0.0


def _failed(failure: FailedSlide) -> Failed:
    return Failed(
        slide=failure.slide, stage=failure.stage, reason=failure.reason, remedy=failure.remedy
    )


def _rate(seen: Seen, running: tuple[Running, ...]) -> _Rate | None:
    """Slides and mm² per hour since the first driver that is still at work began (parts of running
    slides count); or of the last driver, if none is."""
    timed = [timing for timing in seen.timings.values() if timing.time]
    live = [driver for driver in seen.drivers if _at_work(driver, seen)]
    if live:
        began = min(driver.began for driver in live)
        until = seen.time
        parts = sum(one.percent / 100 for one in running)
    elif seen.drivers:
        began, parts = seen.drivers[-1].began, 0.0
        until = max((timing.time for timing in timed), default=began)
    else:
        return None
    done = [timing for timing in timed if timing.time >= began]
    hours = (until - began) / HOUR_S
    if hours <= 0 or not (done or parts):
        return None
    return _Rate((len(done) + parts) / hours, _mm2(done) / hours)


def _at_work(driver: Driver, seen: Seen) -> bool:
    """Whether a driver has a slide now."""
    return driver.ended is None and any(
        _place(held.holder) == _place(driver.holder)
        for held in seen.holders.values()
        if held.holder is not None and _lives(held)
    )


def _mm2(timings: Iterable[Timing]) -> float:
    return sum(timing.tissue_mm2 for timing in timings)
