"""What can be done beside taking slides through the stages: look at files, check stores, report
seams, make phantoms."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import QuadratError, StoreError
from quadrat.engine.progress import Reporter
from quadrat.engine.run import EXIT_FAILED, EXIT_OK, EXIT_USAGE


def inspect(
    paths: Sequence[str],
    *,
    as_json: bool,
    write: Callable[[str], None],
    mpp: float | None = None,
    pictures: Path | None = None,
) -> int:
    """What slide files say of themselves and how much tissue they show; a file that cannot be read
    never stops the others.

    ``pictures``: a folder for a thumbnail and a tissue overlay of each.
    """
    from quadrat.cli.inspect import describe, describe_text

    code, taken = EXIT_OK, set[str]()
    for path in paths:
        try:
            facts = describe(path, mpp=mpp, pictures=pictures, taken=taken)
        except QuadratError as error:
            facts = {"path": path, "error": str(error)}
        taken.update(facts.get("pictures", ()))
        code = EXIT_FAILED if "error" in facts else code
        write(json.dumps(facts) if as_json else describe_text(facts))
    return code


def init(
    task: str,
    *,
    slides: Path,
    annotations: Path | None,
    out: Path,
    case: str | None,
    overwrite: bool,
    write: Callable[[str], None],
) -> int:
    """Write a manifest and a pipeline from folders of slides and annotations (see
    :mod:`quadrat.cli.init`)."""
    from quadrat.cli.init import start

    for line in start(
        task, slides=slides, annotations=annotations, out=out, case=case, overwrite=overwrite
    ).lines:
        write(line)
    return EXIT_OK


def verify(stores: Sequence[Path], *, write: Callable[[str], None]) -> int:
    """Check stores against their seals: a line a problem, and one for each sound store; 2 if a path
    is no store."""
    from quadrat.store.seal import verify as problems_of

    code = EXIT_OK
    for store in stores:
        try:
            problems = problems_of(store)
        except StoreError as error:
            write(str(error))
            code = EXIT_USAGE
            continue
        for line in problems or [f"{store}: sound"]:
            write(line)
        code = max(code, EXIT_FAILED) if problems else code
    return code


def seams(
    result: Path,
    *,
    tile: float | None,
    origin: tuple[float, float],
    mpp: float | None,
    as_json: bool,
    write: Callable[[str], None],
) -> int:
    """Print the seam report of a result (see :mod:`quadrat.evaluation.seam_files`)."""
    from quadrat.evaluation.seam_files import read_seams, seams_text

    report = read_seams(result, tile=tile, origin=origin, mpp=mpp)
    write(json.dumps(report, indent=2) if as_json else seams_text(report))
    return EXIT_OK


def evaluate(
    pipeline: Pipeline,
    manifest: Path | None,
    out: Path,
    *,
    split: str,
    folds: int | None,
    results: Sequence[Path],
    distance_um: float,
    allow_seen: bool,
    ranking: bool,
    pictures: bool,
    overwrite: bool,
    as_json: bool,
    write: Callable[[str], None],
) -> int:
    """Hold a package against annotated slides; 1 if some slides failed."""
    from quadrat.evaluation import evaluate
    from quadrat.metrics.protocol import MetricSettings

    options = evaluate.EvaluationOptions(
        split=split,
        results=tuple(results),
        allow_seen=allow_seen,
        settings=MetricSettings(distance_um=distance_um),
        ranking=ranking,
        pictures=pictures,
        overwrite=overwrite,
    )
    jobs = evaluate.evaluation_jobs(pipeline, manifest, out, options, folds=folds)
    return evaluate.command(jobs, out, options, as_json=as_json, write=write)


def demo(out: Path, *, scale: str, workers: int) -> int:
    """See :mod:`quadrat.cli.demo`."""
    from quadrat.cli.demo import demo as run_demo

    with Reporter(out / "log.jsonl") as reporter:
        return run_demo(out, scale=scale, workers=workers, reporter=reporter)


def phantom(
    out: Path, *, name: str, height: int, width: int, seed: int, dominant: str, tissue: float
) -> Path:
    """Write one phantom slide with its truth; the slide's path."""
    from quadrat.phantom import PhantomSpec, write_phantom
    from quadrat.phantom.spec import RegionName

    spec = PhantomSpec(
        name=name,
        width=width,
        height=height,
        seed=seed,
        dominant=cast(RegionName, dominant),
        tissue_fraction=tissue,
    )
    return write_phantom(out, spec=spec).slide
