"""A real SLURM on loopback: munge, controller and two node daemons with a configuration of their
own in a temporary folder. Needs root and Debian's packages slurm-wlm and munge."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CPUS = 4
"""What a node says it has, so that a few jobs run together on any machine."""
NODES = ("one", "two")
DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """\
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
SlurmdTimeout=300
KillWait=10
OverTimeLimit=0
JobRequeue=1
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=UNLIMITED State=UP
"""


def why_not():
    """Why no SLURM can be started here; "" if it can."""
    missing = [name for name in DAEMONS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no {', '.join(missing)} here: apt install slurm-wlm munge"
    return "" if os.getuid() == 0 else "its daemons are started as root, which this is not"


def _path():
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


@dataclass
class Slurm:
    """A SLURM that runs; commands find it through the environment."""

    folder: Path
    daemons: dict

    @property
    def environment(self):
        """Of commands that are to see this SLURM, and of nothing of a job around the tests."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        return kept | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def command(self, *words, **options):
        """What a command of SLURM prints."""
        done = subprocess.run(
            list(map(str, words)),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def sbatch(self, *words, **options):
        """The number of a job."""
        return int(self.command("sbatch", "--parsable", *words, **options))

    def state(self, job):
        """The state of a job, or of the worst of an array's; "" when SLURM has forgotten it."""
        lines = self.details(job).splitlines()
        states = {w.split("=")[1] for line in lines for w in line.split() if w[:9] == "JobState="}
        order = ("FAILED", "TIMEOUT", "NODE_FAIL", "CANCELLED", "RUNNING", "PENDING", "COMPLETING")
        return next((state for state in order if state in states), "".join(sorted(states)))

    def details(self, job):
        """All that SLURM says of a job."""
        return self.command("scontrol", "show", "job", job)

    def jobs(self):
        """Numbers of the jobs that wait or run."""
        return self.command("squeue", "--noheader", "--format=%A").split()

    def wait(self, job, *states, seconds=120.0):
        """Wait until a job is in one of the states; which one."""
        end = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            assert time.monotonic() < end, (self.details(job), self.logs())
            time.sleep(0.2)
        return state

    def logs(self):
        """The ends of what the daemons wrote."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    def start_nodes(self, *names):
        """Start the daemons of nodes, and wait until jobs can run there."""
        for name in names:
            self.daemons[name] = self._start("slurmd", "-D", "-N", name)
        for name in names:
            self._until_up(name)

    def node_of(self, job):
        """The node that a job runs on."""
        words = self.details(job).split()
        return next(w.removeprefix("BatchHost=") for w in words if w.startswith("BatchHost="))

    def kill_node(self, name):
        """A node fails: its daemon and all that it had started end at once, and the controller is
        told so, as it would find out itself later."""
        daemon = self.daemons[name]
        for pid in [daemon.pid, *self.processes(name)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()
        self.command("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=killed")

    def processes(self, node=None):
        """Processes of the nodes' jobs: each step's daemon, and all below it."""
        of_node = f"SLURMD_NODENAME={node}".encode()
        conf = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with suppress(OSError):
                words = (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes()
                is_of_job = any(word.startswith(b"SLURM_JOB_ID=") for word in words)
                is_there = node is None or of_node in words or b"slurmstepd" in command
                if conf in words and is_there and (is_of_job or b"slurmstepd" in command):
                    found.append(int(entry.name))
        return found

    def _start(self, *words):
        log = (self.folder / f"{words[0]}.out").open("ab")
        with log:
            return subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _until_up(self, name, seconds=30.0):
        end = time.monotonic() + seconds
        while True:
            done = subprocess.run(
                ("sinfo", "--noheader", "--format=%T", f"--nodes={name}"),
                env=self.environment, capture_output=True, text=True,
            )  # fmt: skip
            if done.stdout.strip() in ("idle", "mixed"):
                return
            assert time.monotonic() < end, (done.stdout, done.stderr, self.logs())
            time.sleep(0.2)


@contextmanager
def slurm():
    """A SLURM on loopback, for as long as the context lasts."""
    # munge wants a path that nobody else can write, and a socket's path is to be short
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/run"))
    folder.chmod(0o755)
    for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    (folder / "munge" / "key").write_bytes(os.urandom(128))
    (folder / "munge" / "key").chmod(0o600)
    controller, *ports = _free_ports(1 + len(NODES))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    host = socket.gethostname().partition(".")[0]
    common = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={memory}"
    lines = [
        f"NodeName={name} Port={port} {common}" for name, port in zip(NODES, ports, strict=True)
    ]
    (folder / "slurm.conf").write_text(
        CONF.format(folder=folder, controller=controller, nodes="\n".join(lines))
    )
    it = Slurm(folder, {})
    try:
        places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log",
                  "seed-file": "seed"}  # fmt: skip
        where = [f"--{name}={folder / 'munge' / file}" for name, file in places.items()]
        it.daemons["munged"] = it._start("munged", "--foreground", "--force", *where)
        it.daemons["slurmctld"] = it._start("slurmctld", "-D", "-c")
        it.start_nodes(*NODES)
        yield it
    finally:
        for pid in it.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in reversed(it.daemons.values()):
            daemon.kill()
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count):
    with_sockets = [socket.socket() for _ in range(count)]
    for one in with_sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in with_sockets]
    for one in with_sockets:
        one.close()
    return ports
