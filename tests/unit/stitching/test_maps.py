import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quadrat.stitching.maps import argmax_classes, crop_core, quantise

SOME = settings(deadline=None, derandomize=True, max_examples=100)


def test_every_level_survives_a_round_trip_and_halves_round_up():
    levels = torch.arange(256, dtype=torch.float64)
    assert quantise(levels / 255).tolist() == list(range(256))
    assert quantise((levels[:-1] + 0.501) / 255).tolist() == list(range(1, 256))
    assert quantise((levels[:-1] + 0.499) / 255).tolist() == list(range(255))
    assert quantise(torch.tensor([0.5])).tolist() == [128]


@SOME
@given(arrays(np.float32, (3, 5), elements=st.floats(-2, 3, width=32)))
def test_quantised_values_are_clipped_and_never_more_than_half_a_level_off(values):
    found = quantise(torch.from_numpy(values))
    assert found.dtype == torch.uint8
    assert found.shape == values.shape
    assert (
        np.abs(found.numpy() / 255 - np.clip(values.astype(np.float64), 0, 1)).max()
        <= 0.5 / 255 + 1e-6
    )


def test_quantising_accepts_gradients_halves_and_views():
    values = torch.rand(2, 3, 4, 4, requires_grad=True)
    whole = quantise(values).numpy()
    assert np.array_equal(quantise(values.permute(0, 2, 3, 1)).numpy(), whole.transpose(0, 2, 3, 1))
    assert np.array_equal(quantise(values.detach().double()).numpy(), whole)
    assert np.abs(quantise(values.detach().bfloat16()).numpy().astype(int) - whole).max() <= 1


@pytest.mark.parametrize("halo", [0, 1, 8])
def test_cropping_takes_the_halo_off_every_side_and_leaves_leading_axes_alone(halo):
    side = 6 + 2 * halo
    maps = np.arange(2 * 3 * side * side).astype(np.uint8).reshape(2, 3, side, side)
    core = crop_core(torch.from_numpy(maps), halo=halo).numpy()
    assert core.shape == (2, 3, 6, 6)
    assert np.array_equal(core, maps[:, :, halo : halo + 6, halo : halo + 6])
    assert core.flags.c_contiguous


@SOME
@given(arrays(np.uint8, (4, 6, 5), elements=st.integers(0, 3)))
def test_the_highest_score_decides_and_the_lowest_class_wins_ties(maps):
    found = argmax_classes(maps)
    assert found.dtype == np.uint8
    for (row, col), value in np.ndenumerate(found):
        scores = maps[:, row, col].tolist()
        assert value == scores.index(max(scores))
