"""What a process keeps open of a slide from step to step."""

import pytest

from quadrat.core.geometry import Box
from quadrat.engine import opened as module
from quadrat.engine import steps
from quadrat.engine.opened import close_all, opened


@pytest.fixture
def tiny(tiny_of):
    close_all()
    yield tiny_of("instance", side=32)
    close_all()


@pytest.fixture
def openings(monkeypatch):
    """The slides that were opened, in order."""
    real, seen = module.open_source, []

    def counted(path, **options):
        seen.append(path)
        return real(path, **options)

    monkeypatch.setattr(module, "open_source", counted)
    return seen


def test_a_slide_is_opened_once_for_all_its_steps(tiny, openings):
    assert tiny.run("a", "b").exit_code == 0
    assert len(openings) == 2


def test_plan_and_store_are_those_on_disk_though_the_file_stays_open(tiny, openings):
    work = tiny.work()
    steps.plan_slide(work)
    with opened(work, reading=True) as first:
        before = first.plan
    steps.plan_slide(work)
    with opened(work, reading=True) as second:
        assert second.plan is not before
        assert second.plan == before
    assert len(openings) == 1


def test_a_slide_with_damage_is_opened_anew_for_another_plan(tiny, openings):
    work = tiny.work()
    steps.plan_slide(work)
    with opened(work, reading=True) as at_hand:
        at_hand.source._lost.add(Box(0, 0, 8, 8))
    steps.plan_slide(work)
    with opened(work, reading=True) as at_hand:
        assert at_hand.source.damage == []
    assert len(openings) == 2
