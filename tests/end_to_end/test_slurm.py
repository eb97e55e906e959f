"""A batch under a real SLURM of two nodes (tests/helpers/slurm.py): every way of running, and what
a cluster does to jobs. The results are those of a serial run each time."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from helpers.runs import contents, difference, journal, log_lines, of_stage, quadrat
from helpers.slurm import slurm, why_not

TASK = "semantic"
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest.fixture(scope="module")
def farm():
    with slurm() as it:
        yield it


@pytest.fixture
def batch(farm, lab, reference, tmp_path):
    it = Batch(farm, lab, reference, tmp_path)
    yield it
    for job in farm.jobs():
        farm.command("scancel", "--signal=KILL", "--full", job)
        farm.command("scancel", job)
    it.until(lambda: not farm.jobs() and not farm.processes())


class Batch:
    """The two slides of the lab, and jobs that run them."""

    def __init__(self, farm, lab, reference, folder):
        self.farm, self.lab, self.reference = farm, lab, reference
        self.folder, self.out, self.log = folder, folder / "out", folder / "job.log"
        self.manifest = folder / "slides.csv"
        self.manifest.write_text("slide\n" + "".join(f"{path}\n" for path in lab.slides))

    def init(self, *words):
        """The script that ``quadrat hpc init`` writes."""
        done = quadrat(
            "hpc", "init", self.lab.pipeline(TASK), self.manifest, "--out", self.out,
            "--mem", "6G", "--cpus", 1, *words,
        )  # fmt: skip
        assert done.code == 0, done.err
        return next(line.split()[1] for line in done.out.splitlines() if "  sbatch" in line)

    def submit(self, script, *words):
        return self.farm.sbatch(f"--output={self.log}", *words, script)

    def until(self, condition, seconds=90.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.said(), self.farm.logs())
            time.sleep(0.05)

    def until_it_predicts(self):
        self.until(lambda: any(of_stage(journal(self.out, s.stem), "predict") for s in self.slides))

    @property
    def slides(self):
        return self.lab.slides

    def said(self):
        logs = [
            self.log,
            *self.out.glob("run/workers/*/*.log"),
            *self.out.glob("run/workers/*/*.err"),
        ]
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in logs if log.exists())

    def ends(self, job, state="COMPLETED"):
        """Wait for a job's end, which is to be this one."""
        ends = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")
        assert self.farm.wait(job, *ends) == state, self.said()

    def is_right(self):
        """The results are those of a serial run."""
        assert difference(contents(self.out / "results"), contents(self.reference(TASK))) == []


def test_an_allocation_of_two_nodes_that_is_cancelled_goes_on_when_it_is_submitted_again(batch):
    script = batch.init("--cluster", "srun", "--nodes", 2, "--set", "run.interface=lo")
    job = batch.submit(script)
    batch.until_it_predicts()
    batch.farm.command("scancel", job)
    batch.ends(job, "CANCELLED")
    batch.until(lambda: not batch.farm.processes(), seconds=30)
    before = [journal(batch.out, slide.stem) for slide in batch.slides]
    job = batch.submit(script)
    batch.ends(job)
    batch.is_right()
    assert any(before)
    assert not list(batch.out.glob("run/cluster-*")), "certificates go with their run"
    assert len(list(batch.out.glob("run/workers/*/*.jsonl"))) >= 2


@pytest.mark.slow
def test_worker_jobs_come_and_go_and_one_that_ends_is_replaced(batch):
    words = ["run", batch.lab.pipeline(TASK), *batch.slides, "--out", batch.out, "--cluster",
             "slurm", "-j", 2, "--set", "run.interface=lo", "--set", "slurm.cpus=1", "--set",
             "slurm.memory_gb=6", "--set", "slurm.walltime=00:10:00"]  # fmt: skip
    command = subprocess.Popen(
        [sys.executable, "-m", "quadrat", *map(str, words)],
        env=batch.farm.environment,
        stdout=batch.log.open("wb"),
        stderr=subprocess.STDOUT,
    )
    batch.until_it_predicts()
    first = set(batch.farm.jobs())
    batch.farm.command("scancel", min(first))
    assert command.wait(timeout=120) == 0, batch.said()
    batch.is_right()
    batch.until(lambda: not batch.farm.jobs(), seconds=30)


def test_an_array_of_four_tasks_ends_in_one_table(batch):
    for path in batch.slides:
        os.link(path, batch.folder / f"second {path.name}")
    seconds = [f"second {path.name}" for path in batch.slides]
    batch.manifest.write_text("\n".join(["slide", *map(str, batch.slides), *seconds, ""]))
    script = batch.init("--array", 4)
    job = batch.submit(script, f"--output={batch.folder}/%a.log")
    batch.ends(job)
    done = quadrat("run", batch.lab.pipeline(TASK), "--manifest", batch.manifest,
                   "--out", batch.folder / "serial")  # fmt: skip
    assert done.code == 0, done.err
    want = contents(batch.folder / "serial" / "results")
    assert len([path for path in want if path.endswith("summary.json")]) == 4
    assert difference(contents(batch.out / "results"), want) == []


