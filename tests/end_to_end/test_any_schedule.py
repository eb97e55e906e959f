"""Whole runs, their work shuffled, done twice and tried again, in this process and on one to eight
dask workers: equal bytes."""

import random
from dataclasses import dataclass, replace

import pytest

from helpers.runs import TASKS, contents, difference
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.engine import run as engine_run
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor, Job, Serial
from quadrat.engine.progress import Reporter
from quadrat.engine.steps import PredictJob, ShardJob, TileJob


def restless_work():
    """What every job does; made here so that it travels to dask's workers by value."""

    def work(payload):
        fn, job, share, times = payload
        if share:
            fn(replace(job, shards=job.shards[:share]))  # the unit that failed half-way
        for _ in range(times - 1):
            fn(job)
        return fn(job)

    return work


@dataclass(frozen=True)
class Restless:
    """An executor that shuffles its jobs, begins some of them twice, does some twice, and gives
    outcomes out of order."""

    executor: Executor
    seed: int

    def run(self, fn, jobs, *, needs="cpu", deadline_s=None):
        rng = random.Random(self.seed)
        restless = [
            Job(job.key, (fn, job.payload, self._share(rng, job.payload), rng.choice([1, 1, 2])))
            for job in jobs
        ]
        rng.shuffle(restless)
        outcomes = list(
            self.executor.run(restless_work(), restless, needs=needs, deadline_s=deadline_s)
        )
        rng.shuffle(outcomes)
        return iter(outcomes)

    @staticmethod
    def _share(rng, payload):
        if (
            not isinstance(payload, ShardJob | PredictJob | TileJob)
            or len(payload.shards) < 2
            or rng.random() < 0.5
        ):
            return 0
        return rng.randrange(1, len(payload.shards))


def run(lab, task, out, executor, *, per_unit):
    pipeline = load_pipeline(str(lab.pipeline(task)), [f"run.shards_per_unit={per_unit}"])
    with Reporter(out / "run" / "log.jsonl", quiet=True) as reporter:
        slides = slides_from_paths([str(p) for p in lab.slides], mpp=None)
        report = engine_run.run(pipeline, slides, out, reporter=reporter, executor=executor)
    assert report.exit_code == 0, report.rows
    return contents(out / "results")


class Watched(Serial):
    """Remembers the keys of its jobs."""

    def __init__(self):
        self.keys = []

    def run(self, fn, jobs, *, needs="cpu", deadline_s=None):
        for outcome in super().run(fn, jobs, needs=needs, deadline_s=deadline_s):
            self.keys.append(outcome.key)
            yield outcome


def test_shards_are_stitched_while_others_are_still_inferred(lab, reference, tmp_path):
    watched = Watched()
    found = run(lab, "instance", tmp_path, watched, per_unit=1)
    early = [i for i, key in enumerate(watched.keys) if "/stitch early/" in key]
    inferred = [i for i, key in enumerate(watched.keys) if "/predict/" in key]
    behind = [key for key in watched.keys if "/stitch/" in key]
    assert len(early) > len(behind) > 0
    assert early[0] < inferred[-1]
    assert difference(found, contents(reference("instance"))) == []


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_restless_run_in_this_process_writes_the_same_bytes(task, seed, lab, reference, tmp_path):
    found = run(lab, task, tmp_path, Restless(Serial(), seed), per_unit=1 + 2 * seed)
    assert difference(found, contents(reference(task))) == []


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_restless_run_on_two_dask_workers_writes_the_same_bytes(
    task, lab, reference, cluster, tmp_path
):
    found = run(lab, task, tmp_path, Restless(cluster, 7), per_unit=2)
    assert difference(found, contents(reference(task))) == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4, 8])
def test_a_restless_run_on_any_number_of_dask_workers_writes_the_same_bytes(
    workers, lab, reference, tmp_path
):
    with open_executor(workers=workers, threads=1) as executor:
        found = run(lab, "instance", tmp_path, Restless(executor, workers), per_unit=2)
    assert difference(found, contents(reference("instance"))) == []
