"""Killed, stopped and crashed runs: nothing half-written looks finished, nothing finished is done
again."""

import json
import os
import signal
from functools import partial

import pytest

from helpers.leases import signed
from helpers.runs import (
    TASKS,
    contents,
    difference,
    end_session,
    gone_within,
    journal,
    log_lines,
    of_stage,
    phases,
    quadrat,
    sha256,
    start,
    wait_until,
    write_pipeline,
)
from quadrat.config.pipeline import load_pipeline
from quadrat.engine import steps
from quadrat.engine.journal import Journal
from quadrat.models.package import WEIGHTS
from quadrat.training.job import train_package
from quadrat.training.plan import train_all, training_of

STEPS = 80
"""Of a training that is to be killed long before its end."""
KEEP = 'run.keep=["tiles","predictions"]'


@pytest.fixture
def begin(tmp_path):
    """Start a command in a session of its own; whatever is left of it dies with the test."""
    begun = []

    def _begin(*words):
        begun.append(start(*words, log=tmp_path / "output.txt"))
        return begun[-1]

    yield _begin
    for process in begun:
        end_session(process)


def interrupted_while_predicting(begin, lab, out, *, cluster, stop):
    """A run of one slide, stopped by ``stop(process)`` when the first predictions have their
    receipts."""
    words = ("run", lab.pipeline("instance"), lab.slides[0], "--out", out)
    process = begin(*words, "--cluster", cluster, "--set", "run.workers=2", "--set", KEEP)
    wait_until(lambda: of_stage(journal(out, "oblong"), "predict"), process=process)
    stop(process)
    return process


def assert_the_next_run_goes_on(lab, reference, out):
    before, said = journal(out, "oblong"), len(log_lines(out))
    assert not (out / "results" / "oblong").exists()
    done = quadrat("run", lab.pipeline("instance"), lab.slides[0], "--out", out, "--set", KEEP)
    assert done.code == 0, done.err
    after = journal(out, "oblong")
    assert after[: len(before)] == before
    assert len(set(after)) == len(after), "work with a receipt was done again"
    receipts = len(of_stage(before, "predict"))
    assert (
        phases(out, since=said)["predict"]
        == len(of_stage(after, "predict")) - receipts
        < len(of_stage(after, "predict"))
    )
    assert (
        difference(contents(out / "results" / "oblong"), contents(reference("instance") / "oblong"))
        == []
    )


def test_a_run_killed_in_the_middle_goes_on_where_its_journal_ends(begin, lab, reference, tmp_path):
    def kill(process):
        process.kill()
        process.wait(timeout=10)

    process = interrupted_while_predicting(begin, lab, tmp_path / "out", cluster="local", stop=kill)
    assert process.returncode == -signal.SIGKILL
    assert gone_within(process.pid, 20), "worker processes outlive their driver"
    assert not (tmp_path / "out" / "results").exists()
    assert_the_next_run_goes_on(lab, reference, tmp_path / "out")


NO_PICTURES = ("--set", "outputs.overlay=false")
NO_PICTURES = ("--set", "outputs.overlay=false")
SERIAL_OR_LOCAL = [pytest.param("serial", marks=pytest.mark.slow), "local"]


@pytest.mark.parametrize("cluster", SERIAL_OR_LOCAL)
def test_a_run_that_is_told_to_stop_ends_with_75_within_seconds_and_can_go_on(
    begin, lab, reference, tmp_path, cluster
):
    def stop(process):
        process.send_signal(signal.SIGTERM)

    process = interrupted_while_predicting(begin, lab, tmp_path / "out", cluster=cluster, stop=stop)
    assert_it_ends_well(process, tmp_path)
    assert_the_next_run_goes_on(lab, reference, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["serial", "local"])
