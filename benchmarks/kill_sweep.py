"""Runs that are killed at random moments, once or twice, and then run again: are the results those
of a run that was never killed, byte for byte, and how much was done twice?

Four slides of four shards each on two workers. A moment is a number of steps that the log counts,
and a few milliseconds more, so that moments are spread over the whole run however fast the machine
is. Killed (SIGKILL) is the driver, one worker, or all processes; every third time the run after it
as well. The next command does not wait for workers that a killed driver left behind. The last one
goes to the end: as a command, or, three times out of four, in this process without workers, which
is quicker. `shards_twice` counts shards that a worker began to infer more than once, from the
workers' logs; a killed worker may cost one, a killed driver or group one a worker.

    python benchmarks/kill_sweep.py [--quick] [--moments 300] [--minutes 60] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from small_runs import (
    PIPELINE,
    SETTINGS,
    contents,
    difference,
    slides_of,
    start,
    words,
)

from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.engine.executor import Serial
from quadrat.engine.progress import Reporter
from quadrat.engine.run import run

Victim = Literal["driver", "worker", "group"]
VICTIMS: tuple[Victim, ...] = ("driver", "worker", "group")
WORKERS, SLIDES, SIDE = 2, 4, 1024
LIMIT_S = 300
ORPHANS_S = 30
"""Workers end themselves within this time when their driver was killed."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is killed."""

    victim: Victim
    """What is killed."""
    after: int
    """Steps in the log of this command before."""
    delay_s: float
    """And so much later."""


@dataclass(frozen=True, slots=True)
class Case:
    """What happens to one folder."""

    moments: tuple[Moment, ...]
    """One or two kills."""
    by_command: bool
    """Whether the run to the end is a command with workers."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of it."""

    kills: int
    """How many hit a run that was not over."""
    different: int
    """Files of the results that differ from those of the undisturbed run."""
    twice: int
    """Shards that were begun more than once."""
    allowed: int
    """How many the kills explain: one a worker that was hit."""
    wrong: str
    """What else went wrong; "": nothing."""


def cases(number: int, *, steps: int, seed: int) -> list[Case]:
    """Cases with so many kills in all."""
    rng, found, left = random.Random(seed), list[Case](), number
    while left > 0:
        kills = min(left, 2 if len(found) % 3 == 2 else 1)
        moments = tuple(
            Moment(
                VICTIMS[(len(found) + i) % 3],
                rng.randrange(steps - 2) // kills,
                rng.random() * 0.15,
            )
            for i in range(kills)
        )
        found.append(Case(moments, by_command=rng.random() < 0.25))
        left -= kills
    return found


def session(leader: int) -> dict[int, bool]:
    """Processes of a session, zombies left out; whether each is a worker (it runs jobs)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    command = (entry / "cmdline").read_bytes()
                    found[int(entry.name)] = b"spawn_main" in command
    return found


def steps_logged(out: Path) -> int:
    """How many steps the log of a run's folder counts."""
    try:
        return (out / "run" / "log.jsonl").read_bytes().count(b'"event": "work"')
    except OSError:
        return 0


def strike(case: Case, moment: Moment, slides: Sequence[Path], out: Path, log: Path) -> str | None:
    """Start a command and kill at the moment; what went wrong; None: it was over before."""
    before = steps_logged(out)
    process = start(words(slides, out, "-j", str(WORKERS)), log)
    end = time.monotonic() + LIMIT_S
    while steps_logged(out) - before < moment.after and process.poll() is None:
        if time.monotonic() > end:
            return "it stood still"
        time.sleep(0.004)
    time.sleep(moment.delay_s)
    members = session(process.pid)
    workers = [pid for pid, is_worker in members.items() if is_worker]
    if process.poll() is not None or (moment.victim == "worker" and not workers):
        process.wait(LIMIT_S)
        return None
    killed = {
        "driver": [process.pid],
        "worker": [random.choice(workers or [0])],
        "group": list(members),
    }[moment.victim]
    for pid in killed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    code = process.wait(LIMIT_S)
    if moment.victim == "worker" and code != 0:
        return f"with a killed worker the run ended with {code}"
    return _orphans(process.pid) if moment is case.moments[-1] and not case.by_command else ""


