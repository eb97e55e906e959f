import csv
import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers.trainings import (
    CFG,
    Stop,
    data_for,
    no_step,
    same_weights,
    spec_for,
    stop_at,
    trained,
    validated,
)
from quadrat.core.errors import QuadratError
from quadrat.tasks import get_task, task_names
from quadrat.training.batches import Samples
from quadrat.training.loop import learning_rate, parameter_groups
from quadrat.training.samples import WindowSet

NAN = float("nan")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder, result) of a training that nothing disturbed; never changed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, trained(folder)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(uninterrupted, tmp_path):
    again = trained(tmp_path / "again")
    assert same_weights(again.model, uninterrupted[1].model)
    assert again.losses == uninterrupted[1].losses
    assert not same_weights(trained(tmp_path / "other", replace(CFG, seed=6)).model, again.model)


def test_the_state_of_torchs_own_generator_before_training_does_not_matter(uninterrupted, tmp_path):
    torch.manual_seed(12345)
    torch.rand(7)
    assert same_weights(trained(tmp_path / "x").model, uninterrupted[1].model)


def recorder(steps):
    """A callback that notes the steps taken."""
    return lambda event: steps.append(event.done) if event.kind == "step" else None


@pytest.mark.parametrize("task", task_names())
def test_stopped_and_resumed_is_bit_for_bit_the_uninterrupted_training(task, tmp_path):
    cfg = replace(CFG, checkpoint_every_s=-1.0)
    whole = trained(tmp_path / "whole", cfg, task=task)

    with pytest.raises(Stop):
        trained(tmp_path / "cut", cfg, task=task, callback=stop_at("step", 11))
    about = json.loads((tmp_path / "cut" / "checkpoint.json").read_text())
    assert about["step"] == 10
    steps = []
    resumed = trained(tmp_path / "cut", cfg, task=task, callback=recorder(steps))
    assert steps == list(range(11, cfg.steps + 1))
    assert same_weights(resumed.model, whole.model)
    assert resumed.losses == whole.losses
    for name in ("log.csv",):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_how_often_checkpoints_are_written_is_not_seen_in_the_weights(uninterrupted, tmp_path):
    assert same_weights(
        trained(tmp_path / "often", replace(CFG, checkpoint_every_s=-1.0)).model,
        uninterrupted[1].model,
    )


def test_a_checkpoint_is_written_when_so_many_seconds_have_passed_and_at_the_end(tmp_path):
    told, now = [], [100.0]

    def a_second_per_step(event):
        told.append(event)
        now[0] += event.kind == "step"

    cfg = replace(CFG, steps=9, checkpoint_every_s=3.5)
    result = trained(tmp_path, cfg, callback=a_second_per_step, clock=lambda: now[0])
    assert [event.done for event in told if event.kind == "step"] == list(range(1, 10))
    assert [event.done for event in told if event.kind == "checkpoint"] == [4, 8, 9]
    assert {event.steps for event in told} == {9}
    assert told[-1].loss == pytest.approx(np.mean([row["loss"] for row in result.history]))
    assert result.seconds == 9


def test_a_training_that_is_done_is_not_done_again(uninterrupted):
    folder, first = uninterrupted
    again = trained(folder, callback=no_step)
    assert same_weights(again.model, first.model)
    assert again.losses == first.losses


def test_the_result_is_in_eval_mode_and_the_log_has_a_row_a_step(uninterrupted):
    folder, result = uninterrupted
    assert not result.model.training
    with (folder / "log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(r["step"]) for r in rows] == list(range(CFG.steps))
    last = [float(r["loss"]) for r in rows[-2:]]
    assert result.losses["loss"] == pytest.approx(sum(last) / 2)
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoint.24.safetensors",
        "checkpoint.json",
        "log.csv",
    ]


def test_the_network_learns(tmp_path):
    losses = []
    cfg = replace(CFG, steps=61, lr=1e-2)
    trained(tmp_path, cfg, callback=lambda event: losses.append(event.loss))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("task", task_names())
