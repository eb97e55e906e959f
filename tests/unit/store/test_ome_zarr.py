import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image, Labels
from ome_zarr_models.v05.image_label import ImageLabel

from quadrat.core.errors import StoreError
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame
from quadrat.store.array import ShardedArray
from quadrat.store.ome_zarr import (
    build_pyramid,
    build_shard,
    create_image_group,
    create_label_image,
    create_level,
    finish_pyramid,
    level_shards,
    open_label_image,
)
from quadrat.store.pyramid import halve

FRAME = Frame(height=301, width=203, mpp=0.5, scale_row=2.0, scale_col=2.0)
rng = np.random.default_rng(0)


def fill(array: ShardedArray, data: np.ndarray) -> None:
    for cell in array.box.cells(array.shard):
        array.write_shard(cell, data[(..., *array.shard_box(cell).slices_in(array.box))])


def image(folder: Path) -> np.ndarray:
    level = create_image_group(
        folder, frame=FRAME, dtype="uint8", channels=3, chunk=32, shard=64, name="s", own={"a": 1}
    )
    data = rng.integers(0, 256, level.shape, np.uint8)
    fill(level, data)
    return data


def labels(folder: Path, name: str = "classes") -> np.ndarray:
    colors = {2: (0, 255, 0), 1: (255, 0, 0)}
    level = create_label_image(
        folder, name, frame=FRAME, dtype="uint8", chunk=32, shard=64, colors=colors
    )
    data = rng.integers(0, 3, level.shape, np.uint8)
    fill(level, data)
    return data


def test_image_and_label_image_are_valid_ome_zarr_and_read_back(tmp_path: Path) -> None:
    pixels, classes = image(tmp_path / "z"), labels(tmp_path / "z")
    for folder, reduce in (
        (tmp_path / "z", "mean"),
        (tmp_path / "z" / "labels" / "classes", "mode"),
    ):
        assert build_pyramid(folder, reduce=reduce, chunk=32, shard=64, min_size=64) == 4  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "z", mode="r")
        model = Image.from_zarr(group)
        Labels.from_zarr(group["labels"])
        label = ImageLabel.from_zarr(group["labels/classes"])
    assert model.labels is not None
    assert model.labels.label_paths == ["classes"]
    assert [d.path for d in model.datasets[0]] == ["0", "1", "2", "3"]
    assert label.attributes.ome.image_label.colors[0].label_value == 1
    np.testing.assert_array_equal(group["0"][...], pixels)
    np.testing.assert_array_equal(group["labels/classes/0"][...], classes)
    np.testing.assert_array_equal(group["1"][...], halve(pixels, "mean"))
    np.testing.assert_array_equal(
        group["labels/classes/2"][...], halve(halve(classes, "mode"), "mode")
    )


def test_the_metadata_says_micrometres_and_keeps_corners_together(tmp_path: Path) -> None:
    image(tmp_path / "z")
    build_pyramid(tmp_path / "z", reduce="mean", chunk=32, shard=64, min_size=64)
    attributes = json.loads((tmp_path / "z" / "zarr.json").read_text())["attributes"]
    entry = attributes["ome"]["multiscales"][0]
    assert [axis.get("unit") for axis in entry["axes"]] == [None, "micrometer", "micrometer"]
    for level, dataset in enumerate(entry["datasets"]):
        scale = dataset["coordinateTransformations"][0]["scale"]
        shift = dataset["coordinateTransformations"][1]["translation"] if level else [0, 0, 0]
        assert scale == [1.0, 0.5 * 2**level, 0.5 * 2**level]
        assert (
            shift[1] - scale[1] / 2 == -0.25
        )  # centre of the first pixel less half a pixel: the corner of level 0
    assert attributes["quadrat"] == {"a": 1}


def test_label_images_are_listed_in_order_and_others_are_kept(tmp_path: Path) -> None:
    labels(tmp_path / "z", "objects")
    labels(tmp_path / "z", "classes")
    listing = json.loads((tmp_path / "z" / "labels" / "zarr.json").read_text())
    assert listing["attributes"]["ome"]["labels"] == ["classes", "objects"]
    assert open_label_image(tmp_path / "z", "objects").shape == (301, 203)
    with pytest.raises(StoreError, match="no zarr array"):
        open_label_image(tmp_path / "z", "none")


def test_creating_a_label_image_twice_is_harmless(tmp_path: Path) -> None:
    data = labels(tmp_path / "z")
    again = create_label_image(
        tmp_path / "z", "classes", frame=FRAME, dtype="uint8", chunk=32, shard=64
    )
    np.testing.assert_array_equal(again.read(again.box), data)


def test_labels_are_integers(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="integers"):
        create_label_image(tmp_path / "z", "x", frame=FRAME, dtype="float32")


def build_in_order(folder: Path, order: int) -> dict[str, bytes]:
    for level in range(1, 4):
        below = create_level(folder, level, chunk=32, shard=64)
        for cell in level_shards(ShardedArray.open(folder / str(level - 1)), below)[::order]:
            build_shard(folder, level, cell, reduce="mean")
    finish_pyramid(folder, levels=4, reduce="mean")
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_shards_may_be_built_as_tasks_in_any_order(tmp_path: Path) -> None:
    found: list[dict[str, bytes]] = []
    for name, order in (("a", 1), ("b", -1)):
        level = create_image_group(
            tmp_path / name, frame=FRAME, dtype="uint8", channels=3, chunk=32, shard=64, name="s"
        )
        fill(level, np.random.default_rng(5).integers(0, 256, level.shape, np.uint8))
        found.append(build_in_order(tmp_path / name, order))
    assert found[0] == found[1]
    build_pyramid(tmp_path / "a", reduce="mean", chunk=32, shard=64, min_size=64)
    assert {
        p.relative_to(tmp_path / "a").as_posix(): p.read_bytes()
        for p in (tmp_path / "a").rglob("*")
        if p.is_file()
    } == (found[0])


def test_what_level_0_does_not_hold_is_not_written_below(tmp_path: Path) -> None:
    level = create_image_group(
        tmp_path / "z", frame=FRAME, dtype="uint8", channels=None, chunk=32, shard=64, name="s"
    )
    level.write_shard((0, 0), np.ones((64, 64), np.uint8))
    build_pyramid(tmp_path / "z", reduce="nearest", chunk=32, shard=64, min_size=64)
    assert [
        p.relative_to(tmp_path / "z" / "1").as_posix()
        for p in (tmp_path / "z" / "1" / "c").rglob("*")
        if p.is_file()
    ] == ["c/0/0"]
    assert ShardedArray.open(tmp_path / "z" / "1").read(Box(0, 0, 64, 64)).sum() == 32 * 32
