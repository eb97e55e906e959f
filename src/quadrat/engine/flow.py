"""A batch of slides on its way: every step's jobs of several slides are in flight at once.

Progress is what the journals say. A failed slide is set aside with its reason, and the others go
on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import WriteError
from quadrat.core.files import check_free_space
from quadrat.core.lattice import Cell, ShardIndex, work_units
from quadrat.engine.executor import Executor, Failure, Job, Outcome
from quadrat.engine.images import COPY, IMAGE, LABELS, PAINT, PYRAMID
from quadrat.engine.journal import Receipt
from quadrat.engine.pictures import FINISH
from quadrat.engine.progress import Reporter
from quadrat.engine.state import (
    AnyStep,
    RunSettings,
    ShardReceipts,
    ShardStep,
    SlideState,
    Step,
)
from quadrat.engine.steps import (
    LAYOUT,
    PLAN,
    PREDICT,
    SEAL,
    SELECT,
    STITCH,
    STORE,
    TILE,
    PredictJob,
    ShardJob,
    planned,
    predict_or_stitch,
)
from quadrat.engine.tables import MERGE
from quadrat.models.task import Merges
from quadrat.tasks import get_task

UNTIL = ("tile", "predict", "results")
"""Where a run can end."""


def steps_of(task: Merges, pipeline: Pipeline, *, until: str) -> list[AnyStep]:
    """The steps of a slide in their order, up to the end of ``until`` ("plan" or one of UNTIL)."""
    steps: list[AnyStep] = [PLAN]
    if until == "tile" or (until != "plan" and pipeline.run.source == "stored"):
        steps += [STORE, TILE, SEAL]
    if until in ("plan", "tile"):
        return steps
    steps += [LAYOUT, PREDICT]
    if until == "predict":
        return steps
    if task.parts is not None:
        steps += [STITCH] if task.parts.select is None else [SELECT, STITCH]
    steps += [MERGE]
    if pipeline.outputs.image:
        steps += [IMAGE, COPY]
    if task.label_image is not None:
        steps += [LABELS, PAINT]
    return [*steps, PYRAMID, FINISH]


@dataclass(frozen=True, slots=True)
class Unit:
    """Some shards of one slide that make one job."""

    state: SlideState
    """The slide; it gets the job's receipts, or its failure."""
    shards: tuple[Any, ...]
    """(row, column) of each: in the lattice, or in the store of pixels that is filled."""


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
        early = STITCH in steps and SELECT not in steps
        for step in steps:
            if step is TILE:
                self._check_room(states)
            if step is PREDICT and early:
                self._predict_and_stitch(states)
            elif isinstance(step, ShardStep):
                self._run_shards(states, step)
            else:
                self._run_slides(states, step)

    def _check_room(self, states: Sequence[SlideState]) -> None:
        """Refuse to fill stores that together do not fit: each alone was found to."""
        empty = [s for s in states if s.failure is None and not s.done(SEAL)]
        needed = sum(state.receipt(STORE).nbytes for state in empty)
        if empty:
            what = f"filling {len(empty)} tile stores at a time (run.slides_in_flight)"
            check_free_space(empty[0].work.path, needed, what=what)

    def _run_slides(self, states: Sequence[SlideState], step: Step[Any, Any]) -> None:
        """One job per slide."""
        todo = {
            f"{state.name}/{step.name}": state
            for state in states
            if state.failure is None and not state.done(step)
        }
        jobs = (Job(key, step.job(state, self.run)) for key, state in todo.items())
        with self.reporter.phase(step.name, len(todo)) as bar:
            for outcome in self.executor.run(step.fn, jobs, deadline_s=self._deadline_s):
                state = todo[outcome.key]
                self._settle(state, step, outcome)
                if outcome.receipt is not None:
                    self._note(state, step, outcome.receipt)
                bar.advance(note=state.name)

    def _run_shards(self, states: Sequence[SlideState], step: ShardStep[Any, Any]) -> None:
        """Jobs of ``run.shards_per_unit`` shards; shards with a receipt are not done again."""
        todo = self._open_units(states, step)
        with self.reporter.phase(step.name, len(todo)) as bar:
            for outcome in self.executor.run(
                step.fn, self._jobs(todo, step), needs=step.needs, deadline_s=self._deadline_s
            ):
                self._note_shards(todo[outcome.key].state, step, outcome)
                bar.advance(note=todo[outcome.key].state.name)

    def _predict_and_stitch(self, states: Sequence[SlideState]) -> None:
        """Inference. What is ready is stitched meanwhile by workers that are free, so that the
        network never waits for stitching: at most as many jobs stitch as infer."""
        todo, stitching = self._open_units(states, PREDICT), dict[str, Unit]()
        ready = {s.name: ReadyShards.of(s) for s in states if s.failure is None}
        in_flight = Counter[str]()

        def next_stitch() -> Unit | None:
            for state in states:
                if state.failure is None and (
                    shards := ready[state.name].take(self.run.pipeline.run.shards_per_unit)
                ):
                    return Unit(state, shards)
            return None

        def jobs() -> Iterator[Job[PredictJob | ShardJob]]:
            for job in self._jobs(todo, PREDICT):
                while in_flight["stitch"] <= in_flight["predict"] and (unit := next_stitch()):
                    key = f"{unit.state.name}/stitch early/{len(stitching)}"
                    stitching[key] = unit
                    in_flight["stitch"] += 1
                    yield Job(key, STITCH.job(unit.state, self.run, unit.shards))
                in_flight["predict"] += 1
                yield job

        with self.reporter.phase(PREDICT.name, len(todo)) as bar:
            for outcome in self.executor.run(
                predict_or_stitch, jobs(), needs=PREDICT.needs, deadline_s=self._deadline_s
            ):
                if outcome.key in stitching:
                    in_flight["stitch"] -= 1
                    self._note_shards(stitching[outcome.key].state, STITCH, outcome)
                    continue
                in_flight["predict"] -= 1
                unit = todo[outcome.key]
                self._note_shards(unit.state, PREDICT, outcome)
                if outcome.failure is None:
                    ready[unit.state.name].predicted(unit.shards)
                bar.advance(note=unit.state.name)

    @property
    def _deadline_s(self) -> float:
        return self.run.pipeline.run.deadline_s

    def _open_units(
        self, states: Sequence[SlideState], step: ShardStep[Any, Any]
    ) -> dict[str, Unit]:
        """What is still to be done of a step, by the key of the job."""
        todo = {}
        for state in states:
            if state.failure is None:
                left = [s for s in step.shards(state) if not state.done(step, s)]
                units = work_units(left, per_unit=self.run.pipeline.run.shards_per_unit)
                for number, shards in enumerate(units):
                    todo[f"{state.name}/{step.name}/{number}"] = Unit(state, shards)
        return todo

    def _jobs(self, todo: dict[str, Unit], step: ShardStep[Any, Any]) -> Iterator[Job[Any]]:
        """The jobs of units, made as they are asked for: a slide that failed meanwhile gets no
        more work."""
        for key, unit in todo.items():
            if unit.state.failure is None:
                yield Job(key, step.job(unit.state, self.run, unit.shards))

    def _note_shards(
        self, state: SlideState, step: AnyStep, outcome: Outcome[ShardReceipts]
    ) -> None:
        """A receipt per shard, or the failure."""
        self._settle(state, step, outcome)
        for receipt in outcome.receipt or ():
            self._note(state, step, receipt, receipt.cell)

    def _note(
        self, state: SlideState, step: AnyStep, receipt: Receipt, shard: Cell | None = None
    ) -> None:
        """Into the slide's journal; a slide with a journal that cannot be written has failed."""
        try:
            state.journal.add(state.key(step, shard), receipt)
        except WriteError as error:
            self.fail(state, step.name, Failure.of(error))

    def _settle(self, state: SlideState, step: AnyStep, outcome: Outcome[Any]) -> None:
        """Add up what a job took, and set its slide aside if it failed."""
        spent = state.seconds.get(step.name, 0.0) + outcome.seconds
        state.seconds[step.name] = round(spent, 3)
        self.reporter.saw_memory(outcome.peak_mb)
        if outcome.failure is not None:
            self.fail(state, step.name, outcome.failure)

    def fail(self, state: SlideState, stage: str, failure: Failure) -> None:
        """Set a slide aside; the first reason counts."""
        if state.failure is None:
            state.failure, state.stage = failure, stage
            self.reporter.say(f"{state.name}: failed in {stage}: {failure.message}")
            if failure.trace:
                self.reporter.event("traceback", slide=state.name, stage=stage, trace=failure.trace)


