"""Packages of other people's networks: what is refused on the way in, and when they are loaded."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from helpers import foreign
from quadrat.config.import_card import import_card
from quadrat.core.errors import ConfigError, PackageError, QuadratError
from quadrat.models.foreign.importing import from_module, import_model
from quadrat.models.foreign.network import pick
from quadrat.models.inference import normalise
from quadrat.models.package import load_package
from quadrat.tasks import build_network, get_task


def card(decoder="argmax", **keys):
    return import_card(foreign.card(decoder, **keys), where="card")


def brought_in(file, out, decoder="argmax", *, trust=False, **keys):
    return import_model(file, card(decoder, **keys), out, task_named=get_task, trust=trust)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    return foreign.traced(foreign.Areas(), tmp_path_factory.mktemp("files") / "net.pt")


@pytest.fixture(scope="module")
def imported(script):
    return brought_in(script, script.parent / "package", core=64).folder


@pytest.fixture
def package(imported, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(imported, tmp_path / "package")


def edited(package, change):
    file = package / "card.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    return package


def windows(spec, count=2):
    image = foreign.discs(spec.lattice.window, spec.lattice.window, count=20)
    return normalise(torch.from_numpy(np.stack([image] * count)), spec)


def test_a_package_answers_as_its_file_does(imported):
    loaded = load_package(imported, build_network, task="semantic")
    image = windows(loaded.spec)
    wanted = foreign.Areas()(image)
    assert torch.allclose(loaded.model(image), wanted, atol=1e-4)
    assert loaded.spec.class_names == ("red", "blue")
    assert loaded.card["license"] == "CC0-1.0"
    assert sorted(p.name for p in imported.iterdir()) == [
        "card.json",
        "network.pt",
        "pipeline.yaml",
    ]


def test_a_module_becomes_a_package_by_export_or_where_that_fails_by_tracing(tmp_path):
    class Branching(nn.Module):
        def forward(self, image):
            return foreign.Areas()(image) if float(image.sum()) >= 0 else image

    one = from_module(foreign.Areas(), card(core=64), tmp_path / "one", task_named=get_task)
    other = from_module(Branching(), card(core=64), tmp_path / "other", task_named=get_task)
    assert (one.folder / "network.pt2").is_file()
    assert (other.folder / "network.pt").is_file()
    assert "torch.export cannot take it" in other.notes[0]
    assert one.exactness["promise"] == other.exactness["promise"] == "tiling-exact"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "other"]


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ({"range": "0-255"}, lambda x: (x * 255).round()),
        ({"color": "BGR"}, lambda x: x.flip(1)),
        ({"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]},
         lambda x: (x - torch.tensor([0.1, 0.2, 0.3])[:, None, None])
         / torch.tensor([0.5, 0.6, 0.7])[:, None, None]),
        ({"range": "0-255", "dtype": "uint8"}, lambda x: (x * 255).round().to(torch.uint8)),
        ({"layout": "NHWC"}, lambda x: x.permute(0, 2, 3, 1)),
        ({"by_window": "mean_std"},
         lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True, correction=0)),
        ({"by_window": "percentiles", "percentiles": [5, 90]},
         lambda x: (x - x.flatten(2).quantile(0.05, 2)[..., None, None])
         / (x.flatten(2).quantile(0.9, 2) - x.flatten(2).quantile(0.05, 2))[..., None, None]),
    ],
)  # fmt: skip
def test_pixels_are_prepared_as_the_card_says(section, change, imported):
    loaded = load_package(imported, build_network)
    network = loaded.model
    network.input = card(input=section).input
    image = windows(loaded.spec)
    found = network.prepared(image)
    wanted = change(image)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert torch.allclose(found.float(), wanted.float(), atol=1e-4)


def test_a_file_of_a_fixed_batch_answers_any_number_of_windows(tmp_path):
    file = foreign.exported(foreign.Areas(), tmp_path / "net.pt2", side=64, batch=3, fixed=True)
    loaded = load_package(brought_in(file, tmp_path / "package").folder, build_network)
    image = windows(loaded.spec, count=7)
    assert torch.allclose(loaded.model(image), foreign.Areas()(image), atol=1e-4)


def test_a_trusted_pickle_is_written_anew_without_one(tmp_path):
    torch.save(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)), tmp_path / "net.pth")
    with pytest.raises(PackageError, match="--trust"):
        brought_in(tmp_path / "net.pth", tmp_path / "package")
    found = brought_in(tmp_path / "net.pth", tmp_path / "package", trust=True)
    assert (found.folder / "network.pt2").is_file()
    assert not list(found.folder.glob("*.pth"))


@pytest.mark.parametrize(
    ("decoder", "keys", "sentence"),
    [
        ("argmaxx", {}, "there is no decoder 'argmaxx'"),
        ("argmax", {"options": {"backgroud": 0}}, "did you mean 'background'"),
        ("argmax", {"thresholds": {"score": 0.5}}, "thresholds.score is unknown to the task"),
        ("argmax", {"outputs": {"map": "0"}}, "outputs.map is unknown to the decoder argmax"),
        ("argmax", {"outputs": {"maps": "seg"}}, r"no output seg \(it gives 0\)"),
        ("hovernet", {}, "say in the card's outputs which is which"),
        ("argmax", {"classes": [{"name": "a"}]}, "gives 3 maps"),
        ("points", {}, "needs options.box_um"),
        ("classes", {}, "window is not stated"),
        ("argmax", {"mpp": "px"}, "thresholds.min_area_px2 is not stated"),
        ("argmax", {"core": 64, "out_stride": 5}, "do not lie in its middle"),
    ],
)
def test_a_card_that_does_not_fit_its_network_is_refused(decoder, keys, sentence, script, tmp_path):
    with pytest.raises(QuadratError, match=sentence):
        brought_in(script, tmp_path / "package", decoder, **keys)
    assert not (tmp_path / "package").exists()


def test_a_folder_that_is_no_package_is_not_overwritten(script, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match="is there, and is no model package"):
        brought_in(script, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card["foreign"].update(decoder="distance"),
        lambda card: card["foreign"].update(sha256="0" * 64),
        lambda card: card["foreign"]["input"].update(range="0-255"),
        lambda card: card["foreign"].update(radius=0),
        lambda card: card.update(weights_sha256="0" * 64),
        lambda card: card["spec"]["lattice"].update(halo=0),
        lambda card: card.update(exactness={}),
    ],
)
def test_a_card_that_was_edited_is_refused(change, package):
    with pytest.raises(PackageError, match="import the network again"):
        load_package(edited(package, change), build_network)


def test_a_file_that_was_changed_or_is_missing_is_refused(package):
    file = package / "network.pt"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(PackageError, match="sha256"):
        load_package(package, build_network)
    file.unlink()
    with pytest.raises(PackageError, match=r"has no network\.pt"):
        load_package(package, build_network)


def test_a_promise_that_was_not_measured_is_refused(tmp_path):
    file = foreign.traced(foreign.Normalised(), tmp_path / "net.pt")
    package = brought_in(file, tmp_path / "package", core=64, window=96).folder

    def promise(card):
        card["exactness"]["promise"] = "tiling-exact"

    load_package(package, build_network)
    with pytest.raises(PackageError, match="promises tiling-exact"):
        load_package(edited(package, promise), build_network)


def test_another_file_or_another_preparation_gives_another_fingerprint(script, tmp_path):
    one, other = (
        brought_in(script, tmp_path / name, core=64, input=section).folder
        for name, section in (("one", {}), ("other", {"color": "BGR"}))
    )
    digests = [json.loads((p / "card.json").read_text())["weights_sha256"] for p in (one, other)]
    assert digests[0] != digests[1]


def test_outputs_are_picked_by_name_by_number_or_by_channels():
    from quadrat.models.decoders import DECODERS

    hover, plain = DECODERS["hovernet"], DECODERS["argmax"]
    a, b, c = (torch.zeros(1, n, 4, 4) for n in (1, 2, 3))
    assert list(pick([a, b], {}, hover)) == ["np", "hv"]
    assert pick((a, b, c), {}, hover)["type"] is c
    assert pick({"hv": b, "np": a, "other": c}, {}, hover).keys() == {"np", "hv"}
    assert pick({"out": c}, {}, plain)["maps"] is c
    assert pick({"out": c, "aux": a}, {"maps": "out"}, plain)["maps"] is c
    with pytest.raises(PackageError, match="say in the card's outputs"):
        pick({"out": c, "aux": a}, {}, plain)
