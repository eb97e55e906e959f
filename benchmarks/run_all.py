"""Runs every benchmark with --quick and says how each ended: ``make bench``.

A benchmark that rots is worse than none, since figures are cited from it. Each must end with exit
code 0 and with one JSON object on its last line; one that finds no samples or no peers says so
there. The figures of quick runs show that the benchmarks work, so two may run at a time; those of
the documentation come from full runs on an idle machine.

    python benchmarks/run_all.py [--jobs 2] [--minutes 5] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
LIMIT_S = 600
"""A benchmark that takes longer is stopped. On an idle machine each is to take a minute at most."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a benchmark ended."""

    name: str
    """Path below benchmarks/."""
    wall_s: float
    """Seconds on the wall."""
    cpu_s: float
    """CPU seconds of the process and of those that it waited for."""
    verdict: str
    """``ok``, ``left out: ...`` or what is wrong."""

    @property
    def good(self) -> bool:
        """Whether it measured, or said what it would have needed."""
        return self.verdict == "ok" or self.verdict.startswith("left out: ")


def benchmarks() -> list[str]:
    """All scripts that know --quick, this one left out."""
    scripts = sorted(path for path in HERE.rglob("*.py") if path != Path(__file__))
    known = [path for path in scripts if '"--quick"' in path.read_text(encoding="utf-8")]
    return [str(path.relative_to(HERE)) for path in known]


def verdict_of(code: int, output: str) -> str:
    """What to make of an exit code and of what was printed."""
    if code:
        return f"exit code {code}"
    last = (output.strip().splitlines() or [""])[-1]
    try:
        figures = json.loads(last)
    except ValueError:
        return f"the last line is not JSON: {last[:60]!r}"
    if not isinstance(figures, dict) or not figures:
        return f"the last line is not a JSON object: {last[:60]!r}"
    return f"left out: {figures['left_out']}" if "left_out" in figures else "ok"


def run(name: str) -> Ended:
    """Run one of them; what a failed one printed is shown."""
    command = [sys.executable, str(HERE / name), "--quick"]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        watch = threading.Timer(LIMIT_S, process.kill)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        watch.cancel()
        wall_s = time.perf_counter() - start
        said.seek(0)
        output = said.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    late = wall_s >= LIMIT_S
    verdict = f"stopped after {LIMIT_S} s" if late else verdict_of(process.returncode, output)
    ended = Ended(name, wall_s, usage.ru_utime + usage.ru_stime, verdict)
    shown = f"{name:28} {ended.verdict}"
    print(shown if ended.good else f"{shown}\n{output[-4000:]}", flush=True)
    return ended


def main() -> int:
    """Run them and print a table; 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="paths below benchmarks/ (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time (default 1)")
    parser.add_argument(
        "--minutes", type=float, help="begin none after so long; each day another one is the first"
    )
    args = parser.parse_args()
    names, start = args.names or benchmarks(), time.perf_counter()
    if args.minutes is not None:
        first = date.today().toordinal() % len(names)
        names = names[first:] + names[:first]

    def in_time(name: str) -> Ended:
        if args.minutes is not None and time.perf_counter() - start > 60 * args.minutes:
            return Ended(name, 0.0, 0.0, f"left out: {args.minutes:g} minutes are over")
        return run(name)

    with ThreadPoolExecutor(args.jobs) as pool:
        ended = list(pool.map(in_time, names))
    print(f"\n{'benchmark':28} {'wall s':>7} {'CPU s':>7}  ended")
    for row in ended:
        print(f"{row.name:28} {row.wall_s:7.1f} {row.cpu_s:7.1f}  {row.verdict[:70]}")
    wall_s = time.perf_counter() - start
    print(f"{'all':28} {wall_s:7.1f} {sum(row.cpu_s for row in ended):7.1f}")
    return 0 if all(row.good for row in ended) else 1


if __name__ == "__main__":
    sys.exit(main())
