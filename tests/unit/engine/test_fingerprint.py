"""What each setting invalidates: the tile store, the predictions, or the results alone."""

from dataclasses import replace

import pytest

from quadrat.engine.fingerprint import Fingerprints
from quadrat.engine.journal import Key

LEVELS = ("tile", "predict", "result")


def changed(before, after):
    return [level for level in LEVELS if getattr(before, level) != getattr(after, level)]


def test_the_same_slide_and_settings_have_the_same_fingerprints(tiny):
    assert tiny.prints(tiny.work()) == tiny.prints(tiny.work())
    moved = replace(tiny.work(), folder="/elsewhere")
    renamed = replace(moved, ref=replace(moved.ref, name="b", path="/also/elsewhere.png"))
    assert tiny.prints(renamed) == tiny.prints(tiny.work()), "places and names do not count"


@pytest.mark.parametrize(
    "change",
    [
        {"slide": {"min_tissue": 0.5}},
        {"slide": {"tissue": "auto"}},
        {"slide": {"damaged": "mark"}},
        {"slide": {"mpp": 0.25}},
    ],
)
def test_how_a_slide_is_read_changes_everything(tiny, change):
    other = tiny.pipeline(**change)
    assert changed(tiny.prints(tiny.work()), tiny.prints(tiny.work("a", other), other)) == [*LEVELS]


def test_another_file_another_mpp_and_another_lattice_change_everything(tiny):
    work = tiny.work()
    lattice = replace(work.spec.lattice, core=32, shard=32)
    others = [
        replace(work, identity="other"),
        replace(work, ref=replace(work.ref, mpp=0.25)),
        replace(work, margin=8),
        replace(work, spec=replace(work.spec, lattice=lattice)),
    ]
    for other in others:
        assert changed(tiny.prints(work), tiny.prints(other)) == [*LEVELS]


def test_regions_count_by_their_content(tiny):
    path = tiny.folder / "r.geojson"
    path.write_text("1")
    work = tiny.work()
    work = replace(work, ref=replace(work.ref, regions=str(path)))
    before = tiny.prints(work)
    assert changed(tiny.prints(tiny.work()), before) == [*LEVELS]
    path.write_text("2")
    assert changed(before, tiny.prints(work)) == [*LEVELS]


def test_the_model_and_how_it_computes_leave_the_tile_store_valid(tiny):
    work, before = tiny.work(), tiny.prints(tiny.work())
    after = [
        tiny.prints(work, weights="1" * 64),
        tiny.prints(replace(work, spec=replace(work.spec, inference="bf16"))),
    ]
    assert [changed(before, found) for found in after] == [["predict", "result"]] * 2


def test_thresholds_and_outputs_leave_the_predictions_valid(tiny):
    work, before = tiny.work(), tiny.prints(tiny.work())
    spec = replace(work.spec, thresholds={**work.spec.thresholds, "seed": 0.7})
    assert changed(before, tiny.prints(replace(work, spec=spec))) == ["result"]
    no_geojson = tiny.pipeline(outputs={"geojson": False})
    assert changed(before, tiny.prints(work, no_geojson)) == ["result"]


def test_the_machines_side_changes_nothing(tiny):
    other = tiny.pipeline(cluster="local", workers=7, threads=2, shards_per_unit=5, keep=("tiles",))
    assert changed(tiny.prints(tiny.work()), tiny.prints(tiny.work(), other)) == []


def test_what_computes_the_network_decides_on_receipts_and_not_on_finished_results(tiny):
    here, there = (tiny.prints(tiny.work(), machine=name) for name in ("here", "there"))
    assert changed(here, there) == []
    assert here.of("tile") == there.of("tile")
    for level in ("predict", "result"):
        assert here.of(level) != there.of(level)
        key = Key(level, there.of(level), "step")
        assert there.own(key)
        assert not here.own(key)
        assert here.elsewhere(key) == there
        assert here.elsewhere(Key(level, "0" * 16, "step")) is None
    assert here.elsewhere(Key("tile", here.of("tile"), "plan")) is None


def test_a_receipts_key_is_own_if_its_level_has_the_same_fingerprint():
    prints = Fingerprints(tile="1" * 64, predict="2" * 64, result="3" * 64)
    assert prints.own(Key("predict", "2" * 16, "predict", (0, 0)))
    assert not prints.own(Key("predict", "1" * 16, "predict", (0, 0)))
    assert prints.of("result") == "3" * 16


def test_the_unit_counts_and_in_pixel_work_no_scale_of_a_slide_does(tiny):
    work = tiny.work()
    in_px = replace(work, spec=replace(work.spec, unit="px"))
    assert changed(tiny.prints(work), tiny.prints(in_px)) == [*LEVELS]
    other = replace(in_px, ref=replace(in_px.ref, mpp=0.25))
    assert changed(tiny.prints(in_px), tiny.prints(other)) == []