@pytest.mark.slow
def test_the_signal_before_the_walltime_ends_a_job_with_75_and_it_goes_on(batch):
    script = batch.init("--cluster", "srun", "--time", "01:00:00")
    job = batch.submit(script, "--signal=B:USR1@1800")
    batch.until_it_predicts()
    (driver,) = drivers(batch.farm)
    os.kill(driver, signal.SIGSTOP)  # as if it had work for longer than SLURM takes to look
    batch.farm.command("scontrol", "update", f"JobId={job}", "TimeLimit=25")
    batch.until(lambda: has_heard(driver, signal.SIGUSR1), seconds=100)
    with suppress(ProcessLookupError):  # SLURM may have let it go on to hear the signal
        os.kill(driver, signal.SIGCONT)
    heard = time.monotonic()
    batch.ends(job, "FAILED")
    assert time.monotonic() - heard < 20, "the signal's grace"
    assert "ExitCode=75:0" in batch.farm.details(job)
    assert "run the same command again to go on" in batch.said()
    before = [journal(batch.out, slide.stem) for slide in batch.slides]
    job = batch.submit(script)
    batch.ends(job)
    batch.is_right()
    assert any(before)


@pytest.mark.slow
def test_a_job_whose_node_fails_is_begun_again_on_another_and_goes_on(batch):
    script = batch.init("--cluster", "srun")
    job = batch.submit(script)
    batch.until_it_predicts()
    node, said = batch.farm.node_of(job), len(log_lines(batch.out))
    batch.farm.kill_node(node)
    try:
        batch.ends(job)
        assert batch.farm.node_of(job) != node
        assert "Restarts=1" in batch.farm.details(job)
        assert said
        batch.is_right()
    finally:
        batch.farm.start_nodes(node)


@pytest.mark.slow
def test_a_job_that_is_put_back_into_the_queue_goes_on(batch):
    script = batch.init("--cluster", "srun")
    job = batch.submit(script)
    batch.until_it_predicts()
    batch.farm.command("scontrol", "requeue", job)
    batch.ends(job)
    assert "Restarts=1" in batch.farm.details(job)
    batch.is_right()


@pytest.mark.slow
def test_workers_of_a_driver_that_is_killed_end_within_30_s(batch):
    """In an allocation that goes on: its shell is not the driver."""
    script = batch.folder / "shell.sh"
    script.write_text(
        f"#!/bin/bash\n{sys.executable} -m quadrat run {batch.lab.pipeline(TASK)} "
        f"{batch.slides[0]} --out {batch.out} --cluster srun -j 2\nsleep 300\n"
    )
    batch.submit(script, "--cpus-per-task=2", "--mem=8G")
    batch.until_it_predicts()
    (driver,) = drivers(batch.farm)
    assert len(workers(batch.farm)) >= 3, "a nanny of two workers"
    heard = {address for pid in [driver, *workers(batch.farm)] for address in listening(pid)}
    assert heard == {"0100007F"}, "nothing but loopback, in an allocation of one node"
    os.kill(driver, signal.SIGKILL)
    batch.until(lambda: not workers(batch.farm), seconds=30)


def commands(farm):
    """The command lines of the jobs' processes."""
    found = {}
    for pid in farm.processes():
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as stream:
            found[pid] = stream.read().decode().replace("\0", " ")
    return found


def drivers(farm):
    return [pid for pid, words in commands(farm).items() if "-m quadrat run " in words]


def workers(farm):
    names = ("dask_worker", "spawn_main")
    return [p for p, words in commands(farm).items() if any(name in words for name in names)]


def listening(pid):
    """The addresses (hex) on which a process that is not srun's own listens."""
    if b"srun" in Path(f"/proc/{pid}/comm").read_bytes():
        return set()
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9]: row[1].partition(":")[0] for row in rows if row[3] == "0A"}
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inode = os.readlink(entry).removeprefix("socket:[").removesuffix("]")
            found |= {inodes[inode]} if inode in inodes else set()
    return found


def has_heard(pid, number):
    """Whether a signal waits for a process that is stopped, or has ended it already."""
    try:
        with open(f"/proc/{pid}/status") as stream:
            lines = dict(line.split(":", 1) for line in stream)
    except OSError:
        return True
    return bool(int(lines["ShdPnd"], 16) & 1 << (number - 1))
