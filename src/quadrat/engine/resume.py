"""What of earlier work on a slide is still valid, what of it was kept on request, and the commit of
a slide's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadrat.core.errors import ConfigError, OvertakenError, StoreError
from quadrat.core.files import drop_partials, place_folder, remove
from quadrat.core.lattice import ShardIndex
from quadrat.engine.fingerprint import Fingerprints
from quadrat.engine.journal import (
    KEPT,
    Done,
    Journal,
    Key,
    Level,
    Planned,
    Receipt,
    Sealed,
    write_journal,
)
from quadrat.engine.pictures import FINISH
from quadrat.engine.state import AnyStep, RunSettings, SlideState, Step
from quadrat.engine.steps import LAYOUT, PLAN, PREDICT, SEAL, SELECT, STITCH, TILE
from quadrat.engine.work import SlideWork, results_folder
from quadrat.store.predictions import PredictionStore
from quadrat.store.shard import ShardReceipt
from quadrat.store.tiles import TileStore
from quadrat.tasks import get_task

COMPLETE: Mapping[str, AnyStep] = {"tiles": SEAL, "predictions": LAYOUT}
"""By the name of a store in ``run.keep``: the step of a store that may be kept."""
LEVELS: tuple[Level, ...] = ("tile", "predict", "result")
REPLACED: Mapping[str, tuple[Level, ...]] = {"tile": ("tile",)}
"""By where a run ends: the levels of which it replaces what others made; elsewhere all."""


def open_journal(
    work: SlideWork, prints: Fingerprints, *, until: str = "results", anew: bool = False
) -> Journal:
    """The slide's journal, without the receipts of work that is gone or that was done for other
    pixels, models or settings.

    The stores hold one model's predictions and one setting's results at a time. This run replaces
    those of others, so their receipts must not count when their turn comes again. ``until``: where
    the run ends; filling a tile store replaces nothing else. ``anew``: nothing counts.

    Raises:
        WriteError: what is outdated cannot be removed.
    """
    drop_partials(work.path)
    journal = Journal(work.journal)
    if anew or not _is_planned(work, prints, journal):
        remove(work.path)  # nothing can be trusted without a plan, whatever lies there
        return Journal(work.journal)
    valid = valid_receipts(work, prints, journal.receipts, until=until)
    if len(valid) == len(journal.receipts):
        return journal
    if not any(key.level == "result" for key in valid):
        remove(work.result)  # no output of other settings is to be delivered
    return write_journal(work.journal, valid)


def _is_planned(work: SlideWork, prints: Fingerprints, journal: Journal) -> bool:
    return Key(PLAN.level, prints.of(PLAN.level), PLAN.name) in journal and work.has_plan


def valid_receipts(
    work: SlideWork,
    prints: Fingerprints,
    receipts: Mapping[Key, Receipt],
    *,
    until: str = "results",
) -> dict[Key, Receipt]:
    """Those of work that is there, on disk, and that this run would do the same or leaves alone."""
    if not receipts:  # most slides of a batch: their stores need not be looked at
        return {}
    on_disk, replaced = _OnDisk(work), REPLACED.get(until, LEVELS)
    found = {
        key: receipt
        for key, receipt in receipts.items()
        if (prints.own(key) or key.level not in replaced) and on_disk.holds(key, receipt)
    }
    seal = Key(SEAL.level, prints.of(SEAL.level), SEAL.name)
    sealed = found.get(seal)
    tiles = sum(key.step == TILE.name for key in found)
    if isinstance(sealed, Sealed) and tiles < sealed.shards:
        del found[seal]
    return found


def begun_on(work: SlideWork, prints: Fingerprints) -> Fingerprints:
    """The fingerprints on the machine that has inferred what lies there of a slide; as they are
    given if nothing does."""
    found = map(prints.elsewhere, Journal(work.journal).receipts)
    return next((there for there in found if there is not None), prints)


def is_predicted(work: SlideWork, prints: Fingerprints) -> bool:
    """Whether the predictions of this model and these settings are there, all of them."""
    found = valid_receipts(work, prints, Journal(work.journal).receipts)
    plan = found.get(Key(PLAN.level, prints.of(PLAN.level), PLAN.name))
    level = PREDICT.level
    return isinstance(plan, Planned) and all(
        Key(level, prints.of(level), PREDICT.name, shard) in found for shard in plan.shards
    )


class _OnDisk:
    """Whether what receipts say is there."""

    def __init__(self, work: SlideWork) -> None:
        self._work = work
        self._shard_path: dict[Level, Callable[[ShardIndex], Path] | None] = {
            "tile": _tile_paths(work),
            "predict": _prediction_paths(work),
        }

    def holds(self, key: Key, receipt: Receipt) -> bool:
        """Whether a store is there, and the shard of the receipt in it at its full length."""
        if key.step == PLAN.name:
            return True
        if key.step == SELECT.name:
            return self._work.selection.exists()
        if key.step == STITCH.name and key.shard is not None:
            return self._work.part(ShardIndex(key.shard)).exists()
        if key.level == "result":
            return self._work.result.exists()
        path_of = self._shard_path[key.level]
        if path_of is None or key.shard is None or not isinstance(receipt, ShardReceipt):
            return path_of is not None
        path = path_of(ShardIndex(key.shard))
        return path.exists() and path.stat().st_size == receipt.nbytes


def _tile_paths(work: SlideWork) -> Callable[[ShardIndex], Path] | None:
    try:
        return TileStore.open(work.tiles).array.shard_path
    except StoreError:
        return None


def _prediction_paths(work: SlideWork) -> Callable[[ShardIndex], Path] | None:
    try:
        store: PredictionStore = get_task(work.task).storage(work.spec).open(work.predictions)
    except StoreError:
        return None
    return store.shard_path


def check_kept(work: SlideWork, prints: Fingerprints, *, until: str) -> None:
    """Refuse what would remove stores that an earlier run kept on request.

    Raises:
        ConfigError: it names them.
    """
    journal = Journal(work.journal)
    stores: dict[str, Path] = {"tile": work.tiles, "predict": work.predictions}
    lost = list(stores.values())
    owner = "another version of quadrat"
    if not journal.foreign:
        owner = "another model, setting or file"
        replaced = REPLACED.get(until, LEVELS) if _is_planned(work, prints, journal) else LEVELS
        kept = {key.level for key in journal.receipts if key.step == KEPT and not prints.own(key)}
        lost = [path for level, path in stores.items() if level in kept and level in replaced]
    lost = [path for path in lost if path.exists()]
    if lost:
        raise ConfigError(
            f"{work.path} keeps {' and '.join(path.name for path in lost)} of {owner}, which this "
            "run would replace; give another --out, or --overwrite to replace them"
        )


def keep_stores(work: SlideWork, prints: Fingerprints, keep: Sequence[str]) -> None:
    """Book the complete stores that stay after this run because the user wants them.

    Raises:
        WriteError: the journal cannot be written.
    """
    with Journal(work.journal) as journal:
        for step in (COMPLETE[name] for name in keep):
            level, fingerprint = step.level, prints.of(step.level)
            kept = Key(level, fingerprint, KEPT)
            if Key(level, fingerprint, step.name) in journal and kept not in journal:
                journal.add(kept, Done())


@dataclass(frozen=True, slots=True)
class CommitJob:
    """A slide with its whole result in the working folder."""

    work: SlideWork
    """The slide and its folder."""
    prints: Fingerprints
    """Of the slide in this run."""
    out: str
    """The run's folder."""
    keep: tuple[str, ...]
    """Stores that stay (``run.keep``)."""


