"""Which records of a file are learnt, and as what: kinds, classes, derived and ignored classes, bad
records (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from quadrat.annotations.drawn import Annotations
from quadrat.annotations.faults import geometry_problems
from quadrat.annotations.record import Problem, Record, Sheet, to_annotations
from quadrat.core.errors import AnnotationError

GROUPS_NAMED = 3
"""Of so many classes that are none of the pipeline's a note says how many records they have."""
Role = Literal["taken", "bound", "ignored", "crowd", "other"]


@dataclass(frozen=True, slots=True)
class Selected:
    """What was taken of a file."""

    annotations: Annotations
    """The taken records as columns."""
    records: tuple[Record, ...]
    """The taken records."""
    bad: tuple[str, ...]
    """For each record that was left out as bad: its place, code and text."""
    notes: tuple[str, ...]
    """Sentences on what was left out, or taken as another class than written."""
    nothing: str
    """What the file has instead, if it has something and nothing of it is learnt; else empty."""


@dataclass(slots=True)
class Sorted:
    """The records of a sheet that are learnt, and what happened to the others."""

    taken: list[Record] = field(default_factory=list)
    """The records that are learnt."""
    targets: list[int | None] = field(default_factory=list)
    """The class index of each; None if its class does not exist."""
    notes: list[str] = field(default_factory=list)
    """See ``Selected``."""
    others: list[str] = field(default_factory=list)
    """Sentences on what is left aside and of no class of the pipeline. A training, for which files
    may hold much else, does not repeat them."""
    nothing: str = ""
    """See ``Selected``."""


def select(
    sheet: Sheet,
    classes: Sequence[str],
    *,
    want: str,
    size: tuple[int, int] | None,
    ignore: Sequence[str] = (),
    bounding: str = "",
    objects_as: str = "detections",
) -> Selected:
    """The records that ``want`` ("objects", "regions" or "points") asks for, as Annotations of the
    pipeline's classes.

    ``bounding``: name of the region class that bounds what is learnt. It is not a class to learn
    unless the pipeline has it.
    """
    found = sort_records(
        sheet, classes, want=want, ignore=ignore, bounding=bounding, objects_as=objects_as
    )
    problems = record_problems(found.taken, found.targets, classes, want=want, size=size)
    worst = [next((p for p in own if not p.warning), None) for own in problems]
    kept = [k for k, problem in enumerate(worst) if problem is None]
    records = tuple(found.taken[k] for k in kept)
    drawn = to_annotations(
        records,
        [found.targets[k] or 0 for k in kept],
        classes=classes,
        kind="region" if want == "regions" else "object",
    )
    bad = tuple(
        line(found.taken[k], problem) for k, problem in enumerate(worst) if problem is not None
    )
    return Selected(drawn, records, bad, tuple(found.notes), found.nothing)


def sort_records(
    sheet: Sheet,
    classes: Sequence[str],
    *,
    want: str,
    ignore: Sequence[str],
    bounding: str,
    objects_as: str,
) -> Sorted:
    """Which records are learnt; arguments as for ``select``."""
    found = Sorted()
    ignored: Counter[str] = Counter()
    derived: Counter[tuple[str, str]] = Counter()
    aside: Counter[tuple[str, str]] = Counter()
    others: Counter[tuple[str, str]] = Counter()
    crowds = bounds = 0
    for record in sheet.records:
        name = only_class(record, sheet, classes)
        target = class_of(name, classes)
        role = role_of(
            record, name, target, want=want, ignore=ignore, bounding=bounding, objects_as=objects_as
        )
        if role == "other":
            (others if target is None else aside)[_kind(record), name] += 1
        elif role == "bound":
            bounds += 1
        elif role == "ignored":
            ignored[name] += 1
        elif role == "crowd":
            crowds += 1
        elif role == "taken":
            found.taken.append(record)
            found.targets.append(target)
            if target is not None and classes[target] != name:
                derived[name, classes[target]] += 1
    found.notes += [
        f"{n} of class '{name}' taken as '{base}'" for (name, base), n in derived.items()
    ]
    found.notes += [f"{n} of the ignored class '{name}' left out" for name, n in ignored.items()]
    found.notes += [f"{group} left aside, since {_asked(want)}" for group in _groups(aside)]
    found.others += [
        f"{group} left aside, since {_asked(want)}" for group in _in_short(_groups(others))
    ]
    if aside and not found.taken:
        found.nothing = (
            f"{' and '.join(_groups(aside))}, and nothing else of the pipeline's classes, but "
            f"{_asked(want)}{_REMEDIES[want]}"
        )
    elif (others or sheet.left_out) and not found.taken and not bounds:
        found.nothing = (
            f"{_in_short(_groups(others))[0]}, and nothing of the pipeline's classes, but "
            f"{_asked(want)}{_REMEDIES[want]}; data.ignore leaves classes out knowingly"
            if others
            else f"{sheet.left_out} tiles or TMA cores and nothing to learn; export what is drawn, "
            "or a file without features where nothing is"
        )
    found.notes += (
        [f"{crowds} crowds (iscrowd) left out, since they are no single objects"] if crowds else []
    )
    return found


_REMEDIES = {
    "objects": "; data.objects_as: annotations counts regions (QuPath annotations) as well",
    "regions": "; draw areas as regions (QuPath annotations)",
    "points": "; data.annotations: objects learns outlines",
}


def _kind(record: Record) -> str:
    if not record.parts:
        return "points"
    return {"object": "objects", "region": "regions", None: "outlines"}[record.kind]


