import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from quadrat.stitching.components import face_pairs, union_find

SOME = settings(deadline=None, derandomize=True, max_examples=150)


def labelled_in_chunks(classes, side):
    """Label each chunk alone, then join over faces: the label image of the whole."""
    strips, first, pieces, total = {}, {}, {}, 0
    for row in range(0, classes.shape[0], side):
        for col in range(0, classes.shape[1], side):
            part = classes[row : row + side, col : col + side]
            labels, count = np.zeros(part.shape, np.int64), 0
            for value in np.unique(part[part > 0]):
                found, n = ndimage.label(part == value)
                labels[found > 0] = found[found > 0] + count
                count += n
            both = np.stack([labels, part.astype(np.int64)], axis=-1)
            cell = (row // side, col // side)
            strips[cell] = {
                "top": both[0],
                "bottom": both[-1],
                "left": both[:, 0],
                "right": both[:, -1],
            }
            first[cell], pieces[cell] = total, labels
            total += count
    root = union_find(total, face_pairs(strips, first))
    out = np.zeros(classes.shape, np.int64)
    for (row, col), labels in pieces.items():
        where = np.s_[
            row * side : row * side + labels.shape[0], col * side : col * side + labels.shape[1]
        ]
        global_label = np.concatenate(
            [[0], root[first[(row, col)] : first[(row, col)] + labels.max(initial=0)] + 1]
        )
        out[where] = global_label[labels]
    return out


def same_partition(a, b):
    """Labels agree up to their names."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@SOME
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 17), st.integers(1, 17)), elements=st.integers(0, 1)),
    st.integers(1, 18),
)
def test_chunks_of_any_size_give_the_components_of_scipy(mask, side):
    found = labelled_in_chunks(mask, side)
    want, count = ndimage.label(mask)
    assert same_partition(found, want)
    assert len(np.unique(found[found > 0])) == count


@SOME
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)),
    st.integers(1, 13),
)
def test_touching_classes_stay_apart_in_chunks_of_any_size(classes, side):
    want, count = np.zeros(classes.shape, np.int64), 0
    for value in (1, 2, 3):
        found, n = ndimage.label(classes == value)
        want[found > 0] = found[found > 0] + count
        count += n
    assert same_partition(labelled_in_chunks(classes, side), want)


def test_snakes_and_combs_through_many_chunks_are_one_component():
    comb = np.ones((41, 41), np.uint8)
    comb[:-1, 1::2] = 0
    snake = np.ones((41, 41), np.uint8)
    snake[1::4, :-1] = 0
    snake[3::4, 1:] = 0
    for mask in (comb, snake, np.ones((41, 41), np.uint8)):
        for side in (1, 4, 7, 20):
            assert len(np.unique(labelled_in_chunks(mask, side)[mask > 0])) == 1


@SOME
@given(st.integers(0, 40), st.data())
def test_union_find_gives_the_least_member_whatever_the_order_of_the_pairs(n, data):
    member = st.integers(0, max(0, n - 1))
    pairs = data.draw(st.lists(st.tuples(member, member), max_size=60 if n else 0))
    array = np.array(pairs, np.int64).reshape(-1, 2)
    root = union_find(n, array)
    graph = (
        sparse.coo_matrix((np.ones(len(array)), (array[:, 0], array[:, 1])), shape=(n, n))
        if n
        else None
    )
    component = connected_components(graph, directed=False)[1] if n else np.zeros(0, int)
    want = [int(np.flatnonzero(component == c)[0]) for c in component]
    assert root.tolist() == want
    shuffled = array[data.draw(st.permutations(range(len(array))))] if len(array) else array
    assert union_find(n, shuffled[:, ::-1].copy()).tolist() == want


def test_a_missing_neighbour_joins_nothing():
    strip = np.array([[1, 1]] * 4, np.int64)
    one = dict.fromkeys(("top", "bottom", "left", "right"), strip)
    assert (
        face_pairs(
            {(0, 0): one, (0, 2): one, (2, 0): one, (1, 1): one},
            {(0, 0): 0, (0, 2): 1, (2, 0): 2, (1, 1): 3},
        ).size
        == 0
    )
    assert face_pairs({}, {}).shape == (0, 2)
