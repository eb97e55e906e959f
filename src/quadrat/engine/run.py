"""A run: what the command line and a Python program call. One slide list, one pipeline, one
folder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    PackageError,
    SlideError,
    WriteError,
)
from quadrat.core.files import drop_partials, recover_folder
from quadrat.core.kernel import is_kept
from quadrat.core.numerics import Numerics
from quadrat.engine.batch import Batch
from quadrat.engine.cluster import check_workers, open_executor
from quadrat.engine.executor import Executor, Failure
from quadrat.engine.fingerprint import Fingerprints, fingerprints
from quadrat.engine.journal import Journal
from quadrat.engine.lock import driver_lock
from quadrat.engine.progress import Reporter
from quadrat.engine.report import RunReport, done_row, failed_row, write_run_files
from quadrat.engine.resume import (
    COMMIT,
    begun_on,
    check_kept,
    finish_commit,
    is_predicted,
    keep_stores,
    open_journal,
    results_folder,
)
from quadrat.engine.route import UNTIL, steps_of
from quadrat.engine.state import RunSettings, SlideState
from quadrat.engine.work import SlideWork, work_folder
from quadrat.models.package import CARD, load_package
from quadrat.models.spec import spec_of, versions
from quadrat.models.task import ModelSpec
from quadrat.outputs.summary import SUMMARY, PackageNote, Provenance, Summary, read_summary
from quadrat.outputs.tables import SummaryRow
from quadrat.slides.identity import slide_identity
from quadrat.tasks import build_network, get_task

NOT_KEPT = (
    "note: no folder for compiled functions can be written, so every process compiles them again "
    "(some ten seconds); NUMBA_CACHE_DIR can name one"
)


def package_folder(pipeline: Pipeline) -> Path:
    """The model package of a pipeline: as written if it is absolute or exists from here, else
    next to the pipeline file."""
    here, there = Path(pipeline.model.package), Path(pipeline.folder) / pipeline.model.package
    for folder in (here, there):
        recover_folder(folder)
    return there if not (here / CARD).exists() and (there / CARD).exists() else here


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
    spec, card = loaded.spec, dict(loaded.card)
    wanted = tuple(c.name for c in pipeline.classes)
    if spec.class_names != wanted:
        raise PackageError(
            f"{package} knows the classes {', '.join(spec.class_names)}, the pipeline wants "
            f"{', '.join(wanted)}"
        )
    return replace(spec, thresholds=dict(spec.thresholds) | pipeline.thresholds), card


@dataclass(frozen=True, slots=True)
class _Run:
    """What is asked for, and the model it is asked of."""

    pipeline: Pipeline
    out: Path
    until: str
    overwrite: bool
    infer: bool
    """False: the predictions must be there already."""
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
        return RunSettings(self.pipeline, str(self.package), provenance, str(self.out))


def run(
    pipeline: Pipeline,
    slides: Sequence[SlideRef],
    out: Path,
    *,
    until: str = "results",
    overwrite: bool = False,
    infer: bool = True,
    workers: int = 0,
    reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> RunReport:
    """Take slides from file to results (or only to ``until``: "tile", "predict").

    A slide with results of the same fingerprint is skipped; an interrupted one goes on where its
    journal ends. Without ``infer`` the predictions must be there already (kept by an earlier run).
    ``workers``: processes to start for it, whatever the pipeline says of its command; 0: all is
    done in this one. ``executor``: one that is open already, in their place.

    Raises:
        ConfigError, PackageError: nothing was run, and nothing of earlier work was removed.
        StoreError: another driver works in the folder. WriteError: the run's own files cannot be
            written.
        KeyboardInterrupt: stopped on request; run again to go on.
    """
    check_workers(workers)
    asked = _asked(pipeline, out, until=until, overwrite=overwrite, infer=infer)
    with contextlib.ExitStack() as stack:
        stack.enter_context(driver_lock(out))
        for folder in (out / "results", out / "run", out / "run" / "work"):
            drop_partials(folder, deep=False)
        log = out / "run" / "log.jsonl"
        reporter = stack.enter_context((reporter or Reporter()).into(log))
        todo, rows = _prepare(asked, slides)
        states: list[SlideState] = []
        for row in rows.values():
            why = "finished before" if row.status == "done" else row.reason
            reporter.say(f"{row.slide}: {row.status} ({why})")
        if todo:
            if not is_kept():
                reporter.say(NOT_KEPT)
            executor = executor or stack.enter_context(
                open_executor(workers=workers, threads=pipeline.run.threads)
            )
            numerics = executor.numerics(pipeline.run.device, pipeline.run.threads)
            batch = Batch(asked.settings(numerics), executor, reporter)
            waiting = iter(todo)

            def begin() -> SlideState | None:
                slide = next(waiting, None)
                return None if slide is None else _begin(asked, batch, slide, numerics)

            def ended(state: SlideState) -> None:
                states.append(state)
                rows[state.name] = _conclude(asked, batch, state)
                if state.failure is None:
                    reporter.say(f"{state.name}: {rows[state.name].status}")

            steps = steps_of(get_task(pipeline.task), pipeline, until=until)
            if until == "results":
                steps.append(COMMIT)
            batch.drive(begin, steps, total=len(todo), ended=ended)
        ordered = tuple(rows[s.name] for s in slides)
        write_run_files(out, ordered, states, paths={s.name: s.path for s in slides})
    failed = any(row.status == "failed" for row in ordered)
    unwritten = any(s.failure is not None and s.failure.unwritten for s in states)
    code = EXIT_OUTPUT if unwritten else EXIT_FAILED if failed else EXIT_OK
    return RunReport(rows=ordered, exit_code=code)


def _asked(pipeline: Pipeline, out: Path, *, until: str, overwrite: bool, infer: bool) -> _Run:
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
    """The slides that need work, and rows of the others (done already, or not even
    readable).

    All that is to be refused is refused before any earlier work is given up.
    """
    rows: dict[str, SummaryRow] = {}
    todo: list[_Todo] = []
    for ref in slides:
        try:
            found = _look_at(asked, ref)
        except SlideError as error:
            found = failed_row(ref.name, asked.task, "open", str(error))
        if isinstance(found, _Todo):
            todo.append(found)
        else:
            rows[ref.name] = found
    return todo, rows


def _look_at(asked: _Run, ref: SlideRef) -> _Todo | SummaryRow:
    """Whether there is anything to do for a slide; changes nothing but what a crash left.

    Raises:
        SlideError: its file cannot be read.
        ConfigError: it has results or kept stores of other settings, and they are not to be
            overwritten; or predictions that must be there are not.
    """
    pipeline, until = asked.pipeline, asked.until
    folder = work_folder(asked.out, ref.name)
    identity = slide_identity(ref.path)
    work = SlideWork(ref, str(folder), asked.spec, pipeline.slide, pipeline.task, identity)
    prints = fingerprints(work, pipeline, weights_sha256=asked.weights_sha256)
    prints = begun_on(work, prints)
    place = results_folder(asked.out, ref.name)
    recover_folder(place, tidy=True)
    summary = _summary_in(place)
    # the file may be a better one now
    damaged = asked.overwrite and summary is not None and summary.damaged > 0
    if until == "results" and (place / SUMMARY).exists():
        if summary is not None and summary.fingerprint == prints.result and not damaged:
            finish_commit(work, prints, keep=pipeline.run.keep)
            return done_row(summary)
        if not asked.overwrite:
            raise ConfigError(
                f"{place} holds results of another model, setting or file; give another --out, or "
                "--overwrite to replace them"
            )
    predicted = is_predicted(work, prints)
    if not asked.infer and not predicted:
        raise ConfigError(
            f"{ref.name}: there are no kept predictions of this model and these settings; "
            "make them with 'quadrat predict'"
        )
    if not asked.overwrite:
        check_kept(work, prints, until=until)
    return _Todo(work, prints, predicted, damaged and asked.infer)


def _summary_in(folder: Path) -> Summary | None:
    """The summary of a slide's results; None where there is none that can be read."""
    try:
        return read_summary(folder)
    except (OSError, ValueError):
        return None


