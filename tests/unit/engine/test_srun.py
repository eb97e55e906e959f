"""What an allocation says of its nodes; that workers run there is in
tests/end_to_end/test_slurm.py."""

import pytest

from quadrat.core.errors import ConfigError
from quadrat.engine import srun
from quadrat.engine.cluster import open_executor


@pytest.mark.parametrize(
    ("text", "cpus"), [("8", 8), ("72(x2),36", 36), ("4,16(x3)", 4), ("1(x12)", 1)]
)
def test_every_node_gets_as_many_workers_as_the_smallest_has_cpus_for(text, cpus):
    assert srun.cpus_of_node({"SLURM_JOB_CPUS_PER_NODE": text}) == cpus


def test_one_node_talks_over_loopback_and_several_over_the_address_of_a_name(monkeypatch):
    assert srun.address_here({"SLURM_JOB_NUM_NODES": "1"}) == "127.0.0.1"
    several = {"SLURM_JOB_NUM_NODES": "3", "SLURMD_NODENAME": "n17"}
    monkeypatch.setattr(srun.socket, "gethostbyname", {"n17": "10.0.0.17"}.get)
    assert srun.address_here(several) == "10.0.0.17"


@pytest.mark.parametrize("found", ["127.0.1.1", None])
def test_a_name_that_other_nodes_cannot_use_is_refused(monkeypatch, found):
    def look(name):
        if found is None:
            raise OSError("unknown")
        return found

    monkeypatch.setattr(srun.socket, "gethostbyname", look)
    with pytest.raises(
        ConfigError, match=r"cannot reach this one by its name n17; .*run\.interfac"
    ):
        srun.address_here({"SLURM_JOB_NUM_NODES": "3", "SLURMD_NODENAME": "n17"})


def test_outside_of_an_allocation_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match=r"runs in no SLURM allocation; start it in a job"):
        open_executor(cluster="srun", workers=2, threads=1, folder=tmp_path)