def commit_slide(job: CommitJob) -> Done:
    """Deliver a slide's results (see :func:`commit_result`); nothing is left to do where that was
    done, and the answer was lost."""
    if job.work.path.exists():
        commit_result(job.work, job.prints, Path(job.out), keep=job.keep)
    return Done()


def commit_result(work: SlideWork, prints: Fingerprints, out: Path, *, keep: Sequence[str]) -> Path:
    """Give a finished slide its place under results/ by one rename. Of the working folder stays
    what is to be kept, or was kept by an earlier command. The journal goes when the results are on
    the disk, not before.

    Raises:
        WriteError: a folder cannot be renamed or removed. Run again to finish.
    """
    target = results_folder(out, work.ref.name)
    if work.result.exists():
        place_folder(work.result, target)
    _leave(work, prints, keep)
    return target


def _commit_job(state: SlideState, run: RunSettings) -> CommitJob:
    if state.lease is not None and not state.lease.held():
        raise OvertakenError(state.name)
    state.journal.close()  # the worker may go on with it
    return CommitJob(state.work, state.prints, run.out, run.pipeline.run.keep)


COMMIT = Step("commit", "result", commit_slide, _commit_job, is_booked=False)
"""The last step of a slide with results."""


def is_committing(work: SlideWork, prints: Fingerprints, *, keep: Sequence[str]) -> bool:
    """Whether a slide's whole result was made and its commit has not come to its end."""
    if not work.path.exists():
        return False
    journal = Journal(work.journal)
    finish = Key(FINISH.level, prints.of(FINISH.level), FINISH.name)
    return finish in journal and any(path.exists() for path in _to_go(work, prints, keep)[0])


def finish_commit(work: SlideWork, prints: Fingerprints, *, keep: Sequence[str]) -> None:
    """Go on with a commit that was interrupted when the results had their place.

    Raises:
        WriteError: a folder cannot be removed. Run again to finish.
    """
    finish = Key(FINISH.level, prints.of(FINISH.level), FINISH.name)
    if work.path.exists() and finish in Journal(work.journal):
        _leave(work, prints, keep)


def _leave(work: SlideWork, prints: Fingerprints, keep: Sequence[str]) -> None:
    """Leave of a working folder what this run or an earlier command was asked to keep."""
    gone, stay = _to_go(work, prints, keep)
    for path in gone:
        remove(path)
    if stay:
        keep_stores(work, prints, stay)


def _to_go(
    work: SlideWork, prints: Fingerprints, keep: Sequence[str]
) -> tuple[list[Path], list[str]]:
    """What of a working folder goes when its slide is done, and the names of the stores that
    stay."""
    kept = _kept_levels(Journal(work.journal), prints)
    stay = [name for name, step in COMPLETE.items() if name in keep or step.level in kept]
    stores = {"tiles": [work.tiles], "predictions": [work.predictions, work.parts]}
    gone = [path for name, paths in stores.items() if name not in stay for path in paths]
    return (gone if stay else [work.path]), stay


def _kept_levels(journal: Journal, prints: Fingerprints) -> set[Level]:
    """The levels whose stores of these settings were kept on request."""
    return {key.level for key in journal.receipts if key.step == KEPT and prints.own(key)}
