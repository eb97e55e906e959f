"""Crops of objects: which, and what they show."""

import numpy as np

from helpers import shown
from quadrat.pages.crops import HOTSPOT, RANDOM, UNSURE, choose, cut
from quadrat.pages.folder import read_run
from quadrat.pages.things import read_things


def opened(tmp_path, **options):
    slide = read_run(shown.make_run(tmp_path, ("one",), **options)).slides["one"]
    return slide, read_things(slide)


def test_twelve_objects_are_chosen_each_once_and_always_the_same(tmp_path):
    slide, things = opened(tmp_path)
    chosen = choose(slide, things.places)
    assert [one.why for one in chosen] == [RANDOM] * 4 + [UNSURE] * 4 + [HOTSPOT] * 4
    assert len({one.index for one in chosen}) == 12
    assert choose(slide, things.places) == chosen
    unsure = [one.index for one in chosen if one.why == UNSURE]
    assert unsure == np.argsort(things.places.score, kind="stable")[:4].tolist()


def test_few_objects_are_shown_once(tmp_path):
    slide, things = opened(tmp_path, objects=5)
    assert sorted(one.index for one in choose(slide, things.places)) == [0, 1, 2, 3, 4]
    slide, things = opened(tmp_path / "none", objects=0)
    assert choose(slide, things.places) == []


def test_a_crop_shows_its_object_at_the_models_scale_with_its_outline(tmp_path):
    slide, things = opened(tmp_path)
    chosen = choose(slide, things.places)
    with slide.open() as picture:
        cuts = list(cut(slide, picture, things, chosen))
    for one in cuts:
        assert one.pixels.shape == (128, 128, 3)
        assert one.drawn.shape == (256, 256, 3)
    rgb = shown.picture(shown.planted(120, 0))
    box = things.places.box[chosen[0].index]
    side = 128 * shown.SCALE
    col, row = (
        max(0.0, min(float(np.floor(middle / 2 - 64)) * 2, whole - side))
        for middle, whole in zip((box[:2] + box[2:]) / 2, (shown.WIDTH, shown.HEIGHT), strict=True)
    )
    want = rgb[int(row) : int(row + side), int(col) : int(col + side)]
    want = want.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(cuts[0].pixels.astype(float) - want).mean() < 2
    colours = {tuple(c.color) for c in shown.CLASSES}
    drawn = {tuple(p) for p in cuts[0].drawn.reshape(-1, 3).tolist()}
    assert drawn & colours


def test_regions_and_tiles_have_crops_too(tmp_path):
    for task in ("semantic", "classification"):
        slide, things = opened(tmp_path / task, task=task)
        chosen = choose(slide, things.places)
        assert len(chosen) == 12
        with slide.open() as picture:
            assert len(list(cut(slide, picture, things, chosen))) == 12
