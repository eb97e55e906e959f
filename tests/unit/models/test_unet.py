"""Networks on an encoder: what they reach and what they give."""

import pytest
import torch

from quadrat.models.probe import probe
from quadrat.models.unet import TileClassifier, UNet


def test_a_unet_on_efficientnet_lite0_is_measured_as_exact():
    model = UNet((8, 12, 16), outputs=2, out_stride=4, encoder="efficientnet_lite0")
    found = probe(model, stride=model.stride, out_stride=model.out_stride)
    assert (found.stride, found.structural, found.impulse) == (8, 48, 48)
    assert model.encoder.channels == [16, 24, 40]
    assert model.head.in_channels == 12  # the decoder's channels are the model's own


@pytest.mark.parametrize(("depth", "embedding"), [(3, 40), (5, 1280)])
def test_a_tile_classifier_embeds_by_what_the_imagenet_head_saw(depth, embedding):
    model = TileClassifier([8] * depth, classes=3, encoder="efficientnet_lite0").eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3 + embedding)
    assert probe(model, stride=model.stride, out_stride=model.out_stride).radius is None


def test_dropout_hides_parts_of_the_embedding_from_the_head_in_training_only():
    torch.manual_seed(0)
    model, plain = (TileClassifier((4, 32), classes=2, dropout=rate) for rate in (0.5, 0.0))
    plain.load_state_dict(model.state_dict())
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.eval()(image), plain.eval()(image))
    one, two = model.train()(image), model.train()(image)
    assert torch.allclose(one[:, 2:], two[:, 2:])
    assert not torch.allclose(one[:, :2], two[:, :2])
