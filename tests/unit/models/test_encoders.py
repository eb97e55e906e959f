import subprocess
import sys
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from quadrat.core.errors import ConfigError
from quadrat.models.encoders import build_encoder, encoder_normalisation, load_encoder_weights
from quadrat.models.probe import least_radius

CHANNELS = {
    "small": [8, 8, 8, 8, 8],
    "efficientnet_lite0": [16, 24, 40, 112, 320],
    "resnet18": [64, 64, 128, 256, 512],
    "regnety_004": [32, 48, 104, 208, 440],
    "timm/resnet18": [64, 64, 128, 256, 512],
    "timm/mobilenetv3_small_050": [16, 8, 16, 24, 288],
}


@pytest.mark.parametrize("name", list(CHANNELS))
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_an_encoder_gives_features_at_strides_2_4_8_as_many_as_widths(name, depth):
    encoder = build_encoder(name, [8] * depth).eval()
    features = encoder(torch.zeros(1, 3, 96, 64))
    assert [tuple(f.shape[2:]) for f in features] == [
        (96 >> i, 64 >> i) for i in range(1, depth + 1)
    ]
    assert [f.shape[1] for f in features] == encoder.channels == CHANNELS[name][:depth]
    assert encoder.stride == 2**depth


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "timm/mobilenetv3_small_050"])
def test_layers_beyond_the_cut_are_not_built(name):
    shallow, deep = build_encoder(name, [8] * 2), build_encoder(name, [8] * 5)
    count = lambda network: sum(p.numel() for p in network.parameters())  # noqa: E731
    assert count(shallow) < count(deep) / 5
    assert shallow.beyond > deep.beyond