def _groups(counts: Counter[tuple[str, str]]) -> list[str]:
    """How many there are of each kind and class, in words."""
    return [
        f"{n} {kind} of class '{name}'" if name else f"{n} {kind} without class"
        for (kind, name), n in counts.items()
    ]


def _in_short(groups: Sequence[str]) -> list[str]:
    """All groups as one phrase, which names the first of them; none for none."""
    more = len(groups) - GROUPS_NAMED
    return [
        ", ".join([*groups[:GROUPS_NAMED], *([f"and {more} more kinds"] if more > 0 else [])])
    ] * bool(groups)


def _asked(want: str) -> str:
    return f"data.annotations asks for {want}"


def select_bounds(
    sheet: Sheet, annotated: str, *, size: tuple[int, int] | None
) -> tuple[Annotations | None, tuple[str, ...]]:
    """The regions of the class ``annotated``, and a line for each bad one; (None, ()) for "all" and
    "".

    Raises:
        AnnotationError: the file has no region of that class.
    """
    if annotated in ("", "all"):
        return None, ()
    bounds = bounding_records(sheet, annotated)
    if not bounds:
        regions = sorted(
            {r.name for r in sheet.records if r.kind != "object" and r.parts and r.name}
        )
        raise AnnotationError(
            f"{sheet.source}: the manifest says that '{annotated}' bounds what is annotated, but "
            "the file has no region of that class (its regions are of: "
            f"{', '.join(regions) or 'no class'}); draw one, or correct the column 'annotated'"
        )
    bad = [
        line(record, problem)
        for record, found in zip(bounds, geometry_problems(bounds, size=size), strict=True)
        for problem in found
        if not problem.warning and problem.code != "duplicate"
    ]
    drawn = [r for r in bounds if not r.fault]
    return to_annotations(drawn, [0] * len(drawn), classes=(annotated,), kind="region"), tuple(bad)


def bounding_records(sheet: Sheet, annotated: str) -> list[Record]:
    """The regions of the class that bounds what is learnt."""
    return [
        r
        for r in sheet.records
        if r.name == annotated and r.kind != "object" and (r.parts or r.fault)
    ]


def record_problems(
    records: Sequence[Record],
    targets: Sequence[int | None],
    classes: Sequence[str],
    *,
    want: str,
    size: tuple[int, int] | None,
) -> list[list[Problem]]:
    """All problems of each record: its geometry, its class, and whether it is what ``want`` asks
    for."""
    found = geometry_problems(records, size=size)
    for record, target, problems in zip(records, targets, found, strict=True):
        if record.fault is not None:
            continue
        if want == "points" and record.parts:
            problems.append(
                Problem("not asked for", "an outline, but data.annotations is 'points'")
            )
        elif want != "points" and len(record.points):
            text = (
                f"a point has no outline, but data.annotations is '{want}' (use 'points' with "
                "point_diameter_um)"
            )
            problems.append(Problem("not asked for", text))
        if not record.name and target is None:
            problems.append(Problem("no class", "it has no class"))
        elif target is None:
            problems.append(Problem("unknown class", unknown_class(record.name, classes)))
    return found


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """The sentence on a class that the pipeline does not have, with the nearest one that it has."""
    near = _nearest_class(name, classes)
    hint = f"; did you mean '{near}'?" if near else "; add it to classes, or name it in data.ignore"
    return f"class '{name}' is not one of {', '.join(classes)}{hint}"


def _nearest_class(name: str, classes: Sequence[str]) -> str | None:
    """The class with the most similar name, in any case; None if none is similar."""
    by_lower = {c.lower(): c for c in reversed(classes)}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[near[0]] if near else None


def line(record: Record, problem: Problem) -> str:
    """How a bad record is named: its place, its class, and what is wrong."""
    name = f" ({record.name})" if record.name and "class" not in problem.code else ""
    return f"{record.place}{name}: {problem.code}: {problem.text}"


def class_of(name: str, classes: Sequence[str]) -> int | None:
    """Index of a class. A derived class ("Tumor: Positive") is that of its longest base that is a
    class. None otherwise."""
    known = list(classes)
    parts = name.split(": ")
    for end in range(len(parts), 0, -1):
        base = ": ".join(parts[:end])
        if base in known:
            return known.index(base)
    return None


def only_class(record: Record, sheet: Sheet, classes: Sequence[str]) -> str:
    """The class of a record; if the format has no classes, the only class of the pipeline."""
    return classes[0] if sheet.one_class and not record.name and len(classes) == 1 else record.name


def role_of(
    record: Record,
    name: str,
    target: int | None,
    *,
    want: str,
    ignore: Sequence[str],
    bounding: str,
    objects_as: str,
) -> Role:
    """What a record is: learnt, a bound of what is learnt, of an ignored class, a crowd, or of
    another kind."""
    if (
        bounding not in ("", "all")
        and name == bounding
        and record.kind != "object"
        and target is None
    ):
        return "bound"
    # then outlines of what is learnt are bad, and other outlines do not matter
    if want == "points":
        wanted = record.fault is not None or len(record.points) > 0 or record.kind == "object"
        wanted |= record.kind is None and target is not None
    elif want == "regions":
        wanted = record.kind != "object" and (
            record.fault is not None or len(record.parts) > 0 or target is not None
        )
    else:
        wanted = record.kind != "region" or objects_as == "annotations"
    # QuPath ignores classes with a name that ends in an asterisk; a class that the pipeline has is
    # never ignored
    bases = [name, *name.split(": ")]
    if target is None and (
        name.endswith("*") or any(fnmatchcase(b, p) for b in bases for p in ignore)
    ):
        return "ignored"
    if not wanted:
        return "other"
    return "crowd" if record.crowd and want == "objects" else "taken"
