"""Models that others describe: bioimage.io and MONAI folders, and what is wrong with some."""

import json

import numpy as np
import pytest
import torch
import yaml

from helpers import foreign
from quadrat.core.errors import ConfigError, PackageError
from quadrat.models.foreign.importing import import_model
from quadrat.models.foreign.sources import source_of
from quadrat.tasks import get_task


class Bytes(torch.nn.Module):
    """Answers pictures of 0-255 that were halved and shifted by what its description says."""

    def forward(self, image):
        return foreign.Areas()(image)


def described(folder, version="0.5.4", **changes):
    """A folder of bioimage.io with test tensors."""
    folder.mkdir(exist_ok=True)
    foreign.traced(Bytes(), folder / "net.pt")
    image = torch.from_numpy(foreign.discs(64, 64, count=6)).permute(2, 0, 1)[None].float()
    np.save(folder / "in.npy", image.numpy())
    answer = torch.softmax(Bytes()((image - 10.0) / 200.0), dim=1)
    np.save(folder / "out.npy", answer.numpy())
    steps = [
        ("scale_linear", {"gain": 0.5, "offset": 0.0}),
        ("fixed_zero_mean_unit_variance", {"mean": 5.0, "std": 100.0}),
    ]
    about = {"type": "model", "format_version": version, "name": "discs", "license": "MIT"}
    own = {"decoder": "argmax", "classes": ["red", "blue"], "core": 64}
    about |= {"cite": [{"text": "A paper"}], "config": {"quadrat": own}}
    about["weights"] = {"torchscript": {"source": "net.pt"}}
    if version.startswith("0.5"):
        space = {"type": "space", "unit": "micrometer", "scale": 0.5}
        axes = [
            {"type": "batch"},
            {"type": "channel", "channel_names": ["r", "g", "b"]},
            space | {"id": "y", "size": {"min": 32, "step": 1}},
            space | {"id": "x", "size": {"min": 32, "step": 1}},
        ]
        about["inputs"] = [
            {
                "id": "image",
                "axes": axes,
                "test_tensor": {"source": "in.npy"},
                "preprocessing": [{"id": name, "kwargs": kwargs} for name, kwargs in steps],
            }
        ]
        about["outputs"] = [
            {"test_tensor": {"source": "out.npy"}, "postprocessing": [{"id": "softmax"}]}
        ]
    else:
        steps[1] = ("zero_mean_unit_variance", {"mode": "fixed", "mean": 5.0, "std": 100.0})
        own["mpp"] = 0.5
        about["inputs"] = [
            {
                "axes": "bcyx",
                "shape": {"min": [1, 3, 32, 32], "step": [0, 0, 1, 1]},
                "preprocessing": [{"name": name, "kwargs": kwargs} for name, kwargs in steps],
            }
        ]
        about["outputs"] = [{"axes": "bcyx", "postprocessing": [{"name": "softmax"}]}]
        about |= {"test_inputs": ["in.npy"], "test_outputs": ["out.npy"]}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(about | changes))
    return folder


@pytest.mark.parametrize("version", ["0.5.4", "0.4.10"])
def test_a_description_of_bioimage_io_is_read_and_held_against_its_test_tensors(version, tmp_path):
    source = source_of(described(tmp_path / "model", version), None)
    card = source.card
    assert (card.mpp, card.license, card.citation) == (0.5, "MIT", "A paper")
    assert card.input.range == "0-255"
    assert np.allclose(card.input.mean, 10)
    assert np.allclose(card.input.std, 200)
    found = import_model(
        source.network, card, tmp_path / "p", task_named=get_task, examples=source.examples
    )
    assert found.notes[-1] == "in.npy: answered as out.npy"
    assert found.exactness["promise"] == "tiling-exact"


