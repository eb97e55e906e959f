"""The seal of a store, and what `quadrat verify` finds: every kind of damage, bit by bit, without
the run's journal."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from quadrat.cli.main import main
from quadrat.core.errors import StoreError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.objects import Frame
from quadrat.slides.tile_codec import TileCodec
from quadrat.store.array import ShardedArray
from quadrat.store.ome_zarr import build_pyramid, create_label_image
from quadrat.store.predictions import Layout, MapStorage
from quadrat.store.seal import SEAL, seal, verify
from quadrat.store.tiles import TilePlan, TileStore

FRAME = Frame(height=120, width=100, mpp=0.5, scale_row=1.0, scale_col=1.0)
rng = np.random.default_rng(1)


def pixel_store(place: Path) -> Path:
    plan = TilePlan(((0, 0), (0, 1), (3, 3)), ((0, 0), (1, 1)), 32, 64)
    store = TileStore.create(place, frame=FRAME, slide="s", plan=plan)
    receipts = [
        store.write_shard(c, rng.integers(0, 9, (*store.array.shard_box(c).shape, 3), np.uint8))
        for c in store.shards
    ]
    seal(place, receipts)
    return place


def moved_store(place: Path) -> Path:
    plan = TilePlan(
        ((0, 0), (0, 1), (3, 3)), ((0, 0), (1, 1)), 32, 64, TileCodec("jpeg", "ycbcr"), 700.0
    )
    store = TileStore.create(place, frame=FRAME, slide="s", plan=plan)
    tile = simplejpeg.encode_jpeg(rng.integers(0, 255, (32, 32, 3), np.uint8))
    seal(
        place,
        [
            store.array.write_tiles((0, 0), {(0, 0): tile, (0, 1): tile}),
            store.array.write_tiles((1, 1), {(3, 3): tile}),
        ],
    )
    return place


def image(place: Path) -> Path:
    """A delivered image with a pyramid and a label image, sealed as one, receipts or none."""
    pixel_store(place)
    labels = create_label_image(place, "objects", frame=FRAME, dtype=np.uint32, chunk=32, shard=64)
    for cell in labels.box.cells(64):
        labels.write_shard(cell, rng.integers(0, 9, labels.shard_box(cell).shape).astype(np.uint32))
    build_pyramid(place, reduce="mean", chunk=32, shard=64, min_size=40)
    seal(place)
    return place


def prediction_store(place: Path) -> Path:
    lattice = Lattice(core=32, halo=0, stride=32, shard=64)
    store = MapStorage(2).create(place, Layout(FRAME, lattice, ((0, 0),)))
    store.write((0, 0), {(0, 0): rng.integers(0, 9, (2, 32, 32), np.uint8)})
    seal(place)
    return place


def bare_array(place: Path) -> Path:
    array = ShardedArray.create(place, shape=(64, 64), chunk=32, shard=64, dtype="uint8")
    seal(place, [array.write_shard((0, 0), np.ones((64, 64), np.uint8))], array="")
    return place


MAKERS = [pixel_store, moved_store, image, prediction_store, bare_array]


@pytest.mark.parametrize("make", MAKERS)
def test_a_flipped_bit_anywhere_in_any_file_is_found(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    store = make(tmp_path / "s")
    assert verify(store) == []
    for file in sorted(p for p in store.rglob("*") if p.is_file()):
        content = file.read_bytes()
        bits = range(
            8 * len(content)
        )  # one digest covers a file: its ends and a sample stand for all of it
        if len(bits) > 40:
            bits = [*bits[:6], *rng.integers(0, len(bits), 6).tolist(), *bits[-6:]]
        for bit in bits:
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            problems = verify(store)
            assert problems, (file, bit)
            assert any(str(file) in line for line in problems)
        file.write_bytes(content)
    assert verify(store) == []


def test_every_single_bit_of_a_seal_is_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bare_array(tmp_path / "s")
    monkeypatch.setattr(
        "quadrat.store.seal._structure", lambda store: []
    )  # what else is looked at then, and takes its time
    content = (store / SEAL).read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (store / SEAL).write_bytes(flipped)
        assert verify(store), bit


@pytest.mark.parametrize("make", MAKERS)
def test_a_missing_a_cut_off_and_a_stray_file_are_found_and_named(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    store = make(tmp_path / "s")
    shard = next(p for p in sorted(store.rglob("c/**/*")) if p.is_file())
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert [
        line
        for line in verify(store)
        if f"{shard}: has {len(content) - 1} bytes, was sealed with {len(content)}" in line
    ]
    shard.unlink()
    assert [line.split("; ")[0] for line in verify(store)] == [f"{shard}: is missing"]
    shard.write_bytes(content)
    for name, said in (("7", "does not belong"), ("7.12.ab.partial", "half written")):
        stray = shard.with_name(name)
        stray.write_bytes(content)
        assert [line for line in verify(store) if str(stray) in line and said in line]
        stray.unlink()
    assert verify(store) == []


@pytest.mark.parametrize("make", [pixel_store, moved_store])
def test_an_unsealed_store_is_unfinished_and_its_damage_is_found_by_the_checksums_within(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    store = make(tmp_path / "s")
    (store / "0" / SEAL).unlink()
    assert len(verify(store)) == 1
    assert "unfinished" in verify(store)[0]
    tiles = TileStore.open(store).array
    path = tiles.shard_path((1, 1))
    content = path.read_bytes()
    for at in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        assert any(f"{path}: is damaged" in line for line in verify(store))
    path.write_bytes(content[: len(content) // 2])
    assert any(f"{path}: is damaged" in line for line in verify(store))
    path.unlink()
    assert any(f"{path}: is missing" in line for line in verify(store))


def test_damage_between_writing_and_sealing_is_found(tmp_path: Path) -> None:
    array = ShardedArray.create(tmp_path / "a", shape=(64, 64), chunk=32, shard=64, dtype="uint8")
    receipts = [array.write_shard((0, 0), np.ones((64, 64), np.uint8))]
    path = array.shard_path((0, 0))
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    seal(tmp_path / "a", receipts, array="")
    assert [line.split(";")[0] for line in verify(tmp_path / "a")] == [
        f"{path}: its bytes have changed since they were written"
    ]
    path.write_bytes(content[:-1])
    with pytest.raises(StoreError, match="missing or not of"):
        seal(tmp_path / "a", receipts, array="")


def test_sealing_removes_what_killed_processes_left_and_is_the_same_twice(tmp_path: Path) -> None:
    store = pixel_store(tmp_path / "s")
    first = (store / "0" / SEAL).read_bytes()
    (store / "0" / "c" / "0" / "0" / "1.77.00.partial").write_bytes(b"x")
    seal(store)
    assert (store / "0" / SEAL).read_bytes() == first
    assert verify(store) == []
    shutil.copytree(store, tmp_path / "copy")
    assert verify(tmp_path / "copy") == []


def test_zarr_does_not_stumble_over_the_seal(tmp_path: Path) -> None:
    image(tmp_path / "s")
    code = (
        "import sys, zarr; print([n for n, _ in zarr.open_group(sys.argv[1], "
        "mode='r').members(max_depth=None)])"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "labels/objects/0" in done.stdout


def test_the_command_says_sound_damaged_or_no_store_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = pixel_store(tmp_path / "s")
    assert main(["verify", str(store)]) == 0
    assert capsys.readouterr().out == f"{store}: sound\n"
    TileStore.open(store).array.shard_path((1, 1)).unlink()
    assert main(["verify", str(store)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{store / '0/c/0/1/1'}: is missing; remove the store")
    assert out.count("\n") == 1
    assert main(["verify", str(store), str(tmp_path), str(tmp_path / "none")]) == 2
    assert "not a store" in capsys.readouterr().out


def test_a_moved_store_reads_the_same_through_zarr(tmp_path: Path) -> None:
    import zarr

    store = TileStore.open(moved_store(tmp_path / "s"))
    found = zarr.open_array(tmp_path / "s" / "0", mode="r")[...]
    np.testing.assert_array_equal(found, store.array.read(store.array.box))
    assert (found[32:64, :64] == 255).all()
    np.testing.assert_array_equal(store.read(Box(0, 0, 32, 64)), found[:32, :64])
