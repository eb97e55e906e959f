"""A run's folder on disk: one driver at a time, what of earlier work is still valid, and the commit
of a slide's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quadrat.core.errors import StoreError
from quadrat.core.files import drop_partials, place_folder, remove
from quadrat.core.lattice import Cell
from quadrat.engine.fingerprint import Fingerprints
from quadrat.engine.journal import Journal, write_journal
from quadrat.engine.work import SlideWork
from quadrat.store.predictions import PredictionStore
from quadrat.store.tiles import TileStore

TILE_STAGES = ("store", "tile", "seal")


def results_folder(out: Path, name: str) -> Path:
    """Where a finished slide's results lie."""
    return out / "results" / name


def open_journal(work: SlideWork, prints: Fingerprints, *, anew: bool = False) -> Journal:
    """The slide's journal, rid of every receipt whose work is gone or was done for other pixels,
    models or settings.

    The stores hold one model's predictions and one setting's results at a time: receipts of others,
    which this run replaces, must not count when their turn comes again. ``anew``: nothing counts.
    """
    path = work.path / "journal.jsonl"
    drop_partials(work.path)
    journal = Journal(path)
    plan = f"{prints.tile[:16]}/plan"
    if journal.receipts and (anew or plan not in journal or not (work.path / "plan.json").exists()):
        remove(work.path)
        return Journal(path)
    keep = valid_receipts(work, prints, journal.receipts)
    if len(keep) == len(journal.receipts):
        return journal
    if not any(key.startswith(prints.result[:16]) for key in keep):
        remove(work.result)  # no output of other settings is to be delivered
    return write_journal(path, keep)


def valid_receipts(
    work: SlideWork, prints: Fingerprints, receipts: Mapping[str, Any]
) -> dict[str, Any]:
    """Those whose work is there, on disk, and is what this run would do."""
    tiles, predictions = _files_of_tiles(work), _files_of_predictions(work)

    def valid(key: str) -> bool:
        print_, stage, *item = key.split("/")
        if print_ == prints.tile[:16]:
            return stage not in TILE_STAGES or _there(tiles, item, receipts[key])
        if print_ == prints.predict[:16]:
            return _there(predictions, item, receipts[key])
        if print_ == prints.result[:16]:
            return work.part(_cell(item[0])).exists() if stage == "stitch" else work.result.exists()
        return False

    found = {key: receipt for key, receipt in receipts.items() if valid(key)}
    seal, prefix = f"{prints.tile[:16]}/seal", f"{prints.tile[:16]}/tile/"
    if sum(key.startswith(prefix) for key in found) < found.get(seal, {"shards": 0})["shards"]:
        del found[seal]
    return found


def _there(
    path_of: Callable[[Cell], Path] | None, item: list[str], receipt: Mapping[str, Any]
) -> bool:
    """Whether a store is there, and the shard of the receipt in it at its full length."""
    if path_of is None or not item:
        return path_of is not None
    path = path_of(_cell(item[0]))
    return path.exists() and path.stat().st_size == receipt["nbytes"]


def _files_of_tiles(work: SlideWork) -> Callable[[Cell], Path] | None:
    try:
        return TileStore.open(work.tiles).array.shard_path
    except StoreError:
        return None


def _files_of_predictions(work: SlideWork) -> Callable[[Cell], Path] | None:
    try:
        return PredictionStore(work.predictions).shard_path
    except (StoreError, OSError, ValueError):
        return None


def _cell(item: str) -> Cell:
    row, col = item.split(".")
    return int(row), int(col)


def commit_result(work: SlideWork, out: Path, *, keep: Sequence[str]) -> Path:
    """Give a finished slide its place under results/ by one rename; of the working folder stays
    what is to be kept. The journal goes when the results are on the disk, not before.

    Raises:
        WriteError: a folder cannot be renamed or removed. Run again to finish.
    """
    target = results_folder(out, work.ref.name)
    place_folder(work.result, target)
    stores = {"tiles": [work.tiles], "predictions": [work.predictions, work.parts]}
    dropped = [path for name, paths in stores.items() if name not in keep for path in paths]
    for path in dropped if keep else [work.path]:
        remove(path)
    return target
