"""The judge, on result and truth files made by hand; label images come from .npy in place of the
store's arrays."""

import ast
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from rich.console import Console

from quadrat.cli import judge

SIDE = 64
CLASSES = ("lymphocyte", "epithelial")


class NpyArray:
    """What the judge needs of a store's array."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    @classmethod
    def open(cls, path, *, mode):
        assert mode == "r"
        return cls(np.load(path.with_suffix(".npy")))

    def read(self, box):
        return self.values[box.row0 : box.row1, box.col0 : box.col1]


@pytest.fixture(autouse=True)
def _labels_from_npy(monkeypatch):
    monkeypatch.setattr(judge, "ShardedArray", NpyArray)


def feature(box, name, kind):
    x0, y0, x1, y1 = box
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": kind, "classification": {"name": name}},
    }


def painted(boxes, dtype, scale=1):
    values = np.zeros((SIDE // scale, SIDE // scale), dtype)
    for k, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        values[y0 // scale : y1 // scale, x0 // scale : x1 // scale] = k
    return values


def write_truth(folder, slide, boxes, names, *, regions=None, label="gland"):
    folder.mkdir(exist_ok=True)
    features = [feature(b, n, "detection") for b, n in zip(boxes, names, strict=True)]
    features.append(feature((0, 0, SIDE, SIDE), "stroma", "annotation"))
    (folder / f"{slide}.truth.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    tifffile.imwrite(
        folder / f"{slide}.truth.nuclei.tiff", painted(boxes, np.uint32), tile=(16, 16)
    )
    regions = np.zeros((SIDE // 8, SIDE // 8), np.uint8) if regions is None else regions
    tifffile.imwrite(folder / f"{slide}.truth.regions.tiff", regions)
    (folder / f"{slide}.truth.json").write_text(
        json.dumps({"slide_label": label, "region_map_reduction": 8})
    )


def write_result(folder, slide, *, scale=1, seconds=2.5):
    out = folder / slide
    out.mkdir(parents=True)
    side = SIDE // scale
    frame = {
        "height": side,
        "width": side,
        "mpp": 0.5 * scale,
        "scale_row": scale,
        "scale_col": scale,
    }
    (out / "summary.json").write_text(json.dumps({"frame": frame}))
    if seconds:
        timings = folder.parent / "run" / "timings.jsonl"
        timings.parent.mkdir(parents=True, exist_ok=True)
        timings.write_text(
            json.dumps({"slide": slide, "seconds": {"tile": 0.5, "predict": seconds - 0.5}}) + "\n"
        )
    return out


def write_objects(out, boxes, names, *, scale=1, stated=None):
    corners = dict(
        zip(
            ("x0_l0", "y0_l0", "x1_l0", "y1_l0"),
            np.array(boxes, float).reshape(-1, 4).T,
            strict=True,
        )
    )
    columns = {
        "id": np.arange(1, len(boxes) + 1),
        "class": names,
        "score": np.ones(len(boxes), np.float32),
        **corners,
    }
    pq.write_table(pa.table(columns), out / "objects.parquet")
    write_counts(out, {n: names.count(n) for n in CLASSES} if stated is None else stated)
    write_labels(out, "objects", painted(boxes, np.uint32, scale))


def write_counts(out, rows):
    lines = [f"{name},{count}" for name, count in {**rows, "all": sum(rows.values())}.items()]
    (out / "counts.csv").write_text("\n".join(["class,count", *lines]) + "\n")


def write_labels(out, name, values):
    (out / "slide.ome.zarr" / "labels" / name).mkdir(parents=True)
    np.save(out / "slide.ome.zarr" / "labels" / name / "0.npy", values)


def by_metric(scores):
    return {s.metric: s for s in scores}


BOXES = [(0, 0, 8, 8), (16, 0, 24, 8), (32, 32, 40, 40), (50, 50, 60, 60)]
NAMES = ["lymphocyte", "epithelial", "lymphocyte", "epithelial"]


@pytest.mark.parametrize("scale", [1, 2])
def test_a_perfect_instance_result_scores_one_at_any_grid(tmp_path, scale):
    write_truth(tmp_path / "truth", "s", BOXES, NAMES)
    out = write_result(tmp_path / "results", "s", scale=scale)
    write_objects(out, BOXES, NAMES, scale=scale)
    got = by_metric(judge.judge(tmp_path / "truth", tmp_path / "results", "instance"))
    assert {
        m: got[m].value for m in ("pq", "sq", "dq", "f1", "aji", "pq_lymphocyte")
    } == dict.fromkeys(("pq", "sq", "dq", "f1", "aji", "pq_lymphocyte"), 1.0)
    assert (got["count"].value, got["count"].planted, got["count"].found) == (0.0, 4, 4)
    assert got["pq"].seconds == 2.5


def test_an_instance_result_with_one_half_and_one_missed_object_is_scored_as_worked_by_hand(
    tmp_path,
):
    write_truth(tmp_path / "truth", "s", BOXES, NAMES)
    out = write_result(tmp_path / "results", "s", seconds=None)
    found = [BOXES[0], (16, 0, 24, 6), (32, 32, 36, 40)]  # IoU 1, 3/4, and 1/2, which is no match
    write_objects(out, found, NAMES[:3])
    got = by_metric(judge.judge(tmp_path / "truth", tmp_path / "results", "instance"))
    assert got["sq"].value == pytest.approx(1.75 / 2)
    assert got["dq"].value == pytest.approx(2 / (2 + 0.5 * 2 + 0.5 * 1))
    assert got["count"].value == pytest.approx(-0.25)
    assert got["pq_epithelial"].value == pytest.approx(0.75 / 1.5)
    assert got["pq"].seconds is None


def test_detections_are_matched_within_classes_and_one_to_one(tmp_path):
    write_truth(tmp_path / "truth", "s", BOXES, NAMES)
    out = write_result(tmp_path / "results", "s")
    write_objects(
        out,
        [*BOXES, BOXES[0]],
        ["lymphocyte", "lymphocyte", "lymphocyte", "epithelial", "lymphocyte"],
    )
    got = by_metric(judge.judge(tmp_path / "truth", tmp_path / "results", "detection"))
    assert got["f1_lymphocyte"].value == pytest.approx(2 * 2 / (2 + 4))
    assert got["f1_epithelial"].value == pytest.approx(2 * 1 / (2 + 1))
    assert got["f1"].value == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert got["count"].value == pytest.approx(0.25)


@pytest.mark.parametrize("scale", [1, 4])
def test_region_dice_is_taken_on_the_results_grid_with_classes_by_name(tmp_path, scale):
    regions = np.zeros((8, 8), np.uint8)
    regions[:4], regions[4:, :4] = 1, 3
    write_truth(tmp_path / "truth", "s", [], [], regions=regions)
    out = write_result(tmp_path / "results", "s", scale=scale)
    write_counts(
        out, {"tumour": 1, "stroma": 1}
    )  # another order than the truth's: 1 is tumour, 2 stroma
    found = np.zeros((8, 8), np.uint8)
    found[:4], found[4:, :2] = 2, 1
    write_labels(out, "classes", np.kron(found, np.ones((8 // scale,) * 2, np.uint8)))
    got = by_metric(judge.judge(tmp_path / "truth", tmp_path / "results", "semantic"))
    assert got["dice_stroma"].value == 1.0
    assert got["dice_tumour"].value == pytest.approx(2 * 8 / (16 + 8))
    assert got["dice_gland"].value is None
    assert got["dice_mean"].value == pytest.approx((1 + 2 / 3) / 2)
    assert got["dice_stroma"].planted == pytest.approx(32 * 32 * 2 * 0.25e-6)


def test_tiles_are_judged_by_the_class_of_most_of_their_tissue_if_that_is_more_than_half(tmp_path):
    regions = np.zeros((8, 8), np.uint8)
    regions[:4, :4] = 2
    regions[:1, :4] = 1
    regions[4:, :4] = 3
    regions[:2, 4:] = 1  # half of the tile: not judged
    write_truth(tmp_path / "truth", "s", [], [], regions=regions)
    out = write_result(tmp_path / "results", "s")
    (out / "classes.csv").write_text("class,probability\nstroma,0.3\ngland,0.5\ntumour,0.2\n")
    rows = ["0,0,0,0,32,32,gland", "0,1,32,0,64,32,tumour", "1,0,0,32,32,64,stroma"]
    (out / "tiles.csv").write_text(
        "\n".join(["row,col,x0_l0,y0_l0,x1_l0,y1_l0,class", *rows]) + "\n"
    )
    got = by_metric(judge.judge(tmp_path / "truth", tmp_path / "results", "classification"))
    assert (got["slide_label"].value, got["slide_label"].planted, got["slide_label"].found) == (
        1.0,
        "gland",
        "gland",
    )
    tiles = got["tile_balanced_accuracy"]
    assert (tiles.value, tiles.planted, tiles.found) == (0.5, 2, 1)


def test_counts_that_differ_from_the_object_table_are_not_judged(tmp_path):
    write_truth(tmp_path / "truth", "s", BOXES, NAMES)
    write_objects(write_result(tmp_path / "results", "s"), BOXES, NAMES, stated={"lymphocyte": 5})
    with pytest.raises(judge.QuadratError, match=r"states 5 objects, objects\.parquet holds 4"):
        judge.judge(tmp_path / "truth", tmp_path / "results", "detection")


def test_a_label_without_a_row_in_the_object_table_is_not_judged(tmp_path):
    write_truth(tmp_path / "truth", "s", BOXES, NAMES)
    out = write_result(tmp_path / "results", "s")
    write_objects(out, BOXES, NAMES)
    np.save(out / "slide.ome.zarr" / "labels" / "objects" / "0.npy", painted(BOXES, np.uint32) * 2)
    with pytest.raises(judge.QuadratError, match="id 6 is in the label image but not in the table"):
        judge.judge(tmp_path / "truth", tmp_path / "results", "instance")


def test_a_slide_without_result_is_not_passed_over(tmp_path, capsys):
    write_truth(tmp_path / "truth", "s", BOXES, NAMES)
    write_truth(tmp_path / "truth", "t", BOXES, NAMES)
    write_objects(write_result(tmp_path / "results", "s"), BOXES, NAMES)
    folders = ["--truth", str(tmp_path / "truth"), "--results", str(tmp_path / "results")]
    command = [*folders, "--task", "detection", "--out", str(tmp_path / "scores.json")]
    assert judge.main(command) == 2
    assert "no result of t" in capsys.readouterr().err
    assert not (tmp_path / "scores.json").exists()
    assert judge.main([*command, "--slides", "s"]) == 0


def test_scores_are_added_and_those_of_the_same_task_and_slide_replaced(tmp_path):
    path = tmp_path / "scores.json"
    one = judge.Score("instance", "s", "pq", 0.5, 1, 1, None)
    other = judge.Score("detection", "s", "f1", 0.25, 1, 1, 1.0)
    judge.write_scores(path, [one])
    judge.write_scores(path, [other])
    judge.write_scores(path, [judge.Score("instance", "s", "pq", 0.75, 1, 1, None)])
    assert [(s.task, s.value) for s in judge.read_scores(path)] == [
        ("detection", 0.25),
        ("instance", 0.75),
    ]
    assert list(json.loads(path.read_text())[0]) == [
        "task",
        "slide",
        "metric",
        "value",
        "planted",
        "found",
        "seconds",
    ]


def test_the_table_sums_counts_and_shows_the_worst_slide():
    scores = [
        judge.Score("instance", "a", "count", -0.02, 100, 98, None),
        judge.Score("instance", "b", "count", 0.01, 200, 202, None),
        judge.Score("instance", "a", "pq", 0.8, 100, 98, None),
        judge.Score("instance", "b", "pq", 0.9, 200, 202, None),
        judge.Score("classification", "a", "slide_label", 1.0, "gland", "gland", None),
        judge.Score("classification", "b", "slide_label", 0.0, "gland", "stroma", None),
    ]
    out = io.StringIO()
    judge.print_table(scores, console=Console(file=out, width=120))
    rows = [" ".join(line.replace("│", " ").split()) for line in out.getvalue().splitlines()]
    assert "instance 2 300 300 2.00% pq 0.850 0.800" in rows
    assert "classification 2 2 1 1 wrong tile_balanced_accuracy - -" in rows


def test_the_judge_imports_nothing_of_what_it_judges():
    tree = ast.parse(Path(judge.__file__).read_text(encoding="utf-8"))
    names = [
        n.module
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and n.module.startswith("quadrat")
    ]
    allowed = ("annotations", "errors", "geometry", "metrics", "results", "store")
    assert names
    assert all(name.split(".")[1] in allowed for name in names)
