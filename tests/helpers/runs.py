"""Small pipelines, and the command line run in this process or in one of its own."""

import csv
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import yaml

from quadrat.cli.main import main
from quadrat.config.pipeline import shipped_pipelines

TASKS = ("instance", "detection", "semantic", "classification")
MASKS = "instance_masks"
"""Trained apart from the others, and only for the slow tests."""

# A slide of 2,048 px has 4 x 4 shards at each task's mpp.
SMALL = {
    "instance": {
        "model": {"core": 256, "halo": 16, "shard": 512},
        "train": {"patch": 128, "steps": 250},
    },
    "detection": {"model": {"core": 256, "halo": 16, "shard": 512}, "train": {"patch": 128}},
    "semantic": {"model": {"core": 64, "shard": 128}, "train": {"patch": 96}},
    "instance_masks": {
        "model": {"core": 256, "halo": 32, "stride": 8, "shard": 512, "mpp": 0.5},
        "train": {"patch": 128, "steps": 120, "batch": 2, "lr": 2e-3},
        "thresholds": {"score": 0.2, "min_area_um2": 4},
    },
    "classification": {
        "model": {"core": 64, "shard": 256},
        "train": {"patch": 64},
        "slide": {"min_tissue": 0.1},
    },
}
FOR_ALL = {
    "model": {"widths": [8, 12, 16]},
    "train": {
        "steps": 40,
        "batch": 4,
        "warmup": 5,
        "precision": "fp32",
        "threads": 1,
        "calibrate": "none",
        "validate_every": 0,
    },
    "run": {"cluster": "serial", "threads": 1, "device": "cpu"},
}


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def merged(base, over):
    """``over`` laid over ``base``, section by section."""
    out = dict(base)
    for key, value in over.items():
        out[key] = (
            merged(out[key], value)
            if isinstance(value, dict) and isinstance(out.get(key), dict)
            else value
        )
    return out


def write_pipeline(path, task, *, package, manifest="", **changes):
    """A shipped demo pipeline made small; ``changes`` are sections laid over it last."""
    shipped = "masks" if task == MASKS else f"demo_{task}"
    content = yaml.safe_load((shipped_pipelines() / f"{shipped}.yaml").read_text())
    places = {"model": {"package": str(package)}, "data": {"manifest": str(manifest)}}
    for layer in (FOR_ALL, SMALL[task], places, changes):
        content = merged(content, layer)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def quadrat(*words):
    """Run the command line in this process."""
    out, err = StringIO(), StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(word) for word in words])
            except SystemExit as end:  # argparse
                code = int(end.code or 0)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Done(code, out.getvalue(), err.getvalue())


def start(*words, log):
    """Start the command line as the leader of a session of its own, as a shell or a scheduler
    would."""
    with Path(log).open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "quadrat.cli.main", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until(condition, *, process, seconds=90.0, every=0.005):
    """Wait for something a running command is to do."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, (
            f"the command ended with {process.returncode} before the test could act"
        )
        assert time.monotonic() < end, f"nothing happened in {seconds} s"
        time.sleep(every)


def session_members(leader):
    """Processes of the session that ``leader`` (a pid) leads, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def gone_within(leader, seconds):
    """Whether the whole session of ``leader`` ends in time."""
    end = time.monotonic() + seconds
    while session_members(leader):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def end_session(process):
    """Let nothing of a command outlive its test."""
    for pid in session_members(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def contents(folder):
    """sha256 of every file below a folder, by relative path."""
    return {
        str(p.relative_to(folder)): sha256(p)
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


def difference(one, other):
    """The paths in which two :func:`contents` differ (a short message where a dict comparison would
    be a long one)."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def journal(out, slide):
    """(step, level, fingerprint, shard) of a slide's receipts in the order of writing; a torn last
    line does not count."""
    path = Path(out) / "run" / "work" / slide / "journal.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)[1:]
    found = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [(r["step"], r["level"], r["fingerprint"], str(r["shard"])) for r in found]


def of_stage(keys, stage):
    """The keys of one step."""
    return [key for key in keys if key[0] == stage]


def phases(out, *, since=0):
    """How many work units each step had, over the log's lines from ``since`` on."""
    units = Counter()
    for line in log_lines(out)[since:]:
        record = json.loads(line)
        if record["event"] == "work":
            units[record["step"]] += 1
    return units


def log_lines(out):
    path = Path(out) / "run" / "log.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def table(path):
    """Rows of a CSV file as dicts."""
    with Path(path).open(newline="") as stream:
        return list(csv.DictReader(stream))


def lines_of(path):
    """Objects of a JSON-lines file."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@contextmanager
def small_files(limit) -> Iterator[None]:
    """No file can grow beyond ``limit`` bytes, as on a disk that is full (``ulimit -f``)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
