"""Whole cases go to one side, whatever the input; order has no influence."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.rows import slide
from quadrat.config.leakage import check_leakage, check_training
from quadrat.config.splits import assign_folds, balanced_parts, case_of, fold_split, split_by_case
from quadrat.core.errors import ConfigError


@st.composite
def manifests(draw, least_cases=1):
    cases = draw(
        st.lists(st.sampled_from("abcdefghijkl"), min_size=least_cases, max_size=12, unique=True)
    )
    refs = []
    for case in cases:
        for i in range(draw(st.integers(1, 4))):
            refs.append(
                slide(f"{case}{i}", case, label=draw(st.sampled_from(["", "benign", "tumour"])))
            )
    return draw(st.permutations(refs))


def sides_of_cases(refs, side):
    found = defaultdict(set)
    for ref in refs:
        found[case_of(ref)].add(side(ref))
    return found


def of(division, split):
    """The slides of one split."""
    return [ref for ref in division.slides if ref.split == split]


@given(manifests(least_cases=2), st.data())
@settings(max_examples=60, deadline=None)
def test_no_case_is_ever_in_two_folds_and_every_fold_has_one(refs, data):
    cases = {case_of(ref) for ref in refs}
    k = data.draw(st.integers(2, len(cases)))
    folded = assign_folds(refs, k, seed=data.draw(st.integers(0, 3)))
    assert all(len(s) == 1 for s in sides_of_cases(folded, lambda ref: ref.fold).values())
    assert {ref.fold for ref in folded} == set(range(k))
    for fold in range(k):
        division = fold_split(folded, fold)
        assert all(
            len(s) == 1 for s in sides_of_cases(division.slides, lambda ref: ref.split).values()
        )
        assert {ref.name for ref in of(division, "test")} == {
            ref.name for ref in folded if ref.fold == fold
        }
        assert of(division, "train")
        assert bool(of(division, "val")) == (
            len(cases - {case_of(r) for r in of(division, "test")}) > 1
        )
        check_leakage(division.slides)


@given(manifests(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_no_case_is_ever_on_two_sides_of_a_split(refs, seed):
    division = split_by_case(refs, seed=seed)
    sides = sides_of_cases(division.slides, lambda ref: ref.split)
    assert all(len(s) == 1 for s in sides.values())
    assert {side for s in sides.values() for side in s} == set(
        ("train", "val", "test")[: len(sides)]
    )
    check_leakage(division.slides)


@given(manifests(least_cases=3), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_has_no_influence(refs, random):
    objects = {ref.name: 7 * i % 11 for i, ref in enumerate(refs)}
    shuffled = list(refs)
    random.shuffle(shuffled)
    for make in (
        lambda rows: split_by_case(rows, objects=objects).slides,
        lambda rows: assign_folds(rows, 3, objects=objects),
        lambda rows: fold_split(assign_folds(rows, 3), 1).slides,
    ):
        one, other = (
            {ref.name: (ref.split, ref.fold) for ref in make(rows)} for rows in (refs, shuffled)
        )
        assert one == other


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), min_size=3, max_size=30),
    st.integers(2, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_part_gets_a_case_whatever_the_counts(counts, k):
    names = [f"case {i}" for i in range(len(counts))]
    assert set(balanced_parts(names, counts, [1.0] * k, seed=0)) == set(range(k))


def test_folds_are_balanced_by_labels_and_objects():
    rng = np.random.default_rng(0)
    refs = [slide(f"s{i}", f"c{i // 2}", label="ab"[i % 4 == 0]) for i in range(80)]
    objects = {ref.name: int(n) for ref, n in zip(refs, rng.integers(1, 200, 80), strict=True)}
    folded = assign_folds(refs, 4, objects=objects)
    for fold in range(4):
        mine = [ref for ref in folded if ref.fold == fold]
        assert abs(len(mine) - 20) <= 2
        assert abs(sum(ref.label == "b" for ref in mine) - 5) <= 1
        assert abs(sum(objects[ref.name] for ref in mine) / sum(objects.values()) - 0.25) < 0.02


def test_another_seed_deals_otherwise_and_the_same_seed_the_same():
    refs = [slide(f"s{i}") for i in range(12)]
    assert assign_folds(refs, 3, seed=1) == assign_folds(refs, 3, seed=1)
    assert assign_folds(refs, 3, seed=1) != assign_folds(refs, 3, seed=2)


def test_about_fifteen_percent_of_the_other_cases_are_for_validation():
    folded = assign_folds([slide(f"s{i}") for i in range(50)], 5)
    division = fold_split(folded, 0)
    assert [len(of(division, s)) for s in ("train", "val", "test")] == [34, 6, 10]


def test_a_slide_without_a_case_is_a_case_of_its_own_unless_another_is_named_like_it():
    assert case_of(slide("x")) == "x"
    division = split_by_case([slide("x"), slide("y", "x"), slide("z"), slide("w")])
    assert len({ref.split for ref in division.slides if case_of(ref) == "x"}) == 1


def test_the_manifests_folds_stand_and_slides_without_one_are_always_trained_on():
    refs = [slide(f"s{i}", fold=i % 3) for i in range(9)] + [slide("phantom", split="train")]
    assert assign_folds(refs) == tuple(refs) == assign_folds(refs, 3)
    for fold in range(3):
        division = fold_split(refs, fold)
        assert "phantom" in {ref.name for ref in of(division, "train")}
        assert {ref.fold for ref in of(division, "test")} == {fold}


def test_slides_held_out_for_testing_stay_out_of_the_manifests_folds_as_well():
    refs = [
        slide("a", fold=0),
        slide("b", fold=1),
        slide("c", fold=0, split="test"),
        slide("d", split="test"),
    ]
    assert [ref.name for ref in assign_folds(refs)] == ["a", "b"]


def test_slides_held_out_for_testing_stay_out_of_the_folds():
    refs = [
        *(slide(f"s{i}", split="train") for i in range(4)),
        slide("v", split="val"),
        slide("t", split="test"),
    ]
    folded = assign_folds(refs, 2)
    assert [ref.fold is None for ref in folded] == [False] * 5 + [True]
    assert "t" not in {ref.name for ref in fold_split(folded, 0).slides}


@pytest.mark.parametrize(
    ("refs", "k", "words"),
    [
        ([slide("a"), slide("b")], 5, r"5 folds need at least 5 cases.*has 2.*--folds 2"),
        ([slide("a", "x"), slide("b", "x")], 2, "train without --folds, or annotate"),
        ([slide("a"), slide("b")], 1, "at least 2 folds, not 1"),
        ([slide("a"), slide("b")], None, "at least 2 folds"),
        (
            [slide("a", fold=0), slide("b", fold=1), slide("c")],
            None,
            "empty for c; fill it for all",
        ),
        ([slide("a", fold=0), slide("b", fold=2)], None, "holds 0, 2; it must hold 0, 1"),
        ([slide("a", fold=0), slide("b", fold=1)], 3, "holds 2 folds and 3 are asked for"),
        (
            [slide("a", "x", fold=0), slide("b", "x", fold=1)],
            None,
            "case 'x' is on two sides: a is in fold 0 and b in fold 1",
        ),
        (
            [slide("a", "x", fold=0), slide("b", fold=1), slide("c", "x", split="train")],
            None,
            "c in training in every fold",
        ),
    ],
)
def test_folds_that_cannot_be_made_are_refused_with_the_way_out(refs, k, words):
    with pytest.raises(ConfigError, match=words):
        assign_folds(refs, k)


def test_a_fold_that_is_not_there_and_one_that_leaves_nothing_are_refused():
    folded = assign_folds([slide("a"), slide("b")], 2)
    with pytest.raises(ConfigError, match=r"no fold 2 \(folds: 0, 1\)"):
        fold_split(folded, 2)
    with pytest.raises(ConfigError, match="nothing is left to train on"):
        fold_split([replace(ref, fold=0) for ref in folded], 0)


def test_one_image_is_all_training_and_the_notes_say_what_that_means():
    division = split_by_case([slide("a")])
    assert [ref.split for ref in division.slides] == ["train"]
    words = " ".join(division.notes)
    assert "no slide is for validation" in words
    assert "no slide is for testing" in words
    assert "one case (a)" in words
    assert check_training(division.slides) == division.notes


def test_two_cases_are_training_and_validation():
    division = split_by_case([slide("a"), slide("b")])
    assert {ref.split for ref in division.slides} == {"train", "val"}
    assert any("testing" in note for note in division.notes)


def test_with_two_folds_of_one_case_each_there_is_no_validation_and_it_is_said():
    division = fold_split(assign_folds([slide("a"), slide("b")], 2), 0)
    assert sorted(ref.split for ref in division.slides) == ["test", "train"]
    assert any("no slide is for validation" in note for note in division.notes)


def test_a_label_that_is_tested_but_not_learnt_is_said():
    refs = [
        slide("a", fold=0, label="rare"),
        slide("b", fold=1, label="common"),
        slide("c", fold=1, label="common"),
    ]
    assert any("no training slide has the label rare" in note for note in fold_split(refs, 0).notes)
