"""The commands about pipelines: what they list, show and print."""

import json
from pathlib import Path

from helpers.runs import quadrat
from quadrat.cli.init.proposal import TASKS
from quadrat.config.pipeline import load_pipeline, pipeline_schema, shipped_pipelines

REPOSITORY = Path(__file__).parents[3]


def test_init_without_a_task_shows_which_kinds_of_model_there_are():
    done = quadrat("init")
    assert done.code == 2
    table = done.out.partition("TASK ")[2].partition("examples:")[0]
    assert all(f"\n  {task} " in table for task in TASKS)
    assert "docs/choosing.md" in done.out
    assert quadrat("init", "--help").out == done.out


def test_the_shipped_pipelines_are_listed_with_what_one_needs_to_choose():
    done = quadrat("pipelines")
    assert done.code == 0
    head, *rows = done.out.splitlines()
    assert head.split() == ["name", "task", "mpp", "model", "classes", "description"]
    names = sorted(path.stem for path in shipped_pipelines().glob("*.yaml"))
    assert [row.split()[0] for row in rows] == names
    for name, row in zip(names, rows, strict=True):
        one = load_pipeline(name)
        card = shipped_pipelines() / one.model.package / "card.json"
        assert one.task in row
        assert f" {one.model.mpp:g} " in row
        assert ("shipped" if card.exists() else "to train") in row
        assert row.endswith(one.description)


def test_the_schema_and_the_reference_of_pipelines_are_printed():
    assert json.loads(quadrat("config", "schema").out) == pipeline_schema()
    page = (REPOSITORY / "docs" / "pipeline.md").read_text(encoding="utf-8")
    assert quadrat("config", "docs").out == page
