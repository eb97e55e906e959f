import numpy as np
import pytest
import torch

from helpers import foreign_maps as fm
from quadrat.core.errors import ConfigError
from quadrat.models.decoders import DECODERS
from quadrat.models.decoders.cellpose import UNIT, borders, density, follow
from quadrat.models.inference import is_finite

CELLPOSE = DECODERS["cellpose"]


def bilinear(flow, row, col):
    """The flow (2, h, w) at a place, by the definition."""
    r, c = int(row), int(col)
    y, x = row - r, col - c
    r1, c1 = min(r + 1, flow.shape[1] - 1), min(c + 1, flow.shape[2] - 1)
    return (1 - y) * ((1 - x) * flow[:, r, c] + x * flow[:, r, c1]) + y * (
        (1 - x) * flow[:, r1, c] + x * flow[:, r1, c1]
    )


def test_pixels_follow_the_flow_by_bilinear_interpolation():
    rng = np.random.default_rng(0)
    flow = rng.uniform(-1, 1, (2, 12, 15))
    fixed = torch.from_numpy(np.round(flow * UNIT)).to(torch.int32)[None]
    ends = follow(fixed, torch.ones(1, 12, 15, dtype=torch.bool), steps=3)[0].numpy() / UNIT
    for r, c in ((0, 0), (5, 7), (11, 14), (3, 9)):
        at = np.array([r, c], float)
        for _ in range(3):
            at = np.clip(at + bilinear(flow, *at), 0, (11, 14))
        assert np.abs(ends[:, r, c] - at).max() < 0.03


def test_pixels_outside_stay_and_send_nothing():
    flow = torch.full((1, 2, 6, 8), UNIT, dtype=torch.int32)
    inside = torch.zeros(1, 6, 8, dtype=torch.bool)
    inside[0, 1, 1:4] = True
    ends = follow(flow, inside, steps=2)
    assert (ends[0, :, 5, 5] // UNIT).tolist() == [5, 5]
    count = density(ends, inside)[0, 0]
    assert torch.nonzero(count).tolist() == [[3, 3], [3, 4], [3, 5]]


def test_a_border_lies_on_both_sides_of_where_ends_part_and_nowhere_else():
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 5:18], labels[5:15, 18:35] = 1, 2
    flow = torch.from_numpy(np.round(fm.flows(labels) * UNIT)).to(torch.int32)[None]
    inside = torch.from_numpy(labels > 0)[None]
    ends = follow(flow, inside, steps=30)
    found = borders(ends, inside, fm.head_of(CELLPOSE))[0].numpy()
    wanted = np.zeros(labels.shape, bool)
    wanted[5:15, 17:19] = True
    assert np.array_equal(found, wanted)


def test_the_same_flows_in_another_place_of_the_window_give_the_same_bits():
    rng = np.random.default_rng(1)
    flow = (5 * rng.uniform(-1, 1, (2, 40, 40))).astype(np.float32)
    probability = rng.uniform(-2, 4, (1, 40, 40)).astype(np.float32)
    head = fm.head_of(CELLPOSE, options={"steps": 5})

    def at(top, left):
        window = {
            "flows": np.zeros((1, 2, 70, 90), np.float32),
            "probability": np.full((1, 1, 70, 90), -5, np.float32),
        }
        place = slice(top, top + 40), slice(left, left + 40)
        window["flows"][(0, slice(None), *place)] = flow
        window["probability"][(0, slice(None), *place)] = probability
        given = {name: torch.from_numpy(value) for name, value in window.items()}
        return CELLPOSE.adapt(given, head)[:, :, place[0], place[1]]

    assert torch.equal(at(3, 5), at(24, 41))


def test_nan_is_still_there_to_be_found_and_wrong_options_are_named():
    outputs = {"flows": torch.zeros(1, 2, 8, 8), "probability": torch.zeros(1, 1, 8, 8)}
    outputs["flows"][0, 1, 4, 4] = torch.nan
    assert not is_finite(CELLPOSE.adapt(outputs, fm.head_of(CELLPOSE)))
    with pytest.raises(ConfigError, match=r"option flow_scale is 0; it must be above 0"):
        CELLPOSE.adapt(outputs, fm.head_of(CELLPOSE, options={"flow_scale": 0}))
    with pytest.raises(ConfigError, match=r"option steps is 2.5; it must be a whole number"):
        CELLPOSE.reach(fm.head_of(CELLPOSE, options={"steps": 2.5}))
