"""A run's folder on disk: one driver at a time, what of earlier work is still valid, and the commit of a slide's results."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from quadrat.errors import StoreError
from quadrat.journal import Journal
from quadrat.workplace import Fingerprints, SlideWork

TILE_STAGES = ("store", "tile", "seal")


@contextlib.contextmanager
def driver_lock(out: Path) -> Iterator[None]:
    """One driver a run folder: an O_EXCL file with host and pid, taken over when that process is gone.

    Raises:
        StoreError: another driver is at work in the folder.
    """
    path = out / "run" / "driver.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = {"host": socket.gethostname(), "pid": os.getpid()}
    for _ in range(2):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            if not _stale(path):
                raise StoreError(
                    f"another quadrat is working in {out} ({path.read_text().strip()}); wait for it, use another --out, "
                    f"or delete {path} if it is gone"
                ) from None
            path.unlink(missing_ok=True)
            continue
        os.write(handle, json.dumps(mine).encode())
        os.close(handle)
        break
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _stale(path: Path) -> bool:
    try:
        holder = json.loads(path.read_text())
        if holder["host"] != socket.gethostname():
            return False
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return True  # torn or vanished
    return bool(holder["pid"] == os.getpid())


def results_folder(out: Path, name: str) -> Path:
    """Where a finished slide's results lie."""
    return out / "results" / name


def open_journal(work: SlideWork, prints: Fingerprints) -> Journal:
    """The slide's journal, rid of every receipt whose work is gone or was done for other pixels, models or settings.

    The stores hold one model's predictions and one setting's results at a time: receipts of others, which this run
    replaces, must not count when their turn comes again.
    """
    path = work.path / "journal.jsonl"
    journal = Journal(path)
    plan = f"{prints.tile[:16]}/plan"
    if journal.receipts and (plan not in journal or not (work.path / "plan.json").exists()):
        journal.close()
        shutil.rmtree(work.path)
        return Journal(path)
    keep = {key: receipt for key, receipt in journal.receipts.items() if _valid(key, work, prints)}
    if len(keep) == len(journal.receipts):
        return journal
    if not any(key.startswith(prints.result[:16]) for key in keep):
        shutil.rmtree(work.result, ignore_errors=True)  # no output of other settings is to be delivered
    journal.close()
    path.unlink()
    journal = Journal(path)
    for key, receipt in keep.items():
        journal.add(key, receipt)
    return journal


def _valid(key: str, work: SlideWork, prints: Fingerprints) -> bool:
    """Whether the work behind a receipt is there and is what this run would do."""
    print_, stage = key.split("/")[:2]
    if print_ == prints.tile[:16]:
        return stage not in TILE_STAGES or work.tiles.exists()
    if print_ == prints.predict[:16]:
        return work.predictions.exists()
    return print_ == prints.result[:16] and (work.parts if stage == "stitch" else work.result).exists()


def commit_result(work: SlideWork, out: Path, *, keep: Sequence[str]) -> Path:
    """Give a finished slide its place under results/ by one rename; of the working folder stays what is to be kept."""
    target, old = results_folder(out, work.ref.name), work.path / "replaced"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(old, ignore_errors=True)  # left by a run that died here
    if target.exists():
        os.rename(target, old)
    os.rename(work.result, target)
    for name, paths in {"tiles": [work.tiles], "predictions": [work.predictions, work.parts]}.items():
        for path in paths if name not in keep else ():
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(old if keep else work.path, ignore_errors=True)
    return target
