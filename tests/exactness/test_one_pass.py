"""Tiled and stitched, a slide gives what one forward pass over the whole of it gives: 0
differences, with an oracle network.

The reference uses no lattice, no windows and no shards: see ``oracle.one_pass``.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers import fields, oracle, planted
from helpers.schedules import (
    AT_ONCE,
    Answer,
    Case,
    MemoryMaps,
    differences,
    from_one_pass,
    inferred,
    stitched,
)
from quadrat.models.package import exactness
from quadrat.tasks.detection import CELL

DENSE = ("semantic", "detection", "instance")
MANY = settings(deadline=None, derandomize=True, max_examples=200)
THIRD = settings(MANY, max_examples=70)  # of each of three tasks
EDGES = st.tuples(st.integers(-1, 1), st.integers(-1, 1))
SEEDS = st.integers(0, 2**32 - 1)
SMALL = [layout for layout in planted.LAYOUTS if layout.shard == 16]
LAYOUTS = [*SMALL, *planted.LAYOUTS, *SMALL]  # the small ones more often
MARGINS = st.sampled_from([1, 5, 64])
dense = pytest.mark.parametrize("task", DENSE)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def no_difference_from_one_pass(case, margin):
    with planted.first_margin(margin):
        view = inferred(case, AT_ONCE)
        answer = stitched(view)
        whole, reference = from_one_pass(case)
    assert difference_of_predictions(view, whole) == []
    assert differences(answer, reference) == []
    if answer.image is not None and answer.image.dtype == np.uint32:
        assert (
            np.bincount(answer.image.ravel(), minlength=len(answer) + 1)[1:].tolist()
            == answer.table.area_px.tolist()
        )
    return answer


def difference_of_predictions(view, whole):
    """Map pixels, or candidates, in which the windows' predictions differ from those of the whole;
    [] where none do."""
    if isinstance(view.predictions, MemoryMaps):
        return np.argwhere(view.whole != whole.whole)[:5].tolist()
    found = sorted(row for shard in view.shards for row in rows_of(view.predictions.read(shard)))
    want = sorted(rows_of(whole.predictions.read((0, 0))))
    height, width = view.frame.box.shape
    assert [row for row in found if row[0] >= height or row[1] >= width] == []
    return (
        sorted(set(found) ^ set(want))
        if len(set(found)) == len(found)
        else ["a candidate was emitted twice"]
    )


def rows_of(found):
    return [
        (*cell, class_id, *box, score)
        for cell, class_id, box, score in zip(
            found.cell.tolist(),
            found.class_id.tolist(),
            found.box.tolist(),
            found.score.tolist(),
            strict=True,
        )
    ]


@dense
@MANY
@given(
    st.sampled_from(LAYOUTS), st.sampled_from(planted.KINDS), SEEDS, EDGES, st.booleans(), MARGINS
)
def test_a_slide_of_16_shards_gives_what_one_pass_gives(
    task, layout, kind, seed, edge, plateaus, margin
):
    case = planted.case_for(
        task, layout, kind, seed, shape=planted.shape_of(layout, edge), plateaus=plateaus
    )
    no_difference_from_one_pass(case, margin)


@dense
@THIRD
@given(st.sampled_from(planted.LAYOUTS), SEEDS, st.integers(1, 50), st.integers(1, 50), MARGINS)
def test_a_slide_smaller_than_a_window_or_hardly_larger_gives_what_one_pass_gives(
    task, layout, seed, height, width, margin
):
    rng = np.random.default_rng(seed)
    labels = fields.ellipses(rng, (height, width), n=4, radius=(1, 12))
    case = planted.case_of(task, layout, oracle.planted_for(task, labels, rng))
    no_difference_from_one_pass(case, margin)


@dense
@THIRD
@given(SEEDS, st.sampled_from(SMALL), st.sampled_from([2, 5, 256]), MARGINS)
def test_a_slide_of_nothing_but_chance_gives_what_one_pass_gives(
    task, seed, layout, levels, margin
):
    rng = np.random.default_rng(seed)
    shape = planted.shape_of(layout, (1, -1))
    values = np.floor(np.linspace(0, 255, levels)).astype(np.uint8)
    if task == "semantic":
        values = np.minimum(values, oracle.CLASSES + 1)
    case = planted.case_of(task, layout, values[rng.integers(0, levels, (3, *shape))])
    no_difference_from_one_pass(case, margin)


@MANY
@given(SEEDS, st.sampled_from(SMALL), EDGES, MARGINS)
def test_objects_that_lie_apart_are_found_as_planted_pixel_by_pixel(seed, layout, edge, margin):
    rng = np.random.default_rng(seed)
    shape = planted.shape_of(layout, edge)
    labels = away_from_the_border(
        fields.disjoint_ellipses(rng, shape, n=20, radius=(2, layout.core / 2)), layout
    )
    bytes_ = oracle.planted_for("instance", labels, rng)
    bytes_[1] = np.where(labels > 0, 255, 0)  # one seed an object
    with planted.first_margin(margin):
        answer = stitched(inferred(planted.case_of("instance", layout, bytes_), AT_ONCE))
    assert len(answer) == labels.max(initial=0)
    assert np.array_equal(fields.connected(answer.image.astype(np.int32)), labels)
    code = np.zeros(len(answer) + 1, int)
    code[answer.image] = bytes_[2]
    assert (answer.table.class_id == code[1:] - 1).all()


@MANY
@given(SEEDS, st.sampled_from(SMALL), EDGES)
def test_regions_are_those_that_scipy_labels_on_the_planted_map(seed, layout, edge):
    rng = np.random.default_rng(seed)
    shape = planted.shape_of(layout, edge)
    labels = away_from_the_border(
        fields.ellipses(rng, shape, n=20, radius=(2, layout.core)), layout
    )
    bytes_ = oracle.planted_for("semantic", labels, rng, plateaus=True)
    answer = stitched(inferred(planted.case_of("semantic", layout, bytes_), AT_ONCE))
    assert np.array_equal(answer.image, bytes_[0])
    want = []
    for class_id in range(oracle.CLASSES):
        parts, count = ndimage.label(bytes_[0] == class_id + 1)
        area = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        first = np.unique(parts, return_index=True)[1][-count:] if count else []
        want += [
            (*divmod(int(at), shape[1]), class_id, int(size))
            for at, size in zip(first, area, strict=True)
        ]
    found = zip(
        answer.table.anchor.tolist(),
        answer.table.class_id.tolist(),
        answer.table.area_px.tolist(),
        strict=True,
    )
    assert sorted((*anchor, class_id, int(area)) for anchor, class_id, area in found) == sorted(
        want
    )


def away_from_the_border(labels, layout):
    """Without the objects that come so near the slide's border that what is planted of them would
    be lost."""
    inside = np.zeros(labels.shape, bool)
    room = layout.halo + layout.stride
    inside[room:-room, room:-room] = True
    return fields.connected(np.where(np.isin(labels, np.unique(labels[~inside])), 0, labels))


@dense
@THIRD
@given(
    st.sampled_from(SMALL),
    st.sampled_from(planted.KINDS),
    SEEDS,
    st.integers(0, 5),
    st.integers(0, 5),
    MARGINS,
)
def test_a_shift_by_the_stride_shifts_the_answer_and_changes_nothing_else(
    task, layout, kind, seed, down, right, margin
):
    rng = np.random.default_rng(seed)
    bytes_ = oracle.planted_for(task, planted.FIELDS[kind](layout, (67, 62), rng), rng)
    case = planted.case_of(task, layout, bytes_)
    step = np.lcm(layout.stride, 4) * np.array([down, right])
    rgb = np.pad(case.rgb, ((step[0], 0), (step[1], 0), (0, 0)), constant_values=255)
    with planted.first_margin(margin):
        here = stitched(inferred(case, AT_ONCE))
        there = stitched(inferred(Case(rgb, case.model, case.spec), AT_ONCE))
    assert placeless(there, step) == placeless(here, np.zeros(2, int))


def placeless(answer: Answer, step):
    """Objects as sorted tuples, places taken back by ``step``; ids left out, for they follow the
    shards."""
    table, polygons = answer.table, answer.polygons
    rings = [
        polygons.ring_starts[a : b + 1]
        for a, b in zip(polygons.polygon_starts, polygons.polygon_starts[1:], strict=False)
    ]
    outlines = [(polygons.xy[r[0] : r[-1]] - step[::-1]).tobytes() for r in rings]
    values = zip(
        table.class_id.tolist(),
        table.score.tolist(),
        table.area_px.tolist(),
        table.perimeter_px.tolist(),
        strict=True,
    )
    places = (table.anchor - step).tolist(), (table.bbox - np.tile(step, 2)).tolist()
    return sorted(zip(*places, values, outlines, table.flags.tolist(), strict=True))


@dense
@pytest.mark.parametrize("layout", planted.LAYOUTS)
def test_the_oracle_reaches_as_far_as_it_says_and_the_halo_holds_it_just(task, layout):
    case = planted.case_for(task, layout, "empty", 0, shape=(16, 16))
    measured = exactness(case.model, case.spec)["receptive_radius_px"]
    assert case.model.radius == layout.halo
    # of a head cell the probe states the reach from its far side: up to a cell more than the pixels
    # themselves have
    assert (
        measured == layout.halo
        if task != "detection"
        else layout.halo <= measured < layout.halo + CELL
    )


@dense
def test_every_kind_of_slide_has_something_to_find_on_its_seams(task):
    layout = planted.LAYOUTS[0]
    found = {
        k: planted.case_for(
            task, layout, k, 1, shape=planted.shape_of(layout, (1, -1)), plateaus=True
        )
        for k in planted.KINDS
    }
    counts = {kind: len(no_difference_from_one_pass(case, 5)) for kind, case in found.items()}
    assert [kind for kind, count in counts.items() if count == 0 and kind != "empty"] == []
    assert counts["discs of the halo"] >= 9
    assert counts["corner diagonals"] >= 9
