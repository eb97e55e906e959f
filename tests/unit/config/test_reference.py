"""The page that says what every key of a pipeline means."""

import re
from pathlib import Path

from quadrat.config.pipeline import pipeline_schema
from quadrat.config.reference import markdown
from quadrat.tasks import get_task, task_names

SCHEMA = pipeline_schema()


def test_every_key_has_a_meaning_and_the_reference_page_is_current():
    page = (Path(__file__).parents[3] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    assert page == markdown(SCHEMA), "run `make docs`"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    parts = [SCHEMA, *SCHEMA["$defs"].values()]
    assert len(rows) == sum(len(part["properties"]) for part in parts)
    assert all(row.split(" | ")[-1].removesuffix(" |").strip() for row in rows)


def test_the_reference_states_the_defaults_of_the_tasks_thresholds():
    stated = SCHEMA["$defs"]["Thresholds"]["properties"]
    for name in task_names():
        for key, default in get_task(name).default_thresholds.items():
            words = stated[key]["description"]
            own = f"{name} ({default:g})" in words
            shared = f"({default:g})" in words and re.search(rf"\b{name}\b[^(]*:", words)
            assert own or shared, (name, key, default, words)
