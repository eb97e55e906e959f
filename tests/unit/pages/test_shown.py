"""Slides that are looked at are opened once, and the last few kept."""

from helpers import shown
from quadrat.pages import shown as module
from quadrat.pages.folder import read_run
from quadrat.pages.shown import Viewing


def test_a_slide_is_opened_once_and_forgotten_when_others_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OPEN", 1)
    viewing = Viewing(read_run(shown.make_run(tmp_path, ("one", "two"), objects=3)))
    viewing.open_early("nobody")
    one = viewing.shown("one")
    assert viewing.shown("one") is one
    viewing.shown("two")
    assert viewing.shown("one") is not one


def test_colours_that_can_be_confused_are_replaced_at_first(tmp_path):
    viewing = Viewing(read_run(shown.make_run(tmp_path, ("one",), objects=3)))
    about = viewing.shown("one").about()
    assert about["confusable"] is False
    assert [c["own"] for c in about["classes"]] == [c.color for c in shown.CLASSES]
    assert len({tuple(c["safe"]) for c in about["classes"]}) == 2
