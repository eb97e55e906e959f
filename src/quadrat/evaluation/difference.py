"""Which objects of a slide came, went or changed between two results.

Objects with the same class and outline are the same. The others are matched by boxes or by centres
(``metrics/matching.py``), in level-0 px: first within their class, then across classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quadrat.core.errors import ConfigError
from quadrat.metrics.matching import Pairs, match_boxes, match_points
from quadrat.metrics.ratios import F64, Ids
from quadrat.outputs.objects import read_rows, row_groups
from quadrat.outputs.results import SlideResult, some

CAME, WENT, CLASS, SHAPE = "came", "went", "class changed", "shape changed"
SIZE_TOLERANCE = 0.01
"""Share by which two runs may differ in the size of a slide (grids are rounded)."""
_COLUMNS = ("class", "score", "x_l0", "y_l0", "x0_l0", "y0_l0", "x1_l0", "y1_l0")


@dataclass(frozen=True, slots=True)
class Same:
    """What makes two objects one, where class and outline are not equal."""

    iou: float = 0.5
    """Least IoU of their boxes."""
    distance_um: float | None = None
    """Greatest distance of their centroids (px in pixel work), in place of the IoU."""

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise ConfigError(f"--iou is {self.iou:g}; it must be above 0 and at most 1")
        if self.distance_um is not None and not 0 < self.distance_um < float("inf"):
            raise ConfigError(f"--distance-um is {self.distance_um:g}; it must be a length above 0")


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a result, without their outlines."""

    path: Path
    """The table."""
    names: npt.NDArray[np.str_]
    """(n,) classes."""
    score: npt.NDArray[np.float32]
    """(n,)."""
    centre: F64
    """(n, 2) x, y in level-0 px."""
    box: F64
    """(n, 4) x0, y0, x1, y1 in level-0 px."""
    digest: npt.NDArray[np.uint64]
    """(n,) of class and outline: equal ones are taken as equal (64 bits of BLAKE2b)."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many objects of a class are what."""

    before: int = 0
    """In the first result."""
    after: int = 0
    """In the second."""
    same: int = 0
    """Equal class and outline."""
    came: int = 0
    """Only in the second."""
    went: int = 0
    """Only in the first."""
    class_changed: int = 0
    """In both, with another class; they stand in the row of the class that they had."""
    shape_changed: int = 0
    """In both, with another outline and the same class."""
    score_changed: int = 0
    """In both, with another score."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (
            self.came or self.went or self.class_changed or self.shape_changed or self.score_changed
        )


@dataclass(frozen=True)
class Difference:
    """How the second result of a slide differs from the first."""

    before: Objects
    """Of the first."""
    after: Objects
    """Of the second."""
    same: Pairs
    """Rows of both with equal class and outline."""
    changed: Pairs
    """Rows of both that were matched; the value is the IoU of boxes, or the distance in um."""

    @cached_property
    def went(self) -> Ids:
        """Rows of the first that are in no pair."""
        taken = np.concatenate([self.same.truth, self.changed.truth])
        return np.delete(np.arange(len(self.before)), taken)

    @cached_property
    def came(self) -> Ids:
        """Rows of the second that are in no pair."""
        taken = np.concatenate([self.same.found, self.changed.found])
        return np.delete(np.arange(len(self.after)), taken)

    @cached_property
    def of_class(self) -> npt.NDArray[np.bool_]:
        """Of the changed pairs: whether the class is another one."""
        return np.asarray(
            self.before.names[self.changed.truth] != self.after.names[self.changed.found]
        )

    def tally(self, name: str | None) -> Tally:
        """What became of a class; None: of all objects."""

        def count(names: npt.NDArray[np.str_]) -> int:
            return len(names) if name is None else int((names == name).sum())

        old, new, pairs = self.before, self.after, self.changed
        both = [
            np.concatenate([getattr(self.same, side), getattr(pairs, side)])
            for side in ("truth", "found")
        ]
        other_score = old.score[both[0]] != new.score[both[1]]
        return Tally(
            before=count(old.names),
            after=count(new.names),
            same=count(old.names[self.same.truth]),
            came=count(new.names[self.came]),
            went=count(old.names[self.went]),
            class_changed=count(old.names[pairs.truth[self.of_class]]),
            shape_changed=count(old.names[pairs.truth[~self.of_class]]),
            score_changed=count(old.names[both[0][other_score]]),
        )


def check_alike(one: SlideResult, other: SlideResult) -> None:
    """Raises ConfigError if two results cannot be of one slide, or not be compared."""
    if one.unit != other.unit:
        raise ConfigError(
            f"{one.folder} is in {one.unit} and {other.folder} in {other.unit}; compare runs of "
            "one unit (model.mpp)"
        )
    (width, height), (wide, high) = one.size_l0, other.size_l0
    for a, b, step in ((width, wide, "scale_col"), (height, high, "scale_row")):
        reach = max(getattr(r.summary.frame, step) for r in (one, other))
        if abs(a - b) > max(reach, SIZE_TOLERANCE * a):
            raise ConfigError(
                f"{one.folder} is of a slide of {width:.0f} x {height:.0f} px and {other.folder} "
                f"of one of {wide:.0f} x {high:.0f} px: they are two slides of one name"
            )


def shared_slides(
    one: dict[str, SlideResult], other: dict[str, SlideResult], *, outs: tuple[Path, Path]
) -> list[str]:
    """The slides that two runs have in common.

    Raises:
        ConfigError: there are none.
    """
    both = [name for name in one if name in other]
    if not both:
        raise ConfigError(
            f"{outs[0]} has results of {some(list(one))}, {outs[1]} of {some(list(other))}: no "
            "slide is in both; name two runs of the same slides"
        )
    return both


def read_objects(result: SlideResult) -> Objects:
    """The objects of a result, in the order of the file.

    Raises:
        QuadratError: there is no table, or it cannot be read.
    """
    path = result.objects
    rows = read_rows(path, _COLUMNS)
    column = {name: rows[name].to_numpy() for name in _COLUMNS if name != "class"}
    names = np.array(rows["class"].to_pylist(), np.str_)
    return Objects(
        path=path,
        names=names,
        score=column["score"].astype(np.float32),
        centre=np.stack([column["x_l0"], column["y_l0"]], axis=1),
        box=np.stack([column[name] for name in _COLUMNS[4:]], axis=1),
        digest=_digests(path, names.tolist()),
    )


def difference(one: SlideResult, other: SlideResult, *, same: Same) -> Difference:
    """What differs between two results of a slide.

    Raises:
        ConfigError: they cannot be compared.
        QuadratError: a table cannot be read.
    """
    check_alike(one, other)
    before, after = read_objects(one), read_objects(other)
    equal = _equal(before.digest, after.digest)
    rest = (
        np.delete(np.arange(len(before)), equal.truth),
        np.delete(np.arange(len(after)), equal.found),
    )
    names = np.unique(np.concatenate([before.names, after.names]))
    classes = (
        np.searchsorted(names, before.names[rest[0]]),
        np.searchsorted(names, after.names[rest[1]]),
    )
    within = _match(before, after, rest, classes, one.summary.frame.mpp_l0, same)
    left = (np.delete(rest[0], within.truth), np.delete(rest[1], within.found))
    any_class = (np.zeros(len(left[0]), np.int64), np.zeros(len(left[1]), np.int64))
    across = _match(before, after, left, any_class, one.summary.frame.mpp_l0, same)
    changed = Pairs(
        np.concatenate([rest[0][within.truth], left[0][across.truth]]),
        np.concatenate([rest[1][within.found], left[1][across.found]]),
        np.concatenate([within.value, across.value]),
    )
    return Difference(before, after, equal, changed.take(np.argsort(changed.truth)))


def _match(
    before: Objects,
    after: Objects,
    rows: tuple[Ids, Ids],
    classes: tuple[Ids, Ids],
    mpp: float,
    same: Same,
) -> Pairs:
    old, new = rows
    if not len(old) or not len(new):
        none = np.zeros(0, np.int64)
        return Pairs(none, none, np.zeros(0))
    if same.distance_um is not None:
        return match_points(
            before.centre[old],
            after.centre[new],
            truth_class=classes[0],
            found_class=classes[1],
            mpp=mpp,
            distance_um=same.distance_um,
        )
    return match_boxes(
        before.box[old],
        after.box[new],
        after.score[new],
        truth_class=classes[0],
        found_class=classes[1],
        iou=same.iou,
    )


def _digests(path: Path, names: list[str]) -> npt.NDArray[np.uint64]:
    out = np.empty(len(names), np.uint64)
    at = 0
    for group in range(row_groups(path)):
        for outline in read_rows(path, ["geometry"], group=group)["geometry"].to_pylist():
            text = names[at].encode() + b"\0" + outline
            out[at] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
            at += 1
    return out


def _equal(before: npt.NDArray[np.uint64], after: npt.NDArray[np.uint64]) -> Pairs:
    """Pairs of equal digests; of several equal ones, the first with the first."""
    keys = []
    for digest in (before, after):
        key = np.empty(len(digest), [("digest", np.uint64), ("nth", np.int64)])
        key["digest"], key["nth"] = digest, _occurrence(digest)
        keys.append(key)
    _, old, new = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    order = np.argsort(old)
    return Pairs(
        old[order].astype(np.int64), new[order].astype(np.int64), np.ones(len(old), np.float64)
    )


def _occurrence(keys: npt.NDArray[np.uint64]) -> Ids:
    """How many equal keys stand before each."""
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], keys[order], side="left")
    out = np.empty(len(keys), np.int64)
    out[order] = np.arange(len(keys)) - first
    return out
