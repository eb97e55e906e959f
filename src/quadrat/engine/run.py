"""A run: what the command line and a Python program call. One slide list, one pipeline, one
folder, and any number of drivers that share the slides."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import EXIT_FAILED, EXIT_OK, EXIT_OUTPUT, ConfigError, PackageError
from quadrat.core.kernel import is_kept
from quadrat.core.numerics import BF16
from quadrat.core.unit import PX
from quadrat.engine.batch import Batch
from quadrat.engine.cluster import HERE, check_cluster, open_executor
from quadrat.engine.crossing import Crossing
from quadrat.engine.drivers import at_work, note_asked
from quadrat.engine.executor import Executor
from quadrat.engine.finished import package_folder, spec_for
from quadrat.engine.folder import LEASES, alone, tidy
from quadrat.engine.journal import UNTIL
from quadrat.engine.lease import Leases
from quadrat.engine.progress import Reporter
from quadrat.engine.report import RunReport, summarise
from quadrat.engine.steps import keep_package
from quadrat.engine.todo import RunRequest, prepare
from quadrat.models.card import CARD
from quadrat.models.inference import batch_of
from quadrat.models.package import load_package
from quadrat.models.spec import IN_PX, spec_of
from quadrat.models.task import ModelSpec
from quadrat.tasks import build_network, get_task

NOT_KEPT = (
    "note: no folder for compiled functions can be written, so every process compiles them again "
    "(some ten seconds); NUMBA_CACHE_DIR can name one"
)

NO_BF16 = (
    "note: inference is in fp32, because what computes the network here does not compute in bf16, "
    "which the model asks for (model.inference)"
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
    keep_package(package, loaded)
    return spec_for(pipeline, loaded.spec, package), dict(loaded.card)


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
        todo, rows = prepare(asked, slides)
        with alone(leases):
            digest = note_asked(out, pipeline, slides, package=asked.package, until=until)
        for row in rows.values():
            why = "finished before" if row.status == "done" else row.reason
            reporter.say(f"{row.slide}: {row.status} ({why})")
        unwritten = False
        if todo:
            if not is_kept():
                reporter.say(NOT_KEPT)
            here = stack.enter_context(
                at_work(
                    out,
                    digest,
                    workers=workers,
                    threads=section.threads,
                    alone=partial(alone, leases),
                )
            )
            executor = executor or stack.enter_context(
                open_executor(
                    workers=workers,
                    threads=section.threads,
                    cluster=cluster,
                    device=section.device,
                    stage_gb=section.stage_gb,
                    folder=out / "run",
                    logs=str(here.logs.absolute()),
                    interface=section.interface,
                    insecure=section.insecure_cluster,
                    ask=pipeline.slurm,
                )
            )
            numerics = executor.numerics(section.device, section.threads)
            if asked.spec.inference == BF16 and not numerics.bf16:
                reporter.say(NO_BF16)
            at_once = batch_of(numerics.device, asked.spec.lattice, section.batch)
            numerics = numerics.of(asked.spec.inference, batch=at_once)
            here.note(numerics=numerics.text)
            batch = Batch(asked.settings(numerics), executor, reporter)
            crossing = Crossing(
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
) -> RunRequest:
    """What is asked for, with the model. Tiles can be filled before there is a package."""
    if until not in UNTIL:
        raise ConfigError(f"until is '{until}'; it must be one of {', '.join(UNTIL)}")
    package = package_folder(pipeline)
    card: dict[str, Any] = {"weights_sha256": ""}
    if until == "tile" and not (package / CARD).is_file():
        spec = spec_of(pipeline, get_task(pipeline.task))
    else:
        spec, card = run_spec(pipeline, package)
    return RunRequest(
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
