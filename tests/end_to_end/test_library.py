"""quadrat called from Python, by scripts as people write them."""

import os
import subprocess
import sys

import pytest

from helpers.runs import contents, difference

RUN = """\
from pathlib import Path
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.engine.run import run

pipeline = load_pipeline({pipeline!r}, ["run.cluster=local"])
report = run(pipeline, slides_from_paths([{slide!r}], mpp=None), Path("out"){more})
print(report.exit_code)
"""


@pytest.fixture
def script(lab, tmp_path):
    """Write a script of a few lines without a guard, and run it."""

    def call(more="", *, piped=False):
        text = RUN.format(pipeline=str(lab.pipeline("detection")), slide=str(lab.slide), more=more)
        (tmp_path / "script.py").write_text(text)
        return subprocess.run(
            [sys.executable, "-" if piped else "script.py"],
            input=text,
            env=os.environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


@pytest.mark.parametrize("piped", [False, True], ids=["in a file", "through a pipe"])
def test_a_script_without_a_guard_gets_the_results(script, tmp_path, reference, piped):
    done = script(piped=piped)
    assert done.stdout == "0\n", done.stderr
    found = contents(tmp_path / "out" / "results" / "square")
    assert difference(found, contents(reference("detection") / "square")) == []


def test_a_script_without_a_guard_that_asks_for_workers_gets_one_sentence(script, tmp_path):
    done = script(", workers=1")
    assert done.returncode == 1
    *trace, sentence = done.stderr.splitlines()
    assert sentence.startswith(
        "quadrat.core.errors.ConfigError: 1 worker processes could not be started "
    )
    assert "__main__" in sentence
    assert sum(line.startswith("Traceback") for line in trace) == 1  # the workers say nothing
    assert list((tmp_path / "out" / "results").glob("*")) == []
