"""One holder per thing, on any file system and whatever happens to holders."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helpers.faults import FAULTY, NO_ROOM, disk
from helpers.leases import NOBODY, signed
from helpers.rights import as_a_stranger
from quadrat.core.errors import StoreError, WriteError
from quadrat.engine import lease as module
from quadrat.engine.holder import this_process
from quadrat.engine.lease import Held, Lease, Leases, held

BEAT_S, SILENCE_S = 0.05, 0.6
QUICK = {"beat_s": BEAT_S, "silence_s": SILENCE_S}
ELSEWHERE = {"host": "n2", "pid": 1, "started": 7}
"""A holder of whom only its silence can say that it is dead."""

HOLDER = """
import sys, time
from pathlib import Path
from quadrat.engine.lease import Lease, Leases
with Leases(Path(sys.argv[1]), beat_s=0.05, silence_s=0.6) as leases:
    lease = leases.take("a")
    print(type(lease).__name__, flush=True)
    for line in sys.stdin:
        print(lease.held(), flush=True)
"""


@pytest.fixture
def leases(tmp_path):
    with Leases(tmp_path, **QUICK) as opened:
        yield opened


@contextmanager
def another(folder):
    """A process that holds "a" in a folder; a line to it is answered with whether it still does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "Lease\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def asked(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip() == "True"


def taken_in_time(leases, name="a", *, seconds=10.0):
    """The lease, and how long it took to get it."""
    begin = time.monotonic()
    while isinstance(got := leases.take(name), Held):
        assert time.monotonic() - begin < seconds, got
        time.sleep(BEAT_S / 2)
    return got, time.monotonic() - begin


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_lease_is_a_file_that_says_who_and_goes_when_it_is_given_back(leases, tmp_path):
    lease = leases.take("a")
    assert lease.held()
    assert files(tmp_path) == ["a.lease.1"]
    about = json.loads((tmp_path / "a.lease.1").read_text())
    assert (about["name"], about["pid"]) == ("a", os.getpid())
    assert isinstance(leases.take("b"), Lease)
    lease.release()
    assert not lease.held()
    assert files(tmp_path) == ["b.lease.1"]
    lease.release()


def test_what_is_held_at_the_end_is_given_back_after_an_error_too(tmp_path):
    def work():
        with Leases(tmp_path / "run", **QUICK) as leases:
            leases.take("a")
            assert isinstance(leases.take("b"), Lease)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert files(tmp_path / "run") == []


def test_a_holder_gives_signs_of_life(leases, tmp_path):
    leases.take("a")
    before = (tmp_path / "a.lease.1").stat().st_mtime_ns
    time.sleep(4 * BEAT_S)
    assert (tmp_path / "a.lease.1").stat().st_mtime_ns > before


def test_a_thing_is_held_once_in_one_process_as_well(leases, tmp_path):
    lease = leases.take("a")
    with Leases(tmp_path, **QUICK) as others:
        for taker in (leases, others):
            refused = taker.take("a")
            assert isinstance(refused, Held)
            assert (refused.fate, refused.holder) == ("alive", lease.holder)
            assert f"process {os.getpid()} on " in str(refused)
    assert lease.held()


def test_of_many_threads_one_gets_it(leases):
    got, start = [], threading.Barrier(16)

    def take():
        start.wait()
        got.append(leases.take("a"))

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(each, Lease) for each in got) == 1


def test_the_lease_of_a_killed_process_of_this_host_is_free_at_once(leases, tmp_path):
    with another(tmp_path) as process:
        assert leases.take("a").fate == "alive"
        process.kill()
        while leases.take("b") and process.poll() is None:
            pass
        lease = leases.take("a")
    assert lease.held()
    assert files(tmp_path) == ["a.lease.2", "b.lease.1"]


def test_a_holder_of_another_host_that_lives_keeps_its_lease(leases, tmp_path):
    file = signed(tmp_path / "a", **ELSEWHERE)
    fates = set()
    end = time.monotonic() + 3 * SILENCE_S
    while time.monotonic() < end:
        os.utime(file)
        refused = leases.take("a")
        fates.add(refused.fate)
        time.sleep(BEAT_S)
    assert fates == {"unknown", "alive"}, "the first look says nothing"
    assert files(tmp_path) == ["a.lease.1"]


@pytest.mark.parametrize("years", [-30, 0, 30])
def test_a_silent_one_is_free_after_the_silence_whatever_its_clock_says(leases, tmp_path, years):
    file = signed(tmp_path / "a", **ELSEWHERE)
    then = time.time() + years * 365 * 86400
    os.utime(file, (then, then))
    first = leases.take("a")
    assert (first.fate, first.holder.host) == ("unknown", "n2")
    assert first.again_in_s == pytest.approx(SILENCE_S)
    lease, seconds = taken_in_time(leases)
    assert lease.held()
    assert seconds >= SILENCE_S - BEAT_S
    assert files(tmp_path) == ["a.lease.2"]


