"""Other people's models: each is imported, runs a whole slide, and where its card promises it gives
the answer of one window over the whole slide."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from helpers import foreign
from helpers.runs import contents, quadrat
from quadrat.models.foreign.architectures import build
from quadrat.models.package import load_package
from quadrat.tasks import build_network

SIDE = 512
"""A core as large as the slides: one window over all."""
NAMED = {
    "argmax": {"thresholds": {"min_area_um2": 10.0}},
    "hovernet": {
        "outputs": {
            "np": "nucleus_prediction",
            "hv": "horizontal_vertical",
            "type": "type_prediction",
        },
        "window": 192,
    },
    "stardist": {
        "outputs": {"probability": "0[0:1]", "rays": "0[1:17]"},
        "classes": [{"name": "disc"}],
        "options": {"radius": 3},
    },
    "cellpose": {
        "outputs": {"flows": "0[0:2]", "probability": "0[2:3]"},
        "classes": [{"name": "disc"}],
        "options": {"steps": 20},
    },
    "points": {"activation": "probabilities", "options": {"box_um": 8.0}},
}
MODELS = {
    "argmax, TorchScript": ("argmax", foreign.Areas, foreign.traced),
    "argmax, torch.export": ("argmax", foreign.Areas, foreign.exported),
    "argmax, cells of 4 px": ("argmax", lambda: foreign.Areas(4), foreign.exported),
    "distance": ("distance", foreign.Distances, foreign.traced),
    "hovernet": ("hovernet", foreign.Hover, foreign.exported),
    "stardist": ("stardist", foreign.Stars, foreign.traced),
    "cellpose": ("cellpose", foreign.Flows, foreign.exported),
    "points": ("points", foreign.Heat, foreign.traced),
}


def imported(folder, decoder, file, name="package", **keys):
    """The package of a file; the card's promise."""
    keys = NAMED.get(decoder, {}) | keys
    card = foreign.write_card(folder / f"{name}.yaml", decoder, **keys)
    done = quadrat("models", "import", file, "--card", card, "--out", folder / name)
    assert done.code == 0, done.err
    return folder / name


def promise(package):
    return json.loads((package / "card.json").read_text())["exactness"]["promise"]


