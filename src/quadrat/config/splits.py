"""Folds and splits by case: whole cases go to one side, balanced by slides, labels and objects.

A case is a patient or a source (``SlideRef.case``; a slide without one is a case of its own).
Everything here is a function of the cases, their counts and the seed: the order of the rows has no
influence. Leakage is refused in ``leakage.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quadrat.config.manifest import SlideRef
from quadrat.core.errors import ConfigError

F64 = npt.NDArray[np.float64]

VAL_SHARE = 0.15  # of the cases that may be learnt from: for early stopping and thresholds
SWAPS_UP_TO = (
    400  # cases: above, only single moves improve the greedy answer (a swap looks at every pair)
)


@dataclass(frozen=True, slots=True)
class Division:
    """Slides that are divided, whole cases each."""

    slides: tuple[SlideRef, ...]
    """In the order given, each with ``split`` set to "train", "val" or "test"."""
    notes: tuple[str, ...] = ()
    """What the user should know of the division, a sentence each; empty if nothing is amiss."""


def case_of(ref: SlideRef) -> str:
    """The case of a slide; without one in the manifest, the slide's own name."""
    return ref.case or ref.name


def assign_folds(
    refs: Sequence[SlideRef],
    k: int | None = None,
    *,
    seed: int = 0,
    objects: Mapping[str, int] | None = None,
) -> tuple[SlideRef, ...]:
    """The slides with ``fold`` 0..k-1 set, whole cases each, balanced by slides, labels and
    ``objects`` (a slide's name: count).

    Where the manifest fills the column ``fold`` it stands as it is; ``k`` may then be left out.
    Slides without a fold there are trained on in every fold if their split is "train" (phantoms,
    say). Where it fills none, folds are made of all slides but those of split "test", which stay
    out of the cross-validation (fold None).

    Raises:
        ConfigError: fewer than two folds, more folds than cases, a column ``fold`` that is
        filled in part, has a gap or says
            otherwise than ``k``, or one case in two folds.
    """
    if any(ref.fold is not None for ref in refs):
        return _folds_of_manifest(refs, k)
    free = [ref for ref in refs if ref.split != "test"]
    cases = sorted({case_of(ref) for ref in free})
    if k is None or k < 2:
        raise ConfigError(
            f"cross-validation needs at least 2 folds, not {k or 'none'}; say --folds 5, or fill "
            "the column 'fold'"
        )
    if k > len(cases):
        raise ConfigError(
            f"{k} folds need at least {k} cases, and the manifest has {len(cases)} (the column "
            "'case' says which slides belong "
            f"together); {_fewer_folds(len(cases))}"
        )
    parts = balanced_parts(cases, _counts(free, cases, objects), [1.0] * k, seed=seed)
    fold = dict(zip(cases, parts, strict=True))
    return tuple(
        replace(ref, fold=None if ref.split == "test" else fold[case_of(ref)]) for ref in refs
    )


def _fewer_folds(cases: int) -> str:
    if cases < 2:
        return "train without --folds, or annotate slides of more cases"
    return f"use --folds {cases} (each case is tested once), or annotate slides of more cases"


def _folds_of_manifest(refs: Sequence[SlideRef], k: int | None) -> tuple[SlideRef, ...]:
    refs = [
        ref for ref in refs if ref.split != "test"
    ]  # no training sees them, whatever their fold
    without = [ref for ref in refs if ref.fold is None and ref.split != "train"]
    if without:
        raise ConfigError(
            f"the column 'fold' is filled for some slides and empty for {without[0].name}; fill it "
            "for all, or give slides that "
            "are trained on in every fold the split 'train'"
        )
    folds = sorted({ref.fold for ref in refs if ref.fold is not None})
    if folds != list(range(len(folds))) or len(folds) < 2:
        raise ConfigError(
            f"the column 'fold' holds {', '.join(map(str, folds))}; it must hold 0, 1 and so on "
            "without a gap"
        )
    if k is not None and k != len(folds):
        raise ConfigError(
            f"the column 'fold' holds {len(folds)} folds and {k} are asked for; leave --folds out, "
            "or empty the column"
        )
    one_side(
        refs,
        {
            ref.name: f"fold {ref.fold}" if ref.fold is not None else "training in every fold"
            for ref in refs
        },
    )
    return tuple(refs)


