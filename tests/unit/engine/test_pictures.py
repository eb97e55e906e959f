"""The pictures of a slide, and the summary that is written last."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_files import feature, square
from quadrat.annotations import regions
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.objects import Frame, ObjectTable, Polygons
from quadrat.core.predictions import TileScores
from quadrat.engine import pictures
from quadrat.engine.pictures import (
    FINISH,
    Canvas,
    busiest_box,
    finish_slide,
    gather,
    middle_box,
    sample_labels,
)
from quadrat.outputs.summary import read_summary
from quadrat.outputs.tissue import read_tissue
from quadrat.slides.tissue.mask import LOST
from quadrat.store.ome_zarr import open_label_image

FRAME = Frame(height=1000, width=1200, mpp=0.5, scale_row=1.0, scale_col=1.0)
LATTICE = Lattice(core=100, halo=0, stride=1, shard=100)


def objects_at(*places, size=10):
    """(table, polygons) of squares around (row, column)."""
    centroid = np.array(places, np.float64).reshape(-1, 2)
    bbox = np.concatenate([centroid - size / 2, centroid + size / 2], axis=1)
    n = len(bbox)
    table = ObjectTable(
        anchor=centroid.astype(np.int64),
        class_id=np.arange(n, dtype=np.uint8),
        score=np.ones(n, np.float32),
        bbox=bbox,
        centroid=centroid,
        area_px=np.full(n, float(size * size)),
        perimeter_px=np.full(n, 4.0 * size),
        flags=np.zeros(n, np.uint8),
    )
    return table, Polygons.boxes(bbox)


def plan_and_spec(tiny):
    spec = replace(tiny.spec, lattice=LATTICE)
    (state,) = tiny.advanced("a", until="plan")
    return replace(state.work.load_plan(), frame=FRAME, cells=((0, 0), (5, 7), (9, 9))), spec


def test_the_detail_shows_the_most_objects_and_lies_on_the_slide(tiny):
    plan, spec = plan_and_spec(tiny)
    table, _ = objects_at((10, 10), (700, 800), (710, 820), (719, 760))
    box = busiest_box(table, FRAME, plan, spec)
    assert box == Box(360, 720, 720, 1080)
    edge, _ = objects_at((990, 1190))
    assert busiest_box(edge, FRAME, plan, spec) == Box(640, 840, 1000, 1200)
    beyond, _ = objects_at((-3, -2), (-1, 500), (1003, 1201))  # of masks that reach over the border
    assert busiest_box(beyond, FRAME, plan, spec) == Box(0, 0, 360, 360)


def test_without_objects_the_detail_is_the_middle_core(tiny):
    plan, spec = plan_and_spec(tiny)
    box = busiest_box(ObjectTable.empty(), FRAME, plan, spec)
    assert (box.row0, box.col0) == (500, 700)
    small = replace(FRAME, height=50, width=60)
    assert busiest_box(ObjectTable.empty(), small, plan, spec) == Box(0, 0, 50, 60)


def test_what_meets_a_box_is_gathered_from_all_parts_relative_to_its_corner():
    parts = [
        lambda: objects_at((100, 100), (300, 300)),
        lambda: objects_at((195, 150), (96, 96), (195.1, 150)),
    ]
    table, polygons = gather(parts, Box(100, 100, 190.1, 200))
    assert table.centroid.tolist() == [[100, 100], [195, 150], [96, 96]]
    assert polygons.xy[:5].tolist() == [[-5, -5], [5, -5], [5, 5], [-5, 5], [-5, -5]]
    assert len(polygons) == 3
    nothing, none = gather([], Box(0, 0, 5, 5))
    assert (len(nothing), len(none)) == (0, 0)


def test_the_detail_of_tiles_is_a_square_around_the_middle_one_on_the_canvas():
    canvas = Canvas(np.zeros((90, 120, 3), np.uint8), 8.0, "t")
    cells = np.array([[0, 0], [2, 3], [4, 5]], np.int32)
    scores = np.full((3, 2), 30_000, np.uint16)
    tiles = TileScores(cells, scores, np.zeros((3, 0), np.float16))
    assert middle_box(tiles, canvas, tile_px=20.0) == (45.0, 25.0, 75.0, 55.0)
    assert middle_box(tiles.take(slice(2, 3)), canvas, tile_px=20.0) == (85.0, 60.0, 115.0, 90.0)
    assert middle_box(tiles.take(slice(0, 0)), canvas, tile_px=20.0) == (0.0, 0.0, 30.0, 30.0)


def test_labels_are_sampled_at_the_centres_of_the_canvass_pixels(tiny_of):
    (state,) = tiny_of("semantic").advanced("a")
    work, frame = state.work, state.work.load_plan().frame
    whole = open_label_image(work.image, "classes").read(frame.box).squeeze()
    canvas = Canvas(np.zeros((16, 16, 3), np.uint8), frame.mpp * 4, "t")
    assert np.array_equal(sample_labels(work, "classes", frame, canvas), whole[2::4, 2::4])


PICTURES = {
    "instance": {"overlay.png", "density.png"},
    "detection": {"overlay.png", "density.png"},
    "semantic": {"overlay.png"},
    "classification": {"overlay.png", "heatmap.png"},
}
"""Without tissue.png, which every slide has."""


@pytest.mark.parametrize("task", PICTURES)
def test_each_kind_of_answer_has_its_pictures_and_a_summary(tiny_of, task):
    tiny = tiny_of(task, side=32)
    (state,) = tiny.advanced("a", pipeline=tiny.pipeline(outputs={"overlay": True}))
    assert state.failure is None, state.failure
    result = state.work.result
    assert {path.name for path in result.glob("*.png")} == PICTURES[task] | {"tissue.png"}
    for name in PICTURES[task]:
        assert len(np.unique(np.asarray(Image.open(result / name)))) > 3
    summary = read_summary(result)
    assert (summary.slide, summary.task, summary.cores) == ("a", task, 4)
    assert summary.fingerprint == state.prints.result
    assert summary.frame == state.work.load_plan().frame
    assert summary.thresholds == tiny.spec.thresholds
    assert summary.provenance.pipeline == "tiny"


def test_the_summary_is_written_last(tiny, monkeypatch):
    (state,) = tiny.advanced("a")
    (state.work.result / "summary.json").unlink()

    def refuse(*words):
        raise RuntimeError("no picture")

    monkeypatch.setattr(pictures, "draw_objects", refuse)
    job = FINISH.job(state, tiny.batch(pipeline=tiny.pipeline(outputs={"overlay": True})).run)
    with pytest.raises(RuntimeError, match="no picture"):
        finish_slide(job)
    assert not (state.work.result / "summary.json").exists()


def test_regions_that_count_from_the_scanned_part_are_moved_and_the_result_says_so(
    tiny, monkeypatch
):
    half = tiny.case.rgb.shape[0] // 2
    part = Box(half, half, 2 * half, 2 * half)
    monkeypatch.setattr(regions, "scanned_part", lambda path: part)
    drawn = tiny.folder / "r.geojson"
    shape = feature(square(1, 1, half // 2), name="ROI")
    drawn.write_text(json.dumps({"type": "FeatureCollection", "features": [shape]}))
    ref = replace(tiny.slide(), regions=str(drawn))
    monkeypatch.setattr(tiny, "slide", lambda name="a": ref)
    report = tiny.run("a", pipeline=tiny.pipeline(slide={"regions_origin": "scanned"}))
    assert report.exit_code == 0
    (note,) = read_summary(tiny.out / "results" / "a").notes
    assert note.startswith("the regions: its coordinates count from the corner of the scanned part")
    assert f"moved by {half}, {half} px" in note
    assert report.rows[0].reason == note
    values = json.loads((tiny.out / "results" / "a" / "summary.json").read_text())
    assert values["notes"] == [note]


def test_the_tissue_in_the_results_is_the_mask_without_damaged_tiles(tiny):
    (state,) = tiny.advanced("a")
    job = FINISH.job(state, tiny.batch().run)
    tissue, frame = state.work.load_tissue(), state.work.load_plan().frame
    assert np.array_equal(read_tissue(state.work.result)[0], tissue.codes)
    half = (0.0, 0.0, frame.width * frame.scale_col, frame.height * frame.scale_row / 2)
    area = replace(job.figures.area, damaged_tiles_l0=(half,))
    pictures.draw_tissue(state.work, area)
    codes, place = read_tissue(state.work.result)
    rows = tissue.frame.height // 2
    assert place == tissue.frame
    assert (codes[:rows] == tissue.codes[:rows] | LOST).all()
    assert np.array_equal(codes[rows:], tissue.codes[rows:])