def _begin(asked: _Run, batch: Batch, slide: _Todo, numerics: Numerics) -> SlideState:
    """Give up what of earlier work is outdated; if that fails, the slide has failed. What another
    kind of machine has inferred is gone on with if it is complete, and else not."""
    work, prints = slide.work, slide.prints.on(numerics.text)
    if slide.predicted:
        prints = slide.prints
    elif slide.prints.machine not in ("", prints.machine):
        batch.reporter.say(
            f"{work.ref.name}: was begun on another kind of machine, or with another version of "
            f"torch; its inference begins anew ({numerics.text})"
        )
    try:
        return SlideState(
            work, prints, open_journal(work, prints, until=asked.until, anew=slide.anew)
        )
    except WriteError as error:
        state = SlideState(work, prints, Journal(work.journal))
        batch.fail(state, "open", Failure.of(error))
        return state


def _conclude(asked: _Run, batch: Batch, state: SlideState) -> SummaryRow:
    """The row of a slide that is done or has failed."""
    task, keep = asked.task, asked.pipeline.run.keep
    if state.failure is None:
        try:
            if asked.until != "results":
                keep_stores(state.work, state.prints, keep)
                plan = state.work.load_plan()
                return SummaryRow(state.name, asked.until, task, plan.frame.mpp, plan.tissue_mm2)
            return done_row(read_summary(results_folder(asked.out, state.name)))
        except Exception as error:
            batch.fail(state, "commit", Failure.of(error))
    assert state.failure is not None
    return failed_row(state.name, task, state.stage, state.failure.message)