def one_side(refs: Sequence[SlideRef], side: Mapping[str, str]) -> None:
    """Refuse (ConfigError) a case whose slides are on two sides; ``side`` says by a slide's name
    where it is."""
    seen: dict[str, SlideRef] = {}
    for ref in refs:
        first = seen.setdefault(case_of(ref), ref)
        if side[first.name] != side[ref.name]:
            raise ConfigError(
                f"the case '{case_of(ref)}' is on two sides: {first.name} is in {side[first.name]} "
                f"and {ref.name} in "
                f"{side[ref.name]}; keep a case on one side (columns 'case', 'split' and 'fold' of "
                "the manifest), or what was "
                "learnt of it is taken for skill"
            )


def fold_split(
    refs: Sequence[SlideRef],
    fold: int,
    *,
    seed: int = 0,
    val_share: float = VAL_SHARE,
    objects: Mapping[str, int] | None = None,
) -> Division:
    """One run of a cross-validation: test is ``fold``, val ``val_share`` of the other cases (at
    least one), train the rest.

    ``refs`` as ``assign_folds`` returns them; slides without a fold are trained on (split "train")
    or left out (any other). With one other case there is no val, and a note says what that means.

    Raises:
        ConfigError: no such fold, or nothing left to train on.
    """
    folds = sorted({ref.fold for ref in refs if ref.fold is not None})
    if fold not in folds:
        raise ConfigError(
            f"there is no fold {fold} (folds: {', '.join(map(str, folds)) or 'none'})"
        )
    used = [ref for ref in refs if ref.fold is not None or ref.split == "train"]
    free = [ref for ref in used if ref.fold is not None and ref.fold != fold]
    always = [ref for ref in used if ref.fold is None]
    if not free and not always:
        raise ConfigError(f"fold {fold} holds every case; nothing is left to train on")
    val = _val_cases(free, always, val_share=val_share, seed=seed, objects=objects)
    slides = tuple(
        replace(
            ref,
            split="test"
            if ref.fold == fold
            else "val"
            if ref.fold is not None and case_of(ref) in val
            else "train",
        )
        for ref in used
    )
    return Division(slides, notes_on(slides))


def _val_cases(
    free: Sequence[SlideRef],
    always: Sequence[SlideRef],
    *,
    val_share: float,
    seed: int,
    objects: Mapping[str, int] | None,
) -> set[str]:
    cases = sorted({case_of(ref) for ref in free})
    if len(cases) < 2:
        return set(cases) if always and cases else set()
    parts = balanced_parts(
        cases, _counts(free, cases, objects), [1 - val_share, val_share], seed=seed
    )
    return {case for case, part in zip(cases, parts, strict=True) if part == 1}


def split_by_case(
    refs: Sequence[SlideRef],
    *,
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    objects: Mapping[str, int] | None = None,
) -> Division:
    """All slides dealt to train, val and test, whole cases each; whatever ``split`` they had is
    replaced.

    Two cases become train and val; one case is all train. Notes say what that costs and how to go
    on.

    Raises:
        ConfigError: no slide.
    """
    if not refs:
        raise ConfigError("there is no slide to split")
    cases = sorted({case_of(ref) for ref in refs})
    sides = ("train", "val", "test")[: len(cases)]
    parts = balanced_parts(cases, _counts(refs, cases, objects), shares[: len(sides)], seed=seed)
    side = {case: sides[part] for case, part in zip(cases, parts, strict=True)}
    slides = tuple(replace(ref, split=side[case_of(ref)]) for ref in refs)
    return Division(slides, notes_on(slides))


def notes_on(slides: Sequence[SlideRef]) -> tuple[str, ...]:
    """What a user should know of slides that are split ("" counts as train): too few cases, labels
    that are not learnt."""
    by = {
        split: [s for s in slides if (s.split or "train") == split]
        for split in ("train", "val", "test")
    }
    notes = []
    if not by["val"]:
        notes.append(
            "no slide is for validation: training runs all its steps without early stopping and "
            "the thresholds stay at their "
            "defaults; annotate slides of another case and give them the split 'val'"
        )
    if not by["test"]:
        notes.append(
            "no slide is for testing: nothing says how well the model does on unseen cases; "
            "annotate slides of another case and "
            "give them the split 'test', or cross-validate (--folds)"
        )
    if len({case_of(s) for s in by["train"]}) == 1:
        notes.append(
            f"all training slides are of one case ({case_of(by['train'][0])}): the model may know "
            "that case alone; look at its "
            "results on others before trusting a count"
        )
    learnt = {s.label for s in by["train"]}
    for split in ("val", "test"):
        missing = sorted({s.label for s in by[split]} - learnt - {""})
        if missing:
            notes.append(
                f"no training slide has the label {', '.join(missing)}, which slides of split "
                f"'{split}' have"
            )
    return tuple(notes)


