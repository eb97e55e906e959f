"""OME-Zarr folders that open as slides and that are refused, each made here."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from helpers.slide_files import HALF, PICTURE, pixels
from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame
from quadrat.slides.opening import open_slide
from quadrat.store.ome_zarr import build_pyramid, create_image_group

RGB_CHANNELS = {"channels": [{"color": c} for c in ("FF0000", "00FF00", "0000FF")]}


def write_zarr(
    folder: Path,
    *,
    version: str,
    channels: int = 0,
    unit: str | None = "micrometer",
    shift: float = 0.25,
    picture: np.ndarray = PICTURE,
    **extra: object,
) -> None:
    """An OME-Zarr of two levels by zarr alone; ``channels`` is the place of the channel axis among
    t, z, y, x."""
    names = ["t", "z", "y", "x"]
    names.insert(channels, "c")
    order = [{"y": 0, "x": 1, "c": 2}[n] for n in names if n in "yxc"]
    three = int(version == "0.5") + 2
    half = HALF if picture is PICTURE else picture[::2, ::2]
    for level, shown in enumerate((picture, half)):
        data = np.expand_dims(
            shown.transpose(order), tuple(i for i, n in enumerate(names) if n in "tz")
        )
        chunks = tuple({"y": 100, "x": 64, "c": 1}.get(n, 1) for n in names)
        kinds = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if three == 2 else {}
        array = zarr.create_array(
            folder / str(level),
            shape=data.shape,
            chunks=chunks,
            dtype="u1",
            zarr_format=three,
            fill_value=200,
            **kinds,
        )
        array[...] = data
    axes = [
        {
            "name": n,
            "type": "space" if n in "zyx" else "channel",
            **({"unit": unit} if unit and n in "yx" else {}),
        }
        for n in names
    ]
    datasets = []
    for level in range(2):
        scale = [0.5 * 2**level if n in "yx" else 1.0 for n in names]
        moves = [
            {
                "type": "translation",
                "translation": [shift * level if n in "yx" else 0.0 for n in names],
            }
        ]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": scale}, *moves],
            }
        )
    ome = {"multiscales": [{"axes": axes, "datasets": datasets, "version": version}], **extra}
    if version == "0.5":
        (folder / "zarr.json").write_text(
            json.dumps(
                {
                    "zarr_format": 3,
                    "node_type": "group",
                    "attributes": {"ome": {"version": "0.5", **ome}},
                }
            )
        )
    else:
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(ome))


@pytest.mark.parametrize("channels", [1, 4], ids=["channels", "samples"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_is_a_slide(tmp_path: Path, version: str, channels: int) -> None:
    write_zarr(tmp_path / "a.ome.zarr", version=version, channels=channels, omero=RGB_CHANNELS)
    with open_slide(tmp_path / "a.ome.zarr") as slide:
        assert (slide.mpp, slide.info.format, len(slide.levels)) == (
            (0.5, 0.5),
            f"OME-Zarr {version}",
            2,
        )
        for level, want in enumerate((PICTURE, HALF)):
            np.testing.assert_array_equal(pixels(slide, level), want)
        with pickle.loads(pickle.dumps(slide)) as other:
            np.testing.assert_array_equal(
                other.read(0, Box(-5, 50, 130, 500))[5:, :340], PICTURE[:130, 50:]
            )


def test_the_unit_of_an_ome_zarr_is_heeded_and_a_bare_number_is_no_mpp(tmp_path: Path) -> None:
    for unit, want in [("nanometer", (0.0005, 0.0005)), (None, None), ("pixel", None)]:
        folder = tmp_path / f"{unit}.ome.zarr"
        write_zarr(folder, version="0.5", unit=unit)
        with open_slide(folder) as slide:
            assert slide.mpp == want
        with open_slide(folder, mpp=0.3) as slide:
            assert slide.mpp == (0.3, 0.3)


def test_a_chunk_without_a_file_is_fill_and_a_damaged_or_empty_one_fails_alone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a.ome.zarr"
    write_zarr(folder, version="0.5")
    chunk = folder / "0" / "c"
    for channel in range(3):
        (chunk / str(channel) / "0" / "0" / "0" / "0").unlink()
    (chunk / "1/0/0/2/5").write_bytes(b"\0" * 50)
    (chunk / "1/0/0/1/6").write_bytes(b"")
    with open_slide(folder) as slide:
        assert (slide.read(0, Box(0, 0, 100, 64)) == 200).all()
        np.testing.assert_array_equal(slide.read(1, slide.levels[1].box), HALF)
        with pytest.raises(DamagedTileError, match=r"a\.ome\.zarr: the tile at .* is damaged"):
            slide.read(0, Box(250, 330, 260, 340))


def collection(root: Path, *images: np.ndarray) -> Path:
    for number, image in enumerate(images):
        write_zarr(root / str(number), version="0.4", picture=image)
    (root / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
    return root


@pytest.mark.parametrize("first", [True, False])
def test_the_largest_image_of_a_converted_collection_is_the_slide(
    tmp_path: Path, first: bool
) -> None:
    macro = np.ascontiguousarray(PICTURE[:100, :90])
    images = (macro, PICTURE) if first else (PICTURE, macro)
    with open_slide(collection(tmp_path / "c.zarr", *images)) as slide:
        np.testing.assert_array_equal(pixels(slide), PICTURE)
        assert slide.info.associated == ("0" if first else "1",)


def test_images_of_like_size_in_a_collection_are_refused_and_one_can_be_chosen(
    tmp_path: Path,
) -> None:
    other = np.ascontiguousarray(PICTURE[::-1, :-20])
    root = collection(tmp_path / "c.zarr", PICTURE, other)
    with pytest.raises(SlideError, match=r"2 images of like size: 0 \(.*\), 1 \(.*--scene"):
        open_slide(root)
    with open_slide(root, scene="1") as slide:
        np.testing.assert_array_equal(pixels(slide), other)
    with pytest.raises(SlideError, match="no image is called '2'; it holds 0, 1"):
        open_slide(root, scene="2")
    with pytest.raises(SlideError, match="holds one image, so it has no scene '1'"):
        open_slide(root / "1", scene="1")


def test_an_image_that_quadrat_wrote_opens_as_a_slide(tmp_path: Path) -> None:
    frame = Frame(height=300, width=390, mpp=0.5, scale_row=2, scale_col=2)
    array = create_image_group(
        tmp_path / "q.ome.zarr",
        frame=frame,
        dtype=np.uint8,
        channels=3,
        chunk=64,
        shard=256,
        fill=255,
        name="q",
    )
    for cell in frame.box.cells(256):
        box = array.shard_box(cell)
        array.write_shard(
            cell, np.moveaxis(PICTURE[box.intersect(frame.box).slices_in(frame.box)], 2, 0)
        )
    build_pyramid(tmp_path / "q.ome.zarr", reduce="mean", chunk=64, shard=256, min_size=100)
    with open_slide(tmp_path / "q.ome.zarr") as slide:
        np.testing.assert_array_equal(pixels(slide), PICTURE)
        assert (slide.mpp, len(slide.levels), slide.levels[1].down_row) == (
            (0.5, 0.5),
            len(slide.levels),
            2,
        )


def test_an_ome_zarr_that_is_no_picture_is_refused_with_the_reason(tmp_path: Path) -> None:
    def made(name: str, **options: object) -> Path:
        write_zarr(tmp_path / name, **({"version": "0.5"} | options))
        return tmp_path / name

    blue = {"channels": [{"color": c} for c in ("0000FF", "00FF00", "FF0000")]}
    shutil.rmtree(made("gone") / "1")
    (made("json") / "zarr.json").write_text("{")
    deep = made("deep")
    shutil.rmtree(deep / "0")
    zarr.create_array(deep / "0", shape=(3, 1, 1, 300, 390), chunks=(1, 1, 1, 99, 99), dtype="u2")
    plate = tmp_path / "plate"
    plate.mkdir()
    (plate / ".zattrs").write_text('{"plate": {}}')
    outside = made("outside")
    (outside / "zarr.json").write_text(
        (outside / "zarr.json").read_text().replace('"path": "1"', '"path": "../json/1"')
    )
    for folder, reason in [
        (made("blue", omero=blue), "fluorescence"),
        (made("old", version="0.3"), "version 0.3"),
        (made("moved", shift=9.0), "shifted along y"),
        (tmp_path / "gone", "level 1 cannot be opened"),
        (tmp_path / "json", "metadata cannot be read"),
        (deep, "uint16"),
        (plate, "a plate without"),
        (outside, "outside the image"),
    ]:
        with pytest.raises(SlideError, match=f"{folder.name}: .*{reason}"):
            open_slide(folder)
    with pytest.raises(SlideError, match="give the folder that it lies in"):
        open_slide(tmp_path / "blue" / "zarr.json")
