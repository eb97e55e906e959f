"""What a training leaves on disk: it goes on bit for bit, whatever was in the way, and damage is
told with the way out."""

import json
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.faults import NO_ROOM, REMOVING, WRITING, Killed, disk
from helpers.trainings import (
    CFG,
    Stop,
    no_step,
    same_weights,
    spec_for,
    stop_at,
    trained,
    validated,
)
from quadrat.config.pipeline import Augmentation
from quadrat.core.errors import ConfigError, StoreError, WriteError
from quadrat.core.files import remove
from quadrat.tasks import get_task
from quadrat.training.checkpoint import Checkpoints, State, room_needed

OFTEN = replace(CFG, checkpoint_every_s=-1.0)
SHORT = replace(OFTEN, steps=6)


# -- going on after an interruption


RISING, FALLING = (0.4, 0.6, 0.6, 0.5, 0.9), (0.4, 0.3, 0.3, 0.9, 0.9)
"""Figures that end a training of patience 2 after the fourth and after the third of them."""
PATIENT = replace(OFTEN, patience=2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(folder, result) of trainings that nothing disturbed, by their figures; never changed."""
    folders = {figures: tmp_path_factory.mktemp("whole") for figures in (RISING, FALLING)}
    return {
        f: (folder, validated(folder, f, every=2, cfg=PATIENT)[0]) for f, folder in folders.items()
    }


@pytest.mark.parametrize(
    ("figures", "stop"),
    [*((RISING, n) for n in (1, 2, 3, 4, 6, 7)), *((FALLING, n) for n in (2, 4, 5))],
)
def test_stopped_at_any_step_and_resumed_the_kept_weights_and_all_figures_are_the_same(
    figures, stop, undisturbed, tmp_path
):
    cfg, (folder, whole) = PATIENT, undisturbed[figures]
    assert len(whole.history) == (8 if figures is RISING else 6)
    interrupted(tmp_path / "cut", stop, figures, cfg)
    reached = json.loads((tmp_path / "cut" / "checkpoint.json").read_text())["step"]
    assert reached == stop
    resumed, plan = validated(tmp_path / "cut", figures, every=2, cfg=cfg)
    assert min(plan.weights, default=math.inf) > reached
    assert same_weights(resumed.model, whole.model)
    assert (resumed.step, resumed.losses) == (whole.step, whole.losses)
    assert (resumed.history, resumed.validations) == (whole.history, whole.validations)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == sorted(
        p.name for p in folder.iterdir()
    )
    for name in ("log.csv", "validation.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (folder / name).read_bytes()


def interrupted(folder, stop, figures, cfg):
    """A training that ends after ``stop`` steps, with the checkpoint of that step written."""
    with pytest.raises(Stop):
        validated(folder, figures, every=2, cfg=cfg, callback=stop_at("checkpoint", stop))


def test_a_training_killed_between_the_best_weights_and_the_checkpoint_keeps_the_right_ones(
    tmp_path,
):
    """The best weights of a step are on disk, the checkpoint that names them is not."""
    figures = [0.4, 0.6, 0.5]
    whole, _ = validated(tmp_path / "whole", figures, every=2, cfg=OFTEN)
    with pytest.raises(Stop):
        validated(tmp_path / "cut", figures, every=2, cfg=OFTEN, callback=stop_at("best", 4))
    assert json.loads((tmp_path / "cut" / "checkpoint.json").read_text())["step"] == 3
    resumed, _ = validated(tmp_path / "cut", figures, every=2, cfg=OFTEN)
    assert same_weights(resumed.model, whole.model)
    assert resumed.step == whole.step == 4


def test_what_prepare_loads_is_overlaid_by_the_checkpoint_and_not_the_other_way_round(tmp_path):
    def prepare(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.01)

    whole = trained(tmp_path / "whole", SHORT, prepare=prepare)
    with pytest.raises(Stop):
        trained(tmp_path / "cut", SHORT, prepare=prepare, callback=stop_at("step", 1))
    assert (tmp_path / "cut" / "checkpoint.json").exists() is False
    assert same_weights(trained(tmp_path / "cut", SHORT, prepare=prepare).model, whole.model)
    with pytest.raises(Stop):
        trained(tmp_path / "later", SHORT, prepare=prepare, callback=stop_at("checkpoint", 3))
    assert same_weights(trained(tmp_path / "later", SHORT, prepare=prepare).model, whole.model)
    assert not same_weights(trained(tmp_path / "without", SHORT).model, whole.model)


# -- a changed pipeline


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 1e-4}, "train.lr 0.003 -> 0.0001"),
        ({"batch": 3, "threads": 2}, "train.batch 2 -> 3; train.threads 1 -> 2"),
        ({"seed": 9}, "train.seed 5 -> 9"),
        (
            {"augment": Augmentation(blur=1)},
            "train.augment.stain 0.08 -> 0.0; train.augment.blur 0.0 -> 1.0",
        ),
        ({"freeze_norm": True}, "train.freeze_norm False -> True"),
        ({"validate_every": 2}, "train.validate_every 1 -> 2"),
    ],
)
def test_a_changed_training_is_refused_with_what_differs_and_nothing_of_the_old_one_is_lost(
    change, told, tmp_path
):
    trained(tmp_path, SHORT)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError) as error:
        trained(tmp_path, replace(SHORT, **change), callback=no_step)
    said = str(error.value)
    assert (
        f"{tmp_path} holds 6 steps of a training that was begun otherwise ({told}); set that back"
        in said
    )
    assert said.endswith("to go on with it, or train anew with --overwrite")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_data_is_refused(tmp_path):
    trained(tmp_path, SHORT, key={"annotation of slide a": "12"})
    with pytest.raises(
        ConfigError, match=r"\(annotation of slide a 12 -> 34; pixels of slide b nothing -> 56\)"
    ):
        trained(tmp_path, SHORT, key={"annotation of slide a": "34", "pixels of slide b": "56"})
    trained(
        tmp_path,
        SHORT,
        key={"annotation of slide a": "12"},
        callback=no_step,
    )


def test_a_checkpoint_of_an_older_version_is_told_as_that(tmp_path):
    trained(tmp_path, SHORT)
    naming(key="ModelSpec(...)")(tmp_path / "checkpoint.json")
    with pytest.raises(
        ConfigError,
        match=r"begun otherwise \(by an older version of quadrat\); .* with --overwrite",
    ):
        trained(tmp_path, SHORT)


def test_a_checkpoint_that_holds_the_whole_history_is_of_an_older_version(tmp_path):
    trained(tmp_path, SHORT)
    naming(history=[])(tmp_path / "checkpoint.json")
    with pytest.raises(ConfigError, match="by an older version of quadrat"):
        trained(tmp_path, SHORT)


def test_of_many_differences_a_few_are_named(tmp_path):
    trained(tmp_path, SHORT, key={str(n): 0 for n in range(9)})
    with pytest.raises(
        ConfigError, match=r"\(0 0 -> 1; 1 0 -> 1; 2 0 -> 1; 3 0 -> 1; 4 0 -> 1; and 4 more\)"
    ):
        trained(tmp_path, SHORT, key={str(n): 1 for n in range(9)})


UNDECIDED = {
    "checkpoint_every_s": 1.0,
    "cache_mb": 1,
    "source": "stored",
    "calibrate": "count",
    "init": "./a/../b",
    "processes": 2,
}


def test_what_does_not_decide_the_weights_does_not_start_anew(tmp_path):
    first = trained(tmp_path, SHORT)
    again = trained(tmp_path, replace(SHORT, **UNDECIDED), callback=no_step)
    assert same_weights(again.model, first.model)


@pytest.mark.parametrize("patience", [0, 4])
def test_a_training_that_ended_early_goes_on_with_more_patience_as_if_from_the_beginning(
    patience, tmp_path
):
    more = replace(PATIENT, patience=patience)
    whole, _ = validated(tmp_path / "whole", RISING, every=2, cfg=more)
    validated(tmp_path / "cut", RISING, every=2, cfg=PATIENT)
    resumed, plan = validated(tmp_path / "cut", RISING, every=2, cfg=more)
    assert list(plan.weights) == [10]
    assert same_weights(resumed.model, whole.model)
    assert (resumed.step, resumed.history, resumed.validations) == (
        whole.step,
        whole.history,
        whole.validations,
    )


# -- damage


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    """Bytes of a weight are others; the file can still be read."""
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def missing(path):
    path.unlink()


def torn(path):
    path.write_text(path.read_text()[:40])


def of_text(text):
    return lambda path: path.write_text(text)


def without(name):
    def spoil(path):
        about = json.loads(path.read_text())
        del about[name]
        path.write_text(json.dumps(about))

    return spoil


def naming(**values):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


DAMAGE = {
    "json cut off": ("checkpoint.json", torn),
    "json empty": ("checkpoint.json", of_text("")),
    "a list": ("checkpoint.json", of_text("[]")),
    "null": ("checkpoint.json", of_text("null")),
    "no key": ("checkpoint.json", without("key")),
    "no log": ("checkpoint.json", without("log")),
    "a log that is too long": ("checkpoint.json", naming(log={"bytes": 9999, "sha256": ""})),
    "losses cut off": ("log.csv", cut_short),
    "a digit of the losses": ("log.csv", flipped),
    "no losses": ("log.csv", missing),
    "another step": ("checkpoint.json", naming(step=3)),
    "a worded step": ("checkpoint.json", naming(step="x")),
    "weights cut off": ("checkpoint.4.safetensors", cut_short),
    "a bit of the weights": ("checkpoint.4.safetensors", flipped),
    "a bit of the best weights": ("best.4.safetensors", flipped),
    "no weights": ("checkpoint.4.safetensors", missing),
    "weights of text": ("checkpoint.4.safetensors", of_text("these are no weights")),
    "best weights cut off": ("best.4.safetensors", cut_short),
    "no best weights": ("best.4.safetensors", missing),
}


@pytest.fixture(scope="module")
def half_way(tmp_path_factory):
    """The folder of a training that was stopped after 4 of 6 steps; never changed."""
    folder = tmp_path_factory.mktemp("half")
    interrupted(folder, 4, FIGURES, OFTEN)
    return folder


FIGURES = [0.4, 0.6, 0.5]


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_checkpoint_is_refused_before_a_step_with_the_folder_and_the_way_out(
    what, half_way, tmp_path
):
    name, spoil = DAMAGE[what]
    for file in half_way.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path / name)
    with pytest.raises(StoreError) as error:
        validated(
            tmp_path,
            FIGURES,
            every=2,
            cfg=OFTEN,
            callback=no_step,
        )
    said = str(error.value)
    assert "damaged" in said
    assert f"delete the folder {tmp_path} to train from the beginning" in said
    assert "\n" not in said


# -- a full disk


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The training of FIGURES that nothing disturbed."""
    return validated(tmp_path_factory.mktemp("written"), FIGURES, every=2, cfg=OFTEN)[0]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("calls", [0, 1, 2, 4, 7])
def test_a_full_disk_at_any_write_is_told_and_the_training_goes_on_with_the_same_bits(
    call, calls, written, tmp_path
):
    whole, folder = written, tmp_path / "cut"
    at = 2 * calls if call == "fsync" else calls  # a file's own, and that of its folder
    with (
        disk(folder, names=(call,), at=at, error=NO_ROOM),
        pytest.raises(WriteError, match=r"cannot be written .*No space left.*make room") as error,
    ):
        validated(folder, FIGURES, every=2, cfg=OFTEN)
    assert str(folder) in str(error.value)
    assert not list(folder.glob("*partial*")), "half a file would take the room of the next"
    named = folder / "checkpoint.json"
    reached = json.loads(named.read_text())["step"] if named.exists() else 0
    assert reached > 0 or calls < 4
    resumed, plan = validated(folder, FIGURES, every=2, cfg=OFTEN)
    assert min(plan.weights) > reached
    assert same_weights(resumed.model, whole.model)
    assert resumed.validations == whole.validations


def test_a_training_killed_while_it_writes_goes_on_from_the_checkpoint_before_or_the_new_one(
    tmp_path,
):
    folder, calls = tmp_path / "checkpoints", (*WRITING, *REMOVING)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def opened():
        return Checkpoints(folder, model, optimizer, key={"train.seed": 1})

    def stand(step):
        """A training after so many steps, with weights that say so."""
        for parameter in model.parameters():
            parameter.data.fill_(step)
            optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, 10 * step)
        rows = [{"step": row, "loss": 1.0} for row in range(step)]
        return State(step=step, history=rows, best_step=step, best=float(step))

    def write(step):
        saved = opened()
        saved.resume()
        state = stand(step)
        saved.keep_best(step)
        saved.write(state, seconds=0.0)

    write(1)
    with disk(folder, names=calls) as undisturbed:
        write(2)
    steps = []
    for at in range(len(undisturbed.calls)):
        remove(folder)
        write(1)
        with disk(folder, names=calls, at=at, error=Killed()), pytest.raises(Killed):
            write(2)
        stand(9)
        saved = opened()
        step = saved.resume().step
        steps.append(step)
        assert {float(p[0].detach().mean()) for p in model.parameters()} == {step}
        moments = (state["momentum_buffer"] for state in optimizer.state.values())
        assert {float(moment.mean()) for moment in moments} == {10 * step}
        saved.load_best(step)
        assert {float(p[0].detach().mean()) for p in model.parameters()} == {step}
        write(2)
        assert sorted(p.name for p in folder.iterdir()) == [
            "best.2.safetensors",
            "checkpoint.2.safetensors",
            "checkpoint.json",
            "log.csv",
        ]
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}


