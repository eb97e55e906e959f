"""A batch of slides on its way: gives the flow's work to an executor and books what comes back.

Progress is what the journals say. A failed slide is set aside with its reason, and the others go
on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quadrat.core.errors import OvertakenError, WriteError
from quadrat.core.files import free_bytes
from quadrat.core.lattice import Cell
from quadrat.engine.executor import Executor, Failure, Job, Outcome
from quadrat.engine.flow import Flow, Needs, Place, SlideFlow, Unit
from quadrat.engine.journal import Receipt
from quadrat.engine.progress import Phase, Reporter
from quadrat.engine.route import steps_of
from quadrat.engine.state import AnyStep, RunSettings, ShardStep, SlideState
from quadrat.engine.steps import LAYOUT, PREDICT, STORE, work_bytes
from quadrat.tasks import get_task

DEVICE_SHARDS = 4
"""How many times larger units are for a worker with a device, which is done with one in a moment:
it reads ahead and writes behind within a unit."""
Begin = Callable[[], SlideState | None]
"""Gives the next slide, or None where there is none now."""
Ended = Callable[[SlideState], None]
"""Gets a slide that is done or has its failure."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Takes slides through their steps."""

    run: RunSettings
    """What the jobs of all slides have in common."""
    executor: Executor
    """Where the jobs run: in this process, or in worker processes."""
    reporter: Reporter
    """Gets progress, failures and the memory that jobs took."""

    def advance(self, states: Sequence[SlideState], *, until: str) -> None:
        """Take the slides through the steps; afterwards each is done or has its failure."""
        steps = steps_of(get_task(self.run.pipeline.task), self.run.pipeline, until=until)
        source = iter(state for state in states if state.failure is None)
        self.drive(lambda: next(source, None), steps, total=len(states))

    def drive(
        self,
        begin: Begin,
        steps: Sequence[AnyStep],
        *,
        total: int,
        ended: Ended = lambda state: None,
    ) -> None:
        """Take slides through ``steps`` as ``begin`` gives them, until it gives none and all are
        done or have their failure. ``total``: how many that will be, for the progress."""
        with self.reporter.phase("slides", total) as bar:
            driving = _Driving(self, begin, steps, ended, bar)
            for outcome in self.executor.run(driving):
                driving.settle(outcome)
            driving.leave()

    def fail(self, state: SlideState, stage: str, failure: Failure) -> None:
        """Set a slide aside; the first reason counts."""
        if state.failure is None:
            state.failure, state.stage = failure, stage
            self.reporter.say(f"{state.name}: failed in {stage}: {failure.message}")
            if failure.trace:
                self.reporter.event("traceback", slide=state.name, stage=stage, trace=failure.trace)


@dataclass(frozen=True, slots=True)
class _Booked:
    """What a slide's journal says, as the flow asks for it."""

    state: SlideState
    """The slide."""
    steps: Sequence[AnyStep]
    """All that it takes."""

    def places(self, step: int) -> Sequence[Cell]:
        here = self.steps[step]
        assert isinstance(here, ShardStep)
        return sorted(here.shards(self.state))

    def is_done(self, step: int, place: Place) -> bool:
        return self.state.done(self.steps[step], place)


