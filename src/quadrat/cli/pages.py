"""``quadrat view`` and ``quadrat report``: look at the results of a run."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from threading import Thread
from typing import Annotated

from cyclopts import Parameter

from quadrat.cli.options import above_zero
from quadrat.core.errors import EXIT_OK, ConfigError
from quadrat.core.text import did_you_mean

CAPSULE_MPP = 1.0
Slides = Annotated[Path | None, Parameter(metavar="FOLDER")]


def view(
    out: Path = Path("quadrat_out"),
    slide: str = "",
    /,
    *,
    slides: Slides = None,
    port: int = 0,
    browser: Annotated[bool, Parameter(name="--open")] = False,
) -> int:
    """Look at slides with their objects, in a browser.

    A page of this machine alone, which ends with Ctrl-C; nothing is
    written. On a cluster, forward the port: ssh -L 8765:127.0.0.1:8765 NODE.

    examples:
      quadrat view out
      quadrat view out CMU-1 --open
      quadrat view out --slides /mnt/slides --port 8765

    Args:
        out: folder of the run (quadrat_out)
        slide: a slide to begin with, by name
        slides: folder to look in for files that are not where they were
        port: of the page; 0: one that is free
        browser: open the page in the browser
    """
    from quadrat.pages.folder import read_run
    from quadrat.pages.server import Server
    from quadrat.pages.shown import Viewing

    if not 0 <= port <= 65535:
        raise ConfigError(f"--port is {port}; it must be 0 (any) to 65535")
    run = read_run(out, slides=slides)
    if slide and slide not in run.slides:
        known = did_you_mean(slide, run.slides, otherwise=f" ({len(run.slides)} others have)")
        raise ConfigError(f"{out} holds no results of a slide '{slide}'{known}")
    try:
        server = Server(Viewing(run), port=port)
    except OSError as error:
        raise ConfigError(
            f"--port {port} cannot be used ({error.strerror}); choose another, or leave it out"
        ) from error
    with server:
        first = slide or next(iter(run.slides), "")
        Thread(target=server.viewing.open_early, args=(first,), daemon=True).start()
        url = server.url(slide)
        print(f"{len(run.slides)} slides: {url}\nCtrl-C ends it.", flush=True)
        if browser:
            webbrowser.open(url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return EXIT_OK
    return EXIT_OK


def report(
    out: Path = Path("quadrat_out"),
    /,
    *,
    slides: Slides = None,
    capsule: bool = False,
    capsule_mpp: Annotated[float | None, above_zero("--capsule-mpp", "um/px")] = None,
) -> int:
    """Write a report that opens from disk: OUT/report.

    An overview with outliers first, a page a slide, a text for the
    methods of a paper, the model's card, and a table for MultiQC.

    examples:
      quadrat report out
      quadrat report out --slides /mnt/slides
      quadrat report out --capsule                  the slides in it as well
      quadrat report out --capsule-mpp 0.5          and sharper

    Args:
        out: folder of the run (quadrat_out)
        slides: folder to look in for files that are not where they were
        capsule: with each slide in deep zoom and its objects, at 1 um/px
        capsule_mpp: the same, at so many um/px
    """
    from quadrat.pages.folder import read_run
    from quadrat.pages.report import write_report

    run = read_run(out, slides=slides)
    mpp = capsule_mpp if capsule_mpp is not None else CAPSULE_MPP if capsule else None
    written = write_report(run, capsule_mpp=mpp)
    print(f"{len(run.slides)} slides: {written}")
    return EXIT_OK
