"""Whether a store is complete and unchanged: it is sealed when complete, and checked against the
seal at any later time.

The seal is ``receipts.json``: path, length and sha256 of every file in the store, and a digest of
itself. So each bit of a sealed store is covered by a sha256, and no changed bit goes unnoticed. It
lies in the folder of the store, or, if that is a zarr group, in the folder of its first array: zarr
warns of unknown files in a group.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from quadrat.core.errors import StoreError
from quadrat.core.files import PARTIAL, drop_partials, sha256_of, write_file
from quadrat.store.array import ShardedArray
from quadrat.store.moved_tiles import MovedTiles
from quadrat.store.shard import ShardFiles, ShardReceipt
from quadrat.store.tiles import TileStore

SEAL = "receipts.json"
VERSION = 1
FIRST_ARRAY = "0"
MARKS = ("zarr.json", "about.json", SEAL)
"""A folder with one of these is a store (a zarr group or array, or a prediction store)."""
ANEW = "remove the store (of a result: the slide's whole folder) and run again"


def seal(
    path: str | Path, receipts: Iterable[ShardReceipt] = (), *, array: str = FIRST_ARRAY
) -> Path:
    """Seal a complete store: write down every file below it; returns where. Sealing again replaces
    the seal.

    ``receipts``: of the shards of the array in the folder ``array`` ("" for the store's own). They
    are taken from when the shards were written, so that what was damaged since is found; files
    without one are read now. Half-written files of killed processes are removed: nobody may be
    writing to the store.

    Raises:
        StoreError: no store, or a shard of a receipt is missing or of another length.
        WriteError: the seal cannot be written.
    """
    store = Path(path)
    if not is_store(store):
        raise StoreError(f"{store}: not a store; there is nothing to seal")
    place = store / FIRST_ARRAY / SEAL if _is_group(store) else store / SEAL
    drop_partials(store)
    written = list(receipts)
    known: dict[str, tuple[int, str]] = {}
    if written:
        shards = _open_array(store / array).files
        known = {
            shards.shard_path(r.cell).relative_to(store).as_posix(): (r.nbytes, r.sha256)
            for r in written
        }
    found = dict(_files(store))
    for name, (nbytes, _) in known.items():
        if name not in found or found[name].stat().st_size != nbytes:
            raise StoreError(
                f"{store / name}: is missing or not of {nbytes} bytes, as it was written; {ANEW}"
            )
    files = {name: list(known.get(name) or _digest(file)) for name, file in sorted(found.items())}
    write_file(place, _sealed(files))
    return place


def is_store(path: str | Path) -> bool:
    """Whether a folder looks like a store at all."""
    place = Path(path)
    return any((place / mark).is_file() for mark in MARKS) or (place / FIRST_ARRAY / SEAL).is_file()


def verify(path: str | Path) -> list[str]:
    """What is wrong with a store: one sentence each, with the file and the remedy. Empty if nothing
    is.

    An unsealed store is reported as unfinished. Its content is checked by the checksums in its
    shards.

    Raises:
        StoreError: there is no store at ``path``.
    """
    store = Path(path)
    if not is_store(store):
        raise StoreError(f"{store}: not a store (a folder with {' or '.join(MARKS)})")
    place = _seal_of(store)
    if place is None:
        return [
            f"{store}: is not sealed, so it is unfinished or part of a larger store; run again",
            *_structure(store),
        ]
    files = _unsealed(place)
    if files is None:
        return [
            f"{place}: the list of receipts was changed or is cut short; {ANEW}",
            *_structure(store),
        ]
    found = {name: file for name, file in _files(store) if file != place}
    problems = [_stray(found[name]) for name in sorted(found.keys() - files.keys())]
    for name, (nbytes, sha256) in sorted(files.items()):
        problem = _changed(store / name, nbytes, sha256)
        problems += [problem] if problem else []
    return problems


def _sealed(files: dict[str, list[Any]]) -> bytes:
    """The bytes of a seal. They are canonical, so another spelling of the same content is noticed,
    too."""
    body = {"files": files, "version": VERSION}
    return _canonical(body | {"sha256": hashlib.sha256(_canonical(body)).hexdigest()})


def _unsealed(place: Path) -> dict[str, tuple[int, str]] | None:
    """The files that a seal names; None if one bit of it has changed."""
    data = place.read_bytes()
    try:
        files = json.loads(data)["files"]
        return (
            {name: (nbytes, sha256) for name, (nbytes, sha256) in files.items()}
            if _sealed(files) == data
            else None
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _canonical(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=0, separators=(",", ":")) + "\n").encode()


def _seal_of(store: Path) -> Path | None:
    return next(
        (place for place in (store / SEAL, store / FIRST_ARRAY / SEAL) if place.is_file()), None
    )


def _is_group(store: Path) -> bool:
    return _zarr_json(store).get("node_type") == "group"


def _zarr_json(folder: Path) -> dict[str, Any]:
    """What zarr.json states; empty if there is none that can be read."""
    try:
        found = json.loads((folder / "zarr.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _files(store: Path) -> Iterator[tuple[str, Path]]:
    """Every file in a store except its seal, by its path there."""
    seals = (store / SEAL, store / FIRST_ARRAY / SEAL)
    for file in sorted(store.rglob("*")):
        if file not in seals and not file.is_dir():
            yield file.relative_to(store).as_posix(), file


def _digest(file: Path) -> tuple[int, str]:
    return file.stat().st_size, sha256_of(file)


def _changed(file: Path, nbytes: int, sha256: str) -> str | None:
    try:
        found = _digest(file)
    except FileNotFoundError:
        return f"{file}: is missing; {ANEW}"
    except OSError as error:
        return f"{file}: cannot be read ({error.strerror or error})"
    if found[0] != nbytes:
        return f"{file}: has {found[0]} bytes, was sealed with {nbytes}; {ANEW}"
    return (
        None
        if found[1] == sha256
        else f"{file}: its bytes have changed since they were written; {ANEW}"
    )


def _stray(file: Path) -> str:
    if file.name.endswith(PARTIAL):
        return f"{file}: was left half written by a process that was killed; remove this file"
    return f"{file}: does not belong to the store; remove this file"


def _structure(store: Path) -> list[str]:
    """What the checksums inside shards find, and files and shards of an unfinished store that
    should (not) be there."""
    problems = [_stray(file) for name, file in _files(store) if name.endswith(PARTIAL)]
    for folder in sorted({file.parent for file in store.rglob("zarr.json")}):
        if _zarr_json(folder).get("node_type") == "group":
            continue
        try:
            array: ShardedArray | MovedTiles = _open_array(folder)
        except StoreError as error:
            problems.append(str(error))
            continue
        problems += _broken_shards(array.files)
    try:
        tiles = TileStore.open(store)
        problems += [
            f"{tiles.array.shard_path(cell)}: is missing; run the tile stage again"
            for cell in tiles.missing
        ]
    except StoreError:
        pass  # no tile store, or its metadata was reported above
    return problems


def _open_array(folder: Path) -> ShardedArray | MovedTiles:
    try:
        return ShardedArray.open(folder)
    except StoreError:
        return MovedTiles.open(folder)


def _broken_shards(files: ShardFiles) -> list[str]:
    problems = []
    for cell in files.box.cells(files.shard):
        try:
            shard = files.open(cell)
            if shard is not None:
                with shard:
                    for chunk in files.chunk_cells(cell):
                        shard.payload(chunk)
        except (OSError, ValueError) as error:
            problems.append(
                f"{files.shard_path(cell)}: is damaged ({error}); remove this file and run again"
            )
    return problems
