"""Which sample comes when: every window in each round, or balanced; and batches that are whatever
the training did before."""

import time

import numpy as np
import pytest
import torch

from helpers.trainings import CFG, data_for, spec_for
from quadrat.tasks import get_task
from quadrat.training.batches import Samples, balanced, batches, collated, rounds

MANY = 1_000_000


@pytest.fixture(scope="module")
def samples():
    """All samples of a training of four windows; CFG: 24 steps of 2."""
    task, spec = get_task("instance"), spec_for("instance")
    return Samples(data_for(task, spec), CFG)


@pytest.mark.parametrize("windows", [1, 2, 18, 1000])
def test_every_window_is_seen_once_in_each_round_and_each_round_has_its_own_order(windows):
    window_of = rounds(windows, seed=3)
    turns = [[window_of(turn * windows + i) for i in range(windows)] for turn in range(3)]
    assert all(sorted(turn) == list(range(windows)) for turn in turns)
    assert windows < 18 or turns[0] != turns[1] != turns[2]


def test_the_order_is_the_generator_s_permutation_whatever_was_asked_before():
    want = [int(np.random.default_rng([5, n // 7]).permutation(7)[n % 7]) for n in range(50)]
    forward, mixed = rounds(7, seed=5), rounds(7, seed=5)
    assert [forward(n) for n in range(50)] == want
    for n in np.random.default_rng(0).permutation(50):
        assert mixed(int(n)) == want[n]
    assert [rounds(7, seed=6)(n) for n in range(50)] != want


def test_balanced_draws_are_those_of_the_generator_s_choice_and_depend_on_number_and_seed_alone():
    shares = np.random.default_rng(0).random(30)
    shares /= shares.sum()
    want = [
        int(np.random.default_rng([1, n // 4, n % 4, 2]).choice(30, p=shares)) for n in range(60)
    ]
    one, other = balanced(shares, seed=1, batch=4), balanced(shares, seed=1, batch=4)
    assert [one(n) for n in range(60)] == want
    assert [other(n) for n in reversed(range(60))] == want[::-1]
    assert [balanced(shares, seed=2, batch=4)(n) for n in range(60)] != want


def test_what_never_is_to_be_drawn_never_is():
    window_of = balanced(np.array([0.0, 0.5, 0.0, 0.5, 0.0]), seed=0, batch=2)
    assert {window_of(n) for n in range(200)} == {1, 3}


def test_a_draw_among_a_million_windows_costs_no_more_than_one_among_a_few():
    """A permutation of a million windows takes 10 ms, and a draw by shares as long: with one for
    each sample, these 4,000 draws would take a minute and more."""
    shares = np.full(MANY, 1 / MANY)
    draws = rounds(MANY, seed=0), balanced(shares, seed=0, batch=8)
    began = time.process_time()
    for window_of in draws:
        assert len({window_of(n) for n in range(2000)}) > 1900
    assert time.process_time() - began < 10


def test_a_batch_is_its_samples_and_batches_go_on_from_any_step(samples):
    whole = list(batches(samples, first=0))
    assert len(whole) == CFG.steps
    for step in (0, 5):
        rgb, targets = collated([samples[2 * step], samples[2 * step + 1]])
        assert torch.equal(whole[step][0], rgb)
        assert whole[step][1].keys() == targets.keys()
        assert all(torch.equal(whole[step][1][name], targets[name]) for name in targets)
    later = list(batches(samples, first=17))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[17:], later, strict=True))
    assert not torch.equal(whole[0][0], whole[1][0])


def test_parts_of_a_batch_make_up_the_batch(samples):
    whole, first, second = (
        next(batches(samples, first=3, part=part))
        for part in (slice(0, 2), slice(0, 1), slice(1, 2))
    )
    assert torch.equal(torch.cat([first[0], second[0]]), whole[0])
    for name, target in whole[1].items():
        assert torch.equal(torch.cat([first[1][name], second[1][name]]), target)


def test_loading_draws_nothing_from_torch_s_own_generator(samples):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    next(batches(samples, first=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_can_be_left_in_the_middle(samples):
    coming = batches(samples, first=0)
    next(coming)
    coming.close()
    assert next(coming, None) is None


def test_what_fails_while_a_batch_is_loaded_is_raised_where_it_is_used(samples):
    class Broken(Samples):
        def __getitem__(self, number):
            if number >= 4:
                raise OSError("the slide is gone")
            return super().__getitem__(number)

    coming = batches(Broken(samples.windows, CFG), first=0)
    assert len(next(coming)[0]) == len(next(coming)[0]) == 2
    with pytest.raises(OSError, match="the slide is gone"):
        next(coming)
