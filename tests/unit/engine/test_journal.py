import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.faults import NO_ROOM, disk
from helpers.summaries import OBJECTS, SCORES
from quadrat.core.errors import WriteError
from quadrat.core.files import OutputFile
from quadrat.core.geometry import Box
from quadrat.engine import journal
from quadrat.engine.journal import (
    FORMAT,
    SYNC_RECEIPTS,
    Done,
    Journal,
    Key,
    PartReceipt,
    Planned,
    Sealed,
    Selected,
    StoreLaid,
    write_journal,
)
from quadrat.outputs.summary import AreaFigures, SlideFigures
from quadrat.store.shard import ShardReceipt

CELLS = st.tuples(st.integers(-3, 9), st.integers(0, 9))
COUNTS = st.integers(0, 2**53)
BOXES = st.tuples(COUNTS, COUNTS, st.integers(0, 9), st.integers(0, 9)).map(
    lambda b: Box(b[0], b[1], b[0] + b[2], b[1] + b[3])
)
KEYS = st.builds(
    Key,
    level=st.sampled_from(["tile", "predict", "result"]),
    fingerprint=st.text(max_size=8),
    step=st.text(max_size=8),
    shard=st.none() | CELLS,
)
AREA = AreaFigures(0.1 + 0.2, {"glass": 1e-9, "pen": 0.0}, ((0.0, 1.5, 2.25, 3.0),))
RECEIPTS = st.one_of(
    st.just(Done()),
    st.builds(Planned, shards=st.lists(CELLS, max_size=3).map(tuple)),
    st.builds(StoreLaid, shards=st.lists(CELLS, max_size=3).map(tuple), nbytes=COUNTS),
    st.builds(Sealed, shards=COUNTS),
    st.builds(
        ShardReceipt,
        cell=CELLS,
        nbytes=COUNTS,
        sha256=st.text(max_size=9),
        lost=st.lists(BOXES, max_size=2).map(tuple),
    ),
    st.builds(PartReceipt, cell=CELLS, objects=COUNTS),
    st.builds(Selected, objects=COUNTS),
    st.sampled_from([SlideFigures(AREA, OBJECTS), SlideFigures(AREA, SCORES)]),
)


def key(step, shard=None):
    return Key("tile", "0" * 16, step, shard)


A, B, C, D = (key(step) for step in "abcd")


def test_a_new_journal_is_empty_and_makes_its_folder_when_there_is_something_to_write(tmp_path):
    path = tmp_path / "deep" / "er" / "journal.jsonl"
    with Journal(path) as journal:
        assert journal.receipts == {}
        assert A not in journal
        assert not journal.foreign
    assert not path.parent.exists()
    with Journal(path) as journal:
        journal.add(A, Done())
    assert path.read_bytes().count(b"\n") == 2, "the format, and one receipt"