class _Driving:
    """One passage of slides: the source of an executor's jobs, and the book of their outcomes."""

    def __init__(
        self, batch: Batch, begin: Begin, steps: Sequence[AnyStep], ended: Ended, bar: Phase
    ) -> None:
        self._batch, self._begin, self._ended, self._bar = batch, begin, ended, bar
        self._steps = steps
        self._network = steps.index(PREDICT) if PREDICT in steps else None
        self._states: dict[str, SlideState] = {}
        self._units: dict[str, Unit] = {}
        self._numbers = Counter[str]()
        self._over = 0
        section = batch.run.pipeline.run
        ahead = batch.executor.ahead
        network_unit = section.shards_per_unit * (DEVICE_SHARDS if ahead else 1)
        gate = next((s.name for s in steps if s in (STORE, LAYOUT)), "")
        self._flow = Flow(
            self._admit,
            most=section.slides_in_flight,
            per_unit=section.shards_per_unit,
            per_network_unit=network_unit,
            ahead=ahead * network_unit,
            gate=gate,
            weight=self._weight,
            room=self._room,
        )

    @property
    def network_left(self) -> bool:
        return self._flow.network_left

    def next(self, needs: frozenset[Needs]) -> Job | None:
        """A job for a worker that takes such jobs. A slide with a job that cannot even be made has
        failed."""
        while (unit := self._flow.next(needs)) is not None:
            state, step = self._states[unit.slide], self._steps[unit.step]
            key = f"{state.name}/{step.name}"
            if step.by_shard:
                self._numbers[key] += 1
                key = f"{key}/{self._numbers[key] - 1}"
            try:
                if state.lease is not None and state.lease.over:
                    raise OvertakenError(state.name)
                job = self._job(key, state, step, unit)
            except Exception as error:
                self._lose(unit, Failure.of(error))
                continue
            self._units[key] = unit
            return job
        return None

    def settle(self, outcome: Outcome[Any]) -> None:
        """Add up what a job took, book its receipts, and set its slide aside if it failed."""
        unit = self._units.pop(outcome.key)
        state, step = self._states[unit.slide], self._steps[unit.step]
        state.spend(step, outcome)
        event = "failed" if outcome.failure is not None else "work"
        seconds = round(outcome.seconds, 3)
        self._batch.reporter.event(event, slide=state.name, step=step.name, seconds=seconds)
        self._batch.reporter.saw_memory(outcome.peak_mb)
        if outcome.failure is not None:
            self._lose(unit, outcome.failure, outcome)
        else:
            try:
                self._book(state, step, unit, outcome.receipt)
            except Exception as error:
                self._give_up(unit, Failure.of(error))
        self._show(state, step)
        self.leave()

    def leave(self) -> None:
        """Slides that are complete or were given up go."""
        for name in self._flow.ended():
            self._over += 1
            state = self._states.pop(name)
            try:
                state.journal.close()
            except WriteError as error:
                self._batch.fail(state, "journal", Failure.of(error))
            self._ended(state)

    def _job(self, key: str, state: SlideState, step: AnyStep, unit: Unit) -> Job:
        run, fn = self._batch.run, step.fn
        if isinstance(step, ShardStep):
            payload = step.job(state, run, unit.places)
            fn = step.early if unit.early and step.early is not None else fn
        else:
            payload = step.job(state, run)
        deadline_s = run.pipeline.run.deadline_s
        return Job(key, fn, payload, step.needs, deadline_s)

    def _book(self, state: SlideState, step: AnyStep, unit: Unit, receipt: Any) -> None:
        """A receipt per shard, or one; the flow goes on when they are in the journal."""
        done: list[Place] = []
        slide = self._flow.slides[unit.slide]
        receipts: Sequence[Receipt] = receipt if step.by_shard else (receipt,)
        try:
            for one in receipts:
                place: Place = one.cell if step.by_shard else None  # type: ignore[union-attr]
                if step.is_booked:
                    state.journal.add(state.key(step, place), one)
                done.append(place)
        except WriteError:
            slide.stop()
            raise
        finally:
            self._flow.finished(unit, done)
        if not unit.early and len(done) < len(unit.places):
            raise RuntimeError(f"{step.name} gave {len(done)} receipts for {len(unit.places)}")

    def _lose(self, unit: Unit, failure: Failure, outcome: Outcome[Any] | None = None) -> None:
        """A unit failed: once more, if that may help; else its slide is set aside."""
        state, step = self._states[unit.slide], self._steps[unit.step]
        if self._flow.failed(unit) and failure.may_pass:
            self._batch.reporter.event(
                "again", slide=state.name, stage=step.name, reason=failure.message
            )
            return
        if outcome is not None and state.failure is None:
            state.worker = outcome.worker
            state.tries = self._flow.slides[unit.slide].tries(unit)
        self._give_up(unit, failure)

    def _give_up(self, unit: Unit, failure: Failure) -> None:
        """Set the slide of a unit aside: no more of its work is given out."""
        self._flow.slides[unit.slide].stop()
        self._batch.fail(self._states[unit.slide], self._steps[unit.step].name, failure)

    def _admit(self) -> SlideFlow | None:
        """The next slide; one with a journal that makes no sense has failed."""
        while (state := self._begin()) is not None:
            if state.failure is None:
                try:
                    flow = SlideFlow(state.name, self._steps, _Booked(state, self._steps))
                except Exception as error:
                    self._batch.fail(state, "open", Failure.of(error))
            if state.failure is not None:
                self._over += 1
                self._ended(state)
                continue
            self._states[state.name] = state
            return flow
        return None

    def _weight(self, name: str) -> int:
        """About what the work on a planned slide takes on disk, in bytes."""
        return work_bytes(self._states[name], self._steps)

    def _room(self) -> int:
        """Free bytes where the slides' work lies."""
        return min(free_bytes(state.work.path) for state in self._states.values())

    def _show(self, state: SlideState, step: AnyStep) -> None:
        done = self._over + sum(map(self._share, self._states))
        self._bar.show(done, note=f"{state.name}: {step.name}")

    def _share(self, name: str) -> float:
        """About how much of a slide is done: inference is nearly all of it."""
        slide = self._flow.slides.get(name)
        if slide is None or self._network is None:
            return 0.0
        return 0.9 * slide.share(self._network)
