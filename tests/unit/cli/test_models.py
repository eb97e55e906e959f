"""``quadrat models``: cards to begin with, what is listed and shown, and a trial on a slide."""

import json
import shutil

import pytest
import yaml
from PIL import Image

from helpers import foreign
from helpers.runs import quadrat
from quadrat.cli.import_examples import EXAMPLES
from quadrat.config.import_card import import_card
from quadrat.config.pipeline import shipped_pipelines
from quadrat.models.decoders import DECODERS


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    file = foreign.traced(foreign.Distances(), folder / "net.pt")
    card = foreign.write_card(folder / "card.yaml", "distance", core=96, citation="A paper")
    done = quadrat("models", "import", file, "--card", card, "--out", folder / "mine")
    assert done.code == 0, done.err
    return folder / "mine"


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_there_is_a_card_to_begin_with_for_each_decoder(decoder):
    printed = quadrat("models", "import", "--example", decoder)
    assert printed.code == 0
    card = import_card(yaml.safe_load(printed.out), where=decoder)
    assert card.decoder == decoder
    assert set(card.options) <= set(DECODERS[decoder].options)
    needed = {name for name, value in DECODERS[decoder].options.items() if value is None}
    assert needed <= set(card.options)
    known = (*DECODERS[decoder].outputs, *DECODERS[decoder].optional)
    assert set(card.outputs) <= set(known)


def test_an_example_of_no_decoder_and_an_import_of_nothing_are_refused():
    assert set(EXAMPLES) == set(DECODERS)
    assert "did you mean 'hovernet'" in quadrat("models", "import", "--example", "hover").err
    assert "give the file of a model" in quadrat("models", "import").err


def test_shipped_and_given_models_are_listed(package):
    listed = quadrat("models", "list", package.parent).out
    for path in (shipped_pipelines() / "packages").glob("*/card.json"):
        assert str(path.parent) in listed
    assert str(package) in listed
    rows = [
        json.loads(line)
        for line in quadrat("models", "list", package, "--json").out.split("\n")
        if line
    ]
    assert rows[-1] == {
        "package": str(package),
        "task": "instance",
        "mpp": 0.5,
        "classes": ["red", "blue"],
        "lattice": {"core": 96, "halo": 5, "stride": 1, "shard": 2016},
        "promise": "tiling-exact",
        "license": "CC0-1.0",
        "imported": True,
    }
    empty = quadrat("models", "list", package / "none")
    assert (empty.code, "there is none in it" in empty.err) == (2, True)


def test_a_card_is_shown_for_people_and_as_it_is(package):
    shown = quadrat("models", "show", package).out
    for words in (
        "instance at 0.5 um/px", "red, blue", "imported, torchscript, decoder distance",
        "106 px: core 96, halo 5, stride 1", "tiling-exact", "A paper", "CC0-1.0",
    ):  # fmt: skip
        assert words in shown
    card = json.loads(quadrat("models", "show", package, "--json").out)
    assert card["weights_sha256"] in shown


def test_a_shipped_model_is_shown_by_its_name_unless_a_folder_here_has_it(
    package, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert "DSB2018" in quadrat("models", "show", "nuclei").out
    shutil.copytree(package, tmp_path / "nuclei")
    assert "DSB2018" not in quadrat("models", "show", "nuclei").out
    done = quadrat("models", "show", "other")
    assert done.code == 2
    assert "other is not a model package" in done.err


def test_a_trial_shows_pictures_seams_time_and_memory(package, tmp_path):
    slide = foreign.write_slide(tmp_path / "discs.png", height=400, width=400, count=400)
    out = tmp_path / "looks"
    done = quadrat("models", "check", package, slide, "--mpp", 0.5, "--out", out)
    assert done.code == 0, done.err
    assert f"give 0 of {3 * 4 * 48 * 48} stored values otherwise" in done.out
    assert "s per mm2" in done.out
    assert "MiB at most" in done.out
    pictures = sorted(out.iterdir())
    assert [p.name for p in pictures] == ["window_1.png", "window_2.png", "window_3.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (2 * 96 + 8, 96)
        left = picture.crop((0, 0, 96, 96)).tobytes()
        assert left != picture.crop((104, 0, 200, 96)).tobytes()
    facts = json.loads(
        quadrat("models", "check", package, slide, "--mpp", 0.5, "--out", out, "--json").out
    )
    assert facts["moved"] == [0, 3 * 4 * 48 * 48]
    assert facts["mismatch"]["pairs"] > 0
    assert facts["seconds"] > 0


def test_a_trial_of_a_model_that_normalises_by_window_shows_that_windows_are_seen(tmp_path):
    slide = foreign.write_slide(tmp_path / "discs.png", height=400, width=400, count=400)
    file = foreign.traced(foreign.Normalised(), tmp_path / "net.pt")
    card = foreign.write_card(tmp_path / "card.yaml", "argmax", core=96, window=112)
    quadrat("models", "import", file, "--card", card, "--out", tmp_path / "p")
    done = quadrat(
        "models",
        "check",
        tmp_path / "p",
        slide,
        "--mpp",
        0.5,
        "--out",
        tmp_path / "looks",
        "--json",
    )
    assert json.loads(done.out)["moved"][0] > 50
