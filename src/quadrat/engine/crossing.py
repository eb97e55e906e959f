"""The slides of a run on their way across: each is taken when its lease can be had, and ends in a
row of the table, here or by another driver of the same folder."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from quadrat.core.errors import OvertakenError, SlideChangedError, WriteError
from quadrat.core.files import recover_folder
from quadrat.core.numerics import Numerics
from quadrat.engine.batch import Batch
from quadrat.engine.executor import Failure
from quadrat.engine.failures import FailedSlide, forget_failure, remedy_of, write_failure
from quadrat.engine.finished import summary_in
from quadrat.engine.folder import POLL_S
from quadrat.engine.journal import Journal
from quadrat.engine.lease import Held, Lease, Leases
from quadrat.engine.report import done_row, stage_row
from quadrat.engine.resume import COMMIT, begun_on, finish_commit, keep_stores, open_journal
from quadrat.engine.route import steps_of
from quadrat.engine.state import SlideState
from quadrat.engine.timings import Timing, note_timing
from quadrat.engine.todo import RunRequest, Todo, look_at, row_of
from quadrat.engine.work import results_folder
from quadrat.outputs.summary import read_summary
from quadrat.outputs.tables import SummaryRow
from quadrat.slides.identity import slide_bytes
from quadrat.tasks import get_task


@dataclass(slots=True)
class Crossing:
    """The slides that need work, taken one after the other as their leases can be had."""

    asked: RunRequest
    """The run."""
    batch: Batch
    """Takes slides through their steps."""
    numerics: Numerics
    """What the network is computed with here."""
    leases: Leases
    """Of the run's folder."""
    rows: dict[str, SummaryRow]
    """Of the slides that are over; gets those of the others."""
    max_failures: int | None
    """When so many slides have failed, no more are begun; None: however many."""
    driver: str
    """Its name in the records of the folder."""
    waiting: deque[Todo] = field(default_factory=deque)
    """Slides to be taken."""
    elsewhere: dict[str, Todo] = field(default_factory=dict)
    """Slides that another driver works on, by name."""
    failures: int = 0
    """Slides that have failed."""
    unwritten: bool = False
    """Whether an output could not be written."""

    def take(self, todo: Sequence[Todo]) -> None:
        """Take all slides to their end, here or by another driver."""
        pipeline, until = self.asked.pipeline, self.asked.until
        steps = steps_of(get_task(pipeline.task), pipeline, until=until)
        if until == "results":
            steps.append(COMMIT)
        self.waiting.extend(todo)
        while self.waiting and not self._enough:
            before = len(self.rows)
            self.batch.drive(self._begin, steps, total=len(self.waiting), ended=self._ended)
            self.waiting.extend(self.elsewhere.values())
            self.elsewhere.clear()
            if self.waiting and len(self.rows) == before:
                time.sleep(POLL_S)
        if self.waiting and self._enough:
            left = len(self.waiting)
            self.batch.reporter.say(f"{self.failures} slides failed: {left} more are not begun")

    @property
    def _enough(self) -> bool:
        return self.max_failures is not None and self.failures >= self.max_failures

    def _begin(self) -> SlideState | None:
        """The next slide that no other driver has. One that cannot even be begun has failed."""
        while self.waiting and not self._enough:
            slide = self.waiting.popleft()
            name, lease = slide.work.ref.name, None
            try:
                got = self.leases.take(name)
                if isinstance(got, Held):
                    if name not in self.rows:
                        self.batch.reporter.event("elsewhere", slide=name, holder=str(got))
                    self.elsewhere[name] = slide
                    continue
                lease = got
                found = self._look_again(slide)
                if isinstance(found, Todo):
                    return self._state(found, lease)
                lease.release()
            except Exception as error:
                state = SlideState(
                    slide.work, slide.prints, Journal(slide.work.journal), lease=lease
                )
                self.batch.fail(state, "open", Failure.of(error))
                return state
            self.rows[name] = row_of(self.asked, found)
            self.batch.reporter.say(f"{name}: {self.rows[name].status} (by another driver)")
        return None

    def _look_again(self, slide: Todo) -> Todo | SummaryRow | FailedSlide:
        """What is to be done of a slide, now that no other driver can be at work on it. What an
        interrupted commit left is put right."""
        work, prints = slide.work, slide.prints
        place = results_folder(self.asked.out, work.ref.name)
        recover_folder(place, tidy=True)
        summary = summary_in(place)
        if summary is not None and summary.fingerprint == prints.result and not slide.anew:
            finish_commit(work, begun_on(work, prints), keep=self.asked.pipeline.run.keep)
        return look_at(self.asked, work.ref)

    def _state(self, slide: Todo, lease: Lease) -> SlideState:
        """Give up what of earlier work is outdated. What another kind of machine has inferred is
        gone on with if it is complete, and else not."""
        work, prints = slide.work, slide.prints.on(self.numerics.text)
        if slide.predicted:
            prints = slide.prints
        elif slide.prints.machine not in ("", prints.machine):
            self.batch.reporter.say(
                f"{work.ref.name}: was begun on another kind of machine, or with another version "
                f"of torch; its inference begins anew ({self.numerics.text})"
            )
        forget_failure(self.asked.out, work.ref.name)
        journal = open_journal(work, prints, until=self.asked.until, anew=slide.anew)
        return SlideState(work, prints, journal, lease=lease)

    def _ended(self, state: SlideState) -> None:
        """A slide is done or has failed: its row, and its lease is given back."""
        if state.failure is not None and state.failure.kind == OvertakenError.__name__:
            self.elsewhere[state.name] = _todo_of(state)
            return
        try:
            row = self._conclude(state)
            if state.lease is not None:
                state.lease.release()
        except WriteError as error:
            self.unwritten = True
            task, unit = self.asked.task, self.asked.spec.unit
            failed = FailedSlide(state.name, "results", str(error), task, unit=unit)
            row = failed.row(self.asked.out)
        self.rows[state.name] = row
        if row.status == "failed":
            self.failures += 1
        else:
            self.batch.reporter.say(f"{state.name}: {row.status}")

    def _conclude(self, state: SlideState) -> SummaryRow:
        asked = self.asked
        if state.failure is None:
            try:
                if asked.until != "results":
                    keep_stores(state.work, state.prints, asked.pipeline.run.keep)
                    row = stage_row(asked.until, asked.task, state.work.load_plan())
                else:
                    row = done_row(read_summary(results_folder(asked.out, state.name)))
                note_timing(asked.out, self._timing(state, row))
            except Exception as error:
                self.batch.fail(state, "commit", Failure.of(error))
            else:
                return row
        failure = state.failure
        assert failure is not None
        self.unwritten |= failure.unwritten
        host, _, _ = state.worker.partition(":")
        record = FailedSlide(
            slide=state.name,
            stage=state.stage,
            reason=failure.message,
            task=asked.task,
            path=state.work.ref.path,
            kind=failure.kind,
            remedy=remedy_of(failure),
            worker=state.worker,
            host=host,
            tries=state.tries,
            fingerprint=state.prints.of_run(asked.until),
            again=failure.unwritten or failure.kind == SlideChangedError.__name__,
            unit=asked.spec.unit,
        )
        return write_failure(asked.out, record, trace=failure.trace).row(asked.out)

    def _timing(self, state: SlideState, row: SummaryRow) -> Timing:
        return Timing(
            slide=state.name,
            seconds=state.seconds,
            time=round(time.time(), 3),
            wall_s=round(time.time() - state.began, 3),
            tissue_mm2=row.tissue_mm2 or 0.0,
            file_bytes=slide_bytes(state.work.ref.path),
            peak_mb=state.peak_mb,
            driver=self.driver,
            machine=state.prints.machine,
            unit=self.asked.spec.unit,
        )


def _todo_of(state: SlideState) -> Todo:
    """A slide that another driver has taken over."""
    return Todo(state.work, replace(state.prints, machine=""), predicted=False, anew=False)
