"""What a step of a slide's way is, and where one slide of a run stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, cast

from quadrat.config.pipeline import Pipeline
from quadrat.core.geometry import Box
from quadrat.core.lattice import Cell
from quadrat.engine.executor import Failure, Outcome
from quadrat.engine.fingerprint import Fingerprints
from quadrat.engine.flow import Needs
from quadrat.engine.journal import Journal, Key, Level, PartReceipt, Receipt
from quadrat.engine.lease import Lease
from quadrat.engine.work import SlideWork
from quadrat.outputs.summary import Provenance
from quadrat.store.shard import ShardReceipt

Payload = TypeVar("Payload")
Kind = TypeVar("Kind", bound=Receipt)
Index = TypeVar("Index", bound=Cell)
ShardReceipts = Sequence[ShardReceipt | PartReceipt]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the jobs of a run have in common."""

    pipeline: Pipeline
    """Its task, and how it runs and what it delivers; the model is in each ``SlideWork``."""
    package: str
    """Folder of the model package."""
    provenance: Provenance | None = None
    """For the summaries; None where no results are made."""
    out: str = ""
    """The run's folder, where results are delivered; "": they are not."""


@dataclass(slots=True)
class SlideState:
    """Where one slide of a run stands: what is done, as its journal says, and whether it failed."""

    work: SlideWork
    """The slide, its working folder and its model: what its jobs get."""
    prints: Fingerprints
    """What its receipts must carry to count in this run."""
    journal: Journal
    """The receipts of what is done; the only record of progress."""
    failure: Failure | None = None
    """Why the slide was set aside; None: it goes on."""
    stage: str = ""
    """The step that failed."""
    worker: str = ""
    """The worker that met it; "": this process."""
    tries: int = 1
    """How often the work that failed was tried."""
    lease: Lease | None = None
    """What says that no other driver works on it; None: there can be no other."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent by workers, by step, and of it by what it went into ("predict: network")."""
    peak_mb: float = 0.0
    """Largest size of a process that worked on it, in MiB."""
    began: float = field(default_factory=time.time)
    """When this run took it up, in seconds since 1970."""

    @property
    def name(self) -> str:
        return self.work.ref.name

    @property
    def lost(self) -> tuple[Box, ...]:
        """Damaged tiles (grid px) that any receipt of this slide's pixels or predictions names."""
        found = {
            box
            for key, receipt in self.journal.receipts.items()
            if key.level != "result" and self.prints.own(key) and isinstance(receipt, ShardReceipt)
            for box in receipt.lost
        }
        return tuple(sorted(found))

    def spend(self, step: AnyStep, outcome: Outcome[Any]) -> None:
        """Add up what a job of a step took."""
        self.peak_mb = max(self.peak_mb, outcome.peak_mb)
        for what, seconds in (
            (step.name, outcome.seconds),
            *((f"{step.name}: {part}", s) for part, s in outcome.spent.items()),
        ):
            self.seconds[what] = round(self.seconds.get(what, 0.0) + seconds, 3)

    def key(self, step: AnyStep, shard: Cell | None = None) -> Key:
        """What a receipt of a step is called."""
        return Key(step.level, self.prints.of(step.level), step.name, shard)

    def done(self, step: AnyStep, shard: Cell | None = None) -> bool:
        """Whether a step has its receipt."""
        return self.key(step, shard) in self.journal

    def receipt(self, step: Step[Any, Kind]) -> Kind:
        """The receipt of a step that is done."""
        return cast(Kind, self.journal.receipts[self.key(step)])

    def receipts(self, step: AnyStep) -> list[ShardReceipt]:
        """The receipts of a store's shards that are written."""
        mine = (r for key, r in self.journal.receipts.items() if key == self.key(step, key.shard))
        return [receipt for receipt in mine if isinstance(receipt, ShardReceipt)]


@dataclass(frozen=True, slots=True)
class Step(Generic[Payload, Kind]):
    """A step that is one job per slide."""

    name: str
    """For receipts, keys of jobs, progress and timings."""
    level: Level
    """Which of the slide's fingerprints its receipt carries."""
    fn: Callable[[Payload], Kind]
    """What a worker runs. It may run twice without harm."""
    job: Callable[[SlideState, RunSettings], Payload]
    """What it is given."""
    is_booked: bool = True
    """Whether its receipt goes into the slide's journal; not that of the step which removes it."""

    needs: ClassVar[Needs] = "cpu"
    can_be_early: ClassVar[bool] = False
    by_shard: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class ShardStep(Generic[Index, Payload]):
    """A step of many jobs per slide. Each does some shards and gives one receipt per shard."""

    name: str
    """For receipts, keys of jobs, progress and timings."""
    level: Level
    """Which of the slide's fingerprints its receipts carry."""
    fn: Callable[[Payload], ShardReceipts]
    """What a worker runs. It may run twice without harm."""
    job: Callable[[SlideState, RunSettings, tuple[Index, ...]], Payload]
    """What it is given for some shards."""
    shards: Callable[[SlideState], Sequence[Index]]
    """All that the slide has; those with a receipt are not done again."""
    needs: Needs = "cpu"
    """Where its jobs run, if there is a GPU."""
    early: Callable[[Payload], ShardReceipts] | None = None
    """What a worker runs for shards around which the step before is done, while it is not complete;
    it gives no receipt for a shard that needs more. None: the step waits."""

    is_booked: ClassVar[bool] = True
    by_shard: ClassVar[bool] = True

    @property
    def can_be_early(self) -> bool:
        return self.early is not None


AnyStep = Step[Any, Any] | ShardStep[Any, Any]