def _orphans(leader: int) -> str:
    """Whether processes outlive a killed driver for too long; they are ended then."""
    end = time.monotonic() + ORPHANS_S
    while left := session(leader):
        if time.monotonic() > end:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return f"{len(left)} processes outlived their driver by {ORPHANS_S} s"
        time.sleep(0.1)
    return ""


def begun(out: Path) -> int:
    """How many jobs of inference the logs of all workers say that they began; a job is a shard."""
    logs = (out / "run" / "workers").glob("*/*.jsonl")
    lines = (line for log in logs for line in log.read_bytes().splitlines())
    return sum(b'"event": "begin"' in line and b"/predict/" in line for line in lines)


def serial_predictions(out: Path, since: int) -> int:
    """The same for steps that the driver did itself, as its log says from a line on."""
    lines = (out / "run" / "log.jsonl").read_bytes().splitlines()[since:]
    return sum(b'"event": "work"' in line and b'"step": "predict"' in line for line in lines)


def go(case: Case, slides: Sequence[Path], folder: Path, want: dict[str, str]) -> Found:
    """Kill as the case says, run to the end, and compare."""
    out, log, kills, allowed, wrong = folder / "out", folder / "log.txt", 0, 0, ""
    for moment in case.moments:
        said = strike(case, moment, slides, out, log)
        if said is not None:
            kills += 1
            allowed += 1 if moment.victim == "worker" else WORKERS
            wrong = wrong or said
    log_file = out / "run" / "log.jsonl"
    lines = len(log_file.read_bytes().splitlines()) if log_file.exists() else 0
    if case.by_command:
        code = start(words(slides, out, "-j", str(WORKERS)), log).wait(LIMIT_S)
        inferred = 0
    else:
        pipeline = load_pipeline(PIPELINE, SETTINGS)
        refs = slides_from_paths([str(path) for path in slides], mpp=None)
        quiet = Reporter(quiet=True)
        code = run(pipeline, refs, out, reporter=quiet, executor=Serial()).exit_code
        inferred = serial_predictions(out, lines)
    if code:
        wrong = wrong or f"the last run ended with {code}"
    found = contents(out / "results")
    shards = SLIDES * (SIDE // 512) ** 2
    twice = begun(out) + inferred - shards
    different = len(difference(found, want))
    left = list((out / "run" / "work").iterdir()) if (out / "run" / "work").exists() else []
    return Found(kills, different, twice, allowed, wrong or (f"left: {left}" if left else ""))


def main() -> None:
    """Sweep, say what happened, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20 moments, or 30 s of them")
    parser.add_argument("--moments", type=int, default=300, help="kills in all")
    parser.add_argument("--minutes", type=float, help="begin no more cases after this time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    number = 20 if args.quick else args.moments
    minutes = 0.5 if args.quick and args.minutes is None else args.minutes
    random.seed(args.seed)
    began, totals = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        slides = slides_of(Path(name) / "slides", SLIDES, side=SIDE)
        out = Path(name) / "reference"
        log = Path(name) / "reference.txt"
        code = start(words(slides, out, "-j", str(WORKERS)), log).wait(LIMIT_S)
        if code:
            raise SystemExit(f"the undisturbed run ended with {code}:\n{log.read_text()}")
        want, steps = contents(out / "results"), steps_logged(out)
        for index, case in enumerate(cases(number, steps=steps, seed=args.seed)):
            if minutes is not None and time.monotonic() - began > 60 * minutes:
                break
            with tempfile.TemporaryDirectory(dir=name) as folder:
                found = go(case, slides, Path(folder), want)
            totals["kills"] += found.kills
            totals["different"] += found.different
            totals["twice"] += max(0, found.twice)
            totals["beyond"] += found.twice > found.allowed
            totals["wrong"] += bool(found.wrong)
            kinds = " then ".join(f"{m.victim} after {m.after}" for m in case.moments)
            print(
                f"{index:4} {kinds:40} kills {found.kills} different {found.different} twice "
                f"{found.twice} of {found.allowed} {found.wrong}",
                flush=True,
            )
    figures = {
        "moments": totals["kills"],
        "files_different": totals["different"],
        "shards_twice": totals["twice"],
        "cases_with_more_than_one_a_worker": totals["beyond"],
        "cases_gone_wrong": totals["wrong"],
        "steps_of_a_run": steps,
        "wall_s": round(time.monotonic() - began, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
