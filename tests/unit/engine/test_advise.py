"""What to ask for, from what a few slides took."""

from dataclasses import replace

import pytest

from quadrat.core.errors import ConfigError
from quadrat.engine.advise import advise, clock, used
from quadrat.engine.drivers import Driver
from quadrat.engine.holder import this_process
from quadrat.engine.timings import Timing

GB = 10**9
DRIVER = Driver(
    id="d", holder=this_process("x"), asked="", workers=4, threads=2, began=1000.0, ended=1500.0,
    numerics="torch 2, x86_64",
)  # fmt: skip


def timing(slide, seconds, size=GB, peak_mb=2048.0):
    return Timing(
        slide=slide, seconds={"predict": seconds, "predict: network": 1.0}, time=1500.0,
        file_bytes=size, peak_mb=peak_mb, driver="d",
    )  # fmt: skip


MEASURED = [timing("a", 800.0), timing("b", 800.0, size=GB, peak_mb=3072.0)]
"""Four workers, 500 s, 1,600 s of work: busy for 80 % of the time; 800 s a GB."""


def test_time_grows_with_the_files_and_is_shared_by_the_tasks():
    advice = advise(MEASURED, [DRIVER], [GB] * 100, hours=5)
    assert advice.worker_s == 80_000
    assert advice.busy == 0.8
    assert advice.tasks == 2, "25,000 s of four workers that are busy for 80 %, in 5 hours each"
    assert advice.time_s == 19_800, "half of it, one slide and the start; times 1.5; up to 10 min"
    assert advise(MEASURED, [DRIVER], [2 * GB] * 100, hours=5).worker_s == 160_000
    assert advise(MEASURED, [DRIVER], [GB] * 3, hours=0.001).tasks == 3, "no more than slides"


def test_memory_is_that_of_the_largest_worker_for_all_and_cpus_are_their_threads():
    advice = advise(MEASURED, [DRIVER], [GB], hours=4)
    assert advice.memory_gb == 17, "(1 + 4 x 3) x 1.3"
    assert (advice.cpus, advice.gpus, advice.tasks) == (8, 0, 1)
    assert advice.lines == (
        "#SBATCH --array=1-1",
        "#SBATCH --time=00:10:00",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=17G",
    )


def test_gpus_are_asked_for_where_they_were_used():
    there = replace(DRIVER, numerics="torch 2, cuda, A100")
    assert advise(MEASURED, [there], [GB], hours=4).lines[-1] == "#SBATCH --gpus=1"
    two = replace(there, given={"SLURM_GPUS_ON_NODE": "2"})
    assert advise(MEASURED, [two], [GB], hours=4).gpus == 2


def test_files_that_cannot_be_looked_at_count_as_average_ones():
    advice = advise(MEASURED, [DRIVER], [0, 0, GB // 2], hours=4)
    assert (advice.unseen, advice.worker_s) == (2, 2000)


def test_without_a_measured_slide_there_is_no_advice():
    old = Timing(slide="a", seconds={"predict": 1.0})
    with pytest.raises(ConfigError, match="run a few first"):
        advise([old], [DRIVER], [GB], hours=4)
    with pytest.raises(ConfigError, match="--manifest"):
        advise(MEASURED, [DRIVER], [], hours=4)
    with pytest.raises(ConfigError, match="--hours is 0"):
        advise(MEASURED, [DRIVER], [GB], hours=0)


def test_what_was_asked_is_set_against_what_was_used():
    given = {
        "SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_CPUS_PER_TASK": "8", "SLURM_MEM_PER_CPU": "4096",
        "SLURM_JOB_START_TIME": "1000", "SLURM_JOB_END_TIME": "4600",
    }  # fmt: skip
    (job,) = used([DRIVER, replace(DRIVER, id="e", given=given)],
                  [replace(one, driver="e") for one in MEASURED])  # fmt: skip
    assert (job.job, job.slides) == ("10_3", 2)
    assert job.time_s == (3600.0, 500.0)
    assert job.cpus == (8, 6.4)
    assert job.memory_gb == (32.0, 13.0)
    (bare,) = used([replace(DRIVER, given={"SLURM_JOB_ID": "12"})], [])
    assert (bare.job, bare.cpus[0], bare.memory_gb[0], bare.time_s[0]) == ("12", None, None, None)


def test_times_are_written_as_slurm_does():
    assert [clock(s) for s in (600, 90_061)] == ["00:10:00", "1-01:01:01"]
