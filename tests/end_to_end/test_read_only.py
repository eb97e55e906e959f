"""An installation that nobody may write (a container, an environment that many share): no home, no
room for temporary files, an old locale."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import quadrat
from helpers.rights import as_a_stranger
from helpers.runs import contents, difference

PYTHON = [sys.executable, "-m", "quadrat"]


@pytest.fixture(scope="module")
def shelf():
    """A folder that everybody may reach (that of pytest is its owner's alone)."""
    with tempfile.TemporaryDirectory(prefix="quadrat-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def installed(shelf, lab):
    """The code, a package and a slide where nobody may write, as ``quadrat`` finds them."""
    code = shelf / "site"
    source = Path(quadrat.__file__).parent
    shutil.copytree(source, code / "quadrat", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(lab.package("detection"), shelf / "package")
    shutil.copy(lab.slide, shelf / "square.tiff")
    text = lab.pipeline("detection").read_text()
    (shelf / "detection.yaml").write_text(
        text.replace(str(lab.package("detection")), str(shelf / "package"))
    )
    for path in (shelf, *shelf.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield code
    for path in (shelf, *shelf.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def command(code, folder, *words, umask=0o022, **variables):
    """Run a command as a user who may write only in ``folder``."""
    folder.chmod(0o777)
    return subprocess.run(
        [*as_a_stranger(), *map(str, words)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(code)} | variables,
        cwd=folder,
        umask=umask,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def mine():
    """The one folder that may be written."""
    with tempfile.TemporaryDirectory(prefix="quadrat-test-") as name:
        yield Path(name)


DASK = ("--cluster", "local", "-j", 1)
NOTHING = {
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "TMPDIR": "/nonexistent",
    "MPLCONFIGDIR": "/nonexistent",
    "NUMBA_CACHE_DIR": "/nonexistent",
}
"""An old locale, and no folder for anything."""


@pytest.mark.parametrize("variables", [{"HOME": "/nonexistent"}, {}], ids=["no folder", "unset"])
def test_every_module_is_imported_and_nothing_is_written(installed, mine, variables):
    modules = ", ".join(
        f"quadrat.{name}"
        for name in ("engine.run", "evaluation.evaluate", "training.plan", "cli.demo")
    )
    done = command(installed, mine, sys.executable, "-c", f"import {modules}", **variables)
    assert done.returncode == 0, done.stderr
    assert list(mine.iterdir()) == []


def test_a_run_there_gives_the_bytes_that_it_gives_elsewhere(installed, mine, reference):
    slide, pipeline = installed.parent / "square.tiff", installed.parent / "detection.yaml"
    words = (*PYTHON, "run", pipeline, slide, "--out", mine / "out", *DASK)
    done = command(installed, mine, *words, umask=0o077, **NOTHING)
    assert done.returncode == 0, done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr
    found = contents(mine / "out" / "results" / "square")
    assert difference(found, contents(reference("detection") / "square")) == []
    files = [path for path in (mine / "out").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_a_name_that_is_not_utf_8_is_refused_before_anything_runs(installed, mine):
    odd = os.fsencode(mine) + b"/Schnitt \xe4.tiff"
    shutil.copy(installed.parent / "square.tiff", odd)
    words = (*PYTHON, "run", installed.parent / "detection.yaml", os.fsdecode(odd))
    done = command(installed, mine, *words, "--out", mine / "out")
    assert done.returncode == 2
    assert "is not UTF-8" in done.stderr
    assert not (mine / "out").exists()
