"""What a decoder makes of windows is what it makes of the whole slide at once, to the byte."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers import fields
from helpers import foreign_maps as fm
from helpers.schedules import differences
from quadrat.core.lattice import Lattice
from quadrat.models.decoders import DECODERS

SEEDS = st.integers(0, 2**32 - 1)
SOME = settings(deadline=None, derandomize=True, max_examples=12)
CORE, SHARD = 16, 32
BEYOND = {"np": -5.0, "probability": -5.0, "heat": -5.0}
OPTIONS = {
    "hovernet": {"sobel": 7, "open": 3},
    "cellpose": {"steps": 8, "seed_ends": 6},
    "points": {"box_um": 9, "radius_um": 3},
    "stardist": {"radius": 2},
}
CLASSES = 2


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def noise(rng, channels, shape, *, smooth, levels):
    """Smoothed noise of deviation 1; few ``levels`` make ties and plateaus."""
    values = ndimage.gaussian_filter(rng.standard_normal((channels, *shape)), (0, smooth, smooth))
    values /= values.std()
    return (np.round(values * levels) / levels).astype(np.float32)


def chance(name, rng, shape, *, levels):
    """Outputs of no sane network, in cells."""
    one = noise(rng, 1, shape, smooth=2, levels=levels)
    types = noise(rng, 1 + CLASSES, shape, smooth=3, levels=levels)
    maps = {
        "hovernet": lambda: {"np": 2 * one, "hv": noise(rng, 2, shape, smooth=2, levels=levels)},
        "cellpose": lambda: {
            "flows": 4 * noise(rng, 2, shape, smooth=4, levels=levels),
            "probability": 2 * one + 1,
        },
        "points": lambda: {"heat": noise(rng, CLASSES, shape, smooth=1, levels=levels)},
        "stardist": lambda: {
            "probability": one - 1,
            "rays": 5 + 2 * noise(rng, 12, shape, smooth=1, levels=levels),
        },
    }[name]()
    return fm.Raw(maps if name == "points" else maps | {"type": types}, BEYOND)


def head_and_lattice(decoder, *, out_stride, short=0):
    """Options that keep the reach small, and the least halo for it, or ``short`` cells less."""
    head = fm.head_of(
        decoder,
        classes=CLASSES,
        activation="logits",
        options=OPTIONS[decoder.name],
        out_stride=out_stride,
    )
    halo = -(-decoder.reach(head) // out_stride) * out_stride - short * out_stride
    return head, Lattice(core=CORE, halo=halo, stride=out_stride, shard=SHARD)


def both(name, rng, *, out_stride, levels, edge=(0, 0), short=0, **thresholds):
    """The answers from windows and from one window; the windows' halo is ``short`` cells short of
    the decoder's reach."""
    decoder = DECODERS[name]
    shape = 80 + edge[0] * out_stride, 64 + edge[1] * out_stride
    raw = chance(name, rng, tuple(side // out_stride for side in shape), levels=levels)
    head, lattice = head_and_lattice(decoder, out_stride=out_stride, short=short)
    if decoder.task != "detection":
        thresholds["min_area_um2"] = 0.0
    one = fm.tiled(decoder, raw, head, lattice, shape, **thresholds)
    _, enough = head_and_lattice(decoder, out_stride=out_stride)
    return one, fm.untiled(decoder, raw, head, enough, shape, **thresholds)


LOCAL = [name for name in OPTIONS if DECODERS[name].local]


@pytest.mark.parametrize("name", LOCAL)
@SOME
@given(
    SEEDS,
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 3, 1000]),
    st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
)
def test_windows_give_what_one_window_over_the_slide_gives(name, seed, out_stride, levels, edge):
    rng = np.random.default_rng(seed)
    tiled, whole = both(name, rng, out_stride=out_stride, levels=levels, edge=edge)
    assert differences(tiled, whole) == []


@pytest.mark.parametrize("name", LOCAL)
def test_there_is_something_to_find_by_chance_and_of_every_class(name):
    counts = [
        both(name, np.random.default_rng(seed), out_stride=1, levels=1000)[0] for seed in range(3)
    ]
    assert all(len(answer) > 20 for answer in counts)
    assert {0, 1} == {*counts[0].table.class_id.tolist()}


@pytest.mark.parametrize("name", LOCAL)
def test_with_a_halo_short_of_the_reach_windows_can_give_something_else(name):
    case = {"out_stride": 1, "levels": 1000, "short": 1}
    case |= {"short": 4} if name == "cellpose" else {}  # few pixels travel all the way
    if name == "stardist":  # the suppression mends most of it, and it takes a plateau to be wrong
        case |= {"iou": 1.0, "levels": 3}
    found = [differences(*both(name, np.random.default_rng(s), **case)) for s in range(12)]
    assert any(found)


def test_every_local_decoder_with_filters_of_its_own_is_tried():
    head = fm.head_of(DECODERS["points"], options={"box_um": 9})
    own = {n for n, decoder in DECODERS.items() if decoder.local and decoder.reach(head) > 0}
    assert own == set(LOCAL)


def test_objects_on_every_seam_and_corner_are_found_once_each():
    labels = fields.on_seams((96, 96), pitch=32, radius=6, shift=(0, 1))
    inside = np.zeros(labels.shape, bool)
    inside[8:-8, 8:-8] = True
    labels = np.where(np.isin(labels, np.unique(labels[~inside])), 0, labels)
    labels = fields.connected(labels)
    foreground = fm.logits(np.where(labels > 0, 0.9, 0.1))[None]
    probability, rays = fm.stars(labels, rays=32)
    given = {
        "hovernet": ({"np": foreground, "hv": fm.hover(labels)}, "logits"),
        "cellpose": ({"flows": 5 * fm.flows(labels), "probability": foreground}, "logits"),
        "stardist": ({"probability": probability, "rays": rays}, "probabilities"),
        "points": ({"heat": fm.heat(labels, spread=2)}, "probabilities"),
    }
    for name, (maps, activation) in given.items():
        decoder = DECODERS[name]
        options = OPTIONS[name] if name != "cellpose" else {"steps": 12}
        head = fm.head_of(decoder, activation=activation, options=options)
        lattice = Lattice(core=32, halo=decoder.reach(head), stride=1, shard=32)
        beyond = BEYOND if activation == "logits" else {}
        answer = fm.tiled(decoder, fm.Raw(maps, beyond), head, lattice, labels.shape)
        assert len(answer) == labels.max(), name
        if answer.image is not None:
            assert fm.matched(answer, labels).min() > 0.8, name