def test_a_clock_that_goes_backwards_is_a_sign_of_life(leases, tmp_path):
    file = signed(tmp_path / "a", **ELSEWHERE)
    leases.take("a")
    os.utime(file, (1.0, 1.0))
    assert leases.take("a").fate == "alive"


def test_how_long_it_will_take_is_said_and_becomes_less(leases, tmp_path):
    signed(tmp_path / "a", **ELSEWHERE)
    first = leases.take("a").again_in_s
    time.sleep(SILENCE_S / 2)
    assert 0 < leases.take("a").again_in_s < first


def test_one_look_after_a_long_pause_does_not_make_a_holder_dead(tmp_path, monkeypatch):
    """All processes of a host that slept wake up together: the reader may be first."""
    signed(tmp_path / "a", **ELSEWHERE)
    with Leases(tmp_path, beat_s=3600, silence_s=7200) as leases:
        leases.take("a")
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + 1e6)
        assert leases.take("a").fate == "unknown"


def test_a_holder_that_was_stopped_is_overtaken_and_finds_out(leases, tmp_path):
    with another(tmp_path) as process:
        assert asked(process)
        process.send_signal(signal.SIGSTOP)
        lease, _ = taken_in_time(leases)
        process.send_signal(signal.SIGCONT)
        assert not asked(process)
        assert lease.held()
        time.sleep(4 * BEAT_S)
        assert lease.held()
        assert files(tmp_path) == ["a.lease.2"]


def test_a_holder_that_was_stopped_for_a_moment_keeps_its_lease(leases, tmp_path):
    with another(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(SILENCE_S / 3)
        assert isinstance(leases.take("a"), Held)
        process.send_signal(signal.SIGCONT)
        end = time.monotonic() + 2 * SILENCE_S
        while time.monotonic() < end:
            assert isinstance(leases.take("a"), Held)
            time.sleep(BEAT_S)
        assert asked(process)


def test_one_that_was_overtaken_does_not_touch_what_came_after_it(leases, tmp_path):
    lease = leases.take("a")
    lease.path.unlink()
    other = signed(tmp_path / "a", **ELSEWHERE)  # the same name, since numbers begin anew
    before = other.stat().st_mtime_ns
    assert not lease.held()
    time.sleep(4 * BEAT_S)
    lease.release()
    assert other.stat().st_mtime_ns == before


def test_a_job_that_slurm_started_again_takes_its_leases_on_any_host(tmp_path, monkeypatch):
    words = {"SLURM_JOB_ID": "77", "SLURM_CLUSTER_NAME": "c"}
    signed(tmp_path / "a", **ELSEWHERE, job="77", cluster="c", restarts=1)
    for count, kind in (("1", Held), ("2", Lease)):
        environ = words | {"SLURM_RESTART_COUNT": count}
        sign = lambda name, environ=environ: this_process(name, environ)  # noqa: E731
        with Leases(tmp_path, here=sign, **QUICK) as leases:
            assert isinstance(leases.take("a"), kind)


@pytest.mark.parametrize("content", [b"", b'{"name": "a", "ho', b"[]", b"\xff\x00", b"null"])
def test_a_lease_without_a_readable_content_has_just_begun(leases, tmp_path, content):
    """Its taker is between making and writing it, or was killed there."""
    (tmp_path / "a.lease.1").write_bytes(content)
    refused = leases.take("a")
    assert (refused.holder, refused.fate) == (None, "unknown")
    assert str(refused) == "a process that has just begun"
    taken_in_time(leases)
    assert files(tmp_path) == ["a.lease.2"]


def test_a_taker_killed_while_it_writes_leaves_what_goes_stale(leases, tmp_path):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from quadrat.engine.lease import Leases\n"
        "os.write = lambda *words: os.kill(os.getpid(), 9)\n"
        "with Leases(Path(sys.argv[1])) as leases: leases.take('a')\n"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == -9
    assert (tmp_path / "a.lease.1").read_bytes() == b""
    _, seconds = taken_in_time(leases)
    assert seconds >= SILENCE_S - BEAT_S


def test_a_lease_that_may_not_be_read_is_held_until_it_is_silent(leases, tmp_path, monkeypatch):
    file = signed(tmp_path / "a", pid=NOBODY)
    real = os.open

    def refuse(path, *words, **named):
        if os.fspath(path) == str(file):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *words, **named)

    monkeypatch.setattr(os, "open", refuse)
    assert leases.take("a").holder is None
    os.utime(file, (1.0, 1.0))
    assert leases.take("a").fate == "alive"
    taken_in_time(leases)


