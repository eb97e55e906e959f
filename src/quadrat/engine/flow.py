"""Which work on which slide is next. Pure: no files, no workers, no clock.

A slide takes its steps in their order. A step begins when the one before it is complete; a step
that can begin early takes a shard as soon as the step before it has that shard and its eight
neighbours. Slides overlap without barriers: the oldest slide comes first, and of its work the
deepest, so that slides end one after the other; a younger slide enters when there would be nothing
to do otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quadrat.core.lattice import Cell

Needs = Literal["cpu", "gpu"]
"""Where a job runs: "gpu" on a worker that has a device, if there is one."""
Place = Cell | None
"""A shard of a step; None: the one job of a step that has no shards."""
ANYWHERE: frozenset[Needs] = frozenset(("cpu", "gpu"))
TRIES = 2
"""How often work that failed is tried before its slide is given up."""


class StepShape(Protocol):
    """What the flow knows of a step."""

    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> Needs: ...
    @property
    def can_be_early(self) -> bool:
        """Whether a shard can be done when the step before is done around it."""
        ...

    @property
    def by_shard(self) -> bool:
        """Whether it has many jobs per slide, or one."""
        ...


class Record(Protocol):
    """What is known of a slide's finished work."""

    def places(self, step: int) -> Sequence[Cell]:
        """All shards of a step; asked when the step before is complete, or is underway and has the
        same shards."""
        ...

    def is_done(self, step: int, place: Place) -> bool:
        """Whether it was done before, by an earlier run."""
        ...


@dataclass(frozen=True, slots=True)
class Unit:
    """Work for one job."""

    slide: str
    """Name of the slide."""
    step: int
    """Index among the slide's steps."""
    places: tuple[Place, ...]
    """Shards, in the order in which they became ready."""
    early: bool = False
    """Whether the step before is complete only around these shards: one that needs more is given
    back."""


@dataclass(slots=True)
class _Open:
    """A step that has begun."""

    ready: deque[Place]
    """Can be done now."""
    waits: dict[Cell, set[Cell]] = field(default_factory=dict)
    """Shards that the step before must still do, by the shard that waits for them."""
    late: list[Place] = field(default_factory=list)
    """Shards that were tried early in vain."""
    left: int = 0
    """How many are not done, underway or not."""
    size: int = 0
    """How many there are, done ones among them."""
    failures: dict[Place, int] = field(default_factory=dict)
    """How often a place has failed."""


class SlideFlow:
    """One slide among its steps. It is given up by :meth:`stop`."""

    def __init__(self, name: str, steps: Sequence[StepShape], record: Record) -> None:
        self.name = name
        self.steps = steps
        self.stopped = False
        self.in_flight = 0
        self._record = record
        self._open: dict[int, _Open] = {}
        self._complete = 0
        """Number of complete steps."""
        self._begin(0)
        self._advance()

    @property
    def over(self) -> bool:
        """Whether nothing of the slide is left to do, or is done anywhere."""
        return not self.in_flight and (self.stopped or self._complete == len(self.steps))

    @property
    def at(self) -> int:
        """Index of the first step that is not complete."""
        return self._complete

    def share(self, step: int) -> float:
        """How much of a step is done, 0 to 1."""
        if step < self._complete:
            return 1.0
        opened = self._open.get(step)
        return 1 - opened.left / max(1, opened.size) if opened is not None else 0.0

    def ready(self, needs: Collection[Needs], *, before: int | None = None) -> int | None:
        """The deepest step with work for such workers; None: there is none. ``before``: only steps
        with a smaller index."""
        if self.stopped:
            return None
        for index in sorted(self._open, reverse=True):
            wanted = self.steps[index].needs in needs and (before is None or index < before)
            if wanted and self._open[index].ready:
                return index
        return None

    def count(self, step: int) -> int:
        """How many places of a step can be done now."""
        return len(self._open[step].ready) if step in self._open and not self.stopped else 0

    def take(self, step: int, most: int) -> Unit:
        """Up to ``most`` ready places of a step; each is given out once."""
        ready = self._open[step].ready
        places = tuple(ready.popleft() for _ in range(min(most, len(ready))))
        self.in_flight += 1
        return Unit(self.name, step, places, early=step > self._complete)

    def finished(self, unit: Unit, done: Iterable[Place]) -> None:
        """A unit came back with some places done. The others' turn comes again when the step before
        is complete."""
        self.in_flight -= 1
        mine, done = self._open[unit.step], list(done)
        mine.left -= len(done)
        rest = [place for place in unit.places if place not in set(done)]
        if rest:
            (mine.late if unit.step > self._complete else mine.ready).extend(rest)
        after = self._open.get(unit.step + 1)
        if after is not None:
            for place in done:
                for near in sorted(_around(place)) if place is not None else ():
                    missing = after.waits.get(near)
                    if missing is not None and place in missing:
                        missing.remove(place)
                        if not missing:
                            del after.waits[near]
                            after.ready.append(near)
        if not self.stopped:
            self._advance()

    def failed(self, unit: Unit) -> bool:
        """A unit failed. Whether it is tried again, after what is ready now."""
        self.in_flight -= 1
        mine = self._open[unit.step]
        for place in unit.places:
            mine.failures[place] = mine.failures.get(place, 0) + 1
        again = all(mine.failures[place] < TRIES for place in unit.places)
        if again:
            mine.ready.extend(unit.places)
        return again

    def tries(self, unit: Unit) -> int:
        """How often a unit's work has failed."""
        failures = self._open[unit.step].failures if unit.step in self._open else {}
        return max((failures.get(place, 0) for place in unit.places), default=0)

    def stop(self) -> None:
        """Give the slide up: no more of its work is given out."""
        self.stopped = True

    def _advance(self) -> None:
        while self._complete in self._open and not self._open[self._complete].left:
            del self._open[self._complete]
            self._complete += 1
            if self._complete == len(self.steps):
                return
            begun = self._open.get(self._complete)
            if begun is None:
                self._begin(self._complete)
            else:
                begun.ready.extend(sorted([*begun.waits, *begun.late]))  # type: ignore[type-var]
                begun.waits.clear()
                begun.late.clear()
        here, after = self._complete, self._complete + 1
        if (
            here in self._open
            and after < len(self.steps)
            and after not in self._open
            and self.steps[here].by_shard
            and self.steps[after].can_be_early
        ):
            self._begin(after)

    def _begin(self, step: int) -> None:
        record = self._record
        every: Sequence[Place] = record.places(step) if self.steps[step].by_shard else (None,)
        todo = [place for place in every if not record.is_done(step, place)]
        opened = self._open[step] = _Open(deque(todo), left=len(todo), size=len(every))
        if step > self._complete:
            missing = {p for p in every if not record.is_done(step - 1, p)}
            waits = {p: _around(p) & missing for p in todo if p is not None}
            opened.waits = {place: near for place, near in waits.items() if near}
            opened.ready = deque(place for place in todo if place not in opened.waits)


