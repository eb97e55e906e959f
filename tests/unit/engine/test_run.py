"""Whole runs of tiny slides: what is done, skipped, refused, and what one slide's failure stops."""

import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from helpers.faults import FAULTY, disk
from helpers.runs import contents, difference, lines_of, table
from helpers.tiny import NUMERICS
from quadrat.config.manifest import SlideRef
from quadrat.core.errors import ConfigError
from quadrat.core.files import place_folder, remove
from quadrat.core.numerics import Numerics
from quadrat.engine import drivers, resume, route, steps
from quadrat.engine import run as engine_run
from quadrat.engine.crossing import Crossing
from quadrat.engine.executor import Serial
from quadrat.engine.folder import FOLDER, LEASES
from quadrat.engine.journal import Journal, write_journal
from quadrat.engine.lease import Held, Lease, Leases
from quadrat.engine.progress import Reporter
from quadrat.engine.todo import Todo
from quadrat.engine.work import results_folder
from quadrat.outputs.summary import read_summary

KEEP = ("tiles", "predictions")


@pytest.fixture
def tiny(tiny_of):
    """Slides of four shards."""
    return tiny_of("instance", side=32)


def test_a_run_gives_every_slide_its_results_and_its_row(tiny):
    report = tiny.run("b", "a")
    assert report.exit_code == 0
    assert [(row.slide, row.status) for row in report.rows] == [("b", "done"), ("a", "done")]
    one, other = (contents(results_folder(tiny.out, name)) for name in "ab")
    assert one.keys() == other.keys()
    assert one["counts.csv"] == other["counts.csv"]
    assert not (tiny.out / "run" / "work" / "a").exists()
    lines = (tiny.out / "results" / "summary.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["slide", "a", "b"]


def test_a_finished_slide_is_skipped_and_the_row_is_the_same(tiny):
    first, before = tiny.run("a"), contents(tiny.out / "results")
    again = tiny.run("a", "b")
    assert again.rows[0] == first.rows[0]
    assert {p: s for p, s in contents(tiny.out / "results").items() if p in before} == before | {
        "summary.csv": contents(tiny.out / "results")["summary.csv"]
    }


def test_results_of_other_settings_are_replaced_only_on_request(tiny):
    tiny.run("a")
    before, other = contents(tiny.out), tiny.pipeline(outputs={"geojson": False})
    with pytest.raises(ConfigError, match=r"results of another model.*--overwrite"):
        tiny.run("a", pipeline=other)
    assert difference(contents(tiny.out), before) == []
    assert tiny.run("a", pipeline=other, overwrite=True).exit_code == 0
    assert difference(contents(tiny.out / "results"), before) != []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"fingerprint": 1}'])
def test_results_with_a_damaged_summary_are_replaced_only_on_request(tiny, text):
    tiny.run("a")
    before = contents(tiny.out / "results")
    (results_folder(tiny.out, "a") / "summary.json").write_text(text)
    with pytest.raises(ConfigError, match="--overwrite"):
        tiny.run("a")
    assert tiny.run("a", overwrite=True).exit_code == 0
    assert contents(tiny.out / "results") == before


# -- what was kept is not lost unasked


@pytest.mark.parametrize("until", ["tile", "predict", "results"])
@pytest.mark.parametrize("kept", ["tile", "predict"])
def test_another_slide_setting_does_not_remove_kept_stores_unasked(tiny, kept, until):
    keep = {"tile": ("tiles",), "predict": KEEP}[kept]
    tiny.run("a", until=kept, pipeline=tiny.pipeline(source="stored", keep=keep))
    before = contents(tiny.out / "run" / "work")
    assert before
    other = tiny.pipeline(slide={"min_tissue": 0.1}, keep=keep)
    with pytest.raises(ConfigError, match=r"work/a keeps tiles\.zarr.* --overwrite"):
        tiny.run("a", until=until, pipeline=other)
    assert difference(contents(tiny.out / "run" / "work"), before) == []
    assert tiny.run("a", until=until, pipeline=other, overwrite=True).exit_code == 0


