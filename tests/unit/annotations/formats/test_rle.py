"""Run-length masks as pycocotools writes them."""

import numpy as np
import pycocotools.mask as coco_mask
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quadrat.annotations.formats.rle import compress, decompress, mask_of, runs_of_mask


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=17)))
def test_run_lengths_are_those_of_pycocotools(mask):
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    runs = runs_of_mask(mask)
    assert decompress(theirs).tolist() == runs.tolist()
    assert compress(runs) == theirs
    part, (row, col) = mask_of(runs, mask.shape)
    whole = np.zeros_like(mask)
    whole[row : row + part.shape[0], col : col + part.shape[1]] = part
    np.testing.assert_array_equal(whole, mask)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12))
def test_compressed_runs_are_the_runs_again(runs):
    assert decompress(compress(runs)).tolist() == runs
