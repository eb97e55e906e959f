"""A run: what the command line and a Python program call. One slide list, one pipeline, one
folder, and any number of drivers that share the slides."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quadrat import __version__
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_OUTPUT,
    ConfigError,
    OvertakenError,
    PackageError,
    SlideChangedError,
    SlideError,
    WriteError,
)
from quadrat.core.files import recover_folder
from quadrat.core.kernel import is_kept
from quadrat.core.numerics import Numerics
from quadrat.core.unit import PX
from quadrat.engine.batch import Batch
from quadrat.engine.cluster import HERE, check_cluster, open_executor
from quadrat.engine.drivers import at_work, note_asked
from quadrat.engine.executor import Executor, Failure
from quadrat.engine.failures import (
    FailedSlide,
    forget_failure,
    read_failure,
    remedy_of,
    write_failure,
)
from quadrat.engine.fingerprint import Fingerprints, fingerprints
from quadrat.engine.finished import POLL_S, alone, package_folder, spec_for, summary_in, tidy
from quadrat.engine.journal import UNTIL, Journal
from quadrat.engine.lease import Held, Lease, Leases
from quadrat.engine.progress import Reporter
from quadrat.engine.report import RunReport, done_row, stage_row, summarise
from quadrat.engine.resume import (
    COMMIT,
    begun_on,
    check_kept,
    finish_commit,
    is_committing,
    is_predicted,
    keep_stores,
    open_journal,
)
from quadrat.engine.route import steps_of
from quadrat.engine.seen import LEASES
from quadrat.engine.state import RunSettings, SlideState
from quadrat.engine.timings import Timing, note_timing
from quadrat.engine.work import SlideWork, results_folder, work_folder
from quadrat.models.card import CARD
from quadrat.models.package import load_package
from quadrat.models.spec import IN_PX, spec_of, versions
from quadrat.models.task import ModelSpec
from quadrat.outputs.summary import SUMMARY, PackageNote, Provenance, read_summary
from quadrat.outputs.tables import SummaryRow
from quadrat.slides.identity import slide_bytes, slide_identity
from quadrat.tasks import build_network, get_task

LOOKING = 4
"""Slides that are looked at at the same time."""
NOT_KEPT = (
    "note: no folder for compiled functions can be written, so every process compiles them again "
    "(some ten seconds); NUMBA_CACHE_DIR can name one"
)


def run_spec(pipeline: Pipeline, package: Path) -> tuple[ModelSpec, dict[str, Any]]:
    """The package's frozen specification with the thresholds that the pipeline file sets, and the
    package's card.

    Raises:
        PackageError: not a package, an altered one, or one for another task or other classes.
        ConfigError: the pipeline's task or one of its thresholds is unknown.
    """
    spec_of(pipeline, get_task(pipeline.task))  # checks the names of the task and of the thresholds
    if not (package / CARD).is_file():
        raise PackageError(
            f"the model package {package} does not exist; make it with 'quadrat train "
            f"{pipeline.name}' or name another with --set model.package=FOLDER"
        )
    # whole and unaltered? It is better said now than by every worker
    loaded = load_package(package, build_network, task=pipeline.task)
    return spec_for(pipeline, loaded.spec, package), dict(loaded.card)


@dataclass(frozen=True, slots=True)
class _Run:
    """What is asked for, and the model it is asked of."""

    pipeline: Pipeline
    out: Path
    until: str
    overwrite: bool
    infer: bool
    """False: the predictions must be there already."""
    retry_failed: bool
    """Whether slides are taken again that failed before with the same settings."""
    package: Path
    spec: ModelSpec
    weights_sha256: str
    exactness: Any
    """As the package's card states it."""

    @property
    def task(self) -> str:
        """What the task calls itself: the same in all tables."""
        return get_task(self.pipeline.task).name

    def settings(self, numerics: Numerics) -> RunSettings:
        """What the jobs have in common."""
        provenance = Provenance(
            package=PackageNote(self.weights_sha256, self.exactness),
            classes=self.spec.classes,
            pipeline=self.pipeline.name,
            versions=versions() | {"quadrat": __version__},
            threads=self.pipeline.run.threads,
            device=numerics.device,
        )
        return RunSettings(self.pipeline, str(self.package.absolute()), provenance, str(self.out))


