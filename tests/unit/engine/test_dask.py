"""Which job gets which GPU: told to the job by name, one at a time where it needs its own. The GPUs
are made up."""

import os
import time
from collections import defaultdict

import pytest
import torch

from quadrat.core.errors import QuadratError
from quadrat.engine.cluster import open_executor
from quadrat.engine.dask import DevicePool, gpus
from quadrat.engine.executor import Job
from quadrat.models.device import DEVICE, pick_device

pytestmark = pytest.mark.timeout(90)


def recorder():
    """What a job does; made here so that it travels to workers by value."""

    def act(payload):

        began = time.time()
        time.sleep(payload)
        return os.environ.get("QUADRAT_DEVICE"), began, time.time(), os.getpid()

    return act


ACT = recorder()


@pytest.fixture(scope="module")
def cluster():
    with open_executor(workers=3, threads=1) as opened:
        yield opened


@pytest.fixture
def with_devices(cluster, monkeypatch):
    def of(*names):
        monkeypatch.setattr(cluster, "_devices", names)
        return cluster

    return of


def run(executor, seconds, needs, n=8):
    outcomes = list(executor.run(ACT, [Job(str(i), seconds) for i in range(n)], needs=needs))
    assert sorted(o.key for o in outcomes) == sorted(map(str, range(n)))
    assert all(o.failure is None for o in outcomes)
    return [o.receipt for o in outcomes]


def most_at_once(spans):
    edges = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def by_device(receipts):
    found = defaultdict(list)
    for device, began, ended, _ in receipts:
        found[device].append((began, ended))
    return found


def test_a_job_that_needs_its_own_gpu_never_shares_it(with_devices):
    run(with_devices("cuda:0", "cuda:1"), 0.0, "own gpu")  # workers that are awake
    found = by_device(run(with_devices("cuda:0", "cuda:1"), 0.15, "own gpu"))
    assert set(found) == {"cuda:0", "cuda:1"}
    assert [most_at_once(spans) for spans in found.values()] == [1, 1]
    assert most_at_once([span for spans in found.values() for span in spans]) == 2, (
        "both work side by side"
    )


def test_with_more_gpus_than_workers_each_job_has_its_own(with_devices):
    found = by_device(run(with_devices(*(f"cuda:{i}" for i in range(5))), 0.1, "own gpu", n=6))
    assert all(most_at_once(spans) == 1 for spans in found.values())


def test_jobs_that_may_share_are_spread_over_the_gpus(with_devices):
    found = by_device(run(with_devices("cuda:0", "cuda:1"), 0.05, "gpu"))
    assert set(found) == {"cuda:0", "cuda:1"}
    assert min(len(spans) for spans in found.values()) >= 2


def test_cpu_jobs_are_told_no_device_even_after_gpu_jobs(with_devices):
    executor = with_devices("cuda:0")
    assert set(by_device(run(executor, 0.0, "gpu"))) == {"cuda:0"}
    assert set(by_device(run(executor, 0.0, "cpu"))) == {""}


@pytest.mark.parametrize("needs", ["cpu", "gpu", "own gpu"])
def test_without_gpus_nothing_is_told_and_all_workers_work(with_devices, needs):
    executor = with_devices()
    run(executor, 0.0, needs)
    receipts = run(executor, 0.2, needs, n=9)
    assert set(by_device(receipts)) == {""}
    assert most_at_once([(began, ended) for _, began, ended, _ in receipts]) == 3


def test_the_pool_hands_out_the_gpu_with_the_fewest_jobs(tmp_path):
    pool = DevicePool(None, tmp_path, ("a", "b", "c"))
    slots = [pool.slot() for _ in range(5)]
    assert [slot.device for slot in slots] == ["a", "b", "c", "a", "b"]
    pool.give_back(slots[1])
    pool.give_back(slots[4])
    assert pool.slot().device == "b"
    assert DevicePool(None, tmp_path / "x").busy == {}
    (tmp_path / "x").mkdir()
    assert DevicePool(None, tmp_path / "x").slot().device == ""


def test_a_job_whose_process_dies_gives_its_gpu_back(with_devices, tmp_path):
    def die(payload):
        import signal

        if payload:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.environ["QUADRAT_DEVICE"]

    outcomes = list(
        with_devices("cuda:0").run(
            die, [Job("a", True), Job("b", False), Job("c", False)], needs="own gpu"
        )
    )
    found = {o.key: o for o in outcomes}
    assert found["a"].failure.kind == "LostJob"
    assert found["b"].receipt == found["c"].receipt == "cuda:0"


def test_the_device_of_the_job_is_the_one_that_auto_and_cuda_mean(monkeypatch):
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


def test_gpus_are_named_as_torch_names_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert gpus() == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus() == ()