def test_a_lease_that_cannot_be_read_is_an_error_with_a_remedy(leases, tmp_path, monkeypatch):
    lease = leases.take("a")
    real = os.open

    def fail(path, *words, **named):
        if os.fspath(path) == str(lease.path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *words, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        with pytest.raises(StoreError, match=r"a\.lease\.1: cannot be read \(Input/output error\)"):
            lease.held()
        time.sleep(2 * BEAT_S)
    assert lease.held(), "a disk that works again has taken nothing away"


def test_a_forked_child_is_no_holder_and_gives_nothing_back(leases, tmp_path):
    lease = leases.take("a")
    child = os.fork()
    if child == 0:
        code = 0 if not lease.held() else 1
        lease.release()
        leases.__exit__(None, None, None)
        with pytest.raises(RuntimeError):
            leases.take("b")
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert lease.held()
    assert files(tmp_path) == ["a.lease.1"]


def test_leases_are_not_taken_before_they_are_kept_alive(tmp_path):
    with pytest.raises(RuntimeError):
        Leases(tmp_path).take("a")
    with Leases(tmp_path) as leases:
        pass
    with pytest.raises(RuntimeError):
        leases.take("a")


def test_names_that_look_like_others_and_long_ones_have_leases_of_their_own(leases):
    names = ["a", "a.lease.1", "a.b", "b", "ä" * 120, "ä" * 121, "." + "x" * 250]
    got = [leases.take(name) for name in names]
    assert all(isinstance(lease, Lease) for lease in got)
    assert len({lease.path for lease in got}) == len(names)
    assert leases.holders().keys() == set(names)
    assert all(leases.holder(name).holder.name == name for name in names)


def test_who_holds_what_is_seen_without_taking_anything(leases, tmp_path):
    with Leases(tmp_path / "nothing") as none:
        assert none.holders() == {}
    assert leases.holder("a") is None
    leases.take("a")
    signed(tmp_path / "b", **ELSEWHERE)
    signed(tmp_path / "c", pid=NOBODY)
    signed(tmp_path / "c", number=2, **ELSEWHERE)
    (tmp_path / "d.lease.1").write_bytes(b"")
    (tmp_path / "no lease").write_bytes(b"")
    seen = Leases(tmp_path).holders()
    fates = {name: held.fate for name, held in seen.items()}
    assert fates == {"a": "alive", "b": "unknown", "c": "unknown", "d": "unknown"}
    assert seen["c"].holder.host == "n2", "not the dead one"


def test_two_takers_who_saw_different_files_do_not_both_get_it(leases, tmp_path, monkeypatch):
    """One was stopped after its look; meanwhile the old lease went and another one came."""
    signed(tmp_path / "a", number=5, pid=NOBODY)
    real = module.claim_file
    late = []

    def claim(path, data):
        if not late:
            late.append(path)
            (tmp_path / "a.lease.5").unlink()
            with ExitStack() as stack:
                others = stack.enter_context(Leases(tmp_path, **QUICK))
                late.append(others.take("a"))
                stack.pop_all()
        return real(path, data)

    monkeypatch.setattr(module, "claim_file", claim)
    refused = leases.take("a")
    assert late[0].name == "a.lease.6"
    assert late[1].path.name == "a.lease.1"
    assert late[1].held()
    assert refused.holder == late[1].holder
    assert files(tmp_path) == ["a.lease.1"]


def test_one_that_shows_life_while_it_is_overtaken_keeps_its_lease(leases, tmp_path, monkeypatch):
    file = signed(tmp_path / "a", **ELSEWHERE)
    leases.take("a")
    real = module.claim_file

    def claim(path, data):
        os.utime(file)
        return real(path, data)

    monkeypatch.setattr(module, "claim_file", claim)
    fates = set()
    end = time.monotonic() + 3 * SILENCE_S
    while time.monotonic() < end:
        fates.add(leases.take("a").fate)
        time.sleep(BEAT_S)
    assert "alive" in fates
    assert files(tmp_path) == ["a.lease.1"]


def test_no_link_and_no_rename_is_needed(tmp_path, monkeypatch):
    """exFAT, SMB and FUSE file systems lack hard links; some rename without being atomic."""

    def lacking(*words, **named):
        raise OSError(errno.EPERM, "Operation not permitted")

    for name in ("link", "symlink", "rename", "replace"):
        monkeypatch.setattr(os, name, lacking)
    signed(tmp_path / "a", pid=NOBODY)
    with Leases(tmp_path, **QUICK) as leases:
        assert leases.take("a").held()
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [NO_ROOM, FAULTY], ids=["no room", "faulty"])
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_disk_that_refuses_is_an_error_of_writing_that_leaves_nothing(tmp_path, call, error):
    with Leases(tmp_path, **QUICK) as leases:
        with (
            disk(tmp_path, fails=lambda seen: seen.name == call, error=error),
            pytest.raises(WriteError, match=r"a\.lease\.1: cannot be written"),
        ):
            leases.take("a")
        assert files(tmp_path) == []
        assert leases.take("a").held()


