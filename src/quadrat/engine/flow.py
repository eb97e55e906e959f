"""A batch of slides going through the stages together: each stage's work units of several slides
are in flight at once.

Progress is what the journals say; a failed slide is set aside with its reason and the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import WriteError
from quadrat.core.files import check_free_space
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell, work_units
from quadrat.engine.beside import StitchQueue
from quadrat.engine.executor import Executor, Failure, Job, Outcome, refusal
from quadrat.engine.fingerprint import Fingerprints
from quadrat.engine.images import (
    build_pyramids,
    create_image,
    create_labels,
    image_shards,
    paint_shards,
)
from quadrat.engine.journal import Journal
from quadrat.engine.pictures import finish_slide
from quadrat.engine.progress import Reporter
from quadrat.engine.steps import (
    PredictJob,
    SealJob,
    ShardJob,
    create_predictions,
    create_tiles,
    item_of,
    plan_slide,
    predict_or_stitch,
    seal_tiles,
    select_slide,
    shards_of,
    stitch_shards,
    tile_shards,
)
from quadrat.engine.tables import FinishJob, merge_slide
from quadrat.engine.work import SlideWork
from quadrat.tasks import get_task

UNTIL = ("tile", "predict", "results")


@dataclass(slots=True)
class SlideState:
    """Where one slide of the batch stands."""

    work: SlideWork
    prints: Fingerprints
    journal: Journal
    failure: Failure | None = None
    stage: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.work.ref.name

    def done(self, fingerprint: str, stage: str, item: str = "") -> bool:
        return self.key(fingerprint, stage, item) in self.journal

    def receipt(self, fingerprint: str, stage: str) -> Any:
        return self.journal.receipts[self.key(fingerprint, stage)]

    @property
    def shards(self) -> list[list[int]]:
        """Shards that hold analysed cores, as planned."""
        planned: list[list[int]] = self.receipt(self.prints.tile, "plan")["shards"]
        return planned

    @property
    def stored(self) -> bool:
        """Whether the tile store is there and complete."""
        return self.done(self.prints.tile, "seal")

    @property
    def lost(self) -> tuple[Box, ...]:
        """Damaged tiles that any receipt of this slide's pixels or predictions tells
        of (grid px).
        """
        valid = (self.prints.tile[:16], self.prints.predict[:16])
        receipts = [r for key, r in self.journal.receipts.items() if key.startswith(valid)]
        return tuple(sorted({Box(*box) for receipt in receipts for box in receipt.get("lost", ())}))

    @staticmethod
    def key(fingerprint: str, stage: str, item: str = "") -> str:
        return f"{fingerprint[:16]}/{stage}" + (f"/{item}" if item else "")


Units = dict[str, tuple[SlideState, tuple[Cell, ...]]]
"""Work units by the key of their job."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What the stages share."""

    pipeline: Pipeline
    executor: Executor
    reporter: Reporter
    package: str
    device: str
    provenance: dict[str, Any]

    def advance(self, states: Sequence[SlideState], *, until: str) -> None:
        """Take the slides through the stages; afterwards each is done or has its failure."""
        self._whole(states, "plan", "tile", plan_slide)
        if until == "plan":
            return
        if until == "tile" or self.pipeline.run.source == "stored":
            self._whole(states, "store", "tile", create_tiles)
            self._check_room(states)
            self._sharded(
                states,
                "tile",
                "tile",
                tile_shards,
                lambda s: s.receipt(s.prints.tile, "store")["tile_shards"],
            )
            self._whole(states, "seal", "tile", seal_tiles, make=self._seal_job)
        if until == "tile":
            return
        self._whole(states, "layout", "predict", create_predictions)
        run = self.pipeline.run

        def predict_job(state: SlideState, shards: tuple[Cell, ...]) -> PredictJob:
            return PredictJob(
                state.work, shards, state.stored, state.lost, self.package, self.device, run.threads
            )

        task = get_task(self.pipeline.task)
        beside = until != "predict" and task.storage == "maps"
        self._predict(states, predict_job, stitch_beside=beside)
        if until == "predict":
            return
        if task.storage == "masks":
            self._whole(states, "select", "result", select_slide)
        if task.storage in ("maps", "masks"):
            self._sharded(states, "stitch", "result", stitch_shards, lambda s: s.shards)
        self._whole(states, "merge", "result", merge_slide, make=self._finish_job)
        if self.pipeline.outputs.image:
            self._whole(states, "image", "result", create_image)
            self._sharded(
                states,
                "copy",
                "result",
                image_shards,
                lambda s: s.receipt(s.prints.result, "image")["image_shards"],
            )
        if task.label_image is not None:
            self._whole(states, "labels", "result", create_labels)
            self._sharded(states, "paint", "result", paint_shards, lambda s: s.shards)
        self._whole(states, "pyramid", "result", build_pyramids)
        self._whole(states, "finish", "result", finish_slide, make=self._finish_job)

    def _check_room(self, states: Sequence[SlideState]) -> None:
        """Refuse to fill stores that together do not fit: each alone was found to."""
        empty = [s for s in states if s.failure is None and not s.stored]
        needed = sum(s.receipt(s.prints.tile, "store")["nbytes"] for s in empty)
        if empty:
            what = f"filling {len(empty)} tile stores at a time (run.slides_in_flight)"
            check_free_space(empty[0].work.path, needed, what=what)

    def _finish_job(self, state: SlideState) -> FinishJob:
        key = state.key(state.prints.result, "merge")
        figures = state.journal.receipts.get(key, {})
        return FinishJob(
            work=state.work,
            outputs=self.pipeline.outputs,
            fingerprint=state.prints.result,
            provenance=self.provenance | {"figures": figures},
            lost=state.lost,
        )

    def _seal_job(self, state: SlideState) -> SealJob:
        prefix = state.key(state.prints.tile, "tile") + "/"
        receipts = {
            k.removeprefix(prefix): r
            for k, r in state.journal.receipts.items()
            if k.startswith(prefix)
        }
        return SealJob(state.work, receipts)

    def _whole(
        self,
        states: Sequence[SlideState],
        stage: str,
        level: str,
        fn: Callable[[Any], Any],
        *,
        make: Callable[[SlideState], Any] | None = None,
    ) -> None:
        """One work unit a slide."""
        todo: dict[str, tuple[SlideState, str]] = {}
        for state in states:
            if state.failure is None and not state.done(getattr(state.prints, level), stage):
                todo[f"{state.name}/{stage}"] = (
                    state,
                    state.key(getattr(state.prints, level), stage),
                )
        jobs = (Job(key, make(state) if make else state.work) for key, (state, _) in todo.items())
        with self.reporter.phase(stage, len(todo)) as bar:
            for outcome in self.executor.run(fn, jobs, deadline_s=self.pipeline.run.deadline_s):
                state, journal_key = todo[outcome.key]
                self._settle(state, stage, outcome)
                if outcome.failure is None:
                    self._add_receipt(state, stage, journal_key, outcome.receipt)
                bar.advance(note=state.name)

    def _sharded(
        self,
        states: Sequence[SlideState],
        stage: str,
        level: str,
        fn: Callable[[Any], Any],
        shards: Callable[[SlideState], Sequence[Sequence[int]]],
    ) -> None:
        """Work units of ``run.shards_per_unit`` shards; shards with a receipt are not
        done again.
        """
        todo = self._open_units(states, stage, level, shards)
        with self.reporter.phase(stage, len(todo)) as bar:
            for outcome in self.executor.run(
                fn, _jobs(todo, _shard_job), deadline_s=self.pipeline.run.deadline_s
            ):
                self._record(todo[outcome.key][0], stage, level, outcome)
                bar.advance(note=todo[outcome.key][0].name)

    def _predict(
        self,
        states: Sequence[SlideState],
        make: Callable[[SlideState, tuple[Cell, ...]], PredictJob],
        *,
        stitch_beside: bool,
    ) -> None:
        """Inference. With ``stitch_beside`` what is ready is stitched by workers that are free of
        it, so that the network never waits for stitching: at most as many jobs stitch as infer."""
        todo = self._open_units(states, "predict", "predict", lambda s: s.shards)
        queues = {s.name: _stitch_queue(s) for s in states if stitch_beside and s.failure is None}
        stitching: Units = {}
        in_flight = Counter[str]()

        def ready() -> tuple[SlideState, tuple[Cell, ...]] | None:
            for state in states:
                queue = queues.get(state.name) if state.failure is None else None
                if queue and (unit := queue.take(self.pipeline.run.shards_per_unit)):
                    return state, unit
            return None

        def jobs() -> Iterator[Job]:
            for job in _jobs(todo, make):
                while in_flight["stitch"] <= in_flight["predict"] and (found := ready()):
                    key = f"{found[0].name}/stitch beside/{len(stitching)}"
                    stitching[key] = found
                    in_flight["stitch"] += 1
                    yield Job(key, _shard_job(*found))
                in_flight["predict"] += 1
                yield job

        with self.reporter.phase("predict", len(todo)) as bar:
            for outcome in self.executor.run(
                predict_or_stitch, jobs(), needs="gpu", deadline_s=self.pipeline.run.deadline_s
            ):
                if outcome.key in stitching:
                    in_flight["stitch"] -= 1
                    self._record(stitching[outcome.key][0], "stitch", "result", outcome)
                    continue
                in_flight["predict"] -= 1
                state, unit = todo[outcome.key]
                self._record(state, "predict", "predict", outcome)
                if outcome.failure is None and state.name in queues:
                    queues[state.name].predicted(unit)
                bar.advance(note=state.name)

    def _open_units(
        self,
        states: Sequence[SlideState],
        stage: str,
        level: str,
        shards: Callable[[SlideState], Sequence[Sequence[int]]],
    ) -> Units:
        """What is still to be done of a stage, by the key of the job."""
        todo: Units = {}
        for state in states:
            if state.failure is not None:
                continue
            print_ = getattr(state.prints, level)
            open_ = [
                s for s in shards_of(shards(state)) if not state.done(print_, stage, item_of(s))
            ]
            for number, unit in enumerate(
                work_units(open_, per_unit=self.pipeline.run.shards_per_unit)
            ):
                todo[f"{state.name}/{stage}/{number}"] = (state, unit)
        return todo

    def _record(self, state: SlideState, stage: str, level: str, outcome: Outcome) -> None:
        """A receipt a shard, or the failure."""
        self._settle(state, stage, outcome)
        for item, receipt in (outcome.receipt or {}).items():
            key = state.key(getattr(state.prints, level), stage, item)
            self._add_receipt(state, stage, key, receipt)

    def _add_receipt(self, state: SlideState, stage: str, key: str, receipt: Any) -> None:
        """Into the slide's journal; a slide with a journal that cannot be written has failed."""
        try:
            state.journal.add(key, receipt)
        except WriteError as error:
            self.fail(state, stage, refusal(error))

    def _settle(self, state: SlideState, stage: str, outcome: Outcome) -> None:
        state.seconds[stage] = round(state.seconds.get(stage, 0.0) + outcome.seconds, 3)
        self.reporter.saw_memory(outcome.peak_mb)
        if outcome.failure is not None:
            self.fail(state, stage, outcome.failure)

    def fail(self, state: SlideState, stage: str, failure: Failure) -> None:
        """Set a slide aside; the first reason counts."""
        if state.failure is None:
            state.failure, state.stage = failure, stage
            self.reporter.say(f"{state.name}: failed in {stage}: {failure.message}")
            if failure.trace:
                self.reporter.event("traceback", slide=state.name, stage=stage, trace=failure.trace)


def _jobs(todo: Units, make: Callable[[SlideState, tuple[Cell, ...]], ShardJob]) -> Iterator[Job]:
    """The jobs of units, made as they are asked for: a slide that failed meanwhile gets no more
    work."""
    for key, (state, unit) in todo.items():
        if state.failure is None:
            yield Job(key, make(state, unit))


def _shard_job(state: SlideState, unit: tuple[Cell, ...]) -> ShardJob:
    return ShardJob(state.work, unit, state.stored)


def _stitch_queue(state: SlideState) -> StitchQueue:
    """What of a slide can be stitched, as its journal says."""
    planned = shards_of(state.shards)
    predicted = [s for s in planned if state.done(state.prints.predict, "predict", item_of(s))]
    stitched = [s for s in planned if state.done(state.prints.result, "stitch", item_of(s))]
    return StitchQueue(planned, predicted=predicted, stitched=stitched)
