"""What worker jobs ask for; that they run is in tests/end_to_end/test_slurm.py."""

from types import SimpleNamespace
from typing import ClassVar

import pytest

from quadrat.core.errors import ConfigError
from quadrat.engine.slurm import _Keeper, check_slurm, lifetime, seconds


@pytest.mark.parametrize(
    ("walltime", "whole"),
    [("00:10:00", 600), ("30:00", 1800), ("1-02:00:00", 93_600), ("2-12:30", 217_800)],
)
def test_a_walltime_is_read_as_slurm_reads_it(walltime, whole):
    assert seconds(walltime) == whole


def test_workers_leave_before_the_walltime_and_not_all_at_once():
    assert lifetime("04:00:00") == ("--lifetime", "14100s", "--lifetime-stagger", "75s")
    assert lifetime("00:10:00") == ("--lifetime", "450s", "--lifetime-stagger", "37s")


class Cluster:
    """As far as the number of jobs goes."""

    scheduler_info: ClassVar = {"workers": {}}
    status = SimpleNamespace(name="running")
    workers: ClassVar = {}

    def __init__(self):
        self.asked = []

    def scale(self, jobs):
        self.asked.append(jobs)


def test_when_only_finishing_is_left_all_jobs_but_one_give_their_devices_back():
    cluster = Cluster()
    with _Keeper(cluster, 4, "") as keeper:
        keeper._top_up(frozenset())
        keeper.want(False)
        keeper._top_up(frozenset())
        keeper.want(True)  # a slide that another command began and left comes back
        keeper._top_up(frozenset())
    assert cluster.asked == [4, 4, 1, 4]


def test_where_no_slurm_is_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no sbatch here; start the command on a login"):
        check_slurm()