def test_a_loss_that_is_no_number_stops_the_training_and_spoils_no_checkpoint(task, tmp_path):
    with pytest.raises(
        QuadratError,
        match=r"the loss became (nan|inf) at step [0-9]+, with windows of s; lower train\.lr",
    ):
        trained(tmp_path, replace(CFG, lr=1e30, warmup=0), task=task)
    assert not (tmp_path / "checkpoint.json").exists()


def test_the_rate_warms_up_and_falls_to_nothing():
    cfg = replace(CFG, steps=100, warmup=10, lr=2.0)
    rates = [learning_rate(step, cfg) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.01
    assert learning_rate(0, replace(cfg, warmup=0)) == 2.0


# -- an encoder that came with weights


def untrained(task="instance"):
    torch.manual_seed(CFG.seed)
    return get_task(task).build(spec_for(task)).state_dict()


@pytest.mark.parametrize("task", ["instance", "classification", "instance_masks"])
def test_with_frozen_norms_the_encoders_batch_statistics_stay_and_all_else_learns(task, tmp_path):
    before = untrained(task)
    after = trained(tmp_path, replace(CFG, steps=3, freeze_norm=True), task=task).model.state_dict()
    for name, value in after.items():
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, before[name]) == (statistic and name.startswith("encoder.")), name


def test_a_frozen_encoder_keeps_its_weights_while_the_rest_learns(tmp_path):
    before = untrained()
    after = trained(
        tmp_path, replace(CFG, steps=3, encoder_lr=0.0, freeze_norm=True)
    ).model.state_dict()
    assert {name for name in after if torch.equal(after[name], before[name])} == {
        n for n in after if n.startswith("encoder.")
    }


def test_the_encoder_learns_at_its_share_of_the_rate(tmp_path):
    cfg = replace(CFG, steps=1, warmup=0, lr=1e-3, weight_decay=0.0)
    before = untrained()

    def moved(share):
        after = trained(tmp_path / str(share), replace(cfg, encoder_lr=share)).model.state_dict()
        learnt = {
            n: (after[n] - before[n]).abs().max().item()
            for n in after
            if n.endswith(("weight", "bias"))
        }
        sides = [
            [v for n, v in learnt.items() if n.startswith("encoder.") is own]
            for own in (True, False)
        ]
        return max(sides[0]), max(sides[1])

    # Adam's first step is the rate itself
    assert moved(1.0) == pytest.approx((1e-3, 1e-3), rel=0.05)
    assert moved(0.1) == pytest.approx((1e-4, 1e-3), rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_stopped_and_resumed_with_an_encoder_of_its_own_rate_is_the_uninterrupted_training(
    share, tmp_path
):
    cfg = replace(CFG, steps=14, encoder_lr=share, freeze_norm=True, checkpoint_every_s=-1.0)
    whole = trained(tmp_path / "whole", cfg)
    with pytest.raises(Stop):
        trained(tmp_path / "cut", cfg, callback=stop_at("step", 11))
    assert same_weights(trained(tmp_path / "cut", cfg).model, whole.model)


def test_the_groups_of_parameters_are_apart_and_hold_each_that_learns_once():
    for share in (0.0, 0.5):
        model = get_task("instance").build(spec_for("instance"))
        groups = parameter_groups(model, replace(CFG, encoder_lr=share))
        held = [id(p) for group in groups for p in group["params"]]
        wanted = [
            id(p) for n, p in model.named_parameters() if share > 0 or not n.startswith("encoder.")
        ]
        assert len(held) == len(set(held))
        assert set(held) == set(wanted)
        assert [group["scale"] for group in groups] == ([0.5, 1.0] if share else [1.0])


def test_a_loss_that_is_no_number_names_the_slides_of_its_batch_alone(tmp_path):
    kind, spec = get_task("instance"), spec_for("instance")
    slide = data_for(kind, spec)._slides[0]
    data = WindowSet(
        [replace(slide, name=name, cells=[(0, 0)]) for name in "abcdefgh"], kind, spec, patch=32
    )
    with pytest.raises(QuadratError, match=r"windows of [a-h], [a-h]; lower train\.lr") as error:
        trained(tmp_path, replace(CFG, lr=1e30, warmup=0), data=data)
    step = int(re.search(r"at step (\d+)", str(error.value))[1])
    assert f"windows of {', '.join(Samples(data, CFG).slides(step))};" in str(error.value)


# -- which weights are kept, and when it ends


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ([0.1, 0.7, 0.3, 0.5], 2),
        ([0.5, 0.5, 0.4, 0.5], 4),
        ([0.5, 0.5, 0.4, 0.2], 2),
        ([NAN, 0.1, NAN, NAN], 2),
        ([0.3, NAN, 0.2, 0.1], 1),
        ([-3.0, -2.0, -5.0, -math.inf], 2),
        ([NAN, NAN, NAN, NAN], None),
    ],
)
def test_the_weights_kept_are_those_of_the_best_figure_the_later_of_equals_and_never_of_nan(
    figures, kept, tmp_path
):
    result, plan = validated(tmp_path, figures, every=2)
    last = 2 * len(figures)
    assert list(plan.weights) == [2, 4, 6, 8]
    wanted = plan.weights[last if kept is None else 2 * kept]
    assert all(
        torch.equal(value, wanted[name]) for name, value in result.model.state_dict().items()
    )
    assert result.step == (last if kept is None else 2 * kept)
    assert not result.model.training
    assert [row["step"] for row in result.validations] == [2, 4, 6, 8]
    np.testing.assert_equal([row["score"] for row in result.validations], figures)
    assert all(row["other"] == -1.0 for row in result.validations)


