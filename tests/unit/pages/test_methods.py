"""The text for a paper says what summary.json and the card say."""

from dataclasses import replace

from helpers import shown
from quadrat.pages.folder import read_run
from quadrat.pages.methods import methods_text
from quadrat.pages.report import look_at

CARD = {
    "limits": "misses pale nuclei",
    "intended_use": "research use only, not for diagnosis",
    "training": {"source": "forty patches"},
}


def text_of(tmp_path, card, **changes):
    run = read_run(shown.make_run(tmp_path, ("one", "two"), objects=20))
    entries = [look_at(slide, tmp_path / "r" / name) for name, slide in run.slides.items()]
    for one in entries:
        one.slide = replace(one.slide, summary=replace(one.slide.summary, **changes))
    return " ".join(methods_text(entries, card))


def test_it_names_model_scale_thresholds_areas_and_limits(tmp_path):
    text = text_of(tmp_path, CARD, thresholds={"seed": 0.4, "min_area_um2": 8.0})
    for part in (
        "2 slides were analysed by instance segmentation (tumour and <i>stroma</i>)",
        "at 0.5 µm per pixel with the thresholds min_area_um2 8, seed 0.4",
        "it was trained on forty patches",
        "(tiling-exact)",
        "0.04 mm² were analysed (of which 0.00 mm² are gaps and holes that were filled)",
        "not analysed were glass 0.02 mm² and pen 0.00 mm²",
        "Limits: Misses pale nuclei. Research use only, not for diagnosis.",
    ):
        assert part in text


def test_without_a_card_it_says_so(tmp_path):
    assert "the model's card was not found" in text_of(tmp_path, None)


def test_work_in_pixels_names_no_micrometres(tmp_path):
    frame = replace(shown.frame(), unit="px", mpp=1.0)
    text = text_of(tmp_path, CARD, frame=frame, thresholds={"min_area_um2": 8.0})
    assert "in pixels of level 0 with the thresholds min_area_px2 8" in text
    assert "Mpx were analysed" in text
    assert "µm" not in text
