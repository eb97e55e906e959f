"""A log that only grows: read back exactly, cut where it is not vouched for, refused where it is
not what was written."""

import math

import pytest

from helpers.faults import NO_ROOM, disk
from quadrat.core.errors import WriteError
from quadrat.training.log import Extent, Log

ROWS = [
    {"step": step, "loss": 1 / (step + 3), "part": math.pi * 10**step, "tiny": 5e-324}
    for step in range(6)
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.csv"


def test_rows_are_read_back_exactly_in_however_many_parts_they_were_written(path):
    log = Log(path)
    for first, last in ((0, 1), (1, 1), (1, 4), (4, 6)):
        log.append(ROWS[first:last])
    reader = Log(path)
    assert reader.read(log.extent) == ROWS
    assert reader.extent == log.extent
    assert [type(value) for value in reader.read(log.extent)[0].values()] == [int, *[float] * 3]
    assert path.read_text().splitlines()[0] == "step,loss,part,tiny"


def test_what_was_appended_after_the_extent_is_cut_off_by_the_next_writer(path):
    log = Log(path)
    log.append(ROWS[:3])
    extent = log.extent
    log.append([ROWS[5]])  # of a process that died
    later = Log(path)
    assert later.read(extent) == ROWS[:3]
    later.append(ROWS[3:])
    assert Log(path).read(later.extent) == ROWS


def test_a_new_log_forgets_an_old_file(path):
    Log(path).append(ROWS)
    log = Log(path)
    log.append(ROWS[:1])
    assert Log(path).read(log.extent) == ROWS[:1]


@pytest.mark.parametrize("spoil", [lambda c: c[:-1], lambda c: c.replace(b"0.33", b"0.34")])
def test_a_changed_file_is_no_log(spoil, path):
    log = Log(path)
    log.append(ROWS)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"log\.csv is not the file that was written"):
        Log(path).read(log.extent)


def test_rows_of_other_columns_are_refused_and_nothing_is_written(path):
    log = Log(path)
    log.append(ROWS[:2])
    extent = log.extent
    with pytest.raises(ValueError, match="other"):
        log.append([{"step": 2, "other": 1.0}])
    assert log.extent == extent
    assert path.stat().st_size == extent.bytes


def test_after_a_full_disk_the_rows_can_be_written_again(path):
    log = Log(path)
    log.append(ROWS[:2])
    with disk(path.parent, names=("write",), at=0, error=NO_ROOM), pytest.raises(WriteError):
        log.append(ROWS[2:])
    assert path.stat().st_size > log.extent.bytes, "half of them were written"
    log.append(ROWS[2:])
    assert Log(path).read(log.extent) == ROWS


def test_an_empty_log_has_no_file(path):
    log = Log(path)
    log.append([])
    assert log.extent == Extent(0, log.extent.sha256)
    assert not path.exists()
