"""Whatever fails and whenever the process is killed: the old file or the new one, never a part."""

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from helpers.faults import FAULTY, NO_ROOM, REMOVING, WRITING, Killed, disk
from quadrat.core import files
from quadrat.core.errors import StoreError, WriteError
from quadrat.core.files import (
    check_free_space,
    claim_file,
    drop_partials,
    make_folder,
    new_file,
    new_folder,
    open_append,
    partials,
    place_folder,
    recover_folder,
    remove,
    sha256_of,
    touch,
    write_file,
)

OLD, NEW = b"old" * 1000, b"new content" * 1000
ALL_CALLS = (*WRITING, *REMOVING)


def tree(folder):
    """Content of every file below a folder, by relative path; a folder without files is None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def in_pieces(path):
    """A file written in pieces and out of order."""
    with new_file(path) as stream:
        stream.write(b"?" * 11)
        for start in range(11, len(NEW), 700):
            stream.write(NEW[start : start + 700])
            stream.flush()
        stream.seek(0)
        stream.write(NEW[:11])


def at_once(path):
    write_file(path, NEW)


def calls_of(action, folder, names=WRITING):
    """How many calls an undisturbed action makes."""
    with disk(folder, names=names) as watched:
        action()
    return len(watched.calls)


# -- a file

WRITERS = pytest.mark.parametrize("writer", [at_once, in_pieces])


@WRITERS
@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("error", [NO_ROOM, FAULTY], ids=["full", "faulty"])
def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path, writer, is_there, error
):
    def begun(name):
        path = tmp_path / name / "above" / "file"
        if is_there:
            write_file(path, OLD)
        return path

    dry = begun("dry")
    steps = calls_of(lambda: writer(dry), tmp_path)
    assert steps >= (5 if is_there else 9)
    for at in range(steps):
        path = begun(str(at))
        with (
            disk(tmp_path, at=at, error=error) as watched,
            pytest.raises(WriteError, match=rf"cannot be written \({error.strerror}"),
        ):
            writer(path)
        found = {name: data for name, data in tree(path.parent).items() if data is not None}
        last = watched.failed.name == "fsync" and at == steps - 1
        assert found == ({"file": NEW} if last else {"file": OLD} if is_there else {})
        writer(path)
        assert tree(path.parent) == {"file": NEW}


@WRITERS
def test_a_process_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path, writer):
    found = []
    path = tmp_path / "file"
    write_file(path, OLD)
    for at in range(calls_of(lambda: writer(tmp_path / "dry"), tmp_path, ALL_CALLS)):
        write_file(path, OLD)
        with disk(tmp_path, at=at, error=Killed(), names=ALL_CALLS), pytest.raises(Killed):
            writer(path)
        assert path.read_bytes() in (OLD, NEW)
        found.append(path.read_bytes())
        assert {p.name for p in tmp_path.iterdir()} - {"dry", "file"} == {
            p.name for p in partials(tmp_path)
        }
        drop_partials(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == {"dry", "file"}
    assert found == sorted(found, reverse=True)  # old, old, ..., new
    assert set(found) == {OLD, NEW}


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_call_returns(
    tmp_path,
):
    path = tmp_path / "folder" / "file"
    with disk(tmp_path) as watched:
        write_file(path, NEW)
    steps = [(call.name, Path(call.path).name) for call in watched.calls]
    partial = Path(watched.calls[2].path).name
    assert partial.startswith("file.")
    assert partial.endswith(".partial")
    assert steps == [
        ("mkdir", "folder"),
        ("fsync", tmp_path.name),
        ("open", partial),
        ("write", partial),
        ("fsync", partial),
        ("replace", partial),
        ("fsync", "folder"),
    ]


def test_what_fails_in_the_block_leaves_the_old_file_and_is_raised_as_it_is(tmp_path):
    write_file(tmp_path / "file", OLD)

    def fail(error):
        with new_file(tmp_path / "file") as stream:
            stream.write(NEW)
            raise error

    for error in (ValueError("mine"), OSError("of a slide"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            fail(error)
        assert raised.value is error
        assert tree(tmp_path) == {"file": OLD}


def test_two_tries_may_write_one_file_at_once(tmp_path):
    path, both = tmp_path / "file", threading.Barrier(2, timeout=10)

    def one(content):
        with new_file(path) as stream:
            stream.write(content)
            both.wait()
            stream.write(content)

    tries = [threading.Thread(target=one, args=(content,)) for content in (OLD, NEW)]
    for thread in tries:
        thread.start()
    for thread in tries:
        thread.join()
    assert tree(tmp_path) in ({"file": OLD + OLD}, {"file": NEW + NEW})


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room and run the same command again"),
        (errno.EDQUOT, "make room and run the same command again"),
        (errno.EFBIG, "make room and run the same command again"),
        (errno.EACCES, "get the right to write there, or choose another folder, and run again"),
        (errno.EROFS, "get the right to write there, or choose another folder, and run again"),
        (errno.EIO, "check the disk, or choose another folder, and run the same command again"),
    ],
)
def test_the_error_names_file_reason_and_remedy_in_one_sentence(tmp_path, number, remedy):
    error = OSError(number, os.strerror(number))
    with disk(tmp_path, at=1, error=error), pytest.raises(WriteError) as raised:
        write_file(tmp_path / "file", NEW)
    told = f"{tmp_path / 'file'}: cannot be written ({os.strerror(number)}); {remedy}"
    assert str(raised.value) == told
    assert raised.value.__cause__ is error


def test_a_folder_that_is_a_file_and_a_file_that_is_a_folder_are_write_errors(tmp_path):
    write_file(tmp_path / "file", OLD)
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "in_it", tmp_path / "folder"):
        with pytest.raises(WriteError, match=r"cannot be written .*run the same command again"):
            write_file(path, NEW)
    assert tree(tmp_path) == {"file": OLD, "folder": None}


def test_a_file_system_without_fsync_of_folders_is_written_to_and_one_that_fails_is_not(
    tmp_path, monkeypatch
):
    sync = os.fsync

    def refusing(number):
        def fsync(handle):
            if os.path.isdir(f"/proc/self/fd/{handle}"):
                raise OSError(number, os.strerror(number))
            sync(handle)

        return fsync

    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    write_file(tmp_path / "file", NEW)
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(WriteError):
        write_file(tmp_path / "file", NEW)


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    for name in ("n" * 255, "ü" * 127):
        write_file(tmp_path / name, NEW)
    assert set(tree(tmp_path).values()) == {NEW}


def test_text_is_written_as_utf8_and_line_ends_stay(tmp_path):
    write_file(tmp_path / "file", "µm\r\n²\n")
    assert (tmp_path / "file").read_bytes() == "µm\r\n²\n".encode()


# -- a file that grows


def test_every_write_of_a_growing_file_is_there_at_once_and_what_is_not_whole_is_cut_off(tmp_path):
    path = tmp_path / "logs" / "log"
    with open_append(path) as log:
        log.write(b"one\n")
        assert path.read_bytes() == b"one\n"
        log.write(b"tw")
    with open_append(path, length=4) as log:
        log.write(b"three\n")
        log.sync()
    assert path.read_bytes() == b"one\nthree\n"


def test_a_growing_file_on_a_full_disk_is_a_write_error_that_names_it(tmp_path):
    def log_to(folder):
        with open_append(folder / "logs" / "log") as log:
            log.write(b"one\n")
            log.sync()

    steps = calls_of(lambda: log_to(tmp_path / "dry"), tmp_path)
    assert steps == 8, "two folders, and the file's open, fsync of its name, write, fsync"
    for at in range(steps):
        with (
            disk(tmp_path, at=at, error=NO_ROOM),
            pytest.raises(WriteError, match=rf"{tmp_path}.*cannot be written \(No space left"),
        ):
            log_to(tmp_path / str(at))


# -- a folder

FIRST = {"weights": OLD, "in/card": b"old"}
SECOND = {"weights": NEW, "in/card": b"new", "page": b"page"}


def fill(folder, content):
    for name, data in content.items():
        write_file(folder / name, data)


def replaced(path, content):
    with new_folder(path) as staging:
        fill(staging, content)


def test_a_folder_appears_whole_and_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "above" / "package"
    replaced(path, FIRST)
    assert tree(path) == FIRST
    with new_folder(path) as staging:
        fill(staging, SECOND)
        assert tree(path) == FIRST
    assert tree(path) == SECOND
    assert [p.name for p in path.parent.iterdir()] == ["package"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_process_killed_at_any_call_leaves_the_old_folder_or_the_new_one(tmp_path, is_there):
    def begun(name):
        path = tmp_path / name / "package"
        make_folder(path.parent)
        if is_there:
            replaced(path, FIRST)
        return path

    dry = begun("dry")
    steps = calls_of(lambda: replaced(dry, SECOND), tmp_path, ALL_CALLS)
    aside = 0
    for at in range(steps):
        path = begun(str(at))
        with disk(tmp_path, at=at, error=Killed(), names=ALL_CALLS), pytest.raises(Killed):
            replaced(path, SECOND)
        aside += is_there and not path.exists()
        recover_folder(path)
        assert path.exists() or not is_there
        recover_folder(path, tidy=True)
        assert not (path.parent / ".package.old").exists()
        whole = (FIRST, SECOND) if is_there else (FIRST, SECOND, None)
        assert (tree(path) if path.exists() else None) in whole
        replaced(path, SECOND)
        assert tree(path) == SECOND
        assert [p.name for p in path.parent.iterdir()] == ["package"]
    assert aside == (1 if is_there else 0), "only between the two renames is it aside"


@pytest.mark.parametrize("error", [NO_ROOM, FAULTY], ids=["full", "faulty"])
def test_a_folder_that_cannot_be_written_leaves_the_old_one(tmp_path, error):
    path, dry = tmp_path / "package", tmp_path / "dry"
    replaced(path, FIRST)
    replaced(dry, FIRST)
    with disk(tmp_path) as undisturbed:
        replaced(dry, SECOND)
    removal = next(i for i, c in enumerate(undisturbed.calls) if c.path.endswith(".dry.old"))
    assert len(undisturbed.calls) == removal + 2, "the old one is renamed, and that is synced"
    for at in range(len(undisturbed.calls)):
        with disk(tmp_path, at=at, error=error), pytest.raises(WriteError, match=error.strerror):
            replaced(path, SECOND)
        if at >= removal:  # the new one is in place, and the old one may be in the way
            assert tree(path) == SECOND
            replaced(path, FIRST)
        assert tree(path) == FIRST
        assert [p.name for p in tmp_path.iterdir() if p != dry] == ["package"]


def test_if_even_the_way_back_fails_the_old_folder_is_found_again(tmp_path, monkeypatch):
    path, rename = tmp_path / "package", os.rename
    replaced(path, FIRST)

    def broken(before, after):
        if os.path.basename(after) == "package":
            raise FAULTY
        rename(before, after)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(WriteError):
        replaced(path, SECOND)
    assert not path.exists()
    monkeypatch.undo()
    recover_folder(path)
    assert tree(path) == FIRST
    assert [p.name for p in tmp_path.iterdir()] == ["package"]


def test_a_folder_is_on_the_disk_before_it_takes_its_place(tmp_path):
    replaced(tmp_path / "package", FIRST)
    with disk(tmp_path) as watched:
        replaced(tmp_path / "package", SECOND)
    files_, renamed = set(), False
    for call in watched.calls:
        if call.name == "write":
            files_.add(call.path)
        if call.name == "fsync":
            files_.discard(call.path)
            renamed = renamed and call.path != str(tmp_path)
        if call.name == "rename" and call.target.endswith("/package"):
            assert not files_, "not everything was on the disk"
            renamed = True
        if call.name == "rename" and call.path.endswith(".old"):
            assert not renamed, "the old one goes before the new name is on the disk"


def test_another_folder_with_the_ending_old_is_left_alone(tmp_path):
    replaced(tmp_path / "slide.old", FIRST)
    replaced(tmp_path / "slide", FIRST)
    replaced(tmp_path / "slide", SECOND)
    recover_folder(tmp_path / "gone")
    assert tree(tmp_path / "slide.old") == FIRST
    assert not (tmp_path / "gone").exists()


def test_left_over_temporaries_of_one_target_are_removed_and_no_others(tmp_path):
    mine = ("package.7.ab.partial", "package.4194305.0123abcd.partial")
    others = ("package.fold0.7.ab.partial", "packages.7.ab.partial")
    users = ("package", "package.partial", "scan.7.partial")
    for name in (*mine, *others, *users):
        fill(tmp_path / name, {"weights": OLD})
    drop_partials(tmp_path, of="package")
    assert {p.name for p in tmp_path.iterdir()} == {*others, *users}
    drop_partials(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(users)


def test_a_reader_that_recovers_the_old_folder_between_the_two_renames_does_not_stop_the_writer(
    tmp_path, monkeypatch
):
    path, real = tmp_path / "package", os.rename
    replaced(path, FIRST)

    def renamed(before, after):
        if Path(after) == path and not reads:  # the writer's second rename
            reads.append(True)
            recover_folder(path)
            assert tree(path) == FIRST
        real(before, after)

    reads = []
    monkeypatch.setattr(os, "rename", renamed)
    replaced(path, SECOND)
    assert reads
    assert tree(path) == SECOND
    assert [p.name for p in tmp_path.iterdir()] == ["package"]


def test_only_the_folder_itself_is_looked_through_if_so_wished(tmp_path):
    fill(tmp_path, {"a.7.ab.partial": OLD, "below/b.7.ab.partial": OLD})
    assert [p.name for p in partials(tmp_path)] == ["a.7.ab.partial", "b.7.ab.partial"]
    drop_partials(tmp_path, deep=False)
    assert tree(tmp_path) == {"below/b.7.ab.partial": OLD}


def test_what_is_removed_is_whole_or_gone(tmp_path):
    fill(tmp_path / "dry", FIRST)
    for at in range(calls_of(lambda: remove(tmp_path / "dry"), tmp_path, ALL_CALLS)):
        fill(tmp_path / "store", FIRST)
        with disk(tmp_path, at=at, error=Killed(), names=ALL_CALLS), pytest.raises(Killed):
            remove(tmp_path / "store")
        assert not (tmp_path / "store").exists() or tree(tmp_path / "store") == FIRST
        drop_partials(tmp_path)
    write_file(tmp_path / "file", OLD)
    remove(tmp_path / "file")
    remove(tmp_path / "never")
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept", target_is_directory=True)
    remove(tmp_path / "link")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "store") == ["kept"]


def test_a_source_on_another_file_system_is_refused_and_stays(tmp_path, monkeypatch):
    fill(tmp_path / "source", SECOND)
    replaced(tmp_path / "package", FIRST)
    rename = os.rename

    def across(before, after):
        if Path(before).name == "source":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(before, after)

    monkeypatch.setattr(os, "rename", across)
    with pytest.raises(WriteError, match=os.strerror(errno.EXDEV)):
        place_folder(tmp_path / "source", tmp_path / "package")
    assert tree(tmp_path / "source") == SECOND
    assert tree(tmp_path / "package") == FIRST


# -- sums and room


def test_a_file_that_is_claimed_has_one_maker(tmp_path):
    path = tmp_path / "new" / "a"
    assert claim_file(path, NEW)
    assert not claim_file(path, OLD)
    assert path.read_bytes() == NEW


def test_of_threads_that_claim_one_file_one_makes_it(tmp_path):
    made, start = [], threading.Barrier(8)

    def claim(number):
        start.wait()
        if claim_file(tmp_path / "a", b"%d" % number):
            made.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % number for number in made] == [(tmp_path / "a").read_bytes()]


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_claimed_file_that_cannot_be_written_is_not_there(tmp_path, call):
    with (
        disk(tmp_path, fails=lambda seen: seen.name == call, error=NO_ROOM),
        pytest.raises(WriteError, match=r"a: cannot be written .* make room"),
    ):
        claim_file(tmp_path / "a", NEW)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_touched_has_a_new_time_and_must_be_there(tmp_path):
    fill(tmp_path, {"a": OLD})
    path = tmp_path / "a"
    os.utime(path, (1.0, 1.0))
    touch(path)
    assert path.stat().st_mtime > 1e9
    assert path.read_bytes() == OLD
    with pytest.raises(WriteError, match="b: cannot be written"):
        touch(tmp_path / "b")


def test_the_sha256_of_several_files_is_that_of_their_bytes_one_after_the_other(tmp_path):
    fill(tmp_path, {"a": OLD * 700, "b": NEW})
    assert sha256_of(tmp_path / "a") == hashlib.sha256(OLD * 700).hexdigest()
    both = hashlib.sha256(OLD * 700 + NEW).hexdigest()
    assert sha256_of(tmp_path / "a", tmp_path / "b") == both


def test_too_little_room_is_a_write_error_with_both_figures(tmp_path, monkeypatch):
    status = type("Status", (), {"f_bavail": 3, "f_frsize": 10**9})()
    monkeypatch.setattr(files.os, "statvfs", lambda _: status)
    check_free_space(tmp_path / "not" / "yet", 3 * 10**9, what="a store")
    told = r"a store needs about 3\.50 GB but 3\.00 GB are free; make room"
    with pytest.raises(WriteError, match=told):
        check_free_space(tmp_path / "not" / "yet", 3_500_000_000, what="a store")


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"needs about 1000000000\.00 GB but .* are free"):
        check_free_space(tmp_path / "not" / "yet", 10**18, what="the tile store of s")
    check_free_space(tmp_path / "not" / "yet", 1, what="it")
