"""What a package's card says of its training."""

import json

import torch

from quadrat.training.card import card_of, inherited
from quadrat.training.loop import Trained
from quadrat.training.thresholds import Trial

TRAINED = Trained(
    model=torch.nn.Identity(),
    losses={"loss": 0.5},
    seconds=3.0,
    step=20,
    history=(),
    validations=(),
)
TRIALS = [Trial({"seed": seed}, {"pq": seed}, 0.1) for seed in (0.25, 0.75)]


def card(place, *settings, final=TRIALS[1]):
    job = place.job(*settings)
    refs = [work.ref for work in job.works]
    return card_of(
        job.pipeline, refs, TRAINED, tried=TRIALS, final=final, notes=["0: a bad record"]
    )


def test_a_card_tells_apart_what_was_learnt_from_and_what_was_validated_on(place):
    training = card(place)["training"]
    assert training["slides"] == ["0", "1"]
    assert training["validation_slides"] == ["2"]
    assert training["cases"] == ["a", "b", "c"]
    assert training["annotation_notes"] == ["0: a bad record"]
    assert training["kept_step"] == 20
    assert training["inherited"] == {"slides": [], "cases": []}
    assert not training["begun_from"]
    assert training["settings"]["steps"] == 4


def test_a_card_has_the_figures_of_the_thresholds_that_were_chosen(place):
    metrics = card(place, "train.calibrate=count")["metrics"]
    assert metrics["training_loss"] == {"loss": 0.5}
    assert metrics["validation"] == {"pq": 0.75, "count_error": 0.1}
    assert metrics["calibration"]["aim"] == "count"
    assert [trial["thresholds"]["seed"] for trial in metrics["calibration"]["tried"]] == [
        0.25,
        0.75,
    ]
    assert card(place, final=None)["metrics"]["validation"] == {}


def test_a_card_is_json_and_names_licences_and_versions(place):
    found = json.loads(json.dumps(card(place, "model.license=CC0-1.0", "data.source=a lab")))
    assert (found["license"], found["training"]["source"]) == ("CC0-1.0", "a lab")
    assert {"quadrat", "torch", "numpy", "python"} <= found["versions"].keys()


def test_what_the_first_package_has_seen_is_inherited_or_unknown(tmp_path):
    assert inherited("") == {"slides": [], "cases": []}
    about = {"schema": 1, "training": {"slides": ["x"], "validation_slides": ["y"], "cases": ["k"]}}
    (tmp_path / "card.json").write_text(json.dumps(about))
    assert inherited(str(tmp_path)) == {"slides": ["x", "y"], "cases": ["k"]}
    (tmp_path / "card.json").write_text(json.dumps({"schema": 1}))
    assert inherited(str(tmp_path)) is None
