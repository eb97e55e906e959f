"""The two mergers alone: components of chunks are scipy's, and one suppression of all shards is the
sequential definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from helpers import fields, planted
from helpers.schedules import MemoryView, stitched
from quadrat.core.objects import Frame
from quadrat.core.predictions import Candidates
from quadrat.stitching import components
from quadrat.tasks.detection import CELL

MANY = settings(deadline=None, derandomize=True, max_examples=200)
SIDES = st.integers(1, 25)
MAPS = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 2)
)


def merged_labels(classes, side):
    """Components of a class map, labelled chunk by chunk by scipy and joined by what is shipped; 0
    is background."""
    labels, strips, first, total = np.zeros(classes.shape, np.int64), {}, {}, 0
    for row0, col0, row1, col1 in fields.squares(classes.shape, side):
        chunk = classes[row0:row1, col0:col1]
        own = np.zeros(chunk.shape, np.int64)
        for value in np.unique(chunk[chunk > 0]):
            parts, _ = ndimage.label(chunk == value)
            own[parts > 0] = parts[parts > 0] + own.max()
        both = np.stack([own, chunk.astype(np.int64)], axis=-1)
        shard = row0 // side, col0 // side
        strips[shard] = {
            "top": both[0],
            "bottom": both[-1],
            "left": both[:, 0],
            "right": both[:, -1],
        }
        first[shard] = total
        labels[row0:row1, col0:col1] = np.where(own > 0, own + total, 0)
        total += int(own.max())
    root = components.union_find(total, components.face_pairs(strips, first))
    return np.concatenate([[0], root + 1])[labels]


def same_partition(labels, classes):
    """Whether the labels part each class just as scipy does."""
    for value in np.unique(classes):
        mine = labels[classes == value]
        if value == 0:
            assert not mine.any()
            continue
        theirs, count = ndimage.label(classes == value)
        pairs = np.unique(np.stack([mine, theirs[classes == value]]), axis=1)
        assert pairs.shape[1] == count == len(np.unique(mine)), (
            f"class {value}: {pairs.shape[1]} pairs, scipy {count}"
        )


@MANY
@given(MAPS, SIDES)
def test_components_of_chunks_are_those_of_scipy(classes, side):
    same_partition(merged_labels(classes, side), classes)


@MANY
@given(st.sampled_from(planted.KINDS), st.integers(0, 2**32 - 1), st.sampled_from([8, 16, 21]))
def test_components_of_objects_on_seams_are_those_of_scipy(kind, seed, side):
    layout = planted.Layout(side - side % 8, side - side % 8, 8, 1)
    labels = planted.FIELDS[kind](layout, (65, 63), np.random.default_rng(seed))
    code = np.concatenate([[0], fields.random_classes(labels, 2, seed % 1000) + 1]).astype(
        np.uint8
    )[labels]
    same_partition(merged_labels(code, side), code)


def scattered(rng, shape, *, per_object, n, plateaus):
    """Candidates of ``n`` objects, several cells each with boxes a little off, longer and shorter
    than shards."""
    cells = np.unique(rng.integers(0, np.array(shape) // CELL, (n * per_object, 2)), axis=0) * CELL
    middle = (cells + CELL // 2)[:, ::-1] * 16
    half = rng.integers(8, int(rng.choice([100, 900])), (len(cells), 2))
    scores = (
        rng.choice([40000, 50000], len(cells))
        if plateaus
        else rng.integers(20000, 65536, len(cells))
    )
    return Candidates(
        box=np.concatenate([middle - half, middle + half], axis=1).astype(np.int32),
        score=scores.astype(np.uint16),
        class_id=rng.integers(0, 3, len(cells)).astype(np.uint8),
        cell=cells.astype(np.int32),
    )


def sequential(found, *, thousandths, class_aware):
    """The definition in plain Python: best first, ties by row, column, class; kept if no better
    kept box conflicts."""
    boxes, classes = found.box.astype(int).tolist(), found.class_id.tolist()
    kept = []
    for i in np.lexsort(
        (found.class_id, found.cell[:, 1], found.cell[:, 0], -found.score.astype(int))
    ).tolist():
        x0, y0, x1, y1 = boxes[i]
        for j in kept:
            a0, b0, a1, b1 = boxes[j]
            inter = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
            union = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - inter
            if (not class_aware or classes[i] == classes[j]) and inter * 1000 > thousandths * union:
                break
        else:
            kept.append(i)
    return kept


@MANY
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 25),
    st.sampled_from([16, 32, 64]),
    st.booleans(),
    st.booleans(),
)
def test_one_suppression_over_all_shards_is_the_sequential_one(
    seed, n, shard, class_aware, plateaus
):
    rng = np.random.default_rng(seed)
    frame = Frame(height=130, width=127, mpp=0.5, scale_row=1.0, scale_col=1.0)
    found = scattered(rng, frame.box.shape, per_object=5, n=n, plateaus=plateaus)
    case = planted.case_for("detection", planted.Layout(16, shard, 4, 2), "empty", 0, shape=(8, 8))
    spec = case.spec
    spec.thresholds.update({"score": 0.25, "iou": 0.3, "class_aware": float(class_aware)})
    stored = {}
    for cell in frame.box.cells(16):
        inside = (found.cell // 16 == np.array(cell)).all(axis=1)
        stored.setdefault(spec.lattice.shard_of(cell), {})[cell] = found.take(
            rng.permutation(np.flatnonzero(inside))
        )
    table = stitched(MemoryView(spec, frame, stored)).table
    kept = sequential(found.take(found.score >= 16384), thousandths=300, class_aware=class_aware)
    want = found.take(found.score >= 16384).take(np.array(kept, int))
    expected = zip(
        want.cell.tolist(),
        want.class_id.tolist(),
        (want.box[:, [1, 0, 3, 2]] / 16).tolist(),
        strict=True,
    )
    got = zip(table.anchor.tolist(), table.class_id.tolist(), table.bbox.tolist(), strict=True)
    assert sorted(got) == sorted(expected)


def test_the_scattered_candidates_do_conflict_over_shards():
    rng = np.random.default_rng(1)
    found = scattered(rng, (130, 127), per_object=5, n=25, plateaus=True)
    whole = sequential(found, thousandths=300, class_aware=False)
    apart = [i for shard in np.ndindex(9, 8) for i in within(found, np.array(shard))]
    assert len(whole) < len(found)
    assert sorted(whole) != sorted(apart)


def within(found, shard):
    index = np.flatnonzero((found.cell // 16 == shard).all(axis=1))
    return index[sequential(found.take(index), thousandths=300, class_aware=False)].tolist()


@pytest.mark.parametrize("side", [1, 4, 8])
def test_squares_that_meet_at_corners_only_stay_apart_in_any_chunks(side):
    board = (fields.checkerboard((32, 32), side=4) > 0).astype(np.uint8)
    assert len(np.unique(merged_labels(board, side))) - 1 == 32
