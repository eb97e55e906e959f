"""Whether a run has nothing left to do, found out without torch: a second command in a folder that
is finished is over in a moment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import EXIT_FAILED, EXIT_OK, PackageError, QuadratError
from quadrat.core.files import drop_partials, recover_folder
from quadrat.engine.drivers import drop_logs
from quadrat.engine.failures import read_failure
from quadrat.engine.fingerprint import fingerprints
from quadrat.engine.lease import Held, Leases
from quadrat.engine.report import RunReport, done_row, summarise
from quadrat.engine.seen import FOLDER, LEASES
from quadrat.engine.work import SlideWork, results_folder, work_folder
from quadrat.models.card import CARD, read_card
from quadrat.models.spec import need_unit, spec_from_dict
from quadrat.models.task import ModelSpec
from quadrat.outputs.summary import Summary, read_summary
from quadrat.outputs.tables import SummaryRow
from quadrat.slides.identity import slide_identity

POLL_S = 2.0
"""How often it is looked whether what another driver has is free."""


def finished_run(pipeline: Pipeline, slides: Sequence[SlideRef], out: Path) -> RunReport | None:
    """What a run to results comes to that has nothing left to do, with the tables made anew; None:
    it has, or that needs a closer look."""
    rows = []
    try:
        package = package_folder(pipeline)
        card = read_card(package)
        spec = spec_for(pipeline, spec_from_dict(card["spec"]), package)
        weights = str(card["weights_sha256"])
        for ref in slides:
            row = _row(pipeline, ref, out, spec=spec, weights_sha256=weights)
            if row is None:
                return None
            rows.append(row)
    except (QuadratError, KeyError, TypeError, ValueError):  # the run itself says it better
        return None
    if not rows:
        return None
    with Leases(out / "run" / LEASES) as leases:
        tidy(out, leases)
        with alone(leases):
            summarise(out)
    failed = any(row.status == "failed" for row in rows)
    return RunReport(tuple(rows), EXIT_FAILED if failed else EXIT_OK)


def _row(
    pipeline: Pipeline, ref: SlideRef, out: Path, *, spec: ModelSpec, weights_sha256: str
) -> SummaryRow | None:
    """The row of a slide that is done, or that failed and is not to be tried again."""
    folder = work_folder(out, ref.name)
    summary = summary_in(results_folder(out, ref.name))
    failure = read_failure(out, ref.name)
    if (summary is None) == (failure is None) or (failure is not None and failure.again):
        return None
    identity = slide_identity(ref.path)
    work = SlideWork(ref, str(folder), spec, pipeline.slide, pipeline.task, identity)
    wanted = fingerprints(work, pipeline, weights_sha256=weights_sha256).result
    if failure is not None:
        return failure.row(out) if failure.fingerprint == wanted else None
    if summary is None or summary.fingerprint != wanted or folder.exists():
        return None
    return done_row(summary)


def package_folder(pipeline: Pipeline) -> Path:
    """The model package of a pipeline: as written if it is absolute or exists from here, else
    next to the pipeline file."""
    here, there = Path(pipeline.model.package), Path(pipeline.folder) / pipeline.model.package
    for folder in (here, there):
        recover_folder(folder)
    return there if not (here / CARD).exists() and (there / CARD).exists() else here


def spec_for(pipeline: Pipeline, spec: ModelSpec, package: Path) -> ModelSpec:
    """A package's frozen specification with the thresholds that the pipeline file sets.

    Raises:
        PackageError: it is one for another unit or other classes.
    """
    need_unit(pipeline, spec, package)
    wanted = tuple(c.name for c in pipeline.classes)
    if spec.class_names != wanted:
        raise PackageError(
            f"{package} knows the classes {', '.join(spec.class_names)}, the pipeline wants "
            f"{', '.join(wanted)}"
        )
    return replace(spec, thresholds=dict(spec.thresholds) | pipeline.thresholds)


def summary_in(folder: Path) -> Summary | None:
    """The summary of a slide's results; None where there is none that can be read."""
    try:
        return read_summary(folder)
    except (OSError, ValueError):
        return None


def tidy(out: Path, leases: Leases) -> None:
    """Remove what killed processes left half written, unless another driver may be writing."""
    with alone(leases):
        if set(leases.holders()) == {FOLDER}:
            own = (path for path in (out / "run").glob("*") if path.is_dir())
            for folder in (out / "results", out / "run", *own):
                drop_partials(folder, deep=False)
            drop_logs(out)


@contextlib.contextmanager
def alone(leases: Leases) -> Iterator[None]:
    """The folder's own files are written by one driver at a time; another one needs a moment."""
    while isinstance(lease := leases.take(FOLDER), Held):
        time.sleep(min(POLL_S, 0.1 + lease.again_in_s))
    try:
        yield
    finally:
        lease.release()
