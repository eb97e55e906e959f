"""That nothing is left to do is found out in a moment, and only where it is true."""

import subprocess
import sys

import pytest

from quadrat.config.manifest import SlideRef
from quadrat.engine import finished
from quadrat.engine.finished import finished_run
from quadrat.engine.work import results_folder, work_folder
from quadrat.models.spec import spec_to_dict


@pytest.fixture
def tiny(tiny_of, monkeypatch):
    """Slides of four shards, with a package that has a card."""
    found = tiny_of("instance", side=32)
    card = {"spec": spec_to_dict(found.spec), "weights_sha256": "0" * 64}
    monkeypatch.setattr(finished, "read_card", lambda folder: card)
    return found


def refs(tiny, *names):
    return [tiny.slide(name) for name in names]


def test_a_finished_folder_is_known_without_torch():
    program = "import sys, quadrat.engine.finished; print([m for m in ('torch', 'numba', 'dask') "
    program += "if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_all_slides_done_or_failed_for_good_are_a_finished_run_with_its_tables(tiny):
    tiny.slide("bad")
    (tiny.folder / "bad.png").write_bytes(b"no picture")
    rows = tiny.run("a", "bad").rows
    (tiny.out / "results" / "summary.csv").unlink()
    report = finished_run(tiny.pipeline(), refs(tiny, "a", "bad"), tiny.out)
    assert (report.rows, report.exit_code) == (rows, 1)
    assert (tiny.out / "results" / "summary.csv").exists()
    assert finished_run(tiny.pipeline(), refs(tiny, "a"), tiny.out).exit_code == 0


def test_anything_else_needs_a_closer_look(tiny):
    tiny.run("a")
    assert finished_run(tiny.pipeline(), refs(tiny, "a", "b"), tiny.out) is None
    other = tiny.pipeline(outputs={"geojson": False})
    assert finished_run(other, refs(tiny, "a"), tiny.out) is None
    missing = SlideRef(path=str(tiny.folder / "none.svs"), name="a", mpp=0.5)
    assert finished_run(tiny.pipeline(), [missing], tiny.out) is None
    assert finished_run(tiny.pipeline(), [], tiny.out) is None
    work_folder(tiny.out, "a").mkdir()
    assert finished_run(tiny.pipeline(), refs(tiny, "a"), tiny.out) is None
    work_folder(tiny.out, "a").rmdir()
    (results_folder(tiny.out, "a") / "summary.json").write_text("{}")
    assert finished_run(tiny.pipeline(), refs(tiny, "a"), tiny.out) is None