def test_ctrl_c_in_a_terminal_reaches_all_processes_and_ends_with_75(
    begin, lab, reference, tmp_path, cluster
):
    def stop(process):
        os.killpg(process.pid, signal.SIGINT)

    process = interrupted_while_predicting(begin, lab, tmp_path / "out", cluster=cluster, stop=stop)
    assert_it_ends_well(process, tmp_path)
    assert_the_next_run_goes_on(lab, reference, tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_signal_in_the_middle_of_a_work_unit_stops_the_run_and_is_no_failure_of_the_slide(
    number, lab, reference, tmp_path, monkeypatch
):
    calls, real = [], steps.predict_groups

    def signalled(*values, **named):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return real(*values, **named)

    monkeypatch.setattr(steps, "predict_groups", signalled)
    words = ("run", lab.pipeline("semantic"), lab.slides[0], "--out", tmp_path)
    done = quadrat(*words)
    assert done.code == 75, done.err
    assert len(calls) == len(of_stage(journal(tmp_path, "oblong"), "predict")) + 1 == 3
    assert not (tmp_path / "results").exists()
    done = quadrat(*words)
    assert done.code == 0, done.err
    assert (
        difference(
            contents(tmp_path / "results" / "oblong"), contents(reference("semantic") / "oblong")
        )
        == []
    )


def assert_it_ends_well(process, tmp_path):
    said = tmp_path / "output.txt"
    assert process.wait(timeout=20) == 75, said.read_text()
    assert gone_within(process.pid, 2), "processes were left behind"
    assert "run the same command again to go on" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert not list((tmp_path / "out" / "run").glob("*.lease.*"))


@pytest.mark.parametrize(
    "task", [pytest.param(t, marks=pytest.mark.slow) if t == "detection" else t for t in TASKS]
)
def test_a_run_that_dies_once_in_every_stage_gives_the_bytes_of_a_run_that_never_died(
    task, lab, reference, tmp_path, monkeypatch
):
    write, died, seen = Journal.add, [], {}

    def add(self, key, receipt):
        """Dies when work is done that has no receipt yet; in the middle of a unit where a unit has
        several."""
        stage = key.step
        seen[stage] = seen.get(stage, 0) + 1
        if stage not in died and (stage == "tile" or key.shard is None or seen[stage] == 2):
            died.append(stage)
            raise KeyboardInterrupt
        write(self, key, receipt)

    monkeypatch.setattr(Journal, "add", add)
    words = (
        "run",
        lab.pipeline(task),
        lab.slides[0],
        "--out",
        tmp_path,
        "--set",
        "run.shards_per_unit=3",
        "--set",
        "run.source=stored",
    )
    for _ in range(14):
        done = quadrat(*words)
        if done.code == 0:
            break
        assert done.code == 75, done.err
        assert not (tmp_path / "results" / "oblong").exists()
    assert done.code == 0
    assert {
        "plan",
        "store",
        "tile",
        "seal",
        "layout",
        "predict",
        "merge",
        "pyramid",
        "finish",
    } <= set(died)
    assert (
        difference(contents(tmp_path / "results" / "oblong"), contents(reference(task) / "oblong"))
        == []
    )


def test_the_lease_of_a_dead_driver_is_taken_over(lab, tmp_path):
    words = ("run", lab.pipeline("semantic"), lab.slides[0], "--out", tmp_path, *NO_PICTURES)
    lease = signed(tmp_path / "run" / "leases" / "oblong")
    assert quadrat(*words).code == 0
    assert not lease.exists()


def test_a_training_killed_after_a_checkpoint_goes_on_from_it_to_the_same_weights(
    begin, lab, tmp_path
):
    def pipeline_of(package):
        return write_pipeline(
            tmp_path / f"{package}.yaml",
            "instance",
            package=tmp_path / package,
            manifest=lab.manifest,
            train={"steps": STEPS, "checkpoint_every_s": 0.0},
        )

    process = begin("train", pipeline_of("killed"))
    about = tmp_path / "killed.training" / "checkpoints" / "checkpoint.json"
    wait_until(
        lambda: about.exists() and json.loads(about.read_text())["step"] >= 3, process=process
    )
    process.kill()
    process.wait(timeout=10)
    reached = json.loads(about.read_text())["step"]
    assert reached < STEPS, "the training was over before it could be killed"
    assert not (tmp_path / "killed").exists()

    steps = []

    def count(event):
        if event.kind == "step":
            steps.append(event.done)

    train_all(
        [training_of(load_pipeline(str(pipeline_of("killed"))))],
        train_one=partial(train_package, callback=count),
    )
    assert steps[0] == reached + 1, "the training did not go on from its checkpoint"
    assert steps[-1] == STEPS
    assert quadrat("train", pipeline_of("undisturbed")).code == 0
    assert sha256(tmp_path / "killed" / WEIGHTS) == sha256(tmp_path / "undisturbed" / WEIGHTS)


def test_a_training_that_is_told_to_stop_ends_with_75_and_can_go_on(begin, lab, tmp_path):
    pipeline = write_pipeline(
        tmp_path / "long.yaml",
        "instance",
        package=tmp_path / "package",
        manifest=lab.manifest,
        train={"checkpoint_every_s": 0.0, "steps": 1_000_000},
    )
    about = tmp_path / "package.training" / "checkpoints" / "checkpoint.json"
    process = begin("train", pipeline)
    wait_until(about.exists, process=process)
    process.send_signal(signal.SIGTERM)
    said = tmp_path / "output.txt"
    assert process.wait(timeout=20) == 75, said.read_text()
    assert gone_within(process.pid, 2), "processes were left behind"
    assert "run the same command again to go on" in said.read_text()
    reached = json.loads(about.read_text())["step"]
    again = begin("train", pipeline)
    wait_until(lambda: json.loads(about.read_text())["step"] > reached, process=again)


def test_a_package_that_exists_is_not_trained_again(lab):
    before = contents(lab.package("semantic"))
    done = quadrat("train", lab.pipeline("semantic"))
    assert done.code == 0
    assert "exists already" in done.err
    assert contents(lab.package("semantic")) == before