@pytest.mark.parametrize("until", ["predict", "results"])
def test_another_model_does_not_remove_kept_predictions_unasked(tiny, monkeypatch, until):
    tiny.run("a", until="predict", pipeline=tiny.pipeline(keep=KEEP))
    before = contents(tiny.out / "run" / "work")
    card = {"weights_sha256": "1" * 64}
    monkeypatch.setattr(engine_run, "run_spec", lambda p, f: (tiny.spec, card))
    with pytest.raises(ConfigError, match=r"keeps predictions of another .* --overwrite"):
        tiny.run("a", until=until, pipeline=tiny.pipeline(keep=KEEP))
    assert difference(contents(tiny.out / "run" / "work"), before) == []


# -- another kind of machine goes on


@pytest.fixture
def elsewhere(monkeypatch):
    """Whatever runs now is on another kind of machine."""

    def move():
        there = Numerics("cpu", "an older processor")
        monkeypatch.setattr(Serial, "numerics", lambda self, device, threads: there)

    return move


def predicted_by(tiny):
    keys = Journal(tiny.work().journal).receipts
    return Counter(key.fingerprint[-4:] for key in keys if key.step == "predict")


def test_complete_predictions_of_another_machine_are_gone_on_with(tiny, elsewhere):
    keep = tiny.pipeline(keep=KEEP)
    tiny.run("a", until="predict", pipeline=keep)
    before = predicted_by(tiny)
    elsewhere()
    assert tiny.run("a", pipeline=keep).exit_code == 0
    assert predicted_by(tiny) == before
    assert tiny.run("a", pipeline=keep).rows[0].status == "done"


def test_a_slide_is_not_inferred_half_on_one_machine_and_half_on_another(tiny, elsewhere, capsys):
    (state,) = tiny.advanced("a", until="predict")
    receipts = dict(list(state.journal.receipts.items())[:4])
    state.journal.close()
    write_journal(state.journal.path, receipts).close()
    elsewhere()
    keep = tiny.pipeline(keep=KEEP)
    with Reporter() as loud:
        report = engine_run.run(keep, [tiny.slide()], tiny.out, executor=Serial(), reporter=loud)
    assert report.exit_code == 0
    assert "was begun on another kind of machine" in capsys.readouterr().err
    (machine,) = predicted_by(tiny)
    assert machine != state.prints.machine
    assert predicted_by(tiny)[machine] == 4


def test_a_model_that_asks_for_bf16_gets_fp32_where_there_is_none_and_that_is_said_once(
    tiny, monkeypatch, capsys
):
    tiny.spec = replace(tiny.spec, inference="bf16")
    machine = Numerics("cpu", "an older processor")
    monkeypatch.setattr(Serial, "numerics", lambda self, device, threads: machine)
    slides = [tiny.slide("a"), tiny.slide("b")]
    with Reporter() as loud:
        engine_run.run(tiny.pipeline(), slides, tiny.out, executor=Serial(), reporter=loud)
    assert capsys.readouterr().err.count("inference is in fp32") == 1
    assert read_summary(results_folder(tiny.out, "a")).provenance.inference == "fp32"


def test_what_was_begun_in_fp32_is_not_gone_on_with_in_bf16(tiny, monkeypatch, capsys):
    tiny.spec = replace(tiny.spec, inference="bf16")
    (state,) = tiny.advanced("a", until="predict")  # on a machine without
    receipts = dict(list(state.journal.receipts.items())[:4])
    state.journal.close()
    write_journal(state.journal.path, receipts).close()
    machine = Numerics("cpu", NUMERICS, bf16=True)
    monkeypatch.setattr(Serial, "numerics", lambda self, device, threads: machine)
    with Reporter() as loud:
        engine_run.run(tiny.pipeline(), [tiny.slide()], tiny.out, executor=Serial(), reporter=loud)
    assert f"its inference begins anew ({NUMERICS}, bf16)" in capsys.readouterr().err
    assert read_summary(results_folder(tiny.out, "a")).provenance.inference == "bf16"


def test_a_finished_slide_stays_finished_on_another_machine(tiny, elsewhere):
    first = tiny.run("a")
    elsewhere()
    assert tiny.run("a", pipeline=tiny.pipeline(threads=2)).rows == first.rows


