"""Order, work units, workers, retries and work done twice leave every byte of the answer as it is,
for every task.

Each schedule infers anew, into nothing: in memory here for many small slides, with files as a run
has them for fewer (and for many more when slow tests are asked for).
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import oracle, planted
from helpers.schedules import AT_ONCE, IN_ORDER, OnDisk, Schedule, differences, inferred, stitched
from quadrat.core.lattice import work_units

MANY = settings(deadline=None, derandomize=True, max_examples=200)
FEW = settings(MANY, max_examples=3)
SCHEDULES = st.builds(
    Schedule, per_unit=st.integers(1, 9), workers=st.integers(1, 8), seed=st.integers(0, 2**16)
)
SMALL = [layout for layout in planted.LAYOUTS if layout.shard == 16]
MEMORY = Path("/dev/shm")
every_task = pytest.mark.parametrize("task", oracle.TASKS)
slides = (
    st.sampled_from(SMALL),
    st.sampled_from(planted.KINDS),
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@every_task
@MANY
@given(*slides[:3], st.tuples(st.integers(-1, 0), st.integers(-1, 0)), SCHEDULES, st.booleans())
def test_any_schedule_gives_the_bytes_of_all_work_done_at_once(
    task, layout, kind, seed, edge, schedule, normed
):
    shape = planted.shape_of(layout, edge)
    case = planted.case_for(task, layout, kind, seed, shape=shape, plateaus=True, normed=normed)
    with planted.first_margin(5):
        want, found = (
            stitched(inferred(case, AT_ONCE)),
            stitched(inferred(case, schedule), schedule),
        )
    assert differences(found, want) == []


def two_schedules_on_disk(task, layout, kind, seed, edge, schedule, plateaus):
    case = planted.case_for(
        task, layout, kind, seed, shape=planted.shape_of(layout, edge), plateaus=plateaus
    )
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        planted.first_margin(5),
    ):
        disk = OnDisk(Path(folder), case)
        want, found = disk.results("in order", IN_ORDER), disk.results("otherwise", schedule)
    table = "classes.csv" if task == "classification" else "objects.geojson"
    assert {table, "figures.json"} <= want.keys()
    assert (
        sorted(path for path in want.keys() | found.keys() if want.get(path) != found.get(path))
        == []
    )


@every_task
@FEW
@given(*slides, SCHEDULES, st.booleans())
def test_two_schedules_write_the_same_files(task, layout, kind, seed, edge, schedule, plateaus):
    two_schedules_on_disk(task, layout, kind, seed, edge, schedule, plateaus)


@pytest.mark.slow
@every_task
@MANY
@given(*slides, SCHEDULES, st.booleans())
def test_two_schedules_write_the_same_files_two_hundred_times(
    task, layout, kind, seed, edge, schedule, plateaus
):
    two_schedules_on_disk(task, layout, kind, seed, edge, schedule, plateaus)


@given(SCHEDULES, st.integers(1, 40))
@MANY
def test_a_schedule_leaves_out_no_shard(schedule, n):
    shards = [divmod(i, 6) for i in range(n)]
    assert {shard for unit in schedule.units(shards) for shard in unit} == set(shards)


def test_schedules_differ_in_units_and_order_and_do_some_work_again():
    shards = [divmod(i, 6) for i in range(36)]
    made = [
        Schedule(per_unit=2, workers=workers, seed=seed).units(shards)
        for workers in (1, 4)
        for seed in range(4)
    ]
    planned = work_units(shards, per_unit=2)
    assert len({str(units) for units in made}) == len(made)
    assert all(units != planned for units in made)
    assert all(len(units) > len(planned) for units in made)
    assert any(len(unit) == 1 for units in made for unit in units)  # a unit that failed half-way
    assert Schedule(per_unit=2).units(shards) == planned


def test_a_network_that_sees_its_whole_window_has_something_to_say():
    layout = planted.LAYOUTS[0]
    case = planted.case_for(
        "instance",
        layout,
        "crowded ellipses",
        3,
        shape=planted.shape_of(layout, (0, 0)),
        normed=True,
    )
    view = inferred(case)
    assert len(np.unique(view.whole)) > 20
    assert len(stitched(view)) > 10
