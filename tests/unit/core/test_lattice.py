import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quadrat.core.errors import ConfigError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice, work_units

SOME = settings(deadline=None, derandomize=True, max_examples=100)
CELLS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), unique=True, max_size=60)


@st.composite
def lattices(draw):
    stride = draw(st.sampled_from([1, 2, 4, 8]))
    core = stride * draw(st.integers(1, 6))
    return Lattice(
        core=core,
        halo=stride * draw(st.integers(0, 6)),
        stride=stride,
        shard=core * draw(st.integers(1, 4)),
    )


@SOME
@given(lattices(), st.integers(1, 60), st.integers(1, 60))
def test_cores_cover_every_pixel_once_for_slides_of_any_size(lattice, height, width):
    slide = Box(0, 0, height, width)
    owners = np.zeros(slide.shape, int)
    for cell in slide.cells(lattice.core):
        box = lattice.core_box(cell)
        assert box.shape == (lattice.core, lattice.core)
        owners[box.intersect(slide).slices_in(slide)] += 1
    assert (owners == 1).all()


@SOME
@given(lattices(), st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_windows_add_the_halo_and_meet_the_network_in_one_phase(lattice, cell):
    core, window = lattice.core_box(cell), lattice.window_box(cell)
    assert window.shape == (lattice.window, lattice.window)
    assert window == core.pad(lattice.halo)
    assert window.row0 % lattice.stride == window.col0 % lattice.stride == 0
    assert lattice.window % lattice.stride == 0


@SOME
@given(lattices(), st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_a_core_lies_in_its_shard_and_in_no_other(lattice, cell):
    shard = lattice.shard_of(cell)
    assert lattice.shard_box(shard).contains(lattice.core_box(cell))
    for row in (-1, 0, 1):
        for col in (-1, 0, 1):
            other = lattice.shard_box((shard[0] + row, shard[1] + col))
            assert (row == col == 0) or other.intersect(lattice.core_box(cell)).empty


@SOME
@given(lattices(), CELLS, st.randoms(use_true_random=False))
def test_grouping_by_shard_keeps_every_core_once_in_raster_order_whatever_the_input_order(
    lattice, cells, random
):
    groups = lattice.by_shard(cells)
    assert list(groups) == sorted(groups)
    assert sorted(c for group in groups.values() for c in group) == sorted(cells)
    for shard, group in groups.items():
        assert group == sorted(group)
        assert {lattice.shard_of(c) for c in group} == {shard}
    random.shuffle(cells)
    assert list(lattice.by_shard(cells).items()) == list(groups.items())


@SOME
@given(CELLS, st.integers(1, 70))
def test_work_units_hold_every_shard_once_in_raster_order(shards, per_unit):
    units = work_units(shards, per_unit=per_unit)
    assert [s for unit in units for s in unit] == sorted(shards)
    assert all(len(unit) == per_unit for unit in units[:-1])
    assert all(0 < len(unit) <= per_unit for unit in units)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"core": 0}, "core"),
        ({"stride": 0}, "stride"),
        ({"shard": 0}, "shard"),
        ({"halo": -8}, "halo"),
        ({"core": 60}, "core"),
        ({"halo": 20}, "halo"),
        ({"shard": 96}, "shard"),
        ({"shard": 32}, "shard"),
    ],
)
def test_a_lattice_that_does_not_fit_is_refused_by_name(values, word):
    with pytest.raises(ConfigError, match=rf"lattice\.{word}"):
        Lattice(**({"core": 64, "halo": 16, "stride": 8, "shard": 128} | values))


def test_a_work_unit_needs_a_shard():
    with pytest.raises(ConfigError, match="shards_per_unit"):
        work_units([(0, 0)], per_unit=0)


@SOME
@given(lattices(), *[st.integers(-50, 50)] * 2, *[st.integers(1, 90)] * 2)
def test_the_cores_and_shards_of_a_box_are_those_that_it_meets(lattice, row, col, height, width):
    box = Box(row, col, row + height, col + width)
    for found, box_of, side in (
        (lattice.cores(box), lattice.core_box, lattice.core),
        (lattice.shards(box), lattice.shard_box, lattice.shard),
    ):
        assert found == sorted(found) == box.cells(side)
        assert all(not box_of(index).intersect(box).empty for index in found)
        assert sum(box_of(index).intersect(box).area for index in found) == box.area
