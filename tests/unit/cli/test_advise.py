"""``quadrat hpc advise``."""

import json

from helpers.runs import quadrat
from quadrat.engine.drivers import at_work
from quadrat.engine.timings import Timing, note_timing


def measured(out):
    with at_work(out, "", workers=2, environ={"SLURM_JOB_ID": "5"}) as here:
        timing = Timing(
            slide="a", seconds={"predict": 90.0}, time=here.driver.began + 60, file_bytes=1000,
            peak_mb=900.0, driver=here.driver.id,
        )  # fmt: skip
        note_timing(out, timing)


def test_lines_reasons_and_use_are_printed(tmp_path):
    measured(tmp_path)
    (tmp_path / "s.png").write_bytes(bytes(3000))
    manifest = tmp_path / "slides.csv"
    manifest.write_text("slide,mpp\ns.png,0.5\ngone.png,0.5\n")
    done = quadrat("hpc", "advise", tmp_path, "--manifest", manifest)
    assert done.code == 0, done.err
    assert done.out.startswith("#SBATCH --array=1-1\n#SBATCH --time=")
    assert "1 files cannot be looked at" in done.out
    assert "times 1.5" in done.out
    assert "rough guess" in done.out
    assert "asked and used:" in done.out
    values = json.loads(quadrat("hpc", "advise", tmp_path, "--manifest", manifest, "--json").out)
    assert values["advice"]["worker_s"] == 360.0
    assert values["used"][0]["job"] == "5"


def test_a_folder_without_a_measured_slide_is_refused_in_a_sentence(tmp_path):
    assert quadrat("hpc", "advise", tmp_path).code == 2
    (tmp_path / "run").mkdir()
    done = quadrat("hpc", "advise", tmp_path)
    assert (done.code, "run a few first" in done.err) == (2, True)
