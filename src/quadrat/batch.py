"""A batch of slides going through the stages together: each stage's work units of several slides are in flight at once.

Progress is what the journals say; a failed slide is set aside with its reason and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quadrat.config import Pipeline
from quadrat.execution import Executor, Failure, Job, Needs, Outcome
from quadrat.finishing import FinishJob, finish_slide, merge_slide
from quadrat.grid import Cell, work_units
from quadrat.journal import Journal
from quadrat.progress import Reporter
from quadrat.task import get_task
from quadrat.units import (
    PredictJob,
    ShardJob,
    build_pyramids,
    create_labels,
    create_predictions,
    paint_shards,
    plan_slide,
    predict_shards,
    select_slide,
    shards_of,
    stitch_shards,
    tile_shards,
)
from quadrat.workplace import Fingerprints, SlideWork

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

    @staticmethod
    def key(fingerprint: str, stage: str, item: str = "") -> str:
        return f"{fingerprint[:16]}/{stage}" + (f"/{item}" if item else "")


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
        self._sharded(states, "tile", "tile", tile_shards, lambda s: s.receipt(s.prints.tile, "plan")["tile_shards"])
        if until == "tile":
            return
        self._whole(states, "layout", "predict", create_predictions)
        run = self.pipeline.run

        def predict_job(state: SlideState, shards: tuple[Cell, ...]) -> PredictJob:
            return PredictJob(state.work, shards, self.package, self.device, run.threads)

        self._sharded(states, "predict", "predict", predict_shards, lambda s: s.shards, make=predict_job, needs="gpu")
        if until == "predict":
            return
        task = get_task(self.pipeline.task)
        if task.storage == "masks":
            self._whole(states, "select", "result", select_slide)
        if task.storage in ("maps", "masks"):
            self._sharded(states, "stitch", "result", stitch_shards, lambda s: s.shards)
        self._whole(states, "merge", "result", merge_slide, make=self._finish_job)
        if task.label_image is not None:
            self._whole(states, "labels", "result", create_labels)
            self._sharded(states, "paint", "result", paint_shards, lambda s: s.shards)
        self._whole(states, "pyramid", "result", build_pyramids)
        self._whole(states, "finish", "result", finish_slide, make=self._finish_job)

    def _finish_job(self, state: SlideState) -> FinishJob:
        key = state.key(state.prints.result, "merge")
        figures = state.journal.receipts.get(key, {})
        return FinishJob(
            work=state.work,
            outputs=self.pipeline.outputs,
            fingerprint=state.prints.result,
            provenance=self.provenance | {"figures": figures},
        )

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
                todo[f"{state.name}/{stage}"] = (state, state.key(getattr(state.prints, level), stage))
        jobs = (Job(key, make(state) if make else state.work) for key, (state, _) in todo.items())
        with self.reporter.phase(stage, len(todo)) as bar:
            for outcome in self.executor.run(fn, jobs, deadline_s=self.pipeline.run.deadline_s):
                state, journal_key = todo[outcome.key]
                self._settle(state, stage, outcome)
                if outcome.failure is None:
                    state.journal.add(journal_key, outcome.receipt)
                bar.advance(note=state.name)

    def _sharded(
        self,
        states: Sequence[SlideState],
        stage: str,
        level: str,
        fn: Callable[[Any], Any],
        shards: Callable[[SlideState], Sequence[Sequence[int]]],
        *,
        make: Callable[[SlideState, tuple[Cell, ...]], Any] | None = None,
        needs: Needs = "cpu",
    ) -> None:
        """Work units of ``run.shards_per_unit`` shards; shards with a receipt are not done again."""
        todo: dict[str, tuple[SlideState, tuple[Cell, ...]]] = {}
        for state in states:
            if state.failure is not None:
                continue
            print_ = getattr(state.prints, level)
            open_ = [s for s in shards_of(shards(state)) if not state.done(print_, stage, f"{s[0]}.{s[1]}")]
            for number, unit in enumerate(work_units(open_, per_unit=self.pipeline.run.shards_per_unit)):
                todo[f"{state.name}/{stage}/{number}"] = (state, unit)

        def jobs() -> Iterator[Job]:
            for key, (state, unit) in todo.items():
                if state.failure is None:  # a slide that failed meanwhile gets no more work
                    yield Job(key, make(state, unit) if make else ShardJob(state.work, unit))

        with self.reporter.phase(stage, len(todo)) as bar:
            for outcome in self.executor.run(fn, jobs(), needs=needs, deadline_s=self.pipeline.run.deadline_s):
                state, _ = todo[outcome.key]
                self._settle(state, stage, outcome)
                for item, receipt in (outcome.receipt or {}).items():
                    state.journal.add(state.key(getattr(state.prints, level), stage, item), receipt)
                bar.advance(note=state.name)

    def _settle(self, state: SlideState, stage: str, outcome: Outcome) -> None:
        state.seconds[stage] = round(state.seconds.get(stage, 0.0) + outcome.seconds, 3)
        self.reporter.saw_memory(outcome.peak_mb)
        failure = outcome.failure
        if failure is not None and state.failure is None:
            state.failure, state.stage = failure, stage
            self.reporter.say(f"{state.name}: failed in {stage}: {failure.message}")
            if failure.trace:
                self.reporter.event("traceback", slide=state.name, stage=stage, trace=failure.trace)


def results_folder(out: Path, name: str) -> Path:
    """Where a finished slide's results lie."""
    return out / "results" / name
