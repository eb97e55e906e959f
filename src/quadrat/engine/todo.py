"""What a run was asked for, and what of each slide is still to be done."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import ConfigError, SlideError
from quadrat.core.numerics import Numerics
from quadrat.core.version import __version__
from quadrat.engine.failures import FailedSlide, forget_failure, read_failure, write_failure
from quadrat.engine.fingerprint import Fingerprints, identified
from quadrat.engine.finished import summary_in
from quadrat.engine.report import done_row
from quadrat.engine.resume import begun_on, check_kept, is_committing, is_predicted
from quadrat.engine.state import RunSettings
from quadrat.engine.work import SlideWork, results_folder, work_folder
from quadrat.models.spec import versions
from quadrat.models.task import ModelSpec
from quadrat.outputs.summary import SUMMARY, PackageNote, Provenance
from quadrat.outputs.tables import SummaryRow
from quadrat.tasks import get_task

LOOKING = 4
"""Slides that are looked at at the same time."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is asked for, and the model it is asked of."""

    pipeline: Pipeline
    """The settings."""
    out: Path
    """The run's folder."""
    until: str
    """Where it ends (one of UNTIL)."""
    overwrite: bool
    """Whether results and kept stores of other settings are replaced."""
    infer: bool
    """False: the predictions must be there already."""
    retry_failed: bool
    """Whether slides are taken again that failed before with the same settings."""
    package: Path
    """Folder of the model package."""
    spec: ModelSpec
    """The package's, with the pipeline's thresholds."""
    weights_sha256: str
    """Of the package."""
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
            inference=numerics.inference,
        )
        return RunSettings(self.pipeline, str(self.package.absolute()), provenance, str(self.out))


@dataclass(frozen=True, slots=True)
class Todo:
    """A slide that needs work."""

    work: SlideWork
    """The slide, its working folder and its model."""
    prints: Fingerprints
    """On the machine that began it, if one did."""
    predicted: bool
    """Whether all of it is inferred."""
    anew: bool
    """Whether nothing of earlier work counts."""


def prepare(
    asked: RunRequest, slides: Sequence[SlideRef]
) -> tuple[list[Todo], dict[str, SummaryRow]]:
    """The slides that need work, and rows of the others (done or failed already, or not even
    readable). All that is to be refused is refused before anything is changed.
    """
    with ThreadPoolExecutor(LOOKING) as pool:  # most of it is reading and hashing
        looks = pool.map(lambda ref: look_at(asked, ref), slides)
        found = {ref.name: look for ref, look in zip(slides, looks, strict=True)}
    todo = [one for one in found.values() if isinstance(one, Todo)]
    over = {name: one for name, one in found.items() if not isinstance(one, Todo)}
    return todo, {name: row_of(asked, one) for name, one in over.items()}


def row_of(asked: RunRequest, over: SummaryRow | FailedSlide) -> SummaryRow:
    """The row of a slide that is done, or of one that failed, which is put down."""
    if isinstance(over, SummaryRow):
        forget_failure(asked.out, over.slide)  # its results may have come to their place after it
        return over
    return write_failure(asked.out, over).row(asked.out)


def look_at(asked: RunRequest, ref: SlideRef) -> Todo | SummaryRow | FailedSlide:
    """Whether there is anything to do for a slide; changes nothing.

    Raises:
        ConfigError: it has results or kept stores of other settings, and they are not to be
            overwritten; or predictions that must be there are not.
    """
    pipeline, until = asked.pipeline, asked.until
    folder = work_folder(asked.out, ref.name)
    try:
        work, prints = identified(
            ref, folder, asked.spec, pipeline, weights_sha256=asked.weights_sha256
        )
    except SlideError as error:
        unit = asked.spec.unit
        return FailedSlide(ref.name, "open", str(error), asked.task, ref.path, unit=unit)
    prints = begun_on(work, prints)
    place = results_folder(asked.out, ref.name)
    summary = summary_in(place)
    # the file may be a better one now
    damaged = asked.overwrite and summary is not None and summary.damaged > 0
    if until == "results" and (place / SUMMARY).exists():
        same = summary is not None and summary.fingerprint == prints.result and not damaged
        if same and not is_committing(work, prints, keep=pipeline.run.keep):
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
    predicted = is_predicted(work, prints)
    if not asked.infer and not predicted:
        raise ConfigError(
            f"{ref.name}: there are no kept predictions of this model and these settings; "
            "make them with 'quadrat predict'"
        )
    if not asked.overwrite:
        check_kept(work, prints, until=until)
    return Todo(work, prints, predicted, damaged and asked.infer)
