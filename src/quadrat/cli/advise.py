"""``quadrat hpc advise``: what to ask SLURM for, and what was used of what was asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from quadrat.core.errors import EXIT_OK, ConfigError
from quadrat.core.text import aligned

if TYPE_CHECKING:
    from quadrat.engine.advise import Advice, Used


def advise(
    out: Path = Path("quadrat_out"),
    /,
    *,
    manifest: Path | None = None,
    hours: Annotated[float, Parameter(metavar="H")] = 4.0,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Which #SBATCH lines to ask for, from what a few slides took.

    Run a few slides first, on a node of the kind that you mean to use.
    What is asked for has a margin, which is printed. For jobs that
    were run by SLURM it is shown what was used of what was asked.

    examples:
      quadrat hpc advise out --manifest slides.csv
      quadrat hpc advise out --manifest slides.csv --hours 12

    Args:
        out: folder of the run with the few slides (quadrat_out)
        manifest: CSV of the slides to do; left out: those of the run that are not done
        hours: about how long a task of the array is to take
        as_json: one JSON object
    """
    from quadrat.core.records import to_json
    from quadrat.engine.advise import advise, used
    from quadrat.engine.drivers import read_drivers
    from quadrat.engine.timings import read_timings
    from quadrat.slides.identity import slide_bytes

    if not (out / "run").is_dir():
        raise ConfigError(f"{out} is no folder of a run (it does not hold run/)")
    timings, drivers = list(read_timings(out).values()), read_drivers(out)
    sizes = [slide_bytes(path) for path in _paths(out, manifest)]
    advice = advise(timings, drivers, sizes, hours=hours)
    jobs = used(drivers, timings)
    if as_json:
        values = {"advice": to_json(advice), "lines": advice.lines}
        print(json.dumps(values | {"used": [to_json(job) for job in jobs]}))
        return EXIT_OK
    for line in [*advice.lines, "", *_why(advice), *_table(jobs)]:
        print(line)
    return EXIT_OK


def _paths(out: Path, manifest: Path | None) -> list[str]:
    """Files of the slides that are to be done."""
    from quadrat.config.manifest import read_manifest
    from quadrat.engine.drivers import read_asked

    if manifest is not None:
        return [ref.path for ref in read_manifest(manifest)]
    asked = {ref.name: ref.path for record in read_asked(out) for ref in record.slides}
    left = {n: p for n, p in asked.items() if not (out / "results" / n / "summary.json").exists()}
    return list((left or asked).values())


def _why(advice: Advice) -> list[str]:
    from quadrat.engine.advise import DRIVER_MB, MEMORY_MARGIN, TIME_MARGIN

    hours = advice.worker_s / 3600
    lines = [
        f"for {advice.slides} slides, from {advice.measured} that were measured: about "
        f"{hours:.1f} hours of one worker, in proportion to the size of the files",
        f"time: {advice.workers} workers, busy {100 * advice.busy:.0f} % of the time as measured; "
        f"an average share and the longest slide; times {TIME_MARGIN:g}",
        f"memory: the largest worker measured, {advice.workers} times, and "
        f"{DRIVER_MB / 1024:g} GB for the driver; times {MEMORY_MARGIN:g}",
    ]
    if advice.unseen:
        lines += [f"{advice.unseen} files cannot be looked at from here: counted as average ones"]
    if advice.measured < 3:
        lines += ["fewer than three slides were measured: this is a rough guess"]
    return lines


def _table(jobs: Sequence[Used]) -> list[str]:
    from quadrat.engine.advise import clock

    if not jobs:
        return []
    rows = [["job", "slides", "time", "used", "CPUs", "busy", "GB", "used"]]
    for job in jobs:
        given, took = job.time_s
        memory, peak = job.memory_gb
        rows.append([
            job.job,
            str(job.slides),
            "?" if given is None else clock(given),
            clock(took),
            "?" if job.cpus[0] is None else str(job.cpus[0]),
            f"{job.cpus[1]:.1f}",
            "?" if memory is None else f"{memory:.0f}",
            f"{peak:.1f}",
        ])  # fmt: skip
    return ["", "asked and used:", *aligned(rows)]
