"""What a process may use: the smallest of what the scheduler, the affinity and cgroups say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quadrat.core.allocation import Amount, cpus, memory_bytes, temporary_folder
from quadrat.core.errors import ConfigError

MIB = 1 << 20
SLURM = {"SLURM_JOB_ID": "7"}
V2 = "30 1 0:26 {mounted} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:30 / /sys/fs/cgroup/{0} rw,relatime - cgroup cgroup rw,{0}\n"


class Machine:
    """The files of a kernel, in a folder."""

    def __init__(self, root):
        self.root = root
        self.write("proc/self/cgroup", "")
        self.write("proc/self/mountinfo", "24 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n")

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def unified(self, group, *, mounted="/", **files):
        """One hierarchy of version 2; ``files``: of a group, by its path with ``__`` for ``/``."""
        self.write("proc/self/cgroup", f"0::{group}\n")
        self.write("proc/self/mountinfo", V2.format(mounted=mounted))
        for name, text in files.items():
            self.write(f"sys/fs/cgroup/{name}".replace("__", "/"), text)

    def cpus(self, affinity=64, **environ):
        return cpus(environ=environ, root=self.root, affinity=affinity)

    def memory(self, physical=256 << 30, **environ):
        return memory_bytes(environ=environ, root=self.root, physical=physical)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_without_any_limit_all_of_the_machine_may_be_used(machine):
    assert machine.cpus() == Amount(64, "the CPU affinity of the process")
    assert machine.memory() == Amount(256 << 30, "the memory of the machine")


def test_this_process_may_use_what_it_is_bound_to():
    assert 1 <= cpus().value <= len(os.sched_getaffinity(0))
    assert (
        1 << 27 < memory_bytes().value <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        (SLURM | {"SLURM_CPUS_PER_TASK": "8", "SLURM_CPUS_ON_NODE": "16"}, 8),
        (SLURM | {"SLURM_CPUS_ON_NODE": "16"}, 16),
        ({"PBS_JOBID": "7.pbs", "NCPUS": "4"}, 4),
        ({"PBS_JOBID": "7.pbs", "PBS_NUM_PPN": "4"}, 4),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "4"}, 4),
        ({"JOB_ID": "7", "NSLOTS": "4"}, 4),
        ({"SLURM_CPUS_PER_TASK": "8", "NCPUS": "4", "NSLOTS": "2"}, 64),
        (SLURM | {"SLURM_CPUS_PER_TASK": "128"}, 64),
        (SLURM | {"SLURM_CPUS_PER_TASK": ""}, 64),
    ],
    ids=str,
)
def test_a_scheduler_says_how_many_cpus_a_job_has(machine, environ, count):
    found = machine.cpus(**environ)
    assert found.value == count
    assert count == 64 or found.source in environ


@pytest.mark.parametrize("text", ["8(x2)", "-1", "many", "1.5"])
def test_a_variable_that_is_no_number_is_refused_by_name(machine, text):
    with pytest.raises(ConfigError, match=r"SLURM_CPUS_PER_TASK is '.*', but must be a whole"):
        machine.cpus(**SLURM, SLURM_CPUS_PER_TASK=text)
    with pytest.raises(ConfigError, match="SLURM_MEM_PER_NODE"):
        machine.memory(**SLURM, SLURM_MEM_PER_NODE=text)


@pytest.mark.parametrize(
    ("limit", "count"),
    [("max 100000", 64), ("400000 100000", 4), ("150000 100000", 1), ("50000 100000", 1),
     ("200000", 2)],
)  # fmt: skip
def test_a_quota_of_version_2_counts_whole_cpus_and_at_least_one(machine, limit, count):
    machine.unified("/job", **{"job__cpu.max": f"{limit}\n"})
    assert machine.cpus().value == count


def test_the_smallest_limit_on_the_way_up_counts_and_is_named(machine):
    files = {
        "slurm__job_7__cpu.max": "3200000 100000\n",
        "slurm__job_7__step__cpu.max": "max 100000\n",
        "slurm__job_7__memory.max": f"{64 << 30}\n",
        "slurm__job_7__step__memory.max": "max\n",
        "slurm__memory.high": f"{48 << 30}\n",
        "other__memory.max": "4096\n",
    }
    machine.unified("/slurm/job_7/step", **files)
    top = machine.root / "sys/fs/cgroup"
    assert machine.cpus() == Amount(32, f"the CPU quota of {top / 'slurm/job_7'}")
    assert machine.memory() == Amount(48 << 30, f"memory.high of {top / 'slurm'}")


@pytest.mark.parametrize(
    ("group", "mounted"),
    [("/", "/"), ("/docker/x", "/docker/x"), ("/../../..", "/"), ("/docker/x", "/docker/x/y")],
)
def test_a_container_sees_its_own_group_as_the_highest(machine, group, mounted):
    files = {"cpu.max": "200000 100000\n", "memory.max": f"{8 << 30}\n"}
    machine.unified(group, mounted=mounted, **files)
    assert (machine.cpus().value, machine.memory().value) == (2, 8 << 30)


def test_version_1_has_a_hierarchy_for_each_controller(machine):
    machine.write(
        "proc/self/cgroup",
        "9:name=systemd:/\n4:memory:/slurm/job_7\n2:cpu,cpuacct:/slurm/job_7/step\n0::/\n",
    )
    kinds = ("cpu,cpuacct", "memory", "cpuset")
    machine.write("proc/self/mountinfo", "".join(map(V1.format, kinds)) + V2.format(mounted="/"))
    place = "sys/fs/cgroup/cpu,cpuacct/slurm/job_7"
    machine.write(f"{place}/step/cpu.cfs_quota_us", "-1\n")
    machine.write(f"{place}/step/cpu.cfs_period_us", "100000\n")
    machine.write(f"{place}/cpu.cfs_quota_us", "300000\n")
    machine.write(f"{place}/cpu.cfs_period_us", "50000\n")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    machine.write("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", f"{6 << 30}\n")
    assert machine.cpus().value == 6
    assert machine.memory().value == 6 << 30
    assert machine.memory(physical=4 << 30).source == "the memory of the machine"


@pytest.mark.parametrize(
    ("environ", "mib", "source"),
    [
        ({"SLURM_MEM_PER_NODE": "16000"}, 16000, "SLURM_MEM_PER_NODE"),
        ({"SLURM_MEM_PER_CPU": "2000", "SLURM_CPUS_ON_NODE": "4"}, 8000, "SLURM_MEM_PER_CPU"),
        ({"SLURM_MEM_PER_NODE": "0"}, 256 << 10, "the memory of the machine"),
        ({"SLURM_MEM_PER_CPU": "2000"}, 256 << 10, "the memory of the machine"),
    ],
)
def test_slurm_says_how_much_memory_a_job_has(machine, environ, mib, source):
    assert machine.memory(**SLURM, **environ) == Amount(mib * MIB, source)
    assert machine.memory(**environ).value == 256 << 30, "no job, no limit"


def test_the_folder_of_the_job_comes_before_that_of_the_user(tmp_path):
    job, own = tmp_path / "job", tmp_path / "own"
    job.mkdir()
    own.mkdir()
    environ = {"SLURM_TMPDIR": str(job), "TMPDIR": str(own)}
    assert temporary_folder(environ).path == job
    assert temporary_folder(environ).source == "SLURM_TMPDIR"
    assert temporary_folder({"TMPDIR": str(own)}).path == own


def test_a_folder_that_is_not_there_is_not_used_and_named(tmp_path):
    found = temporary_folder({"SLURM_TMPDIR": "/nowhere", "TMPDIR": str(tmp_path)})
    assert found.path == tmp_path
    assert found.source == "TMPDIR; SLURM_TMPDIR names /nowhere, which cannot be written here"
    assert temporary_folder({"TMPDIR": "/nowhere"}).path == Path(
        subprocess.run(
            [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"],
            env=os.environ | {"TMPDIR": "/nowhere"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )


def test_neither_numpy_nor_torch_is_needed_to_ask():
    code = (
        "import sys, quadrat.core.allocation, quadrat.core.native\n"
        "print(sorted({'numpy', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
