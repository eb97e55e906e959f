"""The example in docs/measure.md: every row of its table."""

from pathlib import Path

import pytest

from helpers.annotation_files import feature, square
from helpers.measured import rows_of, table_of, write_rois, write_slide, write_yaml
from quadrat.core.objects import Frame

PAGE = (Path(__file__).parents[3] / "docs" / "measure.md").read_text(encoding="utf-8")
FRAME = Frame(height=2000, width=2000, mpp=0.5, scale_row=1.0, scale_col=1.0)
POSITIVE = [(100, 100), (300, 100), (500, 100), (1500, 1500)]
NEGATIVE = [(100, 300), (300, 300), (500, 300), (700, 300), (900, 300), (1000, 500), (1500, 100)]


def wanted():
    """The rows of the table under the heading of the example."""
    lines = PAGE.partition("## An example to check by hand")[2].splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    out = tmp_path_factory.mktemp("example")
    at = [(y, x) for x, y in POSITIVE + NEGATIVE]
    kinds = [0] * len(POSITIVE) + [1] * len(NEGATIVE)
    write_slide(out, *table_of(at, kinds), frame=FRAME, names=("positive", "negative"))
    region = feature(square(0, 0, 1000))
    region["properties"]["name"] = "core of the tumour"
    yaml = write_yaml(
        out / "m.yaml",
        "ratios: {ki67: positive / (positive + negative)}\n"
        "distances: [{of: positive, to: negative}]\n",
    )
    return rows_of(out, rois=write_rois(out / "r.geojson", region), pipeline=yaml)


@pytest.mark.parametrize("row", wanted(), ids=lambda row: f"{row['region']} {row['measure']}")
def test_the_table_of_the_page_is_what_comes_out(rows, row):
    head = ("region", "class", "measure")
    found = [r for r in rows if r["slide"] and all(r[k] == row[k] for k in head)]
    assert [{key: one[key] for key in row} for one in found] == [row]


def test_the_objects_of_the_page_are_those_that_are_measured():
    for places in (POSITIVE, NEGATIVE):
        assert ", ".join(map(str, places)) in PAGE
