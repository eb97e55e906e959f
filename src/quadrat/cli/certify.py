"""``quadrat certify``: results are done again otherwise, and every byte is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quadrat.core.errors import EXIT_FAILED, EXIT_OK


def certify(
    out: Path = Path("quadrat_out"),
    /,
    *,
    slides: Annotated[int, Parameter(metavar="N")] = 2,
    seed: int = 0,
    workers: Annotated[int | None, Parameter(name=("--workers", "-j"), metavar="N")] = None,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"))] = False,
) -> int:
    """Do finished slides again otherwise, and compare every byte.

    In another order, by another number of workers and in other work
    units. OUT/certificate.json and certificate.md say what came of it.

    examples:
      quadrat certify out
      quadrat certify out --slides 5 --seed 7

    exit codes: 0 every byte is equal, 1 something is not

    Args:
        out: folder of the run (quadrat_out)
        slides: how many slides, chosen by chance
        seed: another seed takes other slides
        workers: worker processes; left out: another number than then
        quiet: no progress, only the verdict
        verbose: print what goes into the log as well
    """
    from quadrat.engine.certify import SENTENCES, certify
    from quadrat.engine.progress import Reporter

    reporter = Reporter(quiet=quiet, verbose=verbose)
    made = certify(out, slides=slides, seed=seed, workers=workers, reporter=reporter)
    for slide in made.slides:
        print(f"{slide.slide}: {slide.verdict} ({len(slide.files)} files)")
        for one in slide.differences:
            print(f"  {one.file}: {one.what}")
        if slide.reason:
            print(f"  {slide.reason}")
    print(SENTENCES[made.verdict])
    print(f"certificate: {out / 'certificate.md'}")
    return EXIT_OK if made.verdict == "equal" else EXIT_FAILED
