"""``quadrat measure``: from results on disk to one table of figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quadrat.core.errors import EXIT_OK


def measure(
    out: Path = Path("quadrat_out"),
    /,
    *,
    rois: Annotated[Path | None, Parameter(metavar="PLACE")] = None,
    pipeline: Annotated[Path | None, Parameter(metavar="YAML")] = None,
    within: Annotated[tuple[str, ...], Parameter(metavar="NAME=OUT:CLASS")] = (),
    without_filled: bool = False,
    no_shapes: bool = False,
    to: Annotated[Path | None, Parameter(metavar="FOLDER")] = None,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False,
) -> int:
    """Counts, densities, shapes, ratios and distances by region, in one table.

    From results on disk; nothing is inferred again. OUT/measurements.csv and
    .parquet have a row a figure: of each slide and region, of each case, and
    of all cases (docs/measure.md).

    examples:
      quadrat measure out
      quadrat measure out --rois annotations/
      quadrat measure out --rois slides.csv --pipeline ki67.yaml
      quadrat measure nuclei_out --within tumour=regions_out:tumour

    Args:
        out: folder of the run (quadrat_out)
        rois: regions drawn in QuPath (GeoJSON): a folder with a file a slide, a manifest with the
            column 'regions', or one file
        pipeline: what else to measure: ratios, distances, bands, hotspots, stain,
            Ripley's K
        within: regions of a class that another run found on the same slides
        without_filled: leave out gaps and holes that were filled, and the objects on them
        no_shapes: no distributions of sizes and shapes (quicker)
        to: where the tables are written (OUT)
        quiet: only errors
    """
    from quadrat.measure.measure import Wanted
    from quadrat.measure.measure import measure as run

    wanted = Wanted(
        out=out,
        rois=rois,
        pipeline=pipeline,
        within=within,
        shapes=not no_shapes,
        without_filled=without_filled,
        to=to,
    )
    done = run(wanted, say=(lambda text: None) if quiet else print)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    if not quiet:
        print(f"{done.slides} slides, {done.rows:,} rows: {done.table}")
    return EXIT_OK