def run(package, slide, out, *options):
    """The folder of a slide's results."""
    done = quadrat(
        "run", package, slide, "--out", out, "--mpp", 0.5, "--quiet", "--set", "run.cluster=serial",
        "--set", "slide.tissue=all", "--set", "outputs.overlay=false", *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    return out / "results" / slide.stem


def answers(results):
    """What a slide's results say, and how many objects that are."""
    table = pq.read_table(results / "objects.parquet")
    kept = [name for name in table.column_names if name != "slide"]
    return table.select(kept).to_pydict(), len(table)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return foreign.write_slide(tmp_path_factory.mktemp("slides") / "discs.png")


def over_all(package):
    """The same package with one window over all of a slide."""
    whole = package.with_name(f"{package.name}_whole")
    shutil.copytree(package, whole)
    card = json.loads((whole / "card.json").read_text())
    card["spec"]["lattice"] |= {"core": SIDE, "shard": 4 * SIDE}
    (whole / "card.json").write_text(json.dumps(card))
    return whole


def assert_untiled_equals_tiled(package, slide, folder, *, least=60):
    assert promise(package) == "tiling-exact"
    one, count = answers(run(package, slide, folder / "tiled"))
    other, _ = answers(run(over_all(package), slide, folder / "untiled"))
    assert count > least
    assert one == other


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_of_a_slide_is_that_of_one_window_over_all_of_it(name, tmp_path, slide):
    decoder, make, save = MODELS[name]
    suffix = ".pt" if save is foreign.traced else ".pt2"
    file = save(make(), tmp_path / f"net{suffix}")
    package = imported(tmp_path, decoder, file, core=96, window="measure")
    assert_untiled_equals_tiled(package, slide, tmp_path)


def test_a_halo_that_is_one_step_too_small_is_no_longer_promised(tmp_path):
    file = foreign.traced(foreign.Distances(), tmp_path / "net.pt")
    enough = imported(tmp_path, "distance", file, core=96, window=106)
    short = imported(tmp_path, "distance", file, name="short", core=96, window=104)
    assert promise(enough) == "tiling-exact"
    assert promise(short) == "schedule-exact"


def test_an_onnx_network_answers_as_the_module_that_it_was_made_of(tmp_path, slide):
    pytest.importorskip("onnxruntime", reason="ONNX needs quadrat[onnx]")
    pytest.importorskip("onnx", reason="ONNX needs quadrat[onnx]")
    file = tmp_path / "net.onnx"
    dynamic = {"image": {0: "b", 2: "h", 3: "w"}, "maps": {0: "b", 2: "h", 3: "w"}}
    torch.onnx.export(
        foreign.Areas().eval(), (torch.rand(2, 3, 64, 64),), file, dynamo=False,
        input_names=["image"], output_names=["maps"], dynamic_axes=dynamic,
    )  # fmt: skip
    package = imported(tmp_path, "argmax", file, core=96)
    assert_untiled_equals_tiled(package, slide, tmp_path)
    same = foreign.traced(foreign.Areas(), tmp_path / "net.pt")
    module = imported(tmp_path, "argmax", same, name="module", core=96)
    one, _ = answers(tmp_path / "tiled" / "results" / slide.stem)
    other, _ = answers(run(module, slide, tmp_path / "module_run"))
    # two runtimes round differently, so a pixel at the threshold may change sides
    assert one["class_id"] == other["class_id"]
    assert np.allclose(one["area_um2"], other["area_um2"], atol=1)


def test_an_onnx_network_whose_weights_lie_beside_it_becomes_one_file(tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX needs quadrat[onnx]")
    onnx = pytest.importorskip("onnx", reason="ONNX needs quadrat[onnx]")
    file = tmp_path / "net.onnx"
    torch.onnx.export(
        torch.nn.Conv2d(3, 3, 3, padding=1), (torch.rand(1, 3, 64, 64),), file, dynamo=False
    )
    onnx.save_model(
        onnx.load(file), file, save_as_external_data=True, location="net.data", size_threshold=0
    )
    package = imported(tmp_path, "argmax", file, window=64)
    (tmp_path / "net.data").unlink()
    assert promise(package) == "tiling-exact"
    assert quadrat("models", "show", package).code == 0
    assert load_package(package, build_network).model(torch.rand(1, 3, 64, 64)).shape[1] == 3


def test_a_network_that_normalises_each_window_is_named_and_promises_less(tmp_path, slide):
    file = foreign.traced(foreign.Normalised(), tmp_path / "net.pt")
    package = imported(tmp_path, "argmax", file, core=96, window=128)
    shown = quadrat("models", "show", package).out
    assert promise(package) == "schedule-exact"
    assert "a minimum of the window" in shown
    assert "a maximum of the window" in shown
    assert answers(run(package, slide, tmp_path / "out"))[1] > 60


def test_a_file_that_fixes_its_window_and_batch_runs_with_both(tmp_path, slide):
    file = foreign.exported(
        foreign.Distances(), tmp_path / "net.pt2", side=112, batch=3, fixed=True
    )
    package = imported(tmp_path, "distance", file)
    spec = json.loads((package / "card.json").read_text())["spec"]
    assert (spec["lattice"]["core"], spec["lattice"]["halo"]) == (102, 5)
    assert promise(package) == "tiling-exact"
    free = foreign.traced(foreign.Distances(), tmp_path / "net.pt")
    whole = over_all(imported(tmp_path, "distance", free, name="free", core=96))
    one, count = answers(run(package, slide, tmp_path / "fixed"))
    other, _ = answers(run(whole, slide, tmp_path / "untiled"))
    assert count > 60
    assert one == other


def test_boxes_and_label_images_run_and_promise_schedule_exact(tmp_path, slide):
    script = tmp_path / "boxes.pt"
    torch.jit.save(torch.jit.script(foreign.Listed()), script)
    boxes = imported(tmp_path, "boxes", script, name="boxes", window=160, input={"batched": "list"})
    labels = foreign.exported(foreign.Numbers(), tmp_path / "labels.pt2")
    labels = imported(
        tmp_path, "labels", labels, name="labels", window=160, classes=[{"name": "disc"}]
    )
    for package in (boxes, labels):
        assert promise(package) == "schedule-exact"
        first = run(package, slide, tmp_path / f"{package.name}_1")
        assert answers(first)[1] > 60
        again = run(
            package, slide, tmp_path / f"{package.name}_2", "--set", "run.shards_per_unit=3"
        )
        assert contents(first)["objects.parquet"] == contents(again)["objects.parquet"]


def test_a_wsinfer_classifier_is_read_as_it_is(tmp_path, slide):
    folder = tmp_path / "zoo"
    folder.mkdir()
    foreign.traced(foreign.Tiles(), folder / "torchscript_model.pt")
    config = {
        "spec_version": "1.0",
        "architecture": "tiny",
        "num_classes": 2,
        "name": "discs",
        "class_names": ["red", "blue"],
        "patch_size_pixels": 128,
        "spacing_um_px": 0.25,
        "transform": [
            {"name": "Resize", "arguments": {"size": 64}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": [0.0] * 3, "std": [1.0] * 3}},
        ],
    }
    (folder / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.yaml").write_text("license: CC0-1.0")
    refused = quadrat("models", "import", folder, "--out", tmp_path / "package")
    assert refused.code == 2
    assert "does not say its license" in refused.err
    done = quadrat(
        "models", "import", folder, "--card", tmp_path / "own.yaml", "--out", tmp_path / "package"
    )
    assert done.code == 0, done.err
    results = run(tmp_path / "package", slide, tmp_path / "out")
    rows = (results / "tiles.csv").read_text().splitlines()
    assert len(rows) == 1 + 7 * 8
    assert json.loads((results / "summary.json").read_text())["slide_mpp"]


@pytest.mark.parametrize(
    ("architecture", "options", "decoder", "keys"),
    [
        ("timm/test_resnet", {}, "classes", {"window": 64}),
        (
            "torchvision/lraspp_mobilenet_v3_large",
            {"num_classes": 3},
            "argmax",
            {"window": 128, "outputs": {"maps": "out"}},
        ),
        pytest.param(
            "torchvision/maskrcnn_resnet50_fpn",
            {"num_classes": 3, "min_size": 128, "max_size": 128, "box_detections_per_img": 4},
            "masks",
            {"window": 128, "input": {"batched": "list"}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_weights_with_the_name_of_their_architecture_run(
    architecture, options, decoder, keys, tmp_path, slide
):
    torch.manual_seed(0)
    module = build(architecture, options, classes=2)
    save_file(
        {k: v.contiguous() for k, v in module.state_dict().items()}, tmp_path / "w.safetensors"
    )
    package = imported(
        tmp_path, decoder, tmp_path / "w.safetensors", architecture=architecture,
        architecture_options=options, **keys,
    )  # fmt: skip
    assert promise(package) == "schedule-exact"
    results = run(package, slide, tmp_path / "out")
    assert (results / "summary.json").is_file()