class Flow:
    """All slides of a run on their way.

    ``admit`` gives the next slide, or None where there is none now. ``most``: how many slides are
    underway at the same time. ``per_unit``: shards that make a unit, and ``per_network_unit`` one
    of the step for workers with a device. ``room``: free bytes for work, and ``weight`` what a
    slide will take of it, asked before the step called ``gate``: a slide waits there while others
    that passed it hold what it needs. ``ahead``: while less than so many places are ready for
    workers with a device, other workers first do what leads there.
    """

    def __init__(
        self,
        admit: Callable[[], SlideFlow | None],
        *,
        most: int,
        per_unit: int = 1,
        per_network_unit: int = 0,
        ahead: int = 0,
        gate: str = "",
        weight: Callable[[str], int] = lambda name: 0,
        room: Callable[[], int] | None = None,
    ) -> None:
        self.slides: dict[str, SlideFlow] = {}
        self.ahead = ahead
        self._admit = admit
        self._most = most
        self._per_unit = per_unit
        self._per_network_unit = per_network_unit or per_unit
        self._gate = gate
        self._weight = weight
        self._room = room
        self._exhausted = False
        """Whether there was no next slide when it was last asked for."""
        self._held: dict[str, int] = {}
        """Bytes that each slide which passed the gate may take."""

    def next(self, needs: frozenset[Needs]) -> Unit | None:
        """Work for a worker that takes such jobs; None: nothing is ready for it now."""
        if needs == {"cpu"} and self._backlog() < self.ahead:
            unit = self._first(needs, leading=True)
            if unit is not None:
                return unit
        return self._first(needs)

    @property
    def network_left(self) -> bool:
        """Whether there is, or may be, work for workers with a device, also underway."""
        return not self._exhausted or any(
            (step := _network(slide)) is not None and slide.at <= step and not slide.over
            for slide in self.slides.values()
        )

    def finished(self, unit: Unit, done: Iterable[Place]) -> None:
        """A unit came back with these of its places done."""
        self.slides[unit.slide].finished(unit, done)

    def failed(self, unit: Unit) -> bool:
        """A unit failed; whether it is tried again."""
        return self.slides[unit.slide].failed(unit)

    def ended(self) -> list[str]:
        """Names of the slides that are complete or were given up; they leave."""
        names = [name for name, slide in self.slides.items() if slide.over]
        for name in names:
            del self.slides[name]
            self._held.pop(name, None)
        return names

    def _first(self, needs: frozenset[Needs], *, leading: bool = False) -> Unit | None:
        for slide in self.slides.values():
            unit = self._of(slide, needs, leading=leading)
            if unit is not None:
                return unit
        while "cpu" in needs and sum(not s.over for s in self.slides.values()) < self._most:
            entered = self._admit()
            self._exhausted = entered is None
            if entered is None:
                return None
            self.slides[entered.name] = entered
            unit = self._of(entered, needs, leading=leading)
            if unit is not None:
                return unit
        return None

    def _of(self, slide: SlideFlow, needs: frozenset[Needs], *, leading: bool) -> Unit | None:
        before = _network(slide) if leading else None
        if leading and before is None:
            return None
        step = slide.ready(needs, before=before)
        if step is None or not self._passes(slide, step):
            return None
        most = self._per_network_unit if slide.steps[step].needs == "gpu" else self._per_unit
        return slide.take(step, most)

    def _passes(self, slide: SlideFlow, step: int) -> bool:
        """Whether a slide may go beyond the gate: its work fits with that of those which did."""
        if slide.steps[step].name != self._gate or self._room is None:
            return True
        if slide.name not in self._held:
            weight, others = self._weight(slide.name), sum(self._held.values())
            if others and weight > self._room() - others:
                return False
            self._held[slide.name] = weight
        return True

    def _backlog(self) -> int:
        """Places that are ready for workers with a device."""
        found = ((slide, _network(slide)) for slide in self.slides.values())
        return sum(slide.count(step) for slide, step in found if step is not None)


def _network(slide: SlideFlow) -> int | None:
    """Index of the step for workers with a device; None: it has none."""
    return next((i for i, step in enumerate(slide.steps) if step.needs == "gpu"), None)


def _around(shard: Cell) -> set[Cell]:
    """A shard and its eight neighbours."""
    return {(shard[0] + i, shard[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
