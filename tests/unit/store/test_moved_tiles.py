"""A slide's own JPEG and JPEG 2000 tiles, moved into a store: the same pixels as the slide, and
nothing decoded."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import quadrat
from helpers.shards import altered
from quadrat.core.errors import DamagedTileError, SlideError, StoreError
from quadrat.core.geometry import Box
from quadrat.slides.source import SlideSource, open_source
from quadrat.slides.tile_codec import TileCodec
from quadrat.store.moved_tiles import MovedTiles
from quadrat.store.seal import seal, verify
from quadrat.store.tiles import TileStore
from quadrat.store.tiling import fill_shard, movable_tiles, plan_tiles

HEIGHT, WIDTH, TILE, SHARD, MPP = 700, 900, 128, 256, 0.5
rng = np.random.default_rng(3)


def picture() -> np.ndarray:
    coarse = rng.integers(90, 255, (HEIGHT // 20 + 2, WIDTH // 20 + 2, 3), np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((20, 20, 1), np.uint8))[:HEIGHT, :WIDTH])


def tiff(
    path: Path, *, kind: str = "jpeg", spoil: dict[tuple[int, int], bytes] | None = None
) -> Path:
    """A tiled slide of mpp 0.5; ``spoil`` gives the bytes of some tiles instead of theirs."""
    pixels = np.pad(picture(), ((0, 68), (0, 124), (0, 0)), mode="edge")

    def tiles():
        for row in range(0, HEIGHT, TILE):
            for col in range(0, WIDTH, TILE):
                tile = np.ascontiguousarray(pixels[row : row + TILE, col : col + TILE])
                own = (
                    simplejpeg.encode_jpeg(tile)
                    if kind == "jpeg"
                    else imagecodecs.jpeg2k_encode(tile, codecformat="j2k")
                )
                yield (spoil or {}).get((row // TILE, col // TILE), own)

    options = {"photometric": "ycbcr", "subsampling": (2, 2), "compression": "jpeg"}
    if kind != "jpeg":
        options = {"photometric": "rgb", "compression": 33005}
    tifffile.imwrite(
        path, tiles(), shape=(HEIGHT, WIDTH, 3), dtype=np.uint8, tile=(TILE, TILE), metadata=None,
        description=f"Aperio Image Library\n{WIDTH}x{HEIGHT}|AppMag = 20|MPP = {MPP}", **options,
    )  # fmt: skip
    return path


def marking(path: Path) -> SlideSource:
    source = open_source(path, mpp=MPP)
    return SlideSource(source.slide, source.plan, damaged="mark")


def stored(place: Path, source: SlideSource, *, windows: list[Box] | None = None) -> TileStore:
    tiles = movable_tiles(source)
    assert tiles is not None
    plan = plan_tiles(windows or [source.frame.box], frame=source.frame, tiles=tiles, shard=SHARD)
    assert (plan.chunk, plan.shard, plan.codec) == (TILE, SHARD, tiles.codec)
    return TileStore.create(place, frame=source.frame, slide="s", plan=plan)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg2000"])
def test_moved_tiles_read_like_the_slide_and_zarr_reads_them_too(tmp_path: Path, kind: str) -> None:
    with open_source(tiff(tmp_path / "s.svs", kind=kind), mpp=MPP) as source:
        store = stored(tmp_path / "t", source)
        receipts = [fill_shard(source, store, cell) for cell in store.shards]
        whole = source.read(source.frame.box)
        tiles = movable_tiles(source)
        with store.array.files.open((1, 1)) as shard:
            assert shard.payload((3, 2)) == tiles.data(3, 2)
        for box in (
            Box(0, 0, 300, 300),
            Box(130, 250, 131, 640),
            Box(-20, 850, 60, 950),
            source.frame.box,
        ):
            np.testing.assert_array_equal(store.read(box), source.read(box))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "t" / "0", mode="r")[...], whole)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read(store.frame.box), whole)
    assert altered(store.array, receipts) == []
    assert all(receipt.lost == () for receipt in receipts)
    seal(tmp_path / "t", receipts)
    assert verify(tmp_path / "t") == []


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiff(tmp_path_factory.mktemp("slide") / "s.svs")


_filled: list[TileStore] = []


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_box_is_the_same_from_moved_tiles(
    data: st.DataObject, slide: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = sorted(data.draw(st.tuples(st.integers(-50, 750), st.integers(-50, 750))))
    cols = sorted(data.draw(st.tuples(st.integers(-50, 950), st.integers(-50, 950))))
    with open_source(slide, mpp=MPP) as source:
        if not _filled:
            _filled.append(stored(tmp_path_factory.mktemp("t") / "t", source))
            for cell in _filled[0].shards:
                fill_shard(source, _filled[0], cell)
        box = Box(rows[0], cols[0], rows[1], cols[1])
        np.testing.assert_array_equal(_filled[0].read(box), source.read(box))


def test_only_the_wanted_tiles_are_moved_and_a_read_beyond_them_raises(
    slide: Path, tmp_path: Path
) -> None:
    with open_source(slide, mpp=MPP) as source:
        store = stored(tmp_path / "t", source, windows=[Box(140, 140, 300, 250)])
        assert store.shards == [(0, 0), (1, 0)]
        sizes = [fill_shard(source, store, cell).nbytes for cell in store.shards]
        tiles = movable_tiles(source)
        assert sum(sizes) == sum(len(tiles.data(r, 1)) + 4 for r in (1, 2)) + 2 * (4 * 16 + 4)
        np.testing.assert_array_equal(
            store.read(Box(130, 130, 380, 250)), source.read(Box(130, 130, 380, 250))
        )
        with pytest.raises(StoreError, match="beyond the tissue"):
            store.read(Box(127, 130, 200, 200))


def test_the_disk_need_of_moved_tiles_is_estimated_from_their_lengths(
    slide: Path, tmp_path: Path
) -> None:
    with open_source(slide, mpp=MPP) as source:
        plan = plan_tiles(
            [source.frame.box], frame=source.frame, tiles=movable_tiles(source), shard=SHARD
        )
        store = TileStore.create(tmp_path / "t", frame=source.frame, slide="s", plan=plan)
        used = sum(fill_shard(source, store, cell).nbytes for cell in store.shards)
        pixels = plan_tiles([source.frame.box], frame=source.frame)
    assert used <= plan.nbytes <= 1.1 * used
    assert pixels.nbytes > 2 * HEIGHT * WIDTH


def test_tiles_are_moved_only_where_they_are_the_grids_pixels(slide: Path) -> None:
    for mpp, moved in ((0.5, True), (0.51, True), (1.0, False), (0.7, False)):
        with open_source(slide, mpp=mpp) as source:
            assert (movable_tiles(source) is not None) == moved


def test_a_moved_store_is_labelled_internal_and_is_no_image_to_others(
    slide: Path, tmp_path: Path
) -> None:
    with open_source(slide, mpp=MPP) as source:
        stored(tmp_path / "t", source)
    attributes = zarr.open_group(tmp_path / "t", mode="r").attrs.asdict()
    assert "ome" not in attributes
    assert "internal to quadrat" in attributes["quadrat"]["moved"]


def spoilt(kind: str) -> bytes:
    """A tile's bytes that no decoder takes."""
    whole = simplejpeg.encode_jpeg(np.full((TILE, TILE, 3), 120, np.uint8))
    if kind == "zeroed":
        return bytes(len(whole))
    if kind == "cut short":
        return whole[: len(whole) // 2]
    if kind == "of another size":
        return simplejpeg.encode_jpeg(np.full((64, 64, 3), 120, np.uint8))
    noisy = bytearray(simplejpeg.encode_jpeg(rng.integers(0, 255, (TILE, TILE, 3), np.uint8)))
    noisy[len(noisy) // 2 : len(noisy) // 2 + 400] = (
        b"\xff\xd0" * 200
    )  # its ends and header are sound
    return bytes(noisy)


@pytest.mark.parametrize("kind", ["zeroed", "cut short", "scrambled"])
def test_a_damaged_tile_is_marked_and_reads_white_from_the_store_as_from_the_slide(
    tmp_path: Path, kind: str
) -> None:
    path = tiff(tmp_path / "s.svs", spoil={(1, 2): spoilt(kind)})
    whole = Box(0, 0, HEIGHT, WIDTH)
    lost = Box(TILE, 2 * TILE, 2 * TILE, 3 * TILE)
    with marking(path) as source, marking(path) as streamed:
        store = stored(tmp_path / "t", source)
        receipts = [fill_shard(source, store, cell) for cell in store.shards]
        np.testing.assert_array_equal(store.read(whole), streamed.read(whole))
        assert (store.read(lost) == 255).all()
        assert streamed.damage == source.damage == [lost]
    assert [receipt.lost for receipt in receipts if receipt.lost] == [(lost,)]


@pytest.mark.parametrize("kind", ["zeroed", "cut short"])
def test_a_damaged_tile_fails_the_shard_where_damage_is_to_fail(tmp_path: Path, kind: str) -> None:
    with open_source(tiff(tmp_path / "s.svs", spoil={(1, 2): spoilt(kind)}), mpp=MPP) as source:
        store = stored(tmp_path / "t", source)
        with pytest.raises(DamagedTileError):
            fill_shard(source, store, (0, 1))
        fill_shard(source, store, (0, 0))
        assert (0, 1) in store.missing


def test_damage_that_only_decoding_shows_is_an_error_at_reading_and_never_a_pixel(
    tmp_path: Path,
) -> None:
    with open_source(
        tiff(tmp_path / "s.svs", spoil={(1, 2): spoilt("scrambled")}), mpp=MPP
    ) as source:
        store = stored(tmp_path / "t", source)
        for cell in store.shards:
            fill_shard(source, store, cell)
        with pytest.raises(DamagedTileError):
            source.read(Box(130, 300, 140, 310))
        with pytest.raises(SlideError, match=r"damaged in the slide already.*slide\.damaged=mark"):
            store.read(Box(130, 300, 140, 310))
        np.testing.assert_array_equal(
            store.read(Box(0, 0, 128, 900)), source.read(Box(0, 0, 128, 900))
        )


def test_the_receipts_of_marked_damage_do_not_depend_on_the_order(tmp_path: Path) -> None:
    path = tiff(tmp_path / "s.svs", spoil={(1, 1): spoilt("zeroed"), (3, 3): spoilt("zeroed")})
    found = []
    for name, order in (("a", 1), ("b", -1)):
        with marking(path) as source:
            store = stored(tmp_path / name, source)
            found.append({cell: fill_shard(source, store, cell) for cell in store.shards[::order]})
    assert found[0] == found[1]


def test_moved_tiles_refuse_pixels_other_slides_and_what_does_not_fit(
    slide: Path, tmp_path: Path
) -> None:
    with open_source(slide, mpp=MPP) as source:
        store = stored(tmp_path / "t", source)
        with pytest.raises(StoreError, match="pixels cannot be written"):
            store.write_shard((0, 0), np.zeros((SHARD, SHARD, 3), np.uint8))
        with pytest.raises(StoreError, match="outside the shard"):
            store.array.write_tiles((0, 0), {(2, 0): b""})
        with pytest.raises(StoreError, match="outside the array"):
            store.array.read(Box(0, 0, HEIGHT + 1, 4))
        with (
            open_source(tiff(tmp_path / "o.svs", kind="jpeg2000"), mpp=MPP) as other,
            pytest.raises(StoreError, match="laid out"),
        ):
            fill_shard(other, store, (0, 0))
    with pytest.raises(StoreError, match="another array"):
        MovedTiles.create(
            tmp_path / "t" / "0", height=9, width=9, tile=8, shard=8, codec=TileCodec("jpeg", "rgb")
        )
    with pytest.raises(StoreError, match="whole tiles"):
        MovedTiles.create(
            tmp_path / "u", height=9, width=9, tile=8, shard=12, codec=TileCodec("jpeg", "rgb")
        )
    zarr.create_array(tmp_path / "v", shape=(8, 8, 3), chunks=(8, 8, 3), dtype="uint8")
    with pytest.raises(StoreError, match="not an array of moved tiles"):
        MovedTiles.open(tmp_path / "v")


WORKER = """
import sys, zlib
from quadrat.slides.source import open_source
from quadrat.store.tiles import TileStore
from quadrat.store.tiling import fill_shard, movable_tiles, plan_tiles
slide, place, moved, done = sys.argv[1:]
with open_source(slide, mpp=0.5) as source:
    tiles = movable_tiles(source) if moved == "True" else None
    plan = plan_tiles([source.frame.box], frame=source.frame, tiles=tiles, chunk=128, shard=256)
    store = TileStore.create(place, frame=source.frame, slide="s", plan=plan)
    finished = set(open(done).read().split())
    print("working", flush=True)
    for cell in store.shards:
        if str(cell).replace(" ", "") not in finished:
            fill_shard(source, store, cell)
            with open(done, "a") as journal:
                journal.write(str(cell).replace(" ", "") + "\\n")
"""


@pytest.mark.parametrize("moved", [True, False])
def test_killed_at_random_moments_and_resumed_the_bytes_are_those_of_an_undisturbed_store(
    slide: Path, tmp_path: Path, moved: bool
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(quadrat.__file__).parents[1])}

    def start(name: str) -> subprocess.Popen[str]:
        (tmp_path / f"{name}.done").touch()
        command = [
            sys.executable,
            "-c",
            WORKER,
            str(slide),
            str(tmp_path / name),
            str(moved),
            str(tmp_path / f"{name}.done"),
        ]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    assert start("undisturbed").wait() == 0
    moments = np.random.default_rng(int(moved)).uniform(0.0, 0.03, 3)
    killed = 0
    for moment in moments:
        process = start("disturbed")
        process.stdout.readline()  # importing is not the moment of interest
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    shard = TileStore.open(tmp_path / "disturbed").array.shard_path((0, 0))
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.with_name("0.1.ab.partial").write_bytes(b"as a killed process leaves it")
    assert start("disturbed").wait() == 0
    for name in ("undisturbed", "disturbed"):
        seal(tmp_path / name)
        assert verify(tmp_path / name) == []
    trees = [{p.relative_to(d): p.read_bytes() for p in d.rglob("*") if p.is_file()} for d in
             (tmp_path / "undisturbed", tmp_path / "disturbed")]  # fmt: skip
    assert trees[0] == trees[1]


def test_every_real_slide_gives_the_same_pixels_from_moved_tiles(tmp_path: Path) -> None:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    moved = []
    slides = [
        ("CMU-1-Small-Region.svs", 0.499, None),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.5, 0.5),
        ("generic_tiff_asap/example.tif", 0.987, None),
    ]
    for number, (name, mpp, stated) in enumerate(slides):
        with open_source(Path(folder) / "wsi" / name, mpp=mpp, slide_mpp=stated) as source:
            tiles = movable_tiles(source)
            if tiles is None:
                continue
            moved.append(name)
            box = source.frame.box
            plan = plan_tiles([box], frame=source.frame, tiles=tiles)
            store = TileStore.create(
                tmp_path / str(number), frame=source.frame, slide="s", plan=plan
            )
            for cell in store.shards:
                fill_shard(source, store, cell)
            for part in (box, Box(511, 300, 1119, 908).intersect(box)):
                np.testing.assert_array_equal(store.read(part), source.read(part))
    assert {"CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"} <= set(moved)