def test_one_slide_with_something_to_lose_stops_the_run_before_any_is_begun_anew(tiny):
    tiny.run("a", until="tile")  # nothing kept on request
    tiny.run("b", until="predict", pipeline=tiny.pipeline(keep=KEEP))
    before = contents(tiny.out / "run" / "work")
    with pytest.raises(ConfigError, match="work/b keeps"):
        tiny.run("a", "b", pipeline=tiny.pipeline(slide={"min_tissue": 0.1}))
    assert difference(contents(tiny.out / "run" / "work"), before) == []


def test_work_that_was_only_begun_is_begun_anew_without_a_question(tiny):
    (state,) = tiny.advanced("a", until="predict")
    state.journal.close()
    report = tiny.run("a", pipeline=tiny.pipeline(slide={"min_tissue": 0.1}))
    assert report.exit_code == 0


def test_stitching_without_inference_needs_kept_predictions_of_this_very_model(tiny):
    with pytest.raises(ConfigError, match=r"no kept predictions .* make them with"):
        tiny.run("a", infer=False)
    tiny.run("a", until="predict", pipeline=tiny.pipeline(keep=KEEP))
    assert tiny.run("a", infer=False, pipeline=tiny.pipeline(keep=KEEP)).exit_code == 0


# -- one slide's failure


def test_a_slide_that_cannot_be_opened_is_a_row_and_a_line_and_the_exit_code_is_1(tiny):
    slides = [SlideRef(path=str(tiny.folder / "none.svs"), name="none"), tiny.slide("a")]
    report = engine_run.run(
        tiny.pipeline(), slides, tiny.out, reporter=Reporter(quiet=True), executor=Serial()
    )
    assert report.exit_code == 1
    assert [row.status for row in report.rows] == ["failed", "done"]
    assert report.rows[0].reason.startswith("open: there is no slide")
    assert '"slide": "none"' in (tiny.out / "run" / "failures.jsonl").read_text()


def test_a_rename_that_fails_at_the_commit_fails_its_slide_alone_and_the_summary_is_written(tiny):
    def fails(call):
        return call.name == "rename" and call.target.endswith("results/a")

    with disk(tiny.out, error=FAULTY, fails=fails) as watched:
        report = tiny.run("a", "b")
    assert watched.failed is not None
    assert report.exit_code == 74
    assert [(row.slide, row.status) for row in report.rows] == [("a", "failed"), ("b", "done")]
    assert report.rows[0].reason.startswith("commit: ")
    assert (tiny.out / "results" / "summary.csv").exists()
    assert tiny.run("a", "b").exit_code == 0


def test_anything_else_that_goes_wrong_at_the_commit_fails_its_slide_alone(tiny, monkeypatch):
    commit = resume.commit_result

    def broken(work, *words, **options):
        if work.ref.name == "a":
            raise RuntimeError("nobody thought of this")
        return commit(work, *words, **options)

    monkeypatch.setattr(resume, "commit_result", broken)
    report = tiny.run("a", "b")
    assert report.exit_code == 1
    assert report.rows[0].reason == "commit: nobody thought of this"
    assert report.rows[1].status == "done"


def test_outdated_work_that_cannot_be_removed_fails_its_slide_alone(tiny):
    (state,) = tiny.advanced("a", until="predict")
    state.journal.close()

    def fails(call):
        return call.name == "rename" and call.path.endswith("work/a")

    with disk(tiny.out, error=FAULTY, fails=fails, names=("rename",)) as watched:
        report = tiny.run("a", "b", pipeline=tiny.pipeline(slide={"min_tissue": 0.1}))
    assert watched.failed is not None
    assert report.exit_code == 74
    assert [row.status for row in report.rows] == ["failed", "done"]
    assert report.rows[0].reason.startswith("open: ")


# -- where a run ends