@pytest.mark.parametrize(
    ("patience", "figures", "ends_after", "kept"),
    [
        (0, [0.5, 0.4, 0.3, 0.2, 0.1], 5, 1),
        (1, [0.5, 0.4, 0.9, 0.9, 0.9], 2, 1),
        (2, [0.5, 0.4, 0.6, 0.5, 0.6], 5, 5),
        (2, [0.5, 0.5, 0.5, 0.6, 0.7], 3, 3),
        (2, [0.5, NAN, NAN, 0.6, 0.7], 3, 1),
        (3, [0.1, 0.2, 0.3, 0.4, 0.5], 5, 5),
    ],
)
def test_after_as_many_validations_without_a_better_figure_the_training_ends(
    patience, figures, ends_after, kept, tmp_path
):
    result, plan = validated(tmp_path, figures, every=2, cfg=replace(CFG, patience=patience))
    assert len(plan.weights) == ends_after
    assert len(result.history) == 2 * ends_after
    assert result.step == 2 * kept
    again, second = validated(tmp_path, figures, every=2, cfg=replace(CFG, patience=patience))
    assert not second.weights, "a training that has ended early is done"
    assert same_weights(again.model, result.model)
    assert (again.step, again.validations) == (result.step, again.validations)


def test_validations_come_when_asked_for(tmp_path):
    for every, steps in (
        (None, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
        (0, []),
        (8, [8, 16, 20]),
        (30, [20]),
    ):
        _, plan = validated(
            tmp_path / str(every), [0.5] * 30, every=1, steps=20, cfg=CFG, validate=every
        )
        assert list(plan.weights) == steps
        assert all(n == 1 for n in plan.asked.values())


def test_validating_does_not_change_what_is_learnt(tmp_path):
    def disturbing(model):
        torch.rand(3)
        np.random.default_rng().random()
        return {"score": 0.0}

    result, _ = validated(tmp_path / "validated", [0.1, 0.2, 0.3], every=2, disturb=disturbing)
    assert same_weights(result.model, trained(tmp_path / "alone", replace(CFG, steps=6)).model)
