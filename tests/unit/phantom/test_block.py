"""Blocks can be made without the others, and fit together."""

from typing import Any

import numpy as np
import pytest

from quadrat.phantom import REGION_NAMES, PhantomSpec
from quadrat.phantom.block import BLOCK_PX, make_layout, make_picture
from quadrat.phantom.field import make_plan
from quadrat.phantom.render import make_palette

SPEC = PhantomSpec(name="a", width=2304, height=2051, seed=5, dominant="tumour")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dominant", REGION_NAMES)
def test_the_central_corner_of_any_phantom_has_a_nucleus_across_it(
    seed: int, dominant: Any
) -> None:
    plan = make_plan(PhantomSpec(name="s", width=2048, height=2048, seed=seed, dominant=dominant))
    labels = make_layout(plan, 0, 0).labels
    assert labels[-1, -1] > 0


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 0)])
def test_a_block_made_alone_equals_the_file(phantom: Any, place: tuple[int, int]) -> None:
    plan, look = make_plan(phantom.spec), make_palette(phantom.spec.seed)
    layout = make_layout(plan, *place)
    y, x = place[0] * BLOCK_PX, place[1] * BLOCK_PX
    in_file = phantom.labels[y : y + BLOCK_PX, x : x + BLOCK_PX]
    pairs = np.unique(np.stack([layout.labels.ravel(), in_file.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1], (
        "one index, one id"
    )
    own = [int(file_id) for index, file_id in pairs.T if index - 1 in set(layout.owned.tolist())]
    assert own == list(range(own[0], own[0] + len(own))) if own else True
    picture = make_picture(plan, look, layout, *place).astype(np.float64)
    assert np.abs(picture - phantom.rgb[y : y + BLOCK_PX, x : x + BLOCK_PX]).mean() < 5.0, (
        "JPEG noise only"
    )


def test_neighbouring_blocks_paint_their_common_nuclei_alike() -> None:
    plan = make_plan(SPEC)
    left, right = make_layout(plan, 0, 0), make_layout(plan, 0, 1)
    shift = right.x0 - left.x0
    rows = min(left.wide_labels.shape[0], right.wide_labels.shape[0])
    middle = BLOCK_PX - right.x0
    a = left.wide_labels[:rows, shift : shift + 2 * middle][:, middle - 4 : middle + 4]
    b = right.wide_labels[:rows, : 2 * middle][:, middle - 4 : middle + 4]
    keys_a = np.where(a > 0, left.table["key"][a - 1], 0)
    keys_b = np.where(b > 0, right.table["key"][b - 1], 0)
    np.testing.assert_array_equal(keys_a[:BLOCK_PX], keys_b[:BLOCK_PX])