def _counts(
    refs: Sequence[SlideRef], cases: Sequence[str], objects: Mapping[str, int] | None
) -> npt.NDArray[np.int64]:
    """(cases, 1 + labels + 1) slides, slides of each label, objects."""
    labels = sorted({ref.label for ref in refs} - {""})
    row = {case: i for i, case in enumerate(cases)}
    column = {label: 1 + i for i, label in enumerate(labels)}
    table = np.zeros((len(cases), len(labels) + 2), np.int64)
    for ref in refs:
        i = row[case_of(ref)]
        table[i, 0] += 1
        if ref.label:
            table[i, column[ref.label]] += 1
        table[i, -1] += (objects or {}).get(ref.name, 0)
    return table


def balanced_parts(
    names: Sequence[str], counts: npt.ArrayLike, shares: Sequence[float], *, seed: int
) -> list[int]:
    """Which part each named case goes to, so that every part gets its share of every column of
    ``counts``.

    ``counts`` is (cases, columns), not negative: slides, slides of each label, objects. Each column
    weighs the same, however rare what it counts. Every part gets a case. The largest cases are
    placed first, each where it leaves the least squared deviation from the shares, then single
    moves and swaps are made while they lessen it: a local optimum, found the same way for the same
    names, counts and seed, in whatever order they are given.

    Raises:
        ValueError: fewer cases than parts, or two of one name.
    """
    if len(names) < len(shares):
        raise ValueError(f"{len(names)} cases cannot fill {len(shares)} parts")
    if len(set(names)) < len(names):
        raise ValueError("two cases of one name")
    table = np.asarray(counts, np.float64).reshape(len(names), -1)
    total = table.sum(0)
    table = table[:, total > 0] / total[total > 0]
    share = np.asarray(shares, np.float64) / np.sum(shares)
    order = sorted(
        range(len(names)), key=lambda i: (-round(table[i].sum(), 9), _shuffle_key(names[i], seed))
    )
    table = table[order]
    parts = _improve(table, _place(table, share), share)
    of_case = np.empty(len(names), np.intp)
    of_case[order] = parts
    return [int(p) for p in of_case]


def _shuffle_key(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _place(table: F64, share: F64) -> npt.NDArray[np.intp]:
    """Greedy: row by row to the part that is left with the least deviation; parts without a row
    first when rows run out."""
    goal = share[:, None] * np.ones(table.shape[1])
    sums = np.zeros_like(goal)
    filled = np.zeros(len(share), np.intp)
    parts = np.empty(len(table), np.intp)
    for i, row in enumerate(table):
        cost = np.round(((sums + row - goal) ** 2 - (sums - goal) ** 2).sum(1), 12)
        if len(table) - i <= np.count_nonzero(filled == 0):
            cost[filled > 0] = np.inf
        part = int(np.argmin(cost))
        parts[i] = part
        sums[part] += row
        filled[part] += 1
    return parts


def _improve(table: F64, parts: npt.NDArray[np.intp], share: F64) -> npt.NDArray[np.intp]:
    """Make the move, or the swap, that lessens the deviation most, until none does; no part is
    emptied."""
    k, n = len(share), len(table)
    goal = share[:, None] * np.ones(table.shape[1])
    everything = np.arange(n)
    for _ in range(10 * n):
        rest = np.stack([table[parts == p].sum(0) for p in range(k)]) - goal
        squares = (table**2).sum(1)
        onto = 2 * table @ rest.T + squares[:, None]  # (n, k): what adding the row to a part costs
        leave = squares - 2 * (table * rest[parts]).sum(1)
        move = leave[:, None] + onto
        move[everything, parts] = np.inf
        move[np.bincount(parts, minlength=k)[parts] == 1] = np.inf
        i, p = divmod(int(np.argmin(np.round(move, 12))), k)
        best, change = move[i, p], [(i, p)]
        if n <= SWAPS_UP_TO:
            both = leave[:, None] + onto[:, parts]
            swap = (
                both + both.T - 4 * table @ table.T
            )  # each joins a part that the other has left: -2 x_i x_j a part
            swap[parts[:, None] == parts[None, :]] = np.inf
            i, j = divmod(int(np.argmin(np.round(swap, 12))), n)
            if swap[i, j] < best:
                best, change = swap[i, j], [(i, int(parts[j])), (j, int(parts[i]))]
        if not best < -1e-9:
            break
        for row, part in change:
            parts[row] = part
    return parts