def test_journals_of_a_large_batch_hold_no_file_open_until_they_are_written_to(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    journals = [Journal(tmp_path / str(i) / "journal.jsonl") for i in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    for one in journals:
        one.add(A, Done())
        one.close()
    assert len(os.listdir("/proc/self/fd")) == before


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(KEYS, RECEIPTS), max_size=6))
def test_what_was_added_is_there_after_opening_again(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    want = {}
    for one, receipt in entries:  # opened anew for each, as a restarted run would
        with Journal(path) as journal:
            assert journal.receipts == want
            journal.add(one, receipt)
            want[one] = receipt
            assert one in journal
    with Journal(path) as journal:
        assert journal.receipts == want
        assert [type(r) for r in journal.receipts.values()] == [type(r) for r in want.values()]
    lines = path.read_bytes().count(b"\n") if entries else 0
    assert lines == (1 + len(entries) if entries else 0)
    again = write_journal(path, want)
    assert again.receipts == want


def test_figures_come_back_with_the_very_numbers_so_that_a_resumed_summary_has_the_same_bytes(
    tmp_path,
):
    figures = SlideFigures(AREA, OBJECTS)
    Journal(tmp_path / "j").add(A, figures)
    found = Journal(tmp_path / "j").receipts[A]
    assert repr(found) == repr(figures)
    assert isinstance(found.answer.seams.pitch_px, int), "and not 256.0"


def test_a_torn_last_line_is_forgotten_wherever_it_was_torn(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for one in (A, B, C):
            journal.add(one, ShardReceipt((0, 1), 12, "é\n"))
    content = path.read_bytes()
    whole = content.rindex(b"\n", 0, -1) + 1
    for end in range(whole, len(content)):
        path.write_bytes(content[:end])
        with Journal(path) as journal:
            assert set(journal.receipts) == {A, B}, end
            journal.add(D, Done())
        with Journal(path) as journal:
            assert set(journal.receipts) == {A, B, D}, end


def test_a_torn_first_line_is_an_empty_journal_and_not_another_versions(tmp_path):
    path = tmp_path / "journal.jsonl"
    for end in range(len(FORMAT)):
        path.write_bytes(FORMAT[:end])
        with Journal(path) as journal:
            assert not journal.foreign
            journal.add(A, Done())
        assert Journal(path).receipts == {A: Done()}


def test_zeros_that_a_power_cut_left_are_forgotten(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add(A, Done())
    with path.open("ab") as stream:
        stream.write(b"\0" * 4096 + b"\n")
    with Journal(path) as journal:
        assert journal.receipts == {A: Done()}
        journal.add(B, Sealed(2))
    assert Journal(path).receipts == {A: Done(), B: Sealed(2)}


@pytest.mark.parametrize(
    "line",
    [
        b"17\n",
        b"[]\n",
        b"null\n",
        b'{"kind": "Done"}\n',
        b'{"kind": ["Done"], "receipt": {}}\n',
        b'{"kind": "Unheard", "level": "tile", "fingerprint": "", "step": "b", "receipt": {}}\n',
        b'{"kind": "Sealed", "level": "tile", "fingerprint": "", "step": "b", "receipt": {}}\n',
        b'{"kind": "Done", "level": "attic", "fingerprint": "", "step": "b", "receipt": {}}\n',
        b"\xff\xfe\n",
    ],
)
def test_a_line_that_is_no_receipt_ends_the_journal_instead_of_the_run(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add(A, Done())
    with path.open("ab") as stream:
        stream.write(line)
    with Journal(path) as journal:
        assert journal.receipts == {A: Done()}


@pytest.mark.parametrize(
    "content",
    [
        b'{"key": "0123456789abcdef/plan", "receipt": {"shards": [[0, 0]]}}\n',
        FORMAT.replace(b"2", b"3"),
        b"\n",
    ],
)
def test_a_journal_of_another_version_is_told_apart_and_none_of_it_counts(tmp_path, content):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    journal = Journal(path)
    assert journal.foreign
    assert journal.receipts == {}


def test_receipts_are_forced_to_the_disk_together_and_all_when_the_journal_is_closed(
    tmp_path, monkeypatch
):
    path, synced = tmp_path / "journal.jsonl", []
    sync = OutputFile.sync
    monkeypatch.setattr(OutputFile, "sync", lambda file: (synced.append(1), sync(file)))
    monkeypatch.setattr(journal, "SYNC_S", 1e9)
    with Journal(path) as opened:
        for i in range(SYNC_RECEIPTS + 5):
            opened.add(key("b", (1, i)), PartReceipt((1, i), 7))
            assert path.read_bytes().count(b"\n") == i + 2, "each is written at once"
        assert len(synced) == 1
        monkeypatch.setattr(journal, "SYNC_S", 0.0)
        opened.add(A, Done())
        assert len(synced) == 2, "or when the first of them is old"
        monkeypatch.setattr(journal, "SYNC_S", 1e9)
        opened.add(C, Done())
    assert len(synced) == 3
    opened.close()
    assert len(synced) == 3, "there is nothing left to force"


def test_a_new_journal_and_each_receipt_are_on_the_disk_after_a_sync(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SYNC_S", -1.0)
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
    with Journal(path) as opened:
        opened.add(A, Done())
        assert folders == [True], "the name of a new journal is on the disk as well"
        opened.add(key("b", (1, 2)), PartReceipt((1, 2), 7))
        assert len(synced) == 2
        assert synced[1] == path.read_bytes()
    lines = synced[-1].splitlines(keepends=True)
    assert lines[0] == FORMAT
    assert json.loads(lines[2]) == {
        "level": "tile",
        "fingerprint": "0" * 16,
        "step": "b",
        "shard": [1, 2],
        "kind": "PartReceipt",
        "receipt": {"cell": [1, 2], "objects": 7},
    }


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("first", [True, False])
def test_a_receipt_that_cannot_be_written_does_not_count_and_is_written_over(
    tmp_path, monkeypatch, call, first
):
    monkeypatch.setattr(journal, "SYNC_S", -1.0)
    path = tmp_path / "journal.jsonl"
    with Journal(path) as opened:
        if not first:
            opened.add(A, Done())
        with (
            disk(tmp_path, names=(call,), at=0, error=NO_ROOM),
            pytest.raises(WriteError, match=rf"{tmp_path}.*: cannot be written \(No space left"),
        ):
            opened.add(C, ShardReceipt((0, 0), 1, "a" * 100))
        assert C not in opened
        opened.add(B, Sealed(2))
    want = {B: Sealed(2)} if first else {A: Done(), B: Sealed(2)}
    assert Journal(path).receipts == want
    assert path.read_bytes().count(b"\n") == 1 + len(want)


def test_a_journal_is_replaced_by_one_of_other_receipts_whole(tmp_path):
    path, both = tmp_path / "journal.jsonl", {A: Done(), B: Sealed(2)}
    with Journal(path) as journal:
        for one, receipt in both.items():
            journal.add(one, receipt)
    with disk(tmp_path, names=("write",), at=0, error=NO_ROOM), pytest.raises(WriteError):
        write_journal(path, {B: Sealed(2)})
    assert Journal(path).receipts == both
    with write_journal(path, {B: Sealed(2)}) as journal:
        journal.add(C, Done())
    assert Journal(path).receipts == {B: Sealed(2), C: Done()}
