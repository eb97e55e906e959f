"""The demo's manifests and its table; the demo itself runs in CI (make demo SCALE=small)."""

import csv
import json
from contextlib import nullcontext

import pytest

from quadrat.cli import demo
from quadrat.config.manifest import read_manifest
from quadrat.engine.executor import Serial
from quadrat.engine.progress import Reporter
from quadrat.engine.report import RunReport
from quadrat.phantom import PhantomFiles

TILES = "tile_balanced_accuracy"


@pytest.fixture
def written(monkeypatch):
    """The names of the phantoms that were written; of each only the facts exist."""
    names = []

    def write(folder, *, spec):
        folder.mkdir(parents=True, exist_ok=True)
        files = PhantomFiles.of(folder, spec.name)
        files.facts.write_text(json.dumps({"slide_label": spec.dominant}))
        names.append(spec.name)
        return files

    monkeypatch.setattr(demo, "write_phantom", write)
    return names


def test_the_manifests_name_truth_for_all_slides_and_labels_for_test_slides_only(tmp_path, written):
    size = demo.SCALES["small"]
    demo.make_phantoms(tmp_path, size, Serial())
    trained, tested = (read_manifest(tmp_path / f"{name}.csv") for name in ("train", "test"))
    assert [ref.split for ref in trained] == ["train"] * 3 + ["val"]
    assert {ref.label for ref in trained} == {""}
    assert [ref.label for ref in tested] == ["tumour", "stroma", "gland", "stroma"]
    assert {ref.split for ref in tested} == {"test"}
    assert not {ref.case for ref in trained} & {ref.case for ref in tested}
    for ref in (*trained, *tested):
        assert (ref.annotated, ref.annotation.removesuffix(".truth.geojson")) == (
            "all",
            ref.path.removesuffix(".tiff"),
        )
    assert len(written) == 8


def test_phantoms_that_are_complete_are_not_written_again(tmp_path, written):
    size = demo.SCALES["small"]
    demo.make_phantoms(tmp_path, size, Serial())
    PhantomFiles.of(tmp_path / "test", "small_1").facts.unlink()
    del written[:]
    demo.make_phantoms(tmp_path, size, Serial())
    assert written == ["small_1"]


def write_rows(out, task, header, *rows):
    folder = demo.run_folder(out, task) / demo.EVALUATION
    folder.mkdir(parents=True)
    with (folder / "per_slide.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_the_table_sums_counts_and_shows_the_worst_slide(tmp_path):
    objects = ("slide", "count_planted", "count_found")
    for task, metric in (("instance", "pq"), ("detection", "f1")):
        write_rows(tmp_path, task, (*objects, metric), ("a", 100, 98, 0.8), ("b", 2000, 2020, 0.9))
    write_rows(
        tmp_path,
        "semantic",
        ("slide", "annotated_mm2", "found_mm2", "dice"),
        ("a", 1.0, 1.1, 0.95),
        ("b", 2.5, 2.5, 0.85),
    )
    write_rows(
        tmp_path,
        "classification",
        ("slide", "evaluated_slides", "accuracy", TILES),
        ("a", 1, 1, 0.75),
        ("b", 1, 0, 0.25),
    )
    header, *rows = demo.figures_table(tmp_path)
    assert len(header) == 8
    assert rows == [
        ("instance", "2", "2,100", "2,118", "2.00%", "pq", "0.850", "0.800"),
        ("semantic", "2", "3.50 mm²", "3.60 mm²", "10.00%", "dice", "0.900", "0.850"),
        ("detection", "2", "2,100", "2,118", "2.00%", "f1", "0.850", "0.800"),
        ("classification", "2", "2 slides", "1 right", "1 wrong", TILES, "0.500", "0.250"),
    ]


def test_the_shipped_pipelines_take_the_demo_s_folders_and_steps(tmp_path):
    size = demo.SCALES["small"]
    for task in demo.TASKS:
        pipeline = demo.demo_pipeline(task, tmp_path, size)
        assert pipeline.task == task
        assert pipeline.train.steps == size.steps[task]
        assert pipeline.model.package == str(tmp_path / "packages" / task)


def test_a_demo_in_which_slides_failed_ends_as_their_runs_did_and_evaluates_nothing(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "phantoms").mkdir()
    (tmp_path / "phantoms" / "test.csv").write_text("slide\na.tiff\n")
    codes = iter([0, 1, 74, 0])
    monkeypatch.setattr(demo, "open_executor", lambda *a, **k: nullcontext(Serial()))
    monkeypatch.setattr(demo, "make_phantoms", lambda *a: None)
    monkeypatch.setattr(demo, "training_of", lambda pipeline: None)
    monkeypatch.setattr(demo, "train_all", lambda *a, **k: None)
    monkeypatch.setattr(demo, "run", lambda *a, **k: RunReport(rows=(), exit_code=next(codes)))
    monkeypatch.setattr(demo, "evaluate", lambda *a: pytest.fail("nothing is to be evaluated"))
    assert demo.demo(tmp_path, scale="small", workers=1, reporter=Reporter()) == 74
    assert "not evaluated: slides failed" in capsys.readouterr().err
