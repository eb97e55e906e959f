"""A worker has one device for life, or none; it says what it does."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from quadrat.core.errors import QuadratError
from quadrat.core.numerics import cpu_numerics
from quadrat.engine import crew
from quadrat.engine.cluster import open_executor
from quadrat.engine.crew import Member, last_begun, log_of
from quadrat.engine.executor import Job, JobList
from quadrat.models.device import DEVICE, pick_device

pytestmark = pytest.mark.timeout(90)


def recorder():
    """What a job does; made here so that it travels to workers by value."""

    def act(payload):
        import os
        import time

        if payload == "die":
            os._exit(3)
        time.sleep(payload)
        return os.environ.get("QUADRAT_DEVICE"), os.getpid()

    return act


ACT = recorder()


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """A cluster of three workers on a machine with two GPUs, which are made up."""
    made_up = tmp_path / "sitecustomize.py"
    made_up.write_text(
        "import quadrat.engine.crew as crew\n"
        "from quadrat.core.numerics import Numerics\n"
        "real = crew.device_numerics\n"
        "crew.visible_devices = lambda: ('one', 'two')\n"
        "crew.device_numerics = lambda name, n: "
        "Numerics('cuda', 'made up') if 'cuda' in name else real(name, n)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with open_executor(workers=3, threads=1) as opened:
        yield opened


def run(executor, jobs):
    found = {o.key: o for o in executor.run(JobList(jobs))}
    assert len(found) == len(jobs)
    return found


def test_each_gpu_has_one_worker_and_keeps_it_and_other_workers_have_none(two_gpus):
    devices = sorted(member.device for member in two_gpus.members)
    assert devices == ["", "cuda:0", "cuda:1"]
    found = run(two_gpus, [Job(str(i), ACT, 0.05, "gpu") for i in range(12)])
    homes = {o.receipt for o in found.values()}
    assert {device for device, _ in homes} == {"cuda:0", "cuda:1"}
    assert len(homes) == 2, "no worker changes its device"
    found = run(two_gpus, [Job(str(i), ACT, 0.0) for i in range(6)])
    assert {o.receipt[0] for o in found.values()} == {"cpu"}


def test_a_gpu_of_a_worker_that_dies_goes_to_the_next(two_gpus):
    found = run(two_gpus, [Job("a", ACT, "die", "gpu"), *(Job(k, ACT, 0.0, "gpu") for k in "bcd")])
    assert "died" in found["a"].failure.message
    assert all(found[key].receipt[0].startswith("cuda") for key in "bcd")
    until = time.monotonic() + 30
    while sorted(m.device for m in two_gpus.members) != ["", "cuda:0", "cuda:1"]:
        assert time.monotonic() < until, "a worker that starts again has its device again"
        time.sleep(0.2)


def test_without_gpus_all_workers_take_all_work(tmp_path):
    with open_executor(workers=2, threads=1) as executor:
        found = run(executor, [Job(str(i), ACT, 0.2, "gpu") for i in range(6)])
    assert {device for device, _ in (o.receipt for o in found.values())} == {"cpu"}
    assert len({pid for _, pid in (o.receipt for o in found.values())}) == 2


def test_a_device_is_taken_once_on_a_machine_and_free_again_when_its_process_ends(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(crew, "visible_devices", lambda: ("one",))
    monkeypatch.setattr(crew.tempfile, "gettempdir", lambda: str(tmp_path))
    program = (
        "from quadrat.engine import crew; import sys\n"
        "crew.visible_devices = lambda: ('one',)\n"
        f"crew.tempfile.gettempdir = lambda: {str(tmp_path)!r}\n"
        "print(repr(crew.claim_device()), flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "'cuda:0'\n"
    assert crew.claim_device() == ""
    holder.kill()
    holder.communicate()
    assert crew.claim_device() == "cuda:0"


def test_no_gpu_in_the_machine_is_seen_without_torch():
    program = (
        "import sys; from quadrat.engine.crew import visible_devices\n"
        "print(visible_devices(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if not torch.cuda.is_available():
        assert done.stdout == "() False\n", done.stderr


def test_the_log_of_a_worker_says_what_it_had_begun(tmp_path):
    address = "tls://127.0.0.1:4000"

    def write(*events):
        lines = [json.dumps({"event": e, "job": j}) + "\n" for e, j in events]
        log_of(str(tmp_path), address).write_text("".join(lines))
        return last_begun(str(tmp_path), address)

    assert last_begun(str(tmp_path), address) is None
    assert write(("worker", ""), ("begin", "a")) == "a"
    assert write(("begin", "a"), ("end", "a")) is None
    assert write(("begin", "a"), ("end", "a"), ("begin", "b")) == "b"
    assert write(("begin", "a"), ("worker", "")) is None, "another process at the same address"
    log_of(str(tmp_path), address).write_text('{"event": "begin", "job": "a"}\n{"event": "en')
    assert last_begun(str(tmp_path), address) == "a"


def test_a_log_that_has_grown_too_large_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "LOG_BYTES", 1000)
    member = Member("n1", 7, "", cpu_numerics(1), "0")
    station = crew.Station("tls://127.0.0.1:4000", str(tmp_path), member)
    log = log_of(str(tmp_path), "tls://127.0.0.1:4000")
    for i in range(50):
        station.work(Job(f"job {i}", abs, -1))
        assert log.stat().st_size < 1300
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["event"] == "worker"
    assert (lines[-1]["event"], lines[-1]["job"]) == ("end", "job 49")


def test_the_device_of_the_worker_is_the_one_that_auto_and_cuda_mean(monkeypatch):
    monkeypatch.setenv(DEVICE, "meta")  # a device that every machine has, and that is not the CPU
    assert pick_device("auto") == pick_device("cuda") == torch.device("meta")
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setenv(DEVICE, "")
    if not torch.cuda.is_available():
        assert pick_device("auto") == torch.device("cpu")
        with pytest.raises(QuadratError, match=r"run\.device 'cuda' is not usable here"):
            pick_device("cuda")
    monkeypatch.setenv(DEVICE, "cuda:99")
    with pytest.raises(QuadratError, match=r"run\.device 'cuda:99' is not usable here"):
        pick_device("auto")