def test_a_run_can_end_with_tiles_or_predictions_and_a_later_one_goes_on(tiny):
    pipeline = tiny.pipeline(keep=KEEP)
    for until, step in (("tile", "seal"), ("predict", "predict")):
        report = tiny.run("a", until=until, pipeline=pipeline)
        assert report.rows[0].status == until
        assert report.rows[0].tissue_mm2 > 0
        journal = Journal(tiny.work("a").journal)
        assert step in {key.step for key in journal.receipts}
    assert tiny.run("a", pipeline=pipeline).rows[0].status == "done"
    with pytest.raises(ConfigError, match="until is 'lunch'"):
        tiny.run("a", until="lunch")


def test_tiles_can_be_filled_before_there_is_a_package(tiny, monkeypatch):
    os.remove(tiny.folder / "package" / "card.json")

    def none(*words):
        raise AssertionError("no package is needed")

    monkeypatch.setattr(engine_run, "run_spec", none)
    assert tiny.run("a", until="tile").rows[0].status == "tile"


def test_groups_of_slides_go_through_the_steps_one_after_the_other(tiny):
    report = tiny.run("a", "b", "c", pipeline=tiny.pipeline(slides_in_flight=2))
    assert [row.status for row in report.rows] == ["done"] * 3


# -- several commands in one folder


def rows_of(tiny):
    """slide: (status, reason) of summary.csv, in its order."""
    rows = table(tiny.out / "results" / "summary.csv")
    return {row["slide"]: (row["status"], row["reason"]) for row in rows}


def failed_in(tiny):
    return [line["slide"] for line in lines_of(tiny.out / "run" / "failures.jsonl")]


def none(tiny):
    """A run of a slide that is not there, which fails."""
    slides = [SlideRef(path=str(tiny.folder / "none.svs"), name="none")]
    return engine_run.run(tiny.pipeline(), slides, tiny.out, reporter=Reporter(quiet=True))


def test_the_rows_of_earlier_commands_stay_as_they_were_and_all_stand_by_name(tiny):
    for names in (("c",), ("b", "a")):
        tiny.run(*names)
    rows = table(tiny.out / "results" / "summary.csv")
    assert [row["slide"] for row in rows] == ["a", "b", "c"]
    tiny.run("d")
    again = table(tiny.out / "results" / "summary.csv")
    assert [row["slide"] for row in again] == ["a", "b", "c", "d"]
    assert sorted(rows, key=str) == sorted(again[:3], key=str)


def test_one_command_after_another_gives_the_table_that_one_command_gives(tiny):
    tiny.run("a", "b", "c")
    want = (tiny.out / "results" / "summary.csv").read_bytes()
    remove(tiny.out)
    for name in "abc":
        tiny.run(name)
    assert (tiny.out / "results" / "summary.csv").read_bytes() == want


def test_a_failure_holds_until_a_command_takes_the_slide_again(tiny):
    assert none(tiny).exit_code == 1
    reason = rows_of(tiny)["none"][1]
    assert tiny.run("a").exit_code == 0
    assert rows_of(tiny) == {"none": ("failed", reason), "a": ("done", "")}
    assert reason.startswith("open: there is no slide none.svs")
    assert failed_in(tiny) == ["none"]
    tiny.slide("none")
    tiny.run("none")
    assert rows_of(tiny) == {"a": ("done", ""), "none": ("done", "")}
    assert failed_in(tiny) == []


def test_a_failed_replacement_stays_failed_though_the_old_results_are_there(tiny):
    tiny.run("a")
    (tiny.folder / "a.png").write_bytes(b"")
    assert tiny.run("a", overwrite=True).exit_code == 1
    tiny.run("b")
    assert [status for status, _ in rows_of(tiny).values()] == ["failed", "done"]
    assert (results_folder(tiny.out, "a") / "summary.json").exists()


def test_results_that_were_removed_have_no_row_and_results_without_a_row_get_one(tiny):
    tiny.run("a", "b")
    remove(results_folder(tiny.out, "a"))
    (tiny.out / "results" / "summary.csv").unlink()
    tiny.run("c")
    assert list(rows_of(tiny)) == ["b", "c"]


