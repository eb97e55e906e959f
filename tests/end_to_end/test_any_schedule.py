"""Whole runs, their work shuffled, done twice and tried again, in this process and on one to eight
dask workers: equal bytes."""

import random
from dataclasses import dataclass, field, replace

import pytest

from helpers.runs import TASKS, contents, difference
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.engine import run as engine_run
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor, Job, Serial, Source
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


@dataclass
class Shuffled:
    """Gives the jobs of another source out in any order, some to be begun twice, some to be done
    twice."""

    source: Source
    rng: random.Random
    drawn: list[Job] = field(default_factory=list)

    network_left = True

    def next(self, needs):
        while len(self.drawn) < 6 and (job := self.source.next(needs)) is not None:
            self.drawn.append(job)
        if not self.drawn:
            return None
        job = self.drawn.pop(self.rng.randrange(len(self.drawn)))
        times = self.rng.choice([1, 1, 2])
        payload = job.fn, job.payload, self._share(job.payload), times
        return replace(job, fn=restless_work(), payload=payload)

    def _share(self, payload):
        if (
            not isinstance(payload, ShardJob | PredictJob | TileJob)
            or len(payload.shards) < 2
            or self.rng.random() < 0.5
        ):
            return 0
        return self.rng.randrange(1, len(payload.shards))


@dataclass(frozen=True)
class Restless:
    """An executor that shuffles its jobs, and gives outcomes out of order."""

    executor: Executor
    seed: int
    ahead = 0

    def run(self, source):
        rng = random.Random(self.seed)
        shuffled, late = Shuffled(source, rng), []
        while True:
            before = len(late)
            for outcome in self.executor.run(shuffled):
                late.append(outcome)
                if len(late) > 3:
                    yield late.pop(rng.randrange(len(late)))
            if len(late) == before == 0:
                return
            yield from late
            late.clear()


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

    def run(self, source):
        for outcome in super().run(source):
            self.keys.append(outcome.key)
            yield outcome


def test_shards_are_stitched_while_others_are_still_inferred(lab, reference, tmp_path):
    watched = Watched()
    found = run(lab, "instance", tmp_path, watched, per_unit=1)
    stitched = [i for i, key in enumerate(watched.keys) if "/stitch/" in key]
    inferred = [i for i, key in enumerate(watched.keys) if "/predict/" in key]
    assert stitched[0] < inferred[-1]
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
