"""The Snakemake rule of pipelines/hpc: run where Snakemake is installed (pip install snakemake)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.runs import contents, difference

RULE = Path(__file__).parents[2] / "pipelines" / "hpc" / "Snakefile"
SNAKEMAKE = shutil.which("snakemake")


@pytest.mark.slow
@pytest.mark.skipif(SNAKEMAKE is None, reason="snakemake is not installed (pip install snakemake)")
def test_the_rule_takes_every_slide_of_a_manifest_to_its_results(lab, reference, tmp_path):
    (tmp_path / "slides.csv").write_text("slide\n" + "".join(f"{p}\n" for p in lab.slides))
    words = {
        "manifest": "slides.csv",
        "pipeline": lab.pipeline("semantic"),
        "out": "out",
        "quadrat": f"{sys.executable} -m quadrat",
    }
    done = subprocess.run(
        [
            SNAKEMAKE,
            "-s",
            RULE,
            "--cores",
            "2",
            "--config",
            *(f"{k}={v}" for k, v in words.items()),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    want = contents(reference("semantic"))
    for slide in lab.slides:
        found = contents(tmp_path / "out" / slide.stem / "results" / slide.stem)
        mine = {path: digest for path, digest in want.items() if path.startswith(f"{slide.stem}/")}
        assert difference({f"{slide.stem}/{path}": d for path, d in found.items()}, mine) == []