def test_slides_that_were_taken_to_a_stage_before_results_keep_their_row(tiny):
    tiny.run("a", until="predict", pipeline=tiny.pipeline(keep=KEEP))
    (before,) = table(tiny.out / "results" / "summary.csv")
    tiny.run("b")
    after = table(tiny.out / "results" / "summary.csv")
    assert [(row["slide"], row["status"]) for row in after] == [("a", "predict"), ("b", "done")]
    assert {key: after[0][key] for key in before} == before
    remove(tiny.out / "run" / "work" / "a")
    tiny.run("c")
    assert list(rows_of(tiny)) == ["b", "c"]


def test_slides_of_two_tasks_share_the_table(tiny, tiny_of):
    tiny.run("a")
    other = tiny_of("classification", side=32)
    place_folder(tiny.out, other.out)
    other.run("b")
    rows = table(other.out / "results" / "summary.csv")
    assert [(row["slide"], row["task"]) for row in rows] == [
        ("a", "instance"),
        ("b", "classification"),
    ]
    assert [(bool(row["count"]), bool(row["class"])) for row in rows] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("file", ["results/summary.csv", "run/failures.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b"slide;status\na;done\n", b"\xff\xfe", b'{"slide": 1}\n']
)
def test_files_that_were_saved_in_another_way_stop_nothing(tiny, file, content):
    tiny.run("a")
    (tiny.out / file).write_bytes(content)
    assert tiny.run("b").exit_code == 0
    assert rows_of(tiny) == {"a": ("done", ""), "b": ("done", "")}


def test_a_damaged_summary_of_an_earlier_command_is_a_row_that_says_so(tiny):
    tiny.run("a")
    (results_folder(tiny.out, "a") / "summary.json").write_text("{}")
    assert tiny.run("b").exit_code == 0
    status, reason = rows_of(tiny)["a"]
    assert status == "failed"
    assert reason.startswith("results: its summary.json cannot be read; ")


def test_what_a_crash_left_in_the_folder_of_results_has_no_row(tiny):
    tiny.run("a")
    place = results_folder(tiny.out, "a")
    for name in (".z.old", "z.1.ab.partial"):
        shutil.copytree(place, place.with_name(name))
    tiny.run("b")
    assert list(rows_of(tiny)) == ["a", "b"]


# -- failures


def test_a_slide_that_failed_is_not_tried_again_unless_that_is_asked_for(tiny):
    tiny.slide("bad")
    (tiny.folder / "bad.png").write_bytes(b"no picture")
    first = tiny.run("bad", "a")
    (failure,) = lines_of(tiny.out / "run" / "failures.jsonl")
    assert (failure["stage"], failure["kind"], failure["tries"]) == ("plan", "SlideError", 2)
    assert failure["worker"].endswith(f":{os.getpid()}")
    said = len((tiny.out / "run" / "log.jsonl").read_text().splitlines())
    assert tiny.run("bad", "a").rows == first.rows
    lines = (tiny.out / "run" / "log.jsonl").read_text().splitlines()[said:]
    assert not [line for line in lines if '"event": "failed"' in line]
    tiny.run("bad", "a", retry_failed=True)
    lines = (tiny.out / "run" / "log.jsonl").read_text().splitlines()[said:]
    assert len([line for line in lines if '"event": "failed"' in line]) == 2
    os.remove(tiny.folder / "bad.png")
    tiny.slide("bad")
    assert tiny.run("bad").exit_code == 0, "another file is another slide"


def test_a_traceback_is_a_file_of_its_own(tiny, monkeypatch):
    def fails(job):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(route, "PREDICT", replace(route.PREDICT, fn=fails))
    assert tiny.run("a").exit_code == 1
    (failure,) = lines_of(tiny.out / "run" / "failures.jsonl")
    trace = (tiny.out / "run" / "failed" / failure["trace"]).read_text()
    assert "ZeroDivisionError: a bug" in trace
    assert "report it" in failure["remedy"]


def test_after_so_many_failures_no_slide_is_begun(tiny):
    names = ["b0", "b1", "b2", "b3", "good"]
    for name in names:
        tiny.slide(name)
        if name != "good":
            (tiny.folder / f"{name}.png").write_bytes(b"no picture")
    report = tiny.run(*names, max_failures=2, pipeline=tiny.pipeline(slides_in_flight=1))
    assert report.exit_code == 1
    assert [row.slide for row in report.rows] == ["b0", "b1"]
    assert tiny.run(*names).rows[-1].status == "done"


def test_a_network_that_answers_with_nan_fails_its_slide_alone(tiny, monkeypatch):
    broken, forward = [], tiny.case.model.forward

    def predict(job):
        broken[:] = [job.work.ref.name == "a"]
        return steps.predict_shards(job)

    def answer(windows):
        return forward(windows) * (float("nan") if broken[0] else 1)

    monkeypatch.setattr(tiny.case.model, "forward", answer)
    monkeypatch.setattr(route, "PREDICT", replace(route.PREDICT, fn=predict))
    report = tiny.run("a", "b")
    assert [row.status for row in report.rows] == ["failed", "done"]
    assert "NaN" in report.rows[0].reason


def test_a_file_that_vanishes_while_it_is_read_fails_its_slide_alone(tiny, monkeypatch):
    seen = []

    def predict(job):
        seen.append(job.work.ref.name)
        if job.work.ref.name == "a" and seen.count("a") == 2:
            os.remove(job.work.ref.path)
        return steps.predict_shards(job)

    monkeypatch.setattr(route, "PREDICT", replace(route.PREDICT, fn=predict))
    report = tiny.run("a", "b")
    assert [row.status for row in report.rows] == ["failed", "done"]
    assert "a.png" in report.rows[0].reason


# -- several drivers


@pytest.mark.parametrize("error", [ConfigError("other settings"), OSError(5, "I/O error")])
@pytest.mark.parametrize("where", ["take", "_look_again"])
def test_a_slide_that_cannot_be_begun_fails_alone(tiny, monkeypatch, where, error):
    owner = Leases if where == "take" else Crossing
    real = getattr(owner, where)

    def fails_for_a(self, slide):
        if slide == "a" or (isinstance(slide, Todo) and slide.work.ref.name == "a"):
            raise error
        return real(self, slide)

    monkeypatch.setattr(owner, where, fails_for_a)
    report = tiny.run("a", "b")
    assert report.exit_code == 1
    rows = {row.slide: row for row in report.rows}
    assert (rows["a"].status, rows["b"].status) == ("failed", "done")
    assert str(error) in rows["a"].reason
    monkeypatch.setattr(owner, where, real)
    assert tiny.run("a", "b", retry_failed=True).exit_code == 0


def test_no_other_driver_can_tidy_the_folder_up_while_a_record_is_half_written(tiny, monkeypatch):
    """Its tidying removes half-written files where it finds nobody else at work."""
    write, places = drivers.write_file, []

    def watched(path, data):
        with Leases(tiny.out / "run" / LEASES) as other:
            assert isinstance(other.take(FOLDER), Held), path
        places.append(path.parent.name)
        write(path, data)

    monkeypatch.setattr(drivers, "write_file", watched)
    assert tiny.run("a").exit_code == 0
    assert places.count("asked") == 1
    assert places.count("drivers") >= 3


def test_two_drivers_in_one_folder_share_the_slides_and_both_report_all(tiny):
    names = [f"s{i}" for i in range(8)]
    tiny.run(*names)
    want = contents(tiny.out / "results")
    remove(tiny.out)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: tiny.run(*names), range(2)))
    assert [report.exit_code for report in reports] == [0, 0]
    assert reports[0].rows == reports[1].rows
    assert difference(contents(tiny.out / "results"), want) == []
    done = Counter(line["slide"] for line in lines_of(tiny.out / "run" / "timings.jsonl"))
    assert done == dict.fromkeys(names, 1), "each is done once"
    assert list((tiny.out / "run" / "leases").iterdir()) == []


def test_a_driver_that_was_overtaken_leaves_the_slide_to_the_other_one(tiny, monkeypatch):
    real = Lease.held
    asked = []

    def held(self):
        asked.append(self)
        if self.holder.name == "a" and len([one for one in asked if one is self]) == 4:
            remove(self.path)  # as another driver would
        return real(self)

    monkeypatch.setattr(Lease, "held", held)
    assert tiny.run("a").exit_code == 0
    assert rows_of(tiny) == {"a": ("done", "")}
