"""The import card: what may stand in it, and the sentence on each wrong value."""

import pytest

from quadrat.config.import_card import import_card, read_keys
from quadrat.core.errors import ConfigError

LEAST = {"decoder": "argmax", "classes": [{"name": "a"}], "mpp": 0.5, "license": "MIT"}


def test_four_keys_are_enough_and_a_list_of_outputs_is_in_the_order_of_the_file():
    assert import_card(LEAST, where="x").window == "measure"
    card = import_card(LEAST | {"outputs": ["np", "hv"]}, where="x")
    assert card.outputs == {"np": "0", "hv": "1"}
    assert import_card(LEAST | {"mpp": "px", "license": "unknown"}, where="x").mpp == "px"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"licence": "MIT"}, "unknown key 'licence'; did you mean 'license'"),
        ({"license": " "}, "license is ' '; it must be the licence of the weights"),
        ({"mpp": -1}, "mpp is -1; it must lie in 0.01 to 1000, or be px"),
        ({"window": 0}, "window is 0; it must be a whole number of px, or measure"),
        ({"core": "mesure"}, "core is 'mesure'; it must be a whole number of px, or measure"),
        ({"window": 64, "core": 65}, "core is 65; it must be at most window, 64"),
        ({"window": 64, "core": 49}, "must be equal on both sides"),
        ({"activation": "logit"}, "activation is 'logit'; it must be one of logits"),
        ({"input": {"colour": "RGB"}}, "input: unknown key 'colour'; did you mean 'color'"),
        ({"input": {"mean": [0, 1]}}, "input.mean is [0, 1]; it must hold 3 values"),
        ({"input": {"std": [0, 1, 1]}}, "input.std is [0.0, 1.0, 1.0]; each must be above 0"),
        ({"input": {"dtype": "uint8"}}, "input.dtype is uint8; it needs input.range 0-255"),
        ({"input": {"percentiles": [99, 1]}}, "input.percentiles is [99.0, 1.0]; they must rise"),
        ({"outputs": 3}, "outputs is 3; it must be a list of names"),
        ({"outputs": {"np": "a[0:"}}, "outputs.np is 'a[0:'"),
        ({"options": {"a": [1]}}, "options.a is [1]; it must be one number or text"),
        ({"thresholds": {"score": "high"}}, "thresholds.score is 'high'; it must be a number"),
        ({"classes": [{"name": "a"}, {"name": "a"}]}, "classes must have each name once"),
    ],
)
def test_a_wrong_value_is_answered_with_one_sentence(wrong, sentence):
    with pytest.raises(ConfigError) as error:
        import_card(LEAST | wrong, where="card.yaml")
    assert str(error.value).startswith("card.yaml: ")
    assert sentence in str(error.value)


def test_a_missing_licence_is_asked_for_and_all_faults_are_told_at_once():
    with pytest.raises(ConfigError, match="the key 'license' is missing"):
        import_card({k: v for k, v in LEAST.items() if k != "license"}, where="x")
    with pytest.raises(ConfigError, match=r"2 faults(.|\n)*window(.|\n)*core"):
        import_card(LEAST | {"core": 0, "window": -1}, where="x")


def test_a_file_that_is_no_card_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--example"):
        read_keys(tmp_path / "none.yaml")
    (tmp_path / "card.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_keys(tmp_path / "card.yaml")
    (tmp_path / "card.yaml").write_text("- a")
    with pytest.raises(ConfigError, match="must hold keys and values"):
        read_keys(tmp_path / "card.yaml")