class ReadyShards:
    """Shards of one slide that can be stitched while others are still being predicted: those with
    all their neighbours predicted, in the order in which they became so.

    An object that a shard owns rarely reaches beyond the eight shards around it; the few that do
    wait until all is predicted.
    """

    def __init__(
        self,
        shards: Iterable[ShardIndex],
        *,
        predicted: Iterable[ShardIndex],
        stitched: Iterable[ShardIndex],
    ) -> None:
        every, there = set(shards), set(predicted)
        waiting = sorted(every - set(stitched))
        self._waits_for = {shard: (_around(shard) & every) - there for shard in waiting}
        self._ready = deque(s for s, missing in self._waits_for.items() if not missing)

    @staticmethod
    def of(state: SlideState) -> ReadyShards:
        """Those of a slide, as its journal says."""
        shards = planned(state)
        return ReadyShards(
            shards,
            predicted=[s for s in shards if state.done(PREDICT, s)],
            stitched=[s for s in shards if state.done(STITCH, s)],
        )

    def predicted(self, shards: Iterable[ShardIndex]) -> None:
        """The predictions of some shards are there."""
        for shard in shards:
            for near in sorted(_around(shard)):
                missing = self._waits_for.get(near, set())
                if shard in missing:
                    missing.remove(shard)
                    if not missing:
                        self._ready.append(near)

    def take(self, most: int) -> tuple[ShardIndex, ...]:
        """Up to ``most`` ready shards, each given out once; none if there are none."""
        return tuple(self._ready.popleft() for _ in range(min(most, len(self._ready))))


def _around(shard: ShardIndex) -> set[ShardIndex]:
    """A shard and its eight neighbours."""
    steps = (-1, 0, 1)
    return {ShardIndex((shard[0] + i, shard[1] + j)) for i in steps for j in steps}
