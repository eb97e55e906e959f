"""The results of a run, found on disk."""

import pytest

from helpers.planted_runs import FRAME, random_boxes, write_slide
from helpers.summaries import SCORES, summary_of
from quadrat.core.errors import ConfigError
from quadrat.outputs.results import read_results, some
from quadrat.outputs.summary import write_summary


@pytest.fixture
def out(tmp_path):
    for name in ("b", "a", "c"):
        write_slide(tmp_path / "out", name, random_boxes(5, 1))
    (tmp_path / "out" / "results" / "unfinished").mkdir()
    return tmp_path / "out"


def test_finished_slides_are_found_by_name_and_in_order(out):
    assert list(read_results(out)) == ["a", "b", "c"]
    assert list(read_results(out, named=["c", "a"])) == ["a", "c"]
    one = read_results(out)["a"]
    assert (one.size_l0, one.unit, one.counts[-1].count) == ((800, 600), "um", 5)
    assert one.objects == out / "results" / "a" / "objects.parquet"
    assert [c.name for c in one.classes] == ["a", "b"]


def test_results_of_tiles_have_no_counts_and_no_objects(tmp_path):
    folder = tmp_path / "results" / "s"
    folder.mkdir(parents=True)
    write_summary(folder, summary_of(FRAME, task="classification", answer=SCORES))
    (one,) = read_results(tmp_path).values()
    assert one.counts == ()
    with pytest.raises(ConfigError, match=r"no objects\.parquet.*the task is classification"):
        _ = one.objects


def test_what_is_missing_is_named(out, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no results/SLIDE/summary\.json"):
        read_results(tmp_path)
    with pytest.raises(ConfigError, match="no results of a slide 'unfinished'; there are those"):
        read_results(out, named=["unfinished"])
    (out / "results" / "b" / "summary.json").write_text('{"slide": 1}')
    with pytest.raises(ConfigError, match="another version of quadrat may have written it"):
        read_results(out)


def test_many_names_are_cut_short():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcde")) == "a, b, c and 2 more"
