"""Percentile intervals from whole cases drawn with replacement, because the slides of one case are
not independent of each other.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval); the
cluster is the case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

DRAWS, SEED, CONFIDENCE = 1000, 0, 0.95
LEAST_CASES = 3
"""Fewer cases give no interval."""
Interval = tuple[float, float]
"""Low and high end."""


def case_intervals(
    cases: Sequence[str],
    statistic: Callable[[Sequence[int]], Mapping[str, float]],
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> dict[str, Interval]:
    """(low, high) at 95 % of each figure; empty for fewer than ``LEAST_CASES`` cases.

    Draws in which a figure is not defined are left out of its interval.

    Args:
        cases: the case of each unit (slide).
        statistic: figures of the units with the given indices. The units of a case that is drawn
            twice are given twice.
        draws: how many times the cases are drawn.
        seed: of the draws.
    """
    names = sorted(set(cases))
    if len(names) < LEAST_CASES:
        return {}
    members: dict[str, list[int]] = {name: [] for name in names}
    for index, case in enumerate(cases):
        members[case].append(index)
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = {}
    for _ in range(draws):
        drawn = [
            index for k in rng.integers(0, len(names), len(names)) for index in members[names[k]]
        ]
        for name, value in statistic(drawn).items():
            if np.isfinite(value):
                values.setdefault(name, []).append(value)
    tail = (1 - CONFIDENCE) / 2 * 100
    return {
        name: (float(np.percentile(v, tail)), float(np.percentile(v, 100 - tail)))
        for name, v in values.items()
        if len(v) > 1
    }
