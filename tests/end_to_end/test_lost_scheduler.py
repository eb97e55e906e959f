"""The scheduler of a cluster is killed in the middle of a run: nothing that was done is lost. One
that comes back at its address, with workers, is gone on with."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helpers.runs import contents, difference, journal
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.core.errors import ClusterError
from quadrat.engine import dask as dask_module
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor
from quadrat.engine.progress import Reporter
from quadrat.engine.run import run

pytestmark = pytest.mark.timeout(240)
QUIET = ("--dashboard-address", "127.0.0.1:0")


@dataclass
class Cluster:
    """A scheduler and two workers, each a process of its own."""

    port: int
    processes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def address(self):
        return f"tcp://127.0.0.1:{self.port}"

    def _start(self, what, *words):
        command = [sys.executable, "-m", f"distributed.cli.{what}", *words, *QUIET]
        self.processes.append(
            subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"},
            )
        )

    def start(self):
        self._start("dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port))
        self._start("dask_worker", self.address, "--nworkers", "2", "--nthreads", "1",
                    "--death-timeout", "30", "--host", "127.0.0.1")  # fmt: skip

    def kill_scheduler(self):
        self.processes[-2].kill()
        self.processes[-2].wait()

    def end(self):
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def cluster():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Cluster(port)
    made.start()
    yield made
    made.end()


@dataclass(frozen=True)
class Disturbed:
    """An executor; after its sixth outcome something happens."""

    inner: Executor
    happens: object
    ahead = 0

    def numerics(self, device, threads):
        return self.inner.numerics(device, threads)

    def run(self, source):
        for index, outcome in enumerate(self.inner.run(source)):
            yield outcome
            if index == 5:
                self.happens()


def disturbed_run(lab, out, cluster, happens):
    pipeline = load_pipeline(str(lab.pipeline("semantic")))
    slides = slides_from_paths([str(path) for path in lab.slides], mpp=None)
    with (
        open_executor(
            workers=0, threads=1, cluster=cluster.address, insecure=True, folder=out / "run"
        ) as executor,
        Reporter(quiet=True) as reporter,
    ):
        return run(pipeline, slides, out, executor=Disturbed(executor, happens), reporter=reporter)


def test_a_lost_scheduler_ends_the_run_in_time_and_the_next_one_goes_on(
    lab, reference, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(dask_module, "PATIENCE_S", 4.0)
    out = tmp_path / "out"
    with pytest.raises(ClusterError, match="run the same command again"):
        disturbed_run(lab, out, cluster, cluster.kill_scheduler)
    assert any(journal(out, Path(path).stem) for path in lab.slides)
    pipeline = load_pipeline(str(lab.pipeline("semantic")))
    slides = slides_from_paths([str(path) for path in lab.slides], mpp=None)
    with Reporter(quiet=True) as reporter:
        assert run(pipeline, slides, out, reporter=reporter).exit_code == 0
    assert difference(contents(out / "results"), contents(reference("semantic"))) == []


def test_a_scheduler_that_comes_back_is_gone_on_with(lab, reference, cluster, tmp_path):
    def restart():
        cluster.kill_scheduler()
        cluster.start()

    out = tmp_path / "out"
    assert disturbed_run(lab, out, cluster, restart).exit_code == 0
    assert difference(contents(out / "results"), contents(reference("semantic"))) == []
