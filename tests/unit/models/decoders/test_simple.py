"""Decoders that only rename values."""

import pytest
import torch

from quadrat.core.errors import PackageError
from quadrat.models.decoders import DECODERS
from quadrat.models.foreign.head import ForeignHead


def adapted(decoder, outputs, *, classes=2, activation="logits", **options):
    head = ForeignHead(classes=classes, activation=activation, options=options)
    return DECODERS[decoder].adapt(outputs, head)


def maps(channels, *, seed=0):
    return torch.randn(2, channels, 5, 6, generator=torch.Generator().manual_seed(seed))


def test_pixels_get_the_softmax_that_the_network_means():
    given = maps(3)
    wanted = torch.softmax(given, dim=1)
    logits = adapted("argmax", {"maps": given})
    assert torch.equal(torch.softmax(logits, dim=1), wanted)
    shares = adapted("argmax", {"maps": wanted}, activation="probabilities")
    assert torch.allclose(torch.softmax(shares, dim=1), wanted, atol=1e-6)
    last = adapted("argmax", {"maps": given}, background=2)
    assert torch.allclose(torch.softmax(last, dim=1), wanted[:, [2, 0, 1]], atol=1e-6)


def test_one_map_of_one_class_is_a_sigmoid_and_maps_without_background_are_never_background():
    given = maps(1)
    two = torch.softmax(adapted("argmax", {"maps": given}, classes=1), dim=1)
    assert torch.allclose(two[:, 1:], torch.sigmoid(given), atol=1e-6)
    chance = torch.sigmoid(given)
    two = adapted("argmax", {"maps": chance}, classes=1, activation="probabilities")
    assert torch.allclose(torch.softmax(two, dim=1)[:, 1:], chance, atol=1e-6)
    given = maps(2)
    three = torch.softmax(adapted("argmax", {"maps": given}), dim=1)
    assert float(three[:, 0].max()) == 0
    assert torch.allclose(three[:, 1:], torch.softmax(given, dim=1), atol=1e-6)


def test_tiles_have_scores_of_each_class_or_one_score_for_two_and_perhaps_an_embedding():
    given = maps(2)[:, :, 0, 0]
    assert torch.equal(adapted("classes", {"scores": given}), given)
    one = adapted("classes", {"scores": given[:, :1]})
    assert torch.allclose(torch.softmax(one, dim=1)[:, 1], torch.sigmoid(given[:, 0]), atol=1e-6)
    both = adapted("classes", {"scores": given[:, :, None, None], "embedding": maps(4)})
    assert both.shape == (2, 2 + 4 * 30)
    assert torch.equal(both[:, :2], given)


def test_maps_of_quadrats_own_models_pass_with_or_without_their_activation():
    given = maps(4)
    assert torch.equal(adapted("distance", {"maps": given}), given)
    values = torch.cat([torch.sigmoid(given[:, :2]), torch.softmax(given[:, 2:], dim=1)], dim=1)
    back = adapted("distance", {"maps": values}, activation="probabilities")
    assert torch.allclose(torch.sigmoid(back[:, :2]), values[:, :2], atol=1e-6)
    assert torch.allclose(torch.softmax(back[:, 2:], dim=1), values[:, 2:], atol=1e-6)
    assert adapted("distance", {"maps": maps(2)}, classes=1).shape == (2, 3, 5, 6)


@pytest.mark.parametrize(
    ("decoder", "outputs", "sentence"),
    [
        ("argmax", {"maps": maps(5)}, "gives 5 maps; for the 2 classes of the card"),
        ("argmax", {"maps": maps(3)[0]}, "must be"),
        ("argmax", {"maps": maps(3).int()}, "must be one tensor of real numbers"),
        ("argmax", {}, "must be one tensor of real numbers, and it is NoneType"),
        ("distance", {"maps": maps(3)}, "it must give 4: foreground"),
        ("classes", {"scores": maps(3)[:, :, 0, 0]}, "names 2 classes"),
        ("classes", {"scores": maps(2)}, "names 2 classes"),
    ],
)
def test_outputs_of_another_kind_are_refused_with_what_they_are(decoder, outputs, sentence):
    with pytest.raises(PackageError, match=sentence):
        adapted(decoder, outputs)
