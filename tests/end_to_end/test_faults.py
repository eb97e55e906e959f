"""What goes wrong in the middle of a batch stops its slide alone: every other slide is finished,
and the failure is explained."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import tifffile

from helpers.runs import contents, difference, lines_of
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.engine import run as engine_run
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Executor, Source
from quadrat.engine.progress import Reporter
from quadrat.engine.seen import Folder
from quadrat.engine.status import status_of

pytestmark = pytest.mark.timeout(240)
DEADLINE_S = 6.0
SETTINGS = ["slide.tissue=all", "outputs.overlay=false"]


def faults():
    """What the inference of a slide does in a worker, by the slide's name; made here so that it
    travels by value."""

    def kills(payload):
        import os

        os._exit(9)

    def hangs(payload):
        import time

        time.sleep(1000)

    def once(payload):
        """The worker dies as if it were preempted; the next one does the work."""
        import os
        from pathlib import Path

        from quadrat.engine.steps import predict_shards

        mark = Path(payload.work.folder) / "died"
        if not mark.exists():
            mark.write_text("")
            os._exit(15)
        return predict_shards(payload)

    def vanishes(payload):
        from pathlib import Path

        from quadrat.engine.steps import predict_shards

        Path(payload.work.ref.path).unlink(missing_ok=True)
        return predict_shards(payload)

    return {"kills": kills, "hangs": hangs, "once": once, "vanishes": vanishes}


@dataclass(frozen=True)
class Faulty:
    """A source, or an executor, in which slides do what they are called."""

    inner: Source | Executor
    ahead = 0
    network_left = True

    def next(self, needs):
        job = self.inner.next(needs)
        if job is None or "/predict/" not in job.key:
            return job
        return replace(job, fn=faults().get(job.key.split("/")[0], job.fn))

    def numerics(self, device, threads):
        return self.inner.numerics(device, threads)

    def run(self, source):
        return self.inner.run(Faulty(source))


def write_slides(folder, names):
    rng = np.random.default_rng(1)
    pixels = np.full((512, 512, 3), (228, 190, 215), np.uint8)
    for row, col in rng.integers(20, 490, (80, 2)):
        pixels[row - 8 : row + 8, col - 8 : col + 8] = (90, 60, 140)
    folder.mkdir()
    for name in names:
        tifffile.imwrite(
            folder / f"{name}.tiff", pixels, tile=(256, 256), photometric="rgb",
            resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
        )  # fmt: skip
    paths = [str(folder / f"{name}.tiff") for name in names]
    return slides_from_paths(paths, mpp=None)


@pytest.fixture(scope="module")
def batch(lab, tmp_path_factory):
    """A run on two workers in which one slide kills its worker, one hangs, one kills its worker
    once, and the file of one vanishes."""
    place = tmp_path_factory.mktemp("faults")
    names = ["good", "kills", "once", "hangs", "better", "vanishes", "best"]
    refs = write_slides(place / "slides", names)
    pipeline = load_pipeline(
        str(lab.pipeline("instance")), [*SETTINGS, f"run.deadline_s={DEADLINE_S}"]
    )
    logs = place / "out" / "run" / "workers" / "logs"
    with open_executor(workers=2, threads=1, logs=str(logs)) as executor:
        report = engine_run.run(
            pipeline, refs, place / "out", executor=Faulty(executor), reporter=Reporter(quiet=True)
        )
    return place / "out", report


def failures(out):
    return {line["slide"]: line for line in lines_of(out / "run" / "failures.jsonl")}


def test_all_other_slides_are_finished_and_the_exit_code_is_1(batch):
    out, report = batch
    rows = {row.slide: row.status for row in report.rows}
    assert {name for name, status in rows.items() if status == "failed"} == {
        *("kills", "hangs", "vanishes")
    }
    assert report.exit_code == 1
    assert {path.name for path in (out / "results").iterdir() if path.is_dir()} == {
        *("good", "once", "better", "best")
    }


def test_a_slide_with_a_worker_that_was_lost_once_has_the_bytes_of_an_undisturbed_run(
    batch, lab, tmp_path
):
    out, _ = batch
    refs = slides_from_paths([str(out.parent / "slides" / "once.tiff")], mpp=None)
    pipeline = load_pipeline(str(lab.pipeline("instance")), SETTINGS)
    engine_run.run(pipeline, refs, tmp_path, reporter=Reporter(quiet=True))
    one, other = (contents(place / "results" / "once") for place in (out, tmp_path))
    assert one
    assert difference(one, other) == []


def test_a_slide_that_kills_its_worker_says_so_with_the_remedy(batch):
    failure = failures(batch[0])["kills"]
    assert "its worker process died 3 times" in failure["reason"]
    assert "more memory" in failure["remedy"]


def test_a_slide_that_hangs_is_given_up_at_its_deadline_and_shows_where_it_hung(batch):
    failure = failures(batch[0])["hangs"]
    assert "run.deadline_s" in failure["reason"]
    trace = batch[0] / "run" / "failed" / failure["trace"]
    assert "hangs" in trace.read_text()


def test_a_file_that_vanishes_is_named_and_was_looked_for_twice(batch):
    failure = failures(batch[0])["vanishes"]
    assert "vanishes.tiff" in failure["reason"]
    assert failure["tries"] == 2


def test_the_status_of_the_folder_shows_all_of_it(batch):
    status = status_of(Folder(batch[0]).look())
    assert (status.done, len(status.failed), status.waiting) == (4, 3, ())
    assert status.tissue_mm2 > 0
    assert status.spent.by_part["network"] > 0


def test_slides_that_failed_can_be_taken_again_and_are_then_done(batch, lab):
    out, _ = batch
    place = out.parent / "slides"
    refs = slides_from_paths([str(place / f"{name}.tiff") for name in ("kills", "hangs")], mpp=None)
    pipeline = load_pipeline(str(lab.pipeline("instance")), SETTINGS)
    report = engine_run.run(pipeline, refs, out, retry_failed=True, reporter=Reporter(quiet=True))
    assert report.exit_code == 0
    assert status_of(Folder(out).look()).done == 6
