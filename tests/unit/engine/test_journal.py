import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.faults import NO_ROOM, disk
from quadrat.core.errors import WriteError
from quadrat.engine.journal import Journal, write_journal

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def test_a_new_journal_is_empty_and_makes_its_folder_when_there_is_something_to_write(tmp_path):
    path = tmp_path / "deep" / "er" / "journal.jsonl"
    with Journal(path) as journal:
        assert journal.receipts == {}
        assert "x" not in journal
    assert not path.parent.exists()
    with Journal(path) as journal:
        journal.add("x", 1)
    assert path.read_bytes().count(b"\n") == 1


def test_journals_of_a_large_batch_hold_no_file_open_until_they_are_written_to(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    journals = [Journal(tmp_path / str(i) / "journal.jsonl") for i in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    for journal in journals:
        journal.add("x", 1)
        journal.close()
    assert len(os.listdir("/proc/self/fd")) == before


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=8), VALUES), max_size=6))
def test_what_was_added_is_there_after_opening_again(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    want = {}
    for key, receipt in entries:  # opened anew for each, as a restarted run would
        with Journal(path) as journal:
            assert journal.receipts == want
            journal.add(key, receipt)
            want[key] = receipt
            assert key in journal
    with Journal(path) as journal:
        assert journal.receipts == want
    assert (path.read_bytes() if entries else b"").count(b"\n") == len(entries)


def test_a_torn_last_line_is_forgotten_wherever_it_was_torn(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for key in ("a", "b", "c"):
            journal.add(key, {"bytes": 12, "text": "é\n"})
    content = path.read_bytes()
    whole = content.rindex(b"\n", 0, -1) + 1
    for end in range(whole, len(content)):
        path.write_bytes(content[:end])
        with Journal(path) as journal:
            assert set(journal.receipts) == {"a", "b"}, end
            journal.add("d", 1)
        with Journal(path) as journal:
            assert set(journal.receipts) == {"a", "b", "d"}, end


def test_zeros_that_a_power_cut_left_are_forgotten(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("a", 1)
    with path.open("ab") as stream:
        stream.write(b"\0" * 4096 + b"\n")
    with Journal(path) as journal:
        assert journal.receipts == {"a": 1}
        journal.add("b", 2)
    assert [json.loads(line)["key"] for line in path.read_bytes().splitlines()] == ["a", "b"]


@pytest.mark.parametrize(
    "line", [b"17\n", b"[]\n", b"null\n", b'{"key": "a"}\n', b'{"receipt": 1}\n', b"\xff\xfe\n"]
)
def test_a_line_that_is_no_receipt_ends_the_journal_instead_of_the_run(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("a", 1)
    with path.open("ab") as stream:
        stream.write(line)
    with Journal(path) as journal:
        assert journal.receipts == {"a": 1}


def test_each_receipt_is_written_and_synced_before_add_returns(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    synced = []
    sync = os.fsync

    def watched(descriptor):
        sync(descriptor)
        if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            folders.append(path.exists())
            return
        assert os.path.samestat(os.fstat(descriptor), path.stat())
        synced.append(path.read_bytes())

    folders = []
    monkeypatch.setattr(os, "fsync", watched)
    with Journal(path) as journal:
        journal.add("a", 1)
        assert folders == [True], "the name of a new journal is on the disk as well"
        journal.add("b", [2])
        assert len(synced) == 2
        assert synced[1] == path.read_bytes()
    lines = synced[-1].decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"key": "a", "receipt": 1},
        {"key": "b", "receipt": [2]},
    ]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_receipt_that_cannot_be_written_does_not_count_and_is_written_over(tmp_path, call):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("a", 1)
        with (
            disk(tmp_path, names=(call,), at=0, error=NO_ROOM),
            pytest.raises(WriteError, match=rf"{path}: cannot be written \(No space left"),
        ):
            journal.add("lost", "a" * 100)
        assert "lost" not in journal
        journal.add("b", 2)
    lines = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert lines == ["a", "b"]
    assert Journal(path).receipts == {"a": 1, "b": 2}


def test_a_journal_is_replaced_by_one_of_other_receipts_whole(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("a", 1)
        journal.add("b", 2)
    with disk(tmp_path, names=("write",), at=0, error=NO_ROOM), pytest.raises(WriteError):
        write_journal(path, {"b": 2})
    assert Journal(path).receipts == {"a": 1, "b": 2}
    with write_journal(path, {"b": 2}) as journal:
        journal.add("c", 3)
    assert Journal(path).receipts == {"b": 2, "c": 3}


def test_a_receipt_that_json_cannot_hold_leaves_no_trace(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("a", 1)
        with pytest.raises(TypeError):
            journal.add("b", object())
        assert "b" not in journal
    with Journal(path) as journal:
        assert journal.receipts == {"a": 1}
