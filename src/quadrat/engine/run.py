"""The stages as functions: what the command line and a Python program call. One slide list, one
pipeline, one folder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace
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
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor, refusal
from quadrat.engine.fingerprint import Fingerprints, fingerprints
from quadrat.engine.flow import UNTIL, Batch, SlideState
from quadrat.engine.journal import Journal
from quadrat.engine.lock import driver_lock
from quadrat.engine.progress import Reporter
from quadrat.engine.report import RunReport, _done_row, _failed_row, write_run_files
from quadrat.engine.resume import commit_result, open_journal, results_folder, valid_receipts
from quadrat.engine.tables import read_summary_json
from quadrat.engine.work import SlideWork
from quadrat.models.inference import pick_device
from quadrat.models.package import CARD, load_package
from quadrat.models.spec import spec_of, versions
from quadrat.models.task import ModelSpec
from quadrat.outputs.tables import SummaryRow
from quadrat.slides.identity import slide_identity
from quadrat.tasks import build_network, get_task


def package_folder(pipeline: Pipeline) -> Path:
    """The model package of a pipeline: as written if it is absolute or exists from here, else
    beside the pipeline file."""
    here, beside = Path(pipeline.model.package), Path(pipeline.folder) / pipeline.model.package
    for folder in (here, beside):
        recover_folder(folder)
    return beside if not (here / CARD).exists() and (beside / CARD).exists() else here


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
            f"{pipeline.name}' "
            "or name another with --set model.package=FOLDER"
        )
    loaded = load_package(
        package, build_network
    )  # whole and unaltered? It is better said now than by every worker
    spec, card = loaded.spec, dict(loaded.card)
    if spec.task != pipeline.task:
        raise PackageError(
            f"{package} holds a model for {spec.task}, but the pipeline's task is {pipeline.task}"
        )
    wanted = tuple(c.name for c in pipeline.classes)
    if spec.class_names != wanted:
        raise PackageError(
            f"{package} knows the classes {', '.join(spec.class_names)}, the pipeline wants "
            f"{', '.join(wanted)}"
        )
    return replace(spec, thresholds=dict(spec.thresholds) | pipeline.thresholds), card


def run(
    pipeline: Pipeline,
    slides: Sequence[SlideRef],
    out: Path,
    *,
    until: str = "results",
    overwrite: bool = False,
    infer: bool = True,
    reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> RunReport:
    """Take slides from file to results (or only to ``until``: "tile", "predict").

    A slide whose results carry the same fingerprint is skipped; an interrupted one goes on where
    its journal ends. Without ``infer`` the predictions must be there already (kept by an earlier
    run).

    Raises:
        ConfigError, PackageError: nothing was run. KeyboardInterrupt: stopped on request; run
        again to go on.
    """
    if until not in UNTIL:
        raise ConfigError(f"until is '{until}'; it must be one of {', '.join(UNTIL)}")
    package = package_folder(pipeline)
    device = pick_device(pipeline.run.device).type
    if until == "tile":
        spec, card = spec_of(pipeline, get_task(pipeline.task)), {"weights_sha256": ""}
        if (package / CARD).is_file():
            spec, card = run_spec(pipeline, package)
    else:
        spec, card = run_spec(pipeline, package)
    with contextlib.ExitStack() as stack:
        stack.enter_context(driver_lock(out))
        for folder in (out / "results", out / "run", out / "run" / "work"):
            drop_partials(folder, deep=False)
        log = out / "run" / "log.jsonl"
        reporter = stack.enter_context((reporter or Reporter()).into(log))
        todo, rows = _prepare(
            pipeline,
            slides,
            out,
            spec,
            card,
            device=device,
            until=until,
            overwrite=overwrite,
            infer=infer,
        )
        for row in rows.values():
            reporter.say(
                f"{row.slide}: {row.status} "
                f"({'finished before' if row.status == 'done' else row.reason})"
            )
        if todo:
            if executor is None:
                run_ = pipeline.run
                executor = stack.enter_context(
                    open_executor(run_.executor, workers=run_.workers, threads=run_.threads)
                )
            provenance = {
                "package": {
                    "weights_sha256": card["weights_sha256"],
                    "exactness": card.get("exactness"),
                },
                "classes": [asdict(c) for c in spec.classes],
                "pipeline": pipeline.name,
                "versions": versions() | {"quadrat": __version__},
                "threads": pipeline.run.threads,
                "device": device,
            }
            batch = Batch(pipeline, executor, reporter, str(package), device, provenance)
            for start in range(0, len(todo), pipeline.run.slides_in_flight):
                group = todo[start : start + pipeline.run.slides_in_flight]
                batch.advance(group, until=until)
                for state in group:
                    rows[state.name] = _conclude(state, batch, out, until=until)
                    if state.failure is None:
                        reporter.say(f"{state.name}: {rows[state.name].status}")
        ordered = tuple(rows[s.name] for s in slides)
        write_run_files(out, ordered, todo, paths={s.name: s.path for s in slides})
    failed = any(row.status == "failed" for row in ordered)
    unwritten = any(state.failure is not None and state.failure.unwritten for state in todo)
    code = EXIT_OUTPUT if unwritten else EXIT_FAILED if failed else EXIT_OK
    return RunReport(rows=ordered, exit_code=code)


def _need_predictions(work: SlideWork, prints: Fingerprints) -> None:
    receipts = valid_receipts(work, prints, Journal(work.path / "journal.jsonl").receipts)
    shards = receipts.get(SlideState.key(prints.tile, "plan"), {"shards": [None]})["shards"]
    wanted = [
        SlideState.key(prints.predict, "predict", f"{s[0]}.{s[1]}") if s else "" for s in shards
    ]
    if not all(key in receipts for key in wanted):
        raise ConfigError(
            f"{work.ref.name}: there are no kept predictions of this model and these settings; "
            "make them with 'quadrat predict'"
        )


def _prepare(
    pipeline: Pipeline,
    slides: Sequence[SlideRef],
    out: Path,
    spec: ModelSpec,
    card: dict[str, Any],
    *,
    device: str,
    until: str,
    overwrite: bool,
    infer: bool,
) -> tuple[list[SlideState], dict[str, SummaryRow]]:
    """States of the slides that need work, and rows of those that do not (done already, or not even
    readable).

    All that is to be refused is refused before any earlier work is given up.
    """
    todo: list[tuple[SlideWork, Fingerprints, bool]] = []
    rows: dict[str, SummaryRow] = {}
    for ref in slides:
        folder = out / "run" / "work" / ref.name
        try:
            work = SlideWork(
                ref, str(folder), spec, pipeline.slide, pipeline.task, slide_identity(ref.path)
            )
            prints = fingerprints(
                work, pipeline, weights_sha256=str(card["weights_sha256"]), device=device
            )
        except SlideError as error:
            rows[ref.name] = _failed_row(ref.name, pipeline, "open", str(error))
            continue
        recover_folder(results_folder(out, ref.name), tidy=True)
        summary = read_summary_json(results_folder(out, ref.name))
        damaged = (
            overwrite and summary is not None and bool(summary.get("damaged_tiles_l0"))
        )  # the file may be a better one now
        if until == "results":
            if summary is not None and summary.get("fingerprint") == prints.result and not damaged:
                rows[ref.name] = _done_row(summary)
                continue
            if summary is not None and not overwrite:
                raise ConfigError(
                    f"{results_folder(out, ref.name)} holds results of another model, setting or "
                    "file; "
                    "give another --out, or --overwrite to replace them"
                )
        if not infer:
            _need_predictions(work, prints)
        todo.append((work, prints, damaged and infer))
    return [
        SlideState(work, prints, open_journal(work, prints, anew=anew))
        for work, prints, anew in todo
    ], rows


def _conclude(state: SlideState, batch: Batch, out: Path, *, until: str) -> SummaryRow:
    """Commit a finished slide, or record its failure."""
    pipeline = batch.pipeline
    state.journal.close()
    if state.failure is None and until != "results":
        plan = state.work.load_plan()
        return SummaryRow(state.name, until, pipeline.task, plan.frame.mpp, plan.tissue_mm2)
    if state.failure is None:
        try:
            commit_result(state.work, out, keep=pipeline.run.keep)
        except WriteError as error:
            batch.fail(state, "commit", refusal(error))
    if state.failure is not None:
        return _failed_row(state.name, pipeline, state.stage, state.failure.message)
    summary = read_summary_json(results_folder(out, state.name))
    assert summary is not None
    return _done_row(summary)