def test_a_dead_lease_that_cannot_be_removed_is_not_overtaken(tmp_path):
    signed(tmp_path / "a", pid=NOBODY)
    refuse = OSError(errno.EPERM, "Operation not permitted")
    with Leases(tmp_path, **QUICK) as leases:
        with (
            disk(
                tmp_path,
                names=("unlink",),
                fails=lambda seen: seen.path.endswith(".1"),
                error=refuse,
            ),
            pytest.raises(WriteError, match=r"a\.lease\.1: cannot be removed"),
        ):
            leases.take("a")
        assert files(tmp_path) == ["a.lease.1"]


def test_a_folder_where_nothing_may_be_written_is_an_error_of_writing(tmp_path):
    (tmp_path / "run").mkdir(mode=0o755)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from quadrat.core.errors import WriteError\nfrom quadrat.engine.lease import Leases\n"
        "with Leases(Path(sys.argv[1])) as leases:\n"
        "    try: leases.take('a')\n"
        "    except WriteError as error: print(error)\n"
    )
    words = [*as_a_stranger(), sys.executable, "-c", code, tmp_path / "run"]
    environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    if os.geteuid() != 0:
        (tmp_path / "run").chmod(0o555)
    done = subprocess.run(words, capture_output=True, text=True, env=environ)
    assert "a.lease.1: cannot be written (Permission denied); get the right" in done.stdout


def test_the_block_refuses_at_once_where_the_holder_is_known_to_live(tmp_path):
    signed(tmp_path / "driver", pid=os.getppid())
    said = []
    with pytest.raises(StoreError, match=r"^p: at work \(process \d+ on .*\); wait for it, or do"):
        held(tmp_path / "driver", busy="p: at work", otherwise="do", say=said.append).__enter__()
    assert said == []


def test_the_block_waits_for_a_sign_and_says_so(tmp_path):
    file = signed(tmp_path / "driver", **ELSEWHERE)
    said = []
    words = {"busy": "p: at work", "otherwise": "do", "say": said.append, **QUICK}
    with held(tmp_path / "driver", **words) as lease:
        assert lease.held()
        assert files(tmp_path) == ["driver.lease.2"]
    assert len(said) == 1
    assert "p: at work (process 1 on n2" in said[0]
    assert "waiting for a sign of it, 0.6 s" in said[0]
    signed(tmp_path / "driver", **ELSEWHERE)
    timer = threading.Timer(2 * BEAT_S, os.utime, [file])
    timer.start()
    with pytest.raises(StoreError, match="p: at work"):
        held(tmp_path / "driver", **words).__enter__()
    timer.join()


RACER = """
import sys, time
from pathlib import Path
from quadrat.engine.lease import Lease, Leases
folder = Path(sys.argv[1])
inside = folder / "inside"
with Leases(folder, beat_s=0.2, silence_s=3600) as leases:
    print(flush=True)
    for line in sys.stdin:
        at, keep = line.split()
        while time.monotonic() < float(at):
            pass
        wins, alone, lease = 0, True, None
        for _ in range(1 if keep == "True" else 4):
            got = leases.take("a")
            if isinstance(got, Lease):
                try:
                    inside.mkdir()
                except FileExistsError:
                    alone = False
                wins, alone, lease = wins + 1, alone and got.held(), got
                if keep == "False":
                    inside.rmdir()
                    got.release()
        print(wins, alone, flush=True)
        sys.stdin.readline()
        if lease is not None:
            lease.release()
        print(flush=True)
"""
ROUNDS, RACERS = 120, 5


def test_of_processes_that_race_for_a_dead_lease_exactly_one_wins(tmp_path):
    """In the odd rounds the winner keeps it until all have tried. In the even ones it is taken and
    given back many times meanwhile, and nobody ever meets another one inside."""
    with ExitStack() as stack:
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, tmp_path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(RACERS)
        ]
        for racer in racers:
            stack.callback(racer.communicate)
            stack.callback(racer.kill)

        def tell(line):
            for racer in racers:
                racer.stdin.write(f"{line}\n")
                racer.stdin.flush()
            return [racer.stdout.readline().split() for racer in racers]

        for racer in racers:
            racer.stdout.readline()
        for number in range(ROUNDS):
            signed(tmp_path / "a", number=1 + number % 4, pid=NOBODY)
            keep = number % 2 == 1
            found = tell(f"{time.monotonic() + 0.003} {keep}")
            assert [alone for _, alone in found] == ["True"] * RACERS, number
            wins = sum(int(won) for won, _ in found)
            assert wins == 1 if keep else wins >= 1, number
            if keep:
                (tmp_path / "inside").rmdir()
            tell("")
        assert files(tmp_path) == []
