"""A slide as stitching sees it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from quadrat.core.errors import StoreError
from quadrat.engine.steps import create_predictions, plan_slide
from quadrat.engine.view import WorkView, load_part, save_part


@pytest.fixture
def stitched(tiny):
    """The folder of a slide that is stitched, not yet merged."""
    (state,) = tiny.advanced("a")
    state.work.first_ids.unlink()
    return state.work


def test_a_view_has_the_stores_frame_and_shards_and_the_works_thresholds(stitched):
    view = WorkView(stitched)
    assert view.frame == stitched.load_plan().frame
    assert len(view.shards) == 16
    assert view.spec is stitched.spec
    assert view.predictions.read(view.frame.box).shape == (5, 64, 64)


def test_ids_count_from_1_through_the_shards_in_raster_order(stitched):
    view = WorkView(stitched)
    expected, first = {}, 1
    for shard in sorted(view.shards):
        expected[shard] = first
        first += len(view.part(shard)["class_id"])
    assert view.first_id == expected
    assert first > 3


def test_kept_ids_are_read_from_their_file_without_opening_any_part(stitched):
    view = WorkView(stitched)
    view.keep_first_ids()
    for shard in view.shards:
        stitched.part(shard).unlink()
    assert WorkView(stitched).first_id == view.first_id


def test_without_regions_everything_is_permitted_and_with_them_what_lies_inside(tiny):
    work = tiny.work()
    plan_slide(work)
    create_predictions(work)
    rows, cols = np.arange(64)[:, None], np.arange(64)[None, :]
    assert WorkView(work).allows(rows, cols).all()
    ring = [[0, 0], [32, 0], [32, 64], [0, 64], [0, 0]]
    drawn = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "ROI"}},
    }
    path = tiny.folder / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [drawn]}))
    work = replace(work, ref=replace(work.ref, regions=str(path)))
    plan_slide(work)
    permitted = WorkView(work).allows(rows, cols)
    assert permitted[:, :28].all()
    assert not permitted[:, 36:].any()


def test_parts_come_back_array_by_array_and_a_damaged_one_is_named(tmp_path):
    arrays = {"class_id": np.arange(3, dtype=np.uint8), "bbox": np.ones((3, 4))}
    save_part(tmp_path / "parts" / "p.npz", arrays)
    found = load_part(tmp_path / "parts" / "p.npz")
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    (tmp_path / "parts" / "p.npz").write_bytes(b"half")
    for name in ("p.npz", "none.npz"):
        with pytest.raises(StoreError, match=rf"{name} cannot be read .* run again to stitch it"):
            load_part(tmp_path / "parts" / name)
