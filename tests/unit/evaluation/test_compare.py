"""Counts of a run against those of people, or of another run."""

import json

import numpy as np
import pytest

from helpers.planted_runs import FRAME, random_boxes, write_slide
from helpers.runs import contents, table
from helpers.summaries import SCORES, summary_of
from quadrat.core.errors import ConfigError
from quadrat.evaluation.compare import (
    compare,
    comparison_json,
    comparison_text,
    write_comparison,
)
from quadrat.outputs.summary import write_summary

COUNTS = {"s1": (3, 1), "s2": (10, 4), "s3": (0, 2)}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run with objects of the classes a and b as in ``COUNTS``."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    for seed, (name, (a, b)) in enumerate(COUNTS.items()):
        write_slide(folder, name, random_boxes(a + b, seed), [0] * a + [1] * b)
    return folder


def manual(tmp_path, text):
    path = tmp_path / "manual.csv"
    path.write_text(text)
    return path


def test_each_class_is_compared_on_the_slides_that_both_counted(tmp_path, out):
    text = "slide,count,a\ns1,5,3\ns2,12,\ns3,2,1\nother,4,4\n"
    found = compare(out, manual(tmp_path, text))
    assert list(found.pairs) == ["all", "a"]
    assert found.pairs["all"].found.tolist() == [4, 14, 2]
    assert found.pairs["all"].reference.tolist() == [5, 12, 2]
    assert found.pairs["a"].slides == ("s1", "s3")
    figures = found.figures["all"]
    assert (figures.units, figures.bias.value) == (3, pytest.approx(1 / 3))
    assert figures.sd == pytest.approx(np.std([-1, 2, 0], ddof=1))
    assert "other: no result" in found.notes
    assert any("3 slides are few" in note for note in found.notes)
    assert found.names == ("manual", "found")


def test_all_files_are_written_and_always_with_the_same_bytes(tmp_path, out):
    found = compare(out, manual(tmp_path, "slide,count,remark\ns1,5,x\ns2,12,\ns3,2,\n"))
    for name in ("one", "two"):
        write_comparison(tmp_path / name, found)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sorted(contents(tmp_path / "one")) == [
        "bland_altman.pdf", "bland_altman.png", "compare.csv", "compare.json", "scatter.pdf",
        "scatter.png", "slides.csv",
    ]  # fmt: skip
    assert (tmp_path / "one" / "scatter.pdf").read_bytes()[:5] == b"%PDF-"
    rows = table(tmp_path / "one" / "slides.csv")
    assert [row["difference"] for row in rows] == ["-1", "2", "0"]
    values = json.loads((tmp_path / "one" / "compare.json").read_text())
    assert values["classes"]["all"]["slope"]["low"] is None
    assert "column 'remark' is not used" in values["notes"]
    figures = {row["figure"]: row for row in table(tmp_path / "one" / "compare.csv")}
    assert float(figures["bias"]["value"]) == pytest.approx(1 / 3, abs=1e-5)


def test_two_runs_are_compared_by_their_own_counts(tmp_path, out):
    found = compare(out, out.parent / "out")
    assert found.figures["all"].icc.value == 1
    assert [line.split()[0] for line in comparison_text(found)[1:4]] == ["units", "bias", "sd"]
    assert comparison_json(found)["reference"] == "second run"


def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path, out):
    with pytest.raises(ConfigError, match="no slide is in both; the column 'slide' holds"):
        compare(out, manual(tmp_path, "slide,count\nelse,1\n"))
    with pytest.raises(ConfigError, match="no class is counted on a slide"):
        compare(out, manual(tmp_path, "slide,count\ns1,\n"))
    (tmp_path / "tiles" / "results" / "s").mkdir(parents=True)
    write_summary(tmp_path / "tiles" / "results" / "s", summary_of(FRAME, answer=SCORES))
    with pytest.raises(ConfigError, match="counts nothing"):
        compare(tmp_path / "tiles", manual(tmp_path, "slide,count\ns1,1\n"))
