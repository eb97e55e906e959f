"""Whether a run has nothing left to do, found out without torch: a second command in a folder that
is finished is over in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import EXIT_FAILED, EXIT_OK, PackageError, QuadratError
from quadrat.core.files import recover_folder
from quadrat.engine.failures import FailedSlide, read_failure
from quadrat.engine.fingerprint import identified
from quadrat.engine.folder import LEASES, alone, tidy
from quadrat.engine.lease import Leases
from quadrat.engine.report import RunReport, done_row, summarise
from quadrat.engine.work import results_folder, work_folder
from quadrat.models.card import CARD, read_card
from quadrat.models.spec import need_unit, spec_from_dict
from quadrat.models.task import ModelSpec
from quadrat.outputs.summary import Summary, read_summary

Over = Summary | FailedSlide
"""What a slide that is over has left: its results, or why it failed."""


def finished_run(pipeline: Pipeline, slides: Sequence[SlideRef], out: Path) -> RunReport | None:
    """What a run to results comes to that has nothing left to do, with the tables made anew; None:
    it has, or that needs a closer look."""
    over: list[Over] = []
    for ref in slides:  # before any slide's file is read
        if (one := _over(out, ref)) is None:
            return None
        over.append(one)
    if not over:
        return None
    try:
        package = package_folder(pipeline)
        card = read_card(package)
        spec = spec_for(pipeline, spec_from_dict(card["spec"]), package)
        weights = str(card["weights_sha256"])
        for ref, one in zip(slides, over, strict=True):
            folder = work_folder(out, ref.name)
            _, now = identified(ref, folder, spec, pipeline, weights_sha256=weights)
            if one.fingerprint != now.result:
                return None
    except (QuadratError, KeyError, TypeError, ValueError):  # the run itself says it better
        return None
    with Leases(out / "run" / LEASES) as leases:
        tidy(out, leases)
        with alone(leases):
            summarise(out)
    rows = tuple(one.row(out) if isinstance(one, FailedSlide) else done_row(one) for one in over)
    failed = any(row.status == "failed" for row in rows)
    return RunReport(rows, EXIT_FAILED if failed else EXIT_OK)


def _over(out: Path, ref: SlideRef) -> Over | None:
    """What is left of a slide that is done, or that failed and is not to be tried again; None: it
    is neither, or both."""
    summary, failure = summary_in(results_folder(out, ref.name)), read_failure(out, ref.name)
    if failure is not None:
        return None if failure.again or summary is not None else failure
    return None if work_folder(out, ref.name).exists() else summary


def package_folder(pipeline: Pipeline) -> Path:
    """The model package of a pipeline: as written if it is absolute or exists from here, else
    next to the pipeline file; "." is the folder of that file."""
    if Path(pipeline.model.package) == Path():  # of an imported model
        recover_folder(Path(pipeline.folder))
        return Path(pipeline.folder)
    here, there = Path(pipeline.model.package), Path(pipeline.folder) / pipeline.model.package
    for folder in (here, there):
        recover_folder(folder)
    return there if not (here / CARD).exists() and (there / CARD).exists() else here


def spec_for(pipeline: Pipeline, spec: ModelSpec, package: Path) -> ModelSpec:
    """A package's frozen specification with the thresholds and the precision of inference that the
    pipeline file sets.

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
    return replace(
        spec,
        thresholds=dict(spec.thresholds) | pipeline.thresholds,
        inference=pipeline.model.inference or spec.inference,
    )


def summary_in(folder: Path) -> Summary | None:
    """The summary of a slide's results; None where there is none that can be read."""
    try:
        return read_summary(folder)
    except (OSError, ValueError):
        return None
