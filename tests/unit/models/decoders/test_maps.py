import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from quadrat.core.errors import ConfigError, PackageError
from quadrat.models.decoders.hovernet import sobel
from quadrat.models.decoders.maps import (
    activated,
    as_logits,
    as_scores,
    class_logits,
    highest,
    map_of,
    peaks,
    share,
    weighted,
    whole,
)
from quadrat.models.foreign.head import ForeignHead
from quadrat.stitching.maps import quantise

SOME = settings(deadline=None, derandomize=True, max_examples=60)


def first_of_the_highest(scores, radius):
    """The definition: no greater one near, and no equal one near that comes before."""
    out = np.zeros(scores.shape, bool)
    rows, cols = scores.shape
    for r in range(rows):
        for c in range(cols):
            near = [
                (scores[y, x], -y, -x)
                for y in range(max(0, r - radius), min(rows, r + radius + 1))
                for x in range(max(0, c - radius), min(cols, c + radius + 1))
            ]
            out[r, c] = (scores[r, c], -r, -c) == max(near)
    return out


@SOME
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.sampled_from([1, 2, 65535]),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_peaks_are_by_the_definition_with_ties_in_raster_order(seed, radius, most, shape):
    scores = np.random.default_rng(seed).integers(0, most + 1, shape).astype(np.int32)
    found = peaks(torch.from_numpy(scores)[None], radius)[0].numpy()
    assert np.array_equal(found, first_of_the_highest(scores, radius))


def test_a_task_gets_the_very_bytes_back_and_nan_stays_nan():
    byte = torch.arange(256, dtype=torch.float32)
    for away in (-0.45, 0.0, 0.45):
        logit = as_logits((byte + away) / 255)
        assert logit.isfinite().all()
        assert quantise(torch.sigmoid(logit)).tolist() == list(range(256))
    assert as_logits(torch.tensor([torch.nan])).isnan().all()
    assert as_scores(torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])).tolist() == [0, 65535, 65535, 0,
                                                                           32768]  # fmt: skip


@pytest.mark.parametrize("dim", [2, 3])
def test_a_weighted_sum_is_a_correlation_with_the_border_gone_on(dim):
    values = np.random.default_rng(0).standard_normal((2, 3, 9, 11)).astype(np.float32)
    weights = [1.0, 0.0, -2.0, 0.5, 3.0]
    want = ndimage.correlate1d(values, weights, axis=dim, mode="nearest")
    assert np.allclose(weighted(torch.from_numpy(values), weights, dim=dim), want, atol=1e-5)


def test_the_sobel_filter_of_three_taps_is_the_known_one_and_a_step_by_one_answers_one():
    assert sobel(3) == ([0.25, 0.5, 0.25], [-1.0, 0.0, 1.0])
    for size in (3, 7, 21):
        smooth, slope = sobel(size)
        assert sum(smooth) == pytest.approx(1)
        step = torch.cat([torch.zeros(1, 1, 1, 30), torch.ones(1, 1, 1, 30)], dim=3)
        assert float(weighted(step, slope, dim=3).max()) == pytest.approx(1)


def test_a_value_does_not_depend_on_where_its_neighbourhood_lies():
    values = torch.rand(1, 1, 40, 53, generator=torch.Generator().manual_seed(0))
    smooth, slope = sobel(7)
    for top, left in ((0, 0), (1, 3), (7, 16)):
        part = values[:, :, top : top + 24, left : left + 30]
        for made in (
            lambda v: weighted(weighted(v, smooth, dim=2), slope, dim=3),
            lambda v: highest(-highest(-v, 2), 1),
        ):
            inner = made(part)[:, :, 3:-3, 3:-3]
            assert torch.equal(inner, made(values)[:, :, top + 3 : top + 21, left + 3 : left + 27])


ONE = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"np": ONE}, r"decoder d needs an output 'hv', and the network gives np: name its"),
        ({}, r"needs an output 'hv', and the network gives none"),
        ({"hv": ONE[0]}, r"'hv' is float32 \(2, 4, 4\), and it must be floating point \(batch"),
        ({"hv": ONE.int()}, r"'hv' is int32 \(1, 2, 4, 4\), and it must be floating point"),
        ({"hv": ONE[:, :1]}, r"'hv' is float32 \(1, 1, 4, 4\), .* with 2 channels"),
        ({"hv": [ONE]}, r"'hv' is a list of 1, and it must be"),
        ({"np": ONE, "hv": ONE[..., :3]}, r"'hv' is .*4, 3\), another batch, height or width than"),
    ],
)
def test_an_output_of_another_shape_or_type_is_named_with_what_it_must_be(outputs, message):
    with pytest.raises(PackageError, match=message):
        map_of(outputs, "hv", decoder="d", channels=(2,))


def test_logits_that_are_called_probabilities_are_found_out():
    head = ForeignHead(classes=1, activation="probabilities")
    with pytest.raises(PackageError, match=r"output has values from -3 to 4, .*: write 'activati"):
        activated(torch.tensor([-3.0, 4.0]), head, what="output")
    assert activated(torch.tensor([1.0005, -0.0005]), head, what="").tolist() == [1, 0]
    assert activated(torch.tensor([torch.nan]), head, what="").isnan().all()


def test_several_classes_need_an_output_that_tells_them_apart():
    head = ForeignHead(classes=2)
    with pytest.raises(PackageError, match=r"card has 2 classes, and the network no output 'type'"):
        class_logits({"np": ONE}, head, decoder="d", like=ONE)
    with pytest.raises(PackageError, match="with 3 channels"):
        class_logits({"type": ONE}, head, decoder="d", like=ONE)


def test_options_of_a_wrong_value_are_named_with_their_limit():
    head = ForeignHead(classes=1, options={"steps": 2.5, "least": 1.5})
    with pytest.raises(ConfigError, match=r"decoder d: option steps is 2.5; it must be a whole nu"):
        whole(head, "steps", 1, least=1, decoder="d")
    with pytest.raises(ConfigError, match=r"option gone is 0; it must be a whole .* at least 1"):
        whole(head, "gone", 0, least=1, decoder="d")
    with pytest.raises(ConfigError, match=r"option least is 1.5; it must lie between 0 and 1"):
        share(head, "least", 0, decoder="d")
