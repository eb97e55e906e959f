"""Other people's models: each is imported, runs a whole slide, and where its card promises it gives
the answer of one window over the whole slide."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from helpers import foreign
from helpers.runs import contents, quadrat
from quadrat.store.array import ShardedArray

SIDE = 512
"""A core as large as the slides: one window over all."""
NAMED = {
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


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_of_a_slide_is_that_of_one_window_over_all_of_it(name, tmp_path, slide):
    decoder, make, save = MODELS[name]
    torch.manual_seed(0)
    suffix = ".pt" if save is foreign.traced else ".pt2"
    file = save(make(), tmp_path / f"net{suffix}")
    tiled = imported(tmp_path, decoder, file, core=96, window="measure")
    assert promise(tiled) == "tiling-exact"
    whole = imported(tmp_path, decoder, file, name="whole", core=SIDE, window="measure")
    one, count = answers(run(tiled, slide, tmp_path / "tiled"))
    other, _ = answers(run(whole, slide, tmp_path / "untiled"))
    assert count > 60
    assert one == other
