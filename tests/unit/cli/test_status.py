"""``quadrat status``."""

import json
import time

import pytest

from helpers.leases import signed
from helpers.runs import quadrat
from quadrat.cli.status import duration, lines
from quadrat.engine.failures import FailedSlide, write_failure
from quadrat.engine.seen import Seen
from quadrat.engine.status import status_of


def finish(out, name):
    folder = out / "results" / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text('{"tissue_mm2": 0.25}')


def test_a_folder_that_is_none_of_a_run_is_refused(tmp_path):
    done = quadrat("status", tmp_path)
    assert done.code == 2
    assert "is no folder of a run" in done.err


def test_the_status_is_text_or_json_and_the_exit_code_says_whether_a_slide_failed(tmp_path):
    for name in "abc":
        finish(tmp_path, name)
    done = quadrat("status", tmp_path)
    assert (done.code, done.out.splitlines()) == (0, ["3 of 3 slides done", "0.75 mm2 of tissue"])
    write_failure(tmp_path, FailedSlide("x", "plan", "x.svs: torn"))
    done = quadrat("status", tmp_path, "--json")
    assert done.code == 1
    values = json.loads(done.out)
    assert (values["done"], values["failed"][0]["reason"]) == (3, "x.svs: torn")
    assert "x.svs: torn" in quadrat("status", tmp_path).out


def test_work_that_nobody_has_is_interrupted_and_the_way_on_is_said(tmp_path):
    (tmp_path / "run" / "work" / "a").mkdir(parents=True)
    signed(tmp_path / "run" / "leases" / "a")
    out = quadrat("status", tmp_path).out
    assert "1 interrupted" in out
    assert "run the same command again" in out


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_watching_looks_again_until_ctrl_c_and_ends_quietly(tmp_path, monkeypatch, words):
    finish(tmp_path, "a")
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    done = quadrat("status", tmp_path, "--watch", "--every", "2", *words)
    assert (done.code, done.err, slept) == (0, "", [2.0] * 3)
    assert done.out.count("done") == 3
    assert quadrat("status", tmp_path, "--every", "0").code == 2


def test_long_lists_are_cut():
    failed = [FailedSlide(f"s{i:02}", "plan", "torn") for i in range(20)]
    text = lines(status_of(Seen(time=0.0, failed=failed)))
    assert text[-1].startswith("... and 8 more")


def test_times_are_for_people():
    seconds = (5, 100, 7500, 300_000)
    assert list(map(duration, seconds)) == ["5 s", "2 min", "2 h 05 min", "3.5 days"]
