"""``quadrat status``: where a run stands, from any shell or node."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from quadrat.core.errors import EXIT_FAILED, EXIT_OK, ConfigError
from quadrat.core.text import aligned
from quadrat.core.unit import plain_area

if TYPE_CHECKING:
    from quadrat.engine.status import Status

SHOWN = 12
"""Names in a list before it is cut."""


def status(
    out: Path = Path("quadrat_out"),
    /,
    *,
    watch: bool = False,
    every: Annotated[float, Parameter(metavar="SECONDS")] = 5.0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Where a run stands: done, running, failed, time left.

    It is made from what lies in the folder, so it can be asked from any
    node that sees it, while the run goes on or later. Nothing is written.

    examples:
      quadrat status out
      quadrat status out --watch
      quadrat status out --json

    exit codes: 0 no slide has failed, 1 some have

    Args:
        out: folder of the run (quadrat_out)
        watch: look again and again, until Ctrl-C
        every: seconds between two looks
        as_json: one JSON object (a line a look, with --watch)
    """
    from quadrat.core.records import to_json
    from quadrat.engine.seen import Folder
    from quadrat.engine.status import status_of

    if not (out / "run").is_dir() and not (out / "results").is_dir():
        raise ConfigError(f"{out} is no folder of a run (it holds neither run/ nor results/)")
    if not every > 0:
        raise ConfigError(f"--every is {every:g}; it must be a number of seconds above 0")
    folder = Folder(out)

    def look() -> Status:
        return status_of(folder.look())

    if watch and not as_json and sys.stdout.isatty():
        return _watch(look, every)
    try:
        while True:
            found = look()
            text = (
                json.dumps(to_json(found, unit=found.unit)) if as_json else "\n".join(lines(found))
            )
            print(text, flush=True)
            if not watch:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        if not watch:
            raise
    return EXIT_FAILED if found.failed else EXIT_OK


def _watch(look: Callable[[], Status], every: float) -> int:
    """Redraw until Ctrl-C."""
    from rich.live import Live
    from rich.text import Text

    found = look()
    try:
        with Live(Text("\n".join(lines(found))), auto_refresh=False) as live:
            while True:
                time.sleep(every)
                found = look()
                live.update(Text("\n".join(lines(found))), refresh=True)
    except KeyboardInterrupt:
        return EXIT_FAILED if found.failed else EXIT_OK


def lines(status: Status) -> list[str]:
    """A status for people."""
    counts = [
        (f"{status.done} of {status.slides} slides done", True),
        (f"{len(status.running)} running", bool(status.running)),
        (f"{len(status.waiting)} waiting", bool(status.waiting)),
        (f"{len(status.interrupted)} interrupted", bool(status.interrupted)),
        (f"{len(status.failed)} failed", bool(status.failed)),
    ]
    shown = [", ".join(text for text, wanted in counts if wanted)]
    shown += [_speed(status)]
    if status.running:
        rows = [["running", "stage", "network", "driver"]]
        for one in status.running:
            silent = f"; no sign of it for {duration(one.silent_s)}" if one.silent_s else ""
            driver = one.driver + silent
            rows.append([one.slide, one.stage, f"{one.percent:.0f} %", driver])
            rows += [["", "", "", f"  {worker}"] for worker in one.workers]
        shown += ["", *aligned(rows)]
    if status.interrupted:
        shown += ["", f"interrupted (run the same command again): {_names(status.interrupted)}"]
    if status.failed:
        rows = [["failed", "stage", "reason"]]
        rows += [[one.slide, one.stage, one.reason] for one in status.failed[:SHOWN]]
        shown += ["", *aligned(rows)]
        if len(status.failed) > SHOWN:
            shown += [f"... and {len(status.failed) - SHOWN} more (OUT/run/failed/)"]
    return shown + _where(status)


def _speed(status: Status) -> str:
    area = plain_area(status.unit)
    words = [f"{status.tissue_mm2:.2f} {area} of tissue"]
    if status.slides_per_h is not None and status.area_per_h is not None:
        words += [f"{status.slides_per_h:.1f} slides/h", f"{status.area_per_h:.1f} {area}/h"]
    left = len(status.running) + len(status.waiting) + len(status.interrupted)
    if status.eta_s is not None:
        words += [f"about {duration(status.eta_s)} to go"]
    elif left and not status.running:
        words += ["nobody is at work: run the same command again to go on"]
    return ", ".join(words)


def _where(status: Status) -> list[str]:
    spent = status.spent
    total = sum(spent.by_step.values())
    if not total:
        return []
    shares = [
        ", ".join(f"{what} {100 * s / total:.0f} %" for what, s in part.items() if s >= total / 200)
        for part in (spent.by_part, spent.by_step)
    ]
    return ["", f"time of workers: {duration(total)}", f"  on {shares[0]}", f"  in {shares[1]}"]


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def duration(seconds: float) -> str:
    """Seconds for people, such as "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours / 24:.1f} days"
