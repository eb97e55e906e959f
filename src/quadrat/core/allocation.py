"""What this process may use of the machine: CPUs, memory, a folder for temporary files.

A node has more than a job may use. What bounds a job is said in several places (the scheduler's
environment, the affinity of the process, limits of its cgroups), of which any may be missing, so
the smallest figure counts. Each comes with the place that says it. Neither numpy nor torch is
imported: the environment of worker processes has to be known before they are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from quadrat.core.errors import ConfigError

_JOB_CPUS = (
    ("SLURM_CPUS_PER_TASK", "SLURM_JOB_ID"),
    ("SLURM_CPUS_ON_NODE", "SLURM_JOB_ID"),
    ("NCPUS", "PBS_JOBID"),
    ("PBS_NUM_PPN", "PBS_JOBID"),
    ("LSB_DJOB_NUMPROC", "LSB_JOBID"),
    ("NSLOTS", "JOB_ID"),
)
"""The variables of SLURM, PBS, LSF and Grid Engine, each with the one that says that it is a job:
alone, a variable may be of another origin."""
_MIB = 1 << 20
_UNLIMITED = 1 << 60
"""cgroup v1 writes a number of about 2**63 for no limit."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much there is of something."""

    value: int
    """CPUs, or bytes."""
    source: str
    """What says so, for messages."""


@dataclass(frozen=True, slots=True)
class TemporaryFolder:
    """Where files go that need not outlive the job."""

    path: Path
    """A folder that this process may write."""
    source: str
    """What names it, and what names another one that is not there."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A cgroup of this process, or one above it."""

    folder: Path
    unified: bool
    """Whether it is of version 2."""

    def number(self, file: str) -> int | None:
        """The first number in a file; None: there is no such file, or no limit."""
        words = _text(self.folder / file).split()
        return int(words[0]) if words and words[0].isdecimal() else None


def cpus(
    *,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    affinity: int | None = None,
) -> Amount:
    """The CPUs that this process may use, 1 or more.

    ``root``: where ``proc`` and the mounted cgroups lie. ``affinity``: by default, of this process.

    Raises:
        ConfigError: the scheduler's variable is no number.
    """
    found = [Amount(affinity or len(os.sched_getaffinity(0)), "the CPU affinity of the process")]
    found += [
        Amount(number, name)
        for name, job in _JOB_CPUS
        if job in environ and (number := _number(environ, name))
    ]
    for group in _groups("cpu", root):
        quota = group.number("cpu.max" if group.unified else "cpu.cfs_quota_us")
        if quota is None:
            continue
        if group.unified:
            words = _text(group.folder / "cpu.max").split()
            period = int(words[1]) if len(words) > 1 else 100_000
        else:
            period = group.number("cpu.cfs_period_us") or 100_000
        found.append(Amount(max(1, quota // period), f"the CPU quota of {group.folder}"))
    return min(found, key=lambda amount: amount.value)


def memory_bytes(
    *,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    physical: int | None = None,
) -> Amount:
    """The memory that this process and its workers may use together.

    ``root``: as in :func:`cpus`. ``physical``: by default, of this machine.

    Raises:
        ConfigError: a variable of SLURM is no number.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = [Amount(physical or machine, "the memory of the machine")]
    for group in _groups("memory", root):
        files = ("memory.max", "memory.high") if group.unified else ("memory.limit_in_bytes",)
        for file in files:
            limit = group.number(file)
            if limit is not None and 0 < limit < _UNLIMITED:
                found.append(Amount(limit, f"{file} of {group.folder}"))
    if "SLURM_JOB_ID" in environ:
        per_node = _number(environ, "SLURM_MEM_PER_NODE")  # 0: all there is
        if per_node:
            found.append(Amount(per_node * _MIB, "SLURM_MEM_PER_NODE"))
        per_cpu, count = (
            _number(environ, name) for name in ("SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
        )
        if per_cpu and count:
            found.append(Amount(per_cpu * count * _MIB, "SLURM_MEM_PER_CPU"))
    return min(found, key=lambda amount: amount.value)


def temporary_folder(environ: Mapping[str, str] = os.environ) -> TemporaryFolder:
    """The job's own folder if the scheduler made one, else the system's."""
    missing = ""
    for name in ("SLURM_TMPDIR", "TMPDIR"):
        if not (named := environ.get(name)):
            continue
        if os.path.isdir(named) and os.access(named, os.W_OK | os.X_OK):
            return TemporaryFolder(Path(named), f"{name}{missing}")
        missing += f"; {name} names {named}, which cannot be written here"
    return TemporaryFolder(Path(tempfile.gettempdir()), f"the system's{missing}")


def _number(environ: Mapping[str, str], name: str) -> int | None:
    """A variable's number; None if it is not set."""
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigError(
            f"the environment variable {name} is '{text}', but must be a whole number; set it to "
            "what the job may use, or unset it"
        )
    return int(text)


def _groups(controller: str, root: Path) -> Iterator[_Group]:
    """The cgroups of this process that have a controller, from its own up to the highest that can
    be seen from here."""
    paths: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    for mounted, mount, kind, options in _mounts(root):
        unified = kind == "cgroup2"
        group = paths.get("" if unified else controller)
        if group is None or (not unified and controller not in options):
            continue
        below = os.path.relpath(group, mounted)
        if below.startswith(".."):  # a container that sees its own group as the highest
            below = "."
        top = root / mount.lstrip("/")
        folder = Path(os.path.normpath(top / below))
        for place in (folder, *folder.parents):
            yield _Group(place, unified)
            if place == top:
                break


def _mounts(root: Path) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """(path of the group, where it is mounted, kind, controllers) of all mounted cgroups."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        place, _, system = line.partition(" - ")
        if system.startswith("cgroup"):
            (_, _, _, path, mount, *_), (kind, _, options) = place.split(), system.split(" ", 2)
            yield path, mount, kind, tuple(options.split(","))


def _text(path: Path) -> str:
    """What a file of the kernel holds; "" if there is none, or it may not be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