def test_a_network_that_answers_its_test_input_otherwise_is_refused(tmp_path):
    folder = described(tmp_path / "model")
    np.save(folder / "out.npy", 0.9 * np.load(folder / "out.npy"))
    source = source_of(folder, None)
    with pytest.raises(PackageError, match="differs from the example"):
        import_model(
            source.network, source.card, tmp_path / "p", task_named=get_task,
            examples=source.examples,
        )  # fmt: skip
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format_version": "0.3.0"}, "models of 0.4 and 0.5 are read"),
        ({"type": "dataset"}, "type 'dataset'"),
        ({"weights": {"pytorch_state_dict": {}}}, "torchscript or onnx is needed"),
        ({"weights": {"torchscript": {"source": "../net.pt"}}}, "which is not in its folder"),
        ({"weights": {"torchscript": {"source": "net.pt", "sha256": "0" * 64}}}, "another sha256"),
        ({"inputs": [{"axes": "bczyx"}]}, "axes bczyx"),
        (
            {"inputs": [{"axes": "bcyx", "preprocessing": [{"name": "dance"}]}]},
            "preprocessing dance, which is not known",
        ),
        ({"inputs": []}, "0 inputs"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(changes, sentence, tmp_path):
    with pytest.raises(PackageError, match=sentence):
        source_of(described(tmp_path / "model", **changes), None)


def test_what_a_description_lacks_is_asked_for_and_a_card_comes_first(tmp_path):
    folder = described(tmp_path / "model", config={})
    with pytest.raises(ConfigError, match="does not say its decoder, classes; state them"):
        source_of(folder, None)
    card = foreign.write_card(tmp_path / "card.yaml", "argmax", mpp=0.25)
    found = source_of(folder, card).card
    assert (found.mpp, found.citation) == (0.25, "A paper")


def test_normalisation_by_window_is_taken_over(tmp_path):
    step = {"id": "scale_range", "kwargs": {"min_percentile": 1, "max_percentile": 99.8}}
    folder = described(tmp_path / "model")
    about = yaml.safe_load((folder / "rdf.yaml").read_text())
    about["inputs"][0]["preprocessing"] = [step]
    (folder / "rdf.yaml").write_text(yaml.safe_dump(about))
    section = source_of(folder, None).card.input
    assert (section.by_window, section.percentiles) == ("percentiles", (1.0, 99.8))


def test_a_monai_bundle_of_hovernet_says_its_outputs_and_classes(tmp_path):
    root = tmp_path / "bundle"
    for name in ("configs", "models"):
        (root / name).mkdir(parents=True)
    foreign.traced(foreign.Tiles(), root / "models" / "model.ts")
    kinds = {"0": "background", "1": "inflammatory", "2": "epithelial"}
    about = {
        "name": "hovernet",
        "version": "0.2",
        "task": "Nuclei",
        "network_data_format": {
            "inputs": {"image": {"spatial_shape": [256, 256], "value_range": [0, 255]}},
            "outputs": {
                "nucleus_prediction": {},
                "horizontal_vertical": {},
                "type_prediction": {"channel_def": kinds},
            },
        },
    }
    (root / "configs" / "metadata.json").write_text(json.dumps(about))
    own = tmp_path / "own.yaml"
    own.write_text("mpp: 0.25\nlicense: Apache-2.0")
    source = source_of(root, own)
    card = source.card
    assert source.network == root / "models" / "model.ts"
    assert (card.decoder, card.window, card.input.range) == ("hovernet", 256, "0-255")
    assert [c.name for c in card.classes] == ["inflammatory", "epithelial"]
    assert card.outputs["hv"] == "horizontal_vertical"
    (root / "models" / "model.ts").unlink()
    with pytest.raises(PackageError, match=r"has no models/model\.ts"):
        source_of(root, own)


def test_a_folder_without_a_description_and_a_file_without_a_card_are_refused(tmp_path):
    with pytest.raises(PackageError, match="has no description of a model"):
        source_of(tmp_path, None)
    with pytest.raises(ConfigError, match="needs an import card"):
        source_of(tmp_path / "net.pt", None)
    (tmp_path / "config.json").write_text('{"spec_version": "2.0"}')
    with pytest.raises(PackageError, match=r"version 1\.0"):
        source_of(tmp_path, None)