def run(
    pipeline: Pipeline,
    slides: Sequence[SlideRef],
    out: Path,
    *,
    until: str = "results",
    overwrite: bool = False,
    infer: bool = True,
    retry_failed: bool = False,
    max_failures: int | None = None,
    workers: int = 0,
    cluster: str = "local",
    reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> RunReport:
    """Take slides from file to results (or only to ``until``: "tile", "predict").

    A slide with results of the same fingerprint is skipped, and so is one that failed with it,
    unless ``retry_failed``; an interrupted one goes on where its journal ends. A slide that another
    driver works on in the same folder is waited for. Without ``infer`` the predictions must be
    there already (kept by an earlier run). After ``max_failures`` failed slides no other is begun.
    ``workers``: processes to start for it, whatever the pipeline says of its command; 0: all is
    done in this one. ``cluster``: where they are, as ``run.cluster`` may say it. ``executor``: one
    that is open already, in their place.

    Raises:
        ConfigError, PackageError: nothing was run, and nothing of earlier work was removed.
        WriteError: the run's own files cannot be written.
        ClusterError: the cluster is gone; run again to go on.
        KeyboardInterrupt: stopped on request; run again to go on.
    """
    section = pipeline.run
    check_cluster(cluster, workers=workers, insecure=section.insecure_cluster)
    if cluster not in HERE:  # workers may have another working folder
        out, slides = out.absolute(), [ref.absolute() for ref in slides]
    asked = _asked(
        pipeline, out, until=until, overwrite=overwrite, infer=infer, retry_failed=retry_failed
    )
    with contextlib.ExitStack() as stack:
        leases = stack.enter_context(Leases(out / "run" / LEASES))
        tidy(out, leases)
        log = out / "run" / "log.jsonl"
        reporter = stack.enter_context((reporter or Reporter()).into(log))
        if asked.spec.unit == PX:
            reporter.say(IN_PX)
        todo, rows = _prepare(asked, slides)
        digest = note_asked(out, pipeline, slides, package=asked.package, until=until)
        for row in rows.values():
            why = "finished before" if row.status == "done" else row.reason
            reporter.say(f"{row.slide}: {row.status} ({why})")
        unwritten = False
        if todo:
            if not is_kept():
                reporter.say(NOT_KEPT)
            here = stack.enter_context(
                at_work(out, digest, workers=workers, threads=section.threads)
            )
            executor = executor or stack.enter_context(
                open_executor(
                    workers=workers,
                    threads=section.threads,
                    cluster=cluster,
                    device=section.device,
                    folder=out / "run",
                    logs=str(here.logs.absolute()),
                    interface=section.interface,
                    insecure=section.insecure_cluster,
                    ask=pipeline.slurm,
                )
            )
            numerics = executor.numerics(section.device, section.threads)
            here.note(numerics=numerics.text)
            batch = Batch(asked.settings(numerics), executor, reporter)
            crossing = _Crossing(
                asked, batch, numerics, leases, rows, max_failures, driver=here.driver.id
            )
            crossing.take(todo)
            unwritten = crossing.unwritten
            here.note(peak_mb=reporter.peak_mb)
        with alone(leases):
            summarise(out)
    ordered = tuple(rows[s.name] for s in slides if s.name in rows)
    failed = any(row.status == "failed" for row in ordered) or len(ordered) < len(slides)
    code = EXIT_OUTPUT if unwritten else EXIT_FAILED if failed else EXIT_OK
    return RunReport(rows=ordered, exit_code=code)


def _asked(
    pipeline: Pipeline,
    out: Path,
    *,
    until: str,
    overwrite: bool,
    infer: bool,
    retry_failed: bool,
) -> _Run:
    """What is asked for, with the model. Tiles can be filled before there is a package."""
    if until not in UNTIL:
        raise ConfigError(f"until is '{until}'; it must be one of {', '.join(UNTIL)}")
    package = package_folder(pipeline)
    card: dict[str, Any] = {"weights_sha256": ""}
    if until == "tile" and not (package / CARD).is_file():
        spec = spec_of(pipeline, get_task(pipeline.task))
    else:
        spec, card = run_spec(pipeline, package)
    return _Run(
        pipeline=pipeline,
        out=out,
        until=until,
        overwrite=overwrite,
        infer=infer,
        retry_failed=retry_failed,
        package=package,
        spec=spec,
        weights_sha256=str(card["weights_sha256"]),
        exactness=card.get("exactness"),
    )


@dataclass(frozen=True, slots=True)
class _Todo:
    """A slide that needs work."""

    work: SlideWork
    prints: Fingerprints
    """On the machine that began it, if one did."""
    predicted: bool
    """Whether all of it is inferred."""
    anew: bool
    """Whether nothing of earlier work counts."""


def _prepare(asked: _Run, slides: Sequence[SlideRef]) -> tuple[list[_Todo], dict[str, SummaryRow]]:
    """The slides that need work, and rows of the others (done or failed already, or not even
    readable). All that is to be refused is refused before anything is changed.
    """
    with ThreadPoolExecutor(LOOKING) as pool:  # most of it is reading and hashing
        looks = pool.map(lambda ref: _look_at(asked, ref), slides)
        found = {ref.name: look for ref, look in zip(slides, looks, strict=True)}
    todo = [one for one in found.values() if isinstance(one, _Todo)]
    over = {name: one for name, one in found.items() if not isinstance(one, _Todo)}
    return todo, {name: _row(asked, one) for name, one in over.items()}


def _row(asked: _Run, over: SummaryRow | FailedSlide) -> SummaryRow:
    """The row of a slide that is done, or of one that failed, which is put down."""
    if isinstance(over, SummaryRow):
        forget_failure(asked.out, over.slide)  # its results may have come to their place after it
        return over
    return write_failure(asked.out, over).row(asked.out)


def _look_at(asked: _Run, ref: SlideRef) -> _Todo | SummaryRow | FailedSlide:
    """Whether there is anything to do for a slide; changes nothing.

    Raises:
        ConfigError: it has results or kept stores of other settings, and they are not to be
            overwritten; or predictions that must be there are not.
    """
    pipeline, until = asked.pipeline, asked.until
    folder = work_folder(asked.out, ref.name)
    try:
        identity = slide_identity(ref.path)
        work = SlideWork(ref, str(folder), asked.spec, pipeline.slide, pipeline.task, identity)
        prints = fingerprints(work, pipeline, weights_sha256=asked.weights_sha256)
    except SlideError as error:
        unit = asked.spec.unit
        return FailedSlide(ref.name, "open", str(error), asked.task, ref.path, unit=unit)
    place = results_folder(asked.out, ref.name)
    summary = summary_in(place)
    # the file may be a better one now
    damaged = asked.overwrite and summary is not None and summary.damaged > 0
    if until == "results" and (place / SUMMARY).exists():
        same = summary is not None and summary.fingerprint == prints.result and not damaged
        if same and not is_committing(work, begun_on(work, prints), keep=pipeline.run.keep):
            assert summary is not None
            return done_row(summary)
        if not same and not asked.overwrite:
            raise ConfigError(
                f"{place} holds results of another model, setting or file; give another --out, or "
                "--overwrite to replace them"
            )
    failed = None if asked.retry_failed else read_failure(asked.out, ref.name)
    if failed is not None and failed.fingerprint == prints.of_run(until) and not failed.again:
        return failed
    prints = begun_on(work, prints)
    predicted = is_predicted(work, prints)
    if not asked.infer and not predicted:
        raise ConfigError(
            f"{ref.name}: there are no kept predictions of this model and these settings; "
            "make them with 'quadrat predict'"
        )
    if not asked.overwrite:
        check_kept(work, prints, until=until)
    return _Todo(work, prints, predicted, damaged and asked.infer)


@dataclass(slots=True)
class _Crossing:
    """The slides that need work, taken one after the other as their leases can be had."""

    asked: _Run
    batch: Batch
    numerics: Numerics
    leases: Leases
    rows: dict[str, SummaryRow]
    """Of the slides that are over; gets those of the others."""
    max_failures: int | None
    driver: str
    """Its name in the records of the folder."""
    waiting: deque[_Todo] = field(default_factory=deque)
    """Slides to be taken."""
    elsewhere: dict[str, _Todo] = field(default_factory=dict)
    """Slides that another driver works on, by name."""
    failures: int = 0
    unwritten: bool = False
    """Whether an output could not be written."""

    def take(self, todo: Sequence[_Todo]) -> None:
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
        """The next slide that no other driver has."""
        while self.waiting and not self._enough:
            slide = self.waiting.popleft()
            name = slide.work.ref.name
            got = self.leases.take(name)
            if isinstance(got, Held):
                if name not in self.rows:
                    self.batch.reporter.event("elsewhere", slide=name, holder=str(got))
                self.elsewhere[name] = slide
                continue
            found = self._look_again(slide)
            if not isinstance(found, _Todo):
                got.release()
                self.rows[name] = _row(self.asked, found)
                self.batch.reporter.say(f"{name}: {self.rows[name].status} (by another driver)")
                continue
            return self._state(found, got)
        return None

    def _look_again(self, slide: _Todo) -> _Todo | SummaryRow | FailedSlide:
        """What is to be done of a slide, now that no other driver can be at work on it. What an
        interrupted commit left is put right."""
        work, prints = slide.work, slide.prints
        place = results_folder(self.asked.out, work.ref.name)
        recover_folder(place, tidy=True)
        summary = summary_in(place)
        if summary is not None and summary.fingerprint == prints.result and not slide.anew:
            finish_commit(work, begun_on(work, prints), keep=self.asked.pipeline.run.keep)
        return _look_at(self.asked, work.ref)

    def _state(self, slide: _Todo, lease: Lease) -> SlideState:
        """Give up what of earlier work is outdated; if that fails, the slide has failed. What
        another kind of machine has inferred is gone on with if it is complete, and else not."""
        work, prints = slide.work, slide.prints.on(self.numerics.text)
        if slide.predicted:
            prints = slide.prints
        elif slide.prints.machine not in ("", prints.machine):
            self.batch.reporter.say(
                f"{work.ref.name}: was begun on another kind of machine, or with another version "
                f"of torch; its inference begins anew ({self.numerics.text})"
            )
        try:
            forget_failure(self.asked.out, work.ref.name)
            journal = open_journal(work, prints, until=self.asked.until, anew=slide.anew)
            return SlideState(work, prints, journal, lease=lease)
        except WriteError as error:
            state = SlideState(work, prints, Journal(work.journal), lease=lease)
            self.batch.fail(state, "open", Failure.of(error))
            return state

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


def _todo_of(state: SlideState) -> _Todo:
    """A slide that another driver has taken over."""
    return _Todo(state.work, replace(state.prints, machine=""), predicted=False, anew=False)