def test_too_little_room_is_refused_before_a_step(tmp_path, monkeypatch):
    trained(tmp_path / "x", SHORT)
    on_disk = sum(p.stat().st_size for p in (tmp_path / "x").iterdir())
    room = room_needed(get_task("instance").build(spec_for("instance")))
    assert 2 * on_disk < room < 8 * on_disk
    free = SimpleNamespace(f_bavail=room - 1, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    with pytest.raises(
        StoreError, match=r"the checkpoints of a training needs about .* are free; make room"
    ):
        trained(tmp_path / "y", SHORT, callback=no_step)
    free.f_bavail += 1
    trained(tmp_path / "y", SHORT)


# -- logs


def test_a_checkpoint_after_many_steps_writes_no_more_than_one_after_a_few(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saved, state = Checkpoints(tmp_path, model, optimizer, key={}), State()

    def more(steps):
        for _ in range(steps):
            state.record({"loss": 0.123456789, "part": 1 / 3})
        with disk(tmp_path, names=("write",)) as watched:
            saved.write(state, seconds=0.0)
        assert len(watched.calls) == 3, "weights, new rows, checkpoint.json"
        return {p.name.split(".")[0]: p.stat() for p in tmp_path.iterdir()}

    few = more(100)
    many = more(200_000)
    assert many["checkpoint"].st_size < few["checkpoint"].st_size + 100
    rows = more(1)["log"].st_size - many["log"].st_size
    assert 0 < rows < 100
    assert few["log"].st_ino == many["log"].st_ino, "the log was replaced"
    again = Checkpoints(tmp_path, model, optimizer, key={}).resume()
    assert again.history == state.history


def test_rows_of_a_process_that_was_killed_are_taken_back(tmp_path):
    trained(tmp_path / "whole", SHORT)
    with pytest.raises(Stop):
        trained(tmp_path / "cut", SHORT, callback=stop_at("checkpoint", 3))
    with (tmp_path / "cut" / "log.csv").open("a") as stream:
        stream.write("3,99.0,99.0\r\n4,")
    trained(tmp_path / "cut", SHORT)
    logs = [(tmp_path / name / "log.csv").read_bytes() for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_tensorboard_has_every_loss_and_every_figure_once_though_the_training_was_interrupted(
    tmp_path,
):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    cfg = replace(OFTEN, tensorboard=True)
    interrupted(tmp_path, 3, FIGURES, cfg)
    result, _ = validated(tmp_path, FIGURES, every=2, cfg=cfg)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "validation/score"} <= set(events.Tags()["scalars"])
    losses = events.Scalars("train/loss")
    assert [e.step for e in losses] == list(range(6))
    np.testing.assert_allclose(
        [e.value for e in losses], [row["loss"] for row in result.history], rtol=1e-6
    )
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("validation/score")] == [
        (2, 0.4),
        (4, 0.6),
        (6, 0.5),
    ]


def test_tensorboard_is_not_in_the_way_of_the_weights(tmp_path):
    with_board = trained(tmp_path / "a", replace(SHORT, tensorboard=True))
    assert same_weights(with_board.model, trained(tmp_path / "b", SHORT).model)
    assert not (tmp_path / "b" / "tensorboard").exists()


def test_means_are_taken_over_the_steps_that_there_are():
    state = State()
    assert state.last(3) == {}
    for loss in (4.0, 2.0, 1.0):
        state.record({"loss": loss})
    assert state.last(2) == {"loss": 1.5}
    assert state.smooth() == pytest.approx(7 / 3)
    assert state.step == 3