@pytest.mark.parametrize(
    "name", ["small", "efficientnet_lite0", "resnet18", "timm/mobilenetv3_small_050"]
)
def test_every_parameter_is_trained(name):
    encoder = build_encoder(name, [8] * 3).train()
    sum(f.square().mean() for f in encoder(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("name", ["small", "efficientnet_lite0", "resnet18"])
def test_in_eval_mode_an_image_s_features_do_not_depend_on_its_neighbours_nor_change(name):
    encoder = build_encoder(name, [8] * 3)
    encoder.train()(torch.randn(4, 3, 64, 64))
    encoder.eval()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    batch = torch.randn(3, 3, 64, 64)
    alone, together = encoder(batch[:1]), encoder(batch)
    assert all(torch.allclose(a[0], t[0], atol=1e-5) for a, t in zip(alone, together, strict=True))
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_a_resnet_s_features_are_those_of_its_stem_and_layers():
    encoder = build_encoder("resnet18", [8] * 5).eval()
    network = torchvision.models.resnet18().eval()
    load_encoder = encoder.body.load_state_dict(
        {k: v for k, v in network.state_dict().items() if k not in encoder.beyond}
    )
    assert not load_encoder.missing_keys
    image = torch.randn(1, 3, 64, 64)
    x = network.relu(network.bn1(network.conv1(image)))
    want = [x]
    x = network.maxpool(x)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        want.append(x := layer(x))
    assert all(torch.allclose(f, w, atol=1e-5) for f, w in zip(encoder(image), want, strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"resnet19' is unknown; use small, .* network of timm \(e.g. resnet18\)"),
        ("resnet18x", "resnet18x' is unknown; use small, efficientnet_lite0"),
        ("timm/regnety", r"'timm/regnety' is unknown; .* \(it has regnety_002, "),
        ("convnext_tiny", "no features at stride 2 .it has some at 4, 8, 16, 32"),
        ("timm/vit_tiny_patch16_224", "no features at stride 2 .it has some at 16"),
        ("timm/inception_v4", "makes features of|gives no features of it; .* a newer timm"),
    ],
)
def test_a_network_that_is_no_encoder_is_refused_with_the_reason(name, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder(name, [8, 8])


def test_more_widths_than_strides_are_refused():
    for name in ("efficientnet_lite0", "resnet18"):
        with pytest.raises(
            ConfigError,
            match=f"'{name}' has no features at stride 64 .* model.widths asks for 6 strides",
        ):
            build_encoder(name, [8] * 6)


def test_timm_is_not_imported_where_no_network_of_it_is_asked_for():
    """The import takes a second, and most packages have the small encoder."""
    program = """
import sys
from quadrat.models.unet import UNet
from quadrat.models.encoders import encoder_normalisation
UNet((4, 6), outputs=1, out_stride=1), encoder_normalisation("small")
encoder_normalisation("efficientnet_lite0")
print([name for name in ("timm", "torchvision") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


class Deepest(nn.Module):
    """The coarsest feature of an encoder alone."""

    def __init__(self, depth):
        super().__init__()
        self.encoder = build_encoder("efficientnet_lite0", [8] * depth)

    def forward(self, x):
        return self.encoder(x)[-1]


@pytest.mark.parametrize(("depth", "radius"), [(1, 3), (2, 9), (3, 33), (4, 169)])
def test_efficientnet_lite0_reaches_as_far_as_its_kernels_say(depth, radius):
    """By the arithmetic of kernels and strides, from the edge of an output cell; the probe counts
    from its far edge."""
    found = least_radius(Deepest(depth), stride=2**depth, out_stride=2**depth, stated=2 * radius)
    assert found == radius + 2**depth - 1


def test_weights_under_the_names_of_an_earlier_version_fit():
    """Packages with a network of timm once named it ``getter.model``."""
    saved = build_encoder("timm/mobilenetv3_small_050", [8] * 3)
    old = {
        name.replace("body.", "getter.model.", 1): value
        for name, value in saved.state_dict().items()
    }
    model = nn.Sequential(build_encoder("timm/mobilenetv3_small_050", [8] * 3))
    model.load_state_dict({f"0.{name}": value for name, value in old.items()})
    assert all(
        torch.equal(value, saved.state_dict()[name])
        for name, value in model[0].state_dict().items()
    )


def test_the_small_encoder_has_nothing_to_begin_from():
    with pytest.raises(ConfigError, match="'small' has no pretrained weights"):
        load_encoder_weights(build_encoder("small", [4]), "hub")


@pytest.mark.parametrize("source", ["hub", "imagenet"])
@pytest.mark.parametrize(
    ("name", "timm_name"),
    [("resnet18", "resnet18"), ("efficientnet_lite0", "tf_efficientnet_lite0")],
)
def test_the_hub_s_weights_are_those_that_timm_downloads(monkeypatch, source, name, timm_name):
    network = timm.create_model(timm_name)
    encoder = build_encoder(name, [8] * 2)
    asked = []
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, *, pretrained: asked.append((name, pretrained)) or network,
    )
    load_encoder_weights(encoder, source)
    assert asked == [(timm_name, True)]
    own, theirs = encoder.body.state_dict(), network.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in own.items())


def test_without_network_the_hub_s_error_asks_for_a_local_file(monkeypatch):
    encoder = build_encoder("resnet18", [8])

    def unreachable(name, *, pretrained):
        raise URLError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        ConfigError,
        match=r"resnet18 could not be downloaded .*Name or service.* give the path of a local",
    ):
        load_encoder_weights(encoder, "hub")


def test_normalisation_follows_the_weights():
    assert encoder_normalisation("small") is None
    mean, std = encoder_normalisation("efficientnet_lite0")
    assert np.allclose([*mean, *std], [127 / 255] * 3 + [128 / 255] * 3)
    assert encoder_normalisation("resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(ConfigError, match="unknown"):
        encoder_normalisation("resnet19")


def test_timm_states_its_own_normalisation():
    assert encoder_normalisation("timm/tf_efficientnet_lite0") == ((0.5,) * 3, (0.5,) * 3)
    assert encoder_normalisation("timm/resnet18") == encoder_normalisation("resnet18")
