"""What another process sees in the folder of a run."""

import json
import subprocess
import sys

import pytest

from helpers.leases import signed
from helpers.runs import contents
from quadrat.core.files import remove
from quadrat.engine.drivers import at_work
from quadrat.engine.failures import FailedSlide, write_failure
from quadrat.engine.seen import Folder, Progress, last_job


@pytest.fixture
def half(tiny):
    """A folder with a slide that is done, one that failed, one with kept predictions, and one that
    is half inferred."""
    tiny.run("done")
    tiny.run("kept", until="predict", pipeline=tiny.pipeline(keep=("predictions",)))
    write_failure(tiny.out, FailedSlide("bad", "plan", "torn"))
    (state,) = tiny.advanced("half", until="predict")
    state.journal.close()
    lines = state.journal.path.read_bytes().splitlines(keepends=True)
    state.journal.path.write_bytes(b"".join(lines[:7]))
    return tiny


def test_each_kind_of_slide_is_seen_and_nothing_is_written(half):
    signed(half.out / "run" / "leases" / "half")
    before = contents(half.out)
    seen = Folder(half.out).look()
    assert contents(half.out) == before
    assert seen.finished == {"done"}
    assert seen.kept == {"kept"}
    assert seen.begun == {"kept", "half"}
    assert [failure.slide for failure in seen.failed] == ["bad"]
    assert seen.holders["half"].fate == "dead"
    assert seen.progress == {"half": Progress("predict", 16, 4)}
    assert dict(seen.asked) == {"done": "results", "kept": "predict"}
    assert seen.tissue_mm2["done"] == seen.timings["done"].tissue_mm2 > 0


def test_tissue_comes_from_the_results_where_the_timings_are_gone(half):
    want = Folder(half.out).look().tissue_mm2["done"]
    remove(half.out / "run" / "timings.jsonl")
    assert Folder(half.out).look().tissue_mm2 == {"done": want}


def test_an_empty_folder_shows_nothing(tmp_path):
    seen = Folder(tmp_path).look()
    assert not seen.finished
    assert not seen.asked
    assert seen.drivers == []


def line(event, **values):
    return json.dumps({"time": 5.0, "event": event} | values).encode()


def test_a_worker_is_at_the_job_that_it_has_begun_and_not_ended():
    hello = line("worker", host="n1", pid=7, device="")
    begin = line("begin", job="a.b/predict/3")
    job = last_job([hello, line("end", job="x/plan"), begin])
    assert (job.worker, job.slide, job.step, job.since) == ("n1:7", "a.b", "predict", 5.0)
    assert last_job([hello, begin, line("end", job="a.b/predict/3")]) is None
    assert last_job([hello, begin, hello]) is None, "it was started again"
    assert last_job([hello, b'{"time": 5, "ev', begin]).slide == "a.b", "half a line counts nothing"
    assert last_job([]) is None


def test_workers_of_drivers_that_are_not_over_are_seen(tmp_path):
    with at_work(tmp_path, "", workers=1) as here:
        here.logs.mkdir(parents=True)
        later = here.driver.began + 1
        log = [line("worker", host="n1", pid=7, device="")]
        log += [line("begin", job="a/stitch/0", time=later)]
        (here.logs / "w.jsonl").write_bytes(b"\n".join(log) + b"\n")
        assert [job.step for job in Folder(tmp_path).look().jobs] == ["stitch"]
    assert Folder(tmp_path).look().jobs == ()


def test_torch_is_not_needed_to_look(tmp_path):
    program = (
        "import sys; from quadrat.engine.seen import Folder; "
        "from quadrat.engine.status import status_of; from pathlib import Path; "
        f"status_of(Folder(Path({str(tmp_path)!r})).look()); "
        "print(sorted({'torch', 'zarr', 'numba', 'distributed'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
