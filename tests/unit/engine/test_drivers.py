"""The records of what was asked for, and of who works."""

from dataclasses import replace

import pytest

from quadrat.config.manifest import SlideRef
from quadrat.engine.drivers import (
    LOGS_KEPT,
    at_work,
    drop_logs,
    names_asked,
    note_asked,
    note_imported,
    read_asked,
    read_drivers,
    slides_asked,
)


def ask(tiny, *names, until="results", **run):
    slides = [tiny.slide(name) for name in names]
    pipeline = tiny.pipeline(**run)
    return note_asked(tiny.out, pipeline, slides, package=tiny.folder / "package", until=until)


def test_what_was_asked_for_is_read_back_as_it_was(tiny, monkeypatch):
    monkeypatch.chdir(tiny.folder)
    slides = [replace(tiny.slide("a"), path="a.png", scene="2"), SlideRef(name="b", path="b.png")]
    pipeline = tiny.pipeline(keep=("tiles",), slide={"mpp": 0.5}, shards_per_unit=3)
    note_asked(tiny.out, pipeline, slides, package=tiny.folder / "package", until="tile")
    (asked,) = read_asked(tiny.out)
    assert asked.until == "tile"
    assert asked.pipeline == pipeline
    assert asked.slides == tuple(
        replace(ref, path=str(tiny.folder / ref.path)) for ref in slides
    ), "paths are absolute"


def test_a_command_that_is_given_again_leaves_one_record_which_is_then_the_last_one(tiny):
    first = ask(tiny, "a", until="predict")
    assert ask(tiny, "a", "b") != first
    assert names_asked(tiny.out) == {"a": "results", "b": "results"}
    assert ask(tiny, "a", until="predict") == first
    assert names_asked(tiny.out) == {"a": "predict", "b": "results"}
    assert [asked.until for asked in read_asked(tiny.out)] == ["predict", "results"]


def test_slides_are_known_as_the_last_command_gave_them(tiny):
    ask(tiny, "a", "b")
    later = [replace(tiny.slide("b"), case="7")]
    note_asked(tiny.out, tiny.pipeline(), later, package=tiny.folder, until="results")
    found = slides_asked(tiny.out)
    assert {name: ref.case for name, ref in found.items()} == {"a": "", "b": "7"}
    assert found["a"] == tiny.slide("a").absolute()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"slides": 1, "until": 2}'])
def test_a_record_of_another_version_is_left_out(tiny, text):
    ask(tiny, "a")
    (tiny.out / "run" / "asked" / "0.json").write_text(text)
    assert set(slides_asked(tiny.out)) == {"a"}
    assert names_asked(tiny.out) == {"a": "results"}
    assert len(list(read_asked(tiny.out))) == 1


def test_a_driver_says_what_it_was_given_and_when_it_ended(tmp_path):
    job = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "HOME": "/home/me"}
    with at_work(tmp_path, "digest", workers=2, environ=job) as here:
        (driver,) = read_drivers(tmp_path)
        assert (driver.ended, driver.workers, driver.asked) == (None, 2, "digest")
        assert driver.holder.job == "7"
        here.note(numerics="torch 2, x86", peak_mb=512.0)
    (driver,) = read_drivers(tmp_path)
    assert driver.ended >= driver.began
    assert (driver.numerics, driver.peak_mb) == ("torch 2, x86", 512.0)
    assert driver.given == {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4"}, "no more than that"


def test_a_run_with_something_to_do_leaves_the_record_of_its_driver_and_another_none(tiny):
    for _ in range(2):
        tiny.run("a")
        (driver,) = read_drivers(tiny.out)
    assert "torch" in driver.numerics
    assert driver.ended is not None
    assert driver.peak_mb > 0
    assert list(names_asked(tiny.out)) == ["a"]


def test_the_oldest_logs_of_workers_go(tmp_path):
    workers = tmp_path / "run" / "workers"
    for i in range(LOGS_KEPT + 3):
        (workers / f"{i:03}").mkdir(parents=True)
    drop_logs(tmp_path)
    assert sorted(path.name for path in workers.iterdir())[0] == "003"
    assert len(list(workers.iterdir())) == LOGS_KEPT


def test_files_of_slides_are_known_by_name_imported_ones_too(tiny):
    ask(tiny, "a", "b")
    note_imported(tiny.out, SlideRef(name="c", path="/x/c.svs", mpp=0.25))
    found = slides_asked(tiny.out)
    assert found["a"] == tiny.slide("a")
    assert (found["c"].path, found["c"].mpp) == ("/x/c.svs", 0.25)
    assert sorted(found) == ["a", "b", "c"]
    assert names_asked(tiny.out)["c"] == "import"
    assert len(list(read_asked(tiny.out))) == 1  # there is no pipeline to do it again with
