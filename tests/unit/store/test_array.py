"""Arrays in shards: zarr reads what we write, we read what zarr wrote, damage is never a pixel."""

import hashlib
import itertools
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.faults import disk
from helpers.shards import altered
from quadrat.core.errors import StoreError
from quadrat.core.geometry import Box
from quadrat.store import tiles as store_module
from quadrat.store.array import ShardedArray

rng = np.random.default_rng(0)


def filled(
    path: Path, shape: tuple[int, ...] = (2, 150, 210), dtype: str = "uint8"
) -> tuple[ShardedArray, np.ndarray]:
    array = ShardedArray.create(path, shape=shape, chunk=32, shard=64, dtype=dtype, fill=7)
    data = rng.integers(0, 250, shape).astype(dtype)
    for cell in array.box.cells(64):
        array.write_shard(cell, data[(..., *array.shard_box(cell).slices_in(array.box))])
    return array, data


@pytest.mark.parametrize(
    "dtype", ["uint8", "bool", "uint16", "int32", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize("shape", [(150, 210), (2, 150, 210), (64, 64), (1, 1), (3, 2, 70, 65)])
def test_zarr_reads_what_was_written(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array, data = filled(tmp_path / "a", shape, dtype)
    theirs = zarr.open_array(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(theirs[...], data)
    np.testing.assert_array_equal(array.read(array.box), data)
    assert (theirs.dtype, theirs.chunks[-2:], theirs.shards[-2:]) == (
        np.dtype(dtype),
        (32, 32),
        (64, 64),
    )


def test_zarr_reads_a_missing_shard_and_a_written_empty_one_as_fill(tmp_path: Path) -> None:
    array = ShardedArray.create(
        tmp_path / "a", shape=(100, 100), chunk=32, shard=64, dtype="uint8", fill=7
    )
    array.write_shard((0, 0), np.full((64, 64), 7, np.uint8))
    assert array.has((0, 0))
    assert not array.has((0, 1))
    assert (zarr.open_array(tmp_path / "a", mode="r")[...] == 7).all()
    assert (array.read(array.box) == 7).all()


def test_we_read_what_zarr_wrote(tmp_path: Path) -> None:
    array = ShardedArray.create(
        tmp_path / "a", shape=(2, 100, 130), chunk=32, shard=64, dtype="uint16"
    )
    data = rng.integers(0, 9, (2, 100, 130)).astype(np.uint16)
    zarr.open_array(tmp_path / "a", mode="r+")[...] = data
    np.testing.assert_array_equal(array.read(array.box), data)


def test_a_shard_holds_the_chunks_that_zarr_itself_writes(tmp_path: Path) -> None:
    ours, data = filled(tmp_path / "a")
    theirs = ShardedArray.create(
        tmp_path / "b", shape=ours.shape, chunk=32, shard=64, dtype="uint8", fill=7
    )
    zarr.open_array(tmp_path / "b", mode="r+", config={"write_empty_chunks": True})[...] = data
    for cell in ours.box.cells(64):
        with ours.files.open(cell) as mine, theirs.files.open(cell) as its:
            for chunk in ours.files.chunk_cells(cell):
                payloads = [shard.payload(chunk) for shard in (mine, its)]
                assert (
                    len({payload and imagecodecs.zstd_decode(payload) for payload in payloads}) == 1
                )


def test_zarrs_own_metadata_of_such_an_array_is_ours(tmp_path: Path) -> None:
    ours = ShardedArray.create(
        tmp_path / "a",
        shape=(3, 90, 90),
        chunk=32,
        shard=64,
        dtype="uint16",
        dimension_names=("c", "y", "x"),
    )
    theirs = zarr.create_array(
        tmp_path / "b",
        shape=ours.shape,
        chunks=(3, 32, 32),
        shards=(3, 64, 64),
        dtype="uint16",
        fill_value=0,
        compressors=[zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()],
        dimension_names=("c", "y", "x"),
    )
    assert zarr.open_array(tmp_path / "a", mode="r").metadata == theirs.metadata


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_box_reads_as_a_slice(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    array, pixels = shared_array(tmp_path_factory)
    rows = sorted(data.draw(st.tuples(st.integers(0, 150), st.integers(0, 150))))
    cols = sorted(data.draw(st.tuples(st.integers(0, 210), st.integers(0, 210))))
    found = array.read(Box(rows[0], cols[0], rows[1], cols[1]))
    np.testing.assert_array_equal(found, pixels[:, rows[0] : rows[1], cols[0] : cols[1]])


_shared: list[tuple[ShardedArray, np.ndarray]] = []


def shared_array(factory: pytest.TempPathFactory) -> tuple[ShardedArray, np.ndarray]:
    if not _shared:
        _shared.append(filled(factory.mktemp("shared") / "a"))
    return _shared[0]


def tree(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def test_bytes_do_not_depend_on_the_order_of_writing_or_on_what_was_there(tmp_path: Path) -> None:
    data = rng.integers(0, 250, (150, 210), np.uint8)
    for name, order in (("a", 1), ("b", -1)):
        array = ShardedArray.create(
            tmp_path / name, shape=data.shape, chunk=32, shard=64, dtype="uint8"
        )
        if name == "b":
            array.write_shard((1, 1), np.zeros((64, 64), np.uint8))
        for cell in array.box.cells(64)[::order]:
            array.write_shard(cell, data[array.shard_box(cell).slices_in(array.box)])
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_receipts_are_of_the_file(tmp_path: Path) -> None:
    array, data = filled(tmp_path / "a", (100, 100))
    receipts = [
        array.write_shard(c, data[array.shard_box(c).slices_in(array.box)])
        for c in array.box.cells(64)
    ]
    content = array.shard_path((1, 0)).read_bytes()
    assert (receipts[2].nbytes, receipts[2].sha256) == (
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    assert altered(array, receipts) == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_flipped_bit_is_a_store_error_and_never_a_pixel(tmp_path: Path, share: float) -> None:
    array, _ = filled(tmp_path / "a", (64, 64))
    path = array.shard_path((0, 0))
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        array.read(array.box)


def test_damage_is_said_in_a_sentence_that_names_the_array_and_the_shard(tmp_path: Path) -> None:
    array, data = filled(tmp_path / "a", (100, 100))
    path = array.shard_path((1, 0))
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    np.testing.assert_array_equal(array.read(Box(0, 0, 64, 100)), data[:64])
    with pytest.raises(StoreError) as raised:
        array.read(Box(60, 20, 70, 80))
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 'a'}: shard (1, 0) is damaged (")
    assert said.endswith(f"); remove {path} and run again")
    assert "\n" not in said
    assert ". " not in said
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("name", ["zarr.json", "shard"])
def test_files_are_synced_before_they_are_named_and_folders_after_that(
    tmp_path: Path, name: str
) -> None:
    with disk(tmp_path) as watched:
        array = ShardedArray.create(
            tmp_path / "a", shape=(64, 64), chunk=32, shard=64, dtype="uint8"
        )
        if name == "shard":
            array.write_shard((0, 0), np.zeros((64, 64), np.uint8))
    path = array.shard_path((0, 0)) if name == "shard" else tmp_path / "a" / name
    *_, file, renamed, folder = watched.calls
    assert (file.name, renamed.name, folder.name) == ("fsync", "replace", "fsync")
    assert file.path == renamed.path
    assert (renamed.target, folder.path) == (str(path), str(path.parent))
    folders = [call.path for call in watched.calls if call.name == "mkdir"]
    synced = {call.path for call in watched.calls if call.name == "fsync"}
    assert {str(Path(made).parent) for made in folders} <= synced


def test_threads_may_read_and_write_one_array_and_it_pickles(tmp_path: Path) -> None:
    array, data = filled(tmp_path / "a", (600, 600))
    copy = pickle.loads(pickle.dumps(array))
    boxes = [Box(r, c, r + 100, c + 100) for r, c in itertools.product(range(0, 500, 90), repeat=2)]
    with ThreadPoolExecutor(4) as pool:
        again = pool.map(
            lambda c: array.write_shard(c, data[array.shard_box(c).slices_in(array.box)]),
            array.box.cells(64),
        )
        for box, found in zip(boxes, pool.map(copy.read, boxes), strict=True):
            np.testing.assert_array_equal(found, data[box.slices_in(array.box)])
    assert copy == array
    assert altered(array, again) == []


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_cut_off_shard_is_a_store_error(tmp_path: Path, keep: float) -> None:
    array, _ = filled(tmp_path / "a", (64, 64))
    path = array.shard_path((0, 0))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(StoreError, match="damaged"):
        array.read(array.box)


def test_a_rewritten_shard_is_read_anew(tmp_path: Path) -> None:
    array, _ = filled(tmp_path / "a", (64, 64))
    array.read(array.box)
    ShardedArray.open(tmp_path / "a", "r+").write_shard((0, 0), np.full((64, 64), 9, np.uint8))
    assert (array.read(array.box) == 9).all()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    array, _ = filled(tmp_path / "a", (100, 100))
    with pytest.raises(StoreError, match="outside the array"):
        array.read(Box(0, 0, 101, 10))
    with pytest.raises(StoreError, match="want uint8"):
        array.write_shard((0, 0), np.zeros((64, 60), np.uint8))
    with pytest.raises(StoreError, match="want uint8"):
        array.write_shard((0, 0), np.zeros((64, 64), np.uint16))
    with pytest.raises(StoreError, match="outside"):
        array.write_shard((2, 0), np.zeros((0, 64), np.uint8))
    with pytest.raises(StoreError, match="opened for reading"):
        ShardedArray.open(tmp_path / "a").write_shard((0, 0), np.zeros((64, 64), np.uint8))
    with pytest.raises(StoreError, match="whole chunks"):
        ShardedArray.create(tmp_path / "b", shape=(9, 9), chunk=32, shard=48, dtype="uint8")
    with pytest.raises(StoreError, match="no zarr array"):
        ShardedArray.open(tmp_path / "none")


def test_an_array_of_another_make_is_refused(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path / "a", shape=(64, 64), chunks=(32, 32), shards=(64, 64), dtype="uint8"
    )
    with pytest.raises(StoreError, match="another make"):
        ShardedArray.open(tmp_path / "a")


def test_creating_twice_keeps_the_contents_and_creating_otherwise_is_refused(
    tmp_path: Path,
) -> None:
    _, data = filled(tmp_path / "a", (100, 100))
    again = ShardedArray.create(
        tmp_path / "a", shape=(100, 100), chunk=32, shard=64, dtype="uint8", fill=7
    )
    np.testing.assert_array_equal(again.read(again.box), data)
    with pytest.raises(StoreError, match="another array"):
        ShardedArray.create(
            tmp_path / "a", shape=(100, 101), chunk=32, shard=64, dtype="uint8", fill=7
        )


def test_a_writer_killed_in_the_middle_leaves_whole_shards_only(tmp_path: Path) -> None:
    ShardedArray.create(tmp_path / "a", shape=(1024, 1024), chunk=256, shard=512, dtype="uint8")
    code = f"""
import itertools, numpy as np, os, threading, time
from quadrat.store.array import ShardedArray
array = ShardedArray.open({str(tmp_path / "a")!r}, "r+")
threading.Thread(target=lambda: (time.sleep(0.4), os.kill(os.getpid(), 9)), daemon=True).start()
for k in itertools.count(1):
    pixels = np.random.default_rng(k).integers(0, 250, (512, 512), np.uint8)
    array.write_shard((k % 2, k // 2 % 2), pixels)
"""
    path = os.pathsep.join(
        [str(Path(store_module.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == -9
    array = ShardedArray.open(tmp_path / "a")
    array.read(array.box)
