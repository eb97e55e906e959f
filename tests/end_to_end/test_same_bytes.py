"""The results do not depend on how the work was cut, nor on where it ran."""

import json

import pytest

from helpers.runs import MASKS, TASKS, contents, difference, phases, quadrat, table
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.engine import run
from quadrat.engine.progress import Reporter


@pytest.mark.parametrize("task", TASKS)
def test_one_shard_a_unit_three_of_a_tile_store_and_two_dask_workers_give_equal_bytes(
    task, lab, reference, cluster, tmp_path
):
    check_equal_bytes(task, lab, reference, cluster, tmp_path)


@pytest.mark.slow
def test_a_mask_model_too_gives_equal_bytes_however_the_work_is_cut(
    lab, reference, cluster, tmp_path
):
    check_equal_bytes(MASKS, lab, reference, cluster, tmp_path)
    for row in table(reference(MASKS) / "summary.csv"):
        assert int(row["count"]) >= 20, row
    card = json.loads((lab.package(MASKS) / "card.json").read_text())
    assert card["exactness"]["promise"] == "schedule-exact"


def check_equal_bytes(task, lab, reference, cluster, tmp_path):
    want = contents(reference(task))
    assert {"summary.csv", "square/summary.json", "oblong/overlay.png"} <= want.keys()

    done = quadrat("run", lab.pipeline(task), *lab.slides, "--out", tmp_path / "three",
                   "--set", "run.shards_per_unit=3", "--set", "run.source=stored")  # fmt: skip
    assert done.code == 0, done.err
    assert phases(tmp_path / "three")["tile"] > 0
    assert not list((tmp_path / "three" / "run").rglob("tiles.zarr")), (
        "the tile store goes when the slide is done"
    )
    assert difference(contents(tmp_path / "three" / "results"), want) == []

    slides = slides_from_paths([str(p) for p in lab.slides], mpp=None)
    with Reporter(tmp_path / "dask" / "run" / "log.jsonl", quiet=True) as reporter:
        pipeline = load_pipeline(str(lab.pipeline(task)), ["run.workers=2"])
        report = run.run(pipeline, slides, tmp_path / "dask", reporter=reporter, executor=cluster)
    assert report.exit_code == 0
    assert difference(contents(tmp_path / "dask" / "results"), want) == []

    assert phases(reference(task).parent)["tile"] == 0
    units = phases(reference(task).parent)["predict"]
    assert units >= 20, "two slides of 16 shards, some of them glass: too few to prove anything"
    assert phases(tmp_path / "three")["predict"] < units / 2


@pytest.mark.parametrize("task", TASKS)
def test_the_reference_has_something_to_compare(task, reference):
    rows = table(reference(task) / "summary.csv")
    assert [row["slide"] for row in rows] == ["oblong", "square"]
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        lines = table(
            reference(task)
            / row["slide"]
            / ("tiles.csv" if task == "classification" else "counts.csv")
        )
        found = len(lines) if task == "classification" else int(lines[-1]["count"])
        assert found >= (1 if task == "semantic" else 20), row


@pytest.mark.parametrize("task", ["instance", "detection", "semantic"])
def test_the_summary_states_the_counts_under_the_documented_names(task, reference):
    for row in table(reference(task) / "summary.csv"):
        for line in table(reference(task) / row["slide"] / "counts.csv"):
            column = "count" if line["class"] == "all" else f"count_{line['class']}"
            assert row[column] == line["count"]


@pytest.mark.parametrize("task", TASKS)
def test_nothing_under_results_holds_a_path_of_the_machine_or_a_half_written_name(
    task, lab, reference
):
    folder = reference(task)
    for path in contents(folder):
        assert "partial" not in path
        content = (folder / path).read_bytes()
        assert str(lab.folder).encode() not in content, path
        assert b"/tmp/" not in content, path
