"""Compare results: with those of another run, object by object, or with counts of people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quadrat.cli.options import above_zero
from quadrat.core.errors import EXIT_FAILED, EXIT_OK, ConfigError

AsJson = Annotated[bool, Parameter(name="--json")]
Slides = Annotated[tuple[str, ...], Parameter(name="--slide", metavar="NAME")]


def diff(
    before: Path,
    after: Path,
    /,
    *,
    slides: Slides = (),
    iou: float = 0.5,
    distance_um: Annotated[float | None, above_zero("--distance-um", "um")] = None,
    out: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Which objects came, went or changed between two runs.

    Objects with equal class and outline are the same; the others are matched by
    their boxes.

    examples:
      quadrat diff out_v1 out_v2
      quadrat diff out_v1 out_v2 --out changes      also GeoJSON for QuPath
      quadrat diff out_v1 out_v2 --distance-um 4    match centres, not boxes

    exit codes: 0 nothing differs, 1 something does, 2 not comparable

    Args:
        before: the folder of a run
        after: the folder of another run of the same slides
        slides: only these slides, by name
        iou: objects are one from this IoU of their boxes on
        distance_um: objects are one up to this distance of their centroids, in place of --iou
        out: folder for diff.csv, diff.json and a GeoJSON file per slide
        as_json: one JSON object
    """
    from quadrat.evaluation.difference import Same
    from quadrat.evaluation.difference_files import compare_runs, difference_json, difference_text

    if before.resolve() == after.resolve():
        raise ConfigError(f"{before} is given twice; name two runs")
    same = Same(iou=iou, distance_um=distance_um)
    result = compare_runs(before, after, same=same, named=slides, folder=out)
    if as_json:
        print(json.dumps(difference_json(result), indent=2))
    else:
        print("\n".join(difference_text(result)))
    return EXIT_OK if result.equal else EXIT_FAILED


def compare(
    out: Path,
    reference: Path,
    /,
    *,
    slides: Slides = (),
    to: Annotated[Path | None, Parameter(name="--out")] = None,
    as_json: AsJson = False,
) -> int:
    """Whether counts agree with those of people, or of another run.

    Bias and limits of agreement (Bland-Altman), ICC(2,1), Spearman's rank
    correlation, Passing-Bablok line; of all objects and of each class.

    examples:
      quadrat compare out manual.csv                 slide,count
      quadrat compare out manual.csv --out compared  also CSV, JSON, PNG, PDF
      quadrat compare out_v2 out_v1

    Args:
        out: the folder of a run
        reference: a CSV (slide, and count or a column a class; or slide, class, count), or the
            folder of another run
        slides: only these slides, by name
        to: folder for tables and plots
        as_json: one JSON object
    """
    from quadrat.evaluation.compare import (
        compare,
        comparison_json,
        comparison_text,
        write_comparison,
    )

    if out.resolve() == reference.resolve():
        raise ConfigError(f"{out} is given twice; name two runs, or a table of counts")
    found = compare(out, reference, named=slides)
    if to is not None:
        write_comparison(to, found)
    if as_json:
        print(json.dumps(comparison_json(found), indent=2))
    else:
        print("\n".join(comparison_text(found)))
    return EXIT_OK
