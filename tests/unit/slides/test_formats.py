"""Files that open and files that are refused, each made here: OME-TIFF, TIFF, OME-Zarr, and what
breaks them."""

import io
import json
import os
import pickle
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, ImageCms
from scipy import ndimage

from quadrat.core.errors import DamagedTileError, SlideError
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide
from quadrat.store.ome_zarr import build_pyramid, create_image_group

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
PICTURE = np.ascontiguousarray(ndimage.zoom(NOISE, (7.5, 6.5, 1), order=1))
"""300 x 390 px, smooth enough for JPEG."""
HALF = np.ascontiguousarray(PICTURE[::2, ::2])
RGB_CHANNELS = {"channels": [{"color": c} for c in ("FF0000", "00FF00", "0000FF")]}


def pixels(slide: Slide, level: int = 0) -> np.ndarray:
    return slide.read(level, slide.levels[level].box)


def write_pyramid(file: Path, *, axes: str = "YXS", **options: object) -> None:
    """An OME-TIFF of two levels (the second in a SubIFD), with mpp, objective and a macro image."""
    level = [PICTURE, HALF] if axes == "YXS" else [np.moveaxis(p, 2, 0) for p in (PICTURE, HALF)]
    meta = {"axes": axes, "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.251, "Name": "slide"}
    photometric = options.pop("photometric", "rgb" if axes == "YXS" else "minisblack")
    with tifffile.TiffWriter(file, ome=True) as tiff:
        tiff.write(level[0], subifds=1, metadata=meta, photometric=photometric, **options)
        tiff.write(level[1], subfiletype=1, photometric=photometric, **options)
        tiff.write(PICTURE[:50, :60], metadata={"axes": "YXS", "Name": "macro"}, photometric="rgb")


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (64, 48)},
        {"tile": (64, 48), "compression": "zlib"},
        {"tile": (64, 64), "compression": "jpeg"},
        {"tile": (64, 64), "compression": "jpeg2000"},
        {"tile": (64, 64), "compression": "zstd", "predictor": True},
        {"rowsperstrip": 7, "compression": "lzw"},
        {"rowsperstrip": 13, "compression": "jpeg"},
        {},
        {"axes": "CYX"},
        {"axes": "CYX", "tile": (64, 48), "compression": "zlib"},
        {
            "axes": "CYX",
            "photometric": "rgb",
            "planarconfig": "separate",
            "tile": (64, 64),
            "compression": "jpeg",
        },
    ],
    ids=str,
)
def test_a_pyramidal_ome_tiff_shows_at_every_level_what_tifffile_shows(
    tmp_path: Path, options: dict[str, object]
) -> None:
    write_pyramid(tmp_path / "a.ome.tif", **options)
    planes = "axes" in options
    with (
        tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff,
        open_slide(tmp_path / "a.ome.tif") as slide,
    ):
        want = [level.asarray() for level in tiff.series[0].levels]
        assert [level.down_row for level in slide.levels] == [1, 2]
        assert slide.mpp == pytest.approx((0.251, 0.25))
        assert (slide.info.format, slide.info.associated) == ("OME-TIFF", ("macro",))
        for level in range(2):
            np.testing.assert_array_equal(
                pixels(slide, level), np.moveaxis(want[level], 0, -1) if planes else want[level]
            )
        with pickle.loads(pickle.dumps(slide)) as other:
            np.testing.assert_array_equal(
                other.read(1, Box(-3, 100, 60, 300)), slide.read(1, Box(-3, 100, 60, 300))
            )


def test_jpeg_tiles_of_an_ome_tiff_can_be_moved(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.ome.tif", tile=(64, 64), compression="jpeg")
    with open_slide(tmp_path / "a.ome.tif") as slide:
        grid = slide.tiles(1)
        assert grid is not None
        np.testing.assert_array_equal(
            grid.codec.decode(grid.data(1, 2)), slide.read(1, Box(64, 128, 128, 192))
        )


def test_the_objective_and_the_icc_profile_of_an_ome_tiff_are_told(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument '
        'ID="Instrument:0">'
        '<Objective ID="Objective:1" NominalMagnification="20.0"/></Instrument><Image ID="Image:0">'
        '<ObjectiveSettings ID="Objective:1"/><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        'Type="uint8" SizeX="390" '
        'SizeY="300" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="500" PhysicalSizeXUnit="nm" '
        'PhysicalSizeY="0.5">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        PICTURE,
        description=xml,
        metadata=None,
        iccprofile=profile,
        photometric="rgb",
    )
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert (slide.info.objective, slide.mpp) == (20, (0.5, 0.5))
        assert slide.info.icc_profile == "sRGB built-in"


def test_channels_that_are_not_red_green_and_blue_are_refused(tmp_path: Path) -> None:
    meta = {"axes": "CYX", "Channel": {"Color": [65535, 16711935, -16776961]}}  # blue, green, red
    tifffile.imwrite(
        tmp_path / "f.ome.tif", np.moveaxis(PICTURE, 2, 0), metadata=meta, photometric="minisblack"
    )
    with pytest.raises(SlideError, match=r"f\.ome\.tif: .*0000FF, 00FF00, FF0000.*fluorescence"):
        open_slide(tmp_path / "f.ome.tif")


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_grey_palette_and_transparent_tiffs_are_shown_in_their_colours(
    tmp_path: Path, tile: tuple[int, int] | None
) -> None:
    grey, alpha = PICTURE[..., 0], PICTURE[..., 1:2]
    table = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16)
    rgba = np.concatenate([PICTURE, alpha], axis=2)
    premultiplied = np.concatenate([np.minimum(PICTURE, alpha), alpha], axis=2)
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    for name, data, options, want in [
        ("grey", grey, {"photometric": "minisblack"}, as_rgb),
        ("inverted", grey, {"photometric": "miniswhite"}, 255 - as_rgb),
        ("palette", grey, {"photometric": "palette", "colormap": table * 257}, table.T[grey]),
        ("alpha", rgba, {"extrasamples": "unassalpha"}, None),
        (
            "premultiplied",
            premultiplied,
            {"extrasamples": "assocalpha"},
            premultiplied[..., :3] + (255 - alpha),
        ),
        ("unnamed", rgba, {"extrasamples": "unspecified"}, PICTURE),
    ]:
        options = {
            "photometric": "rgb",
            "compression": "zstd",
            "tile": tile,
            "metadata": None,
        } | options
        tifffile.imwrite(tmp_path / f"{name}.tif", data, **options)
        with open_slide(tmp_path / f"{name}.tif") as slide:
            if name == "premultiplied":  # OpenSlide, which reads the tiled one, rounds twice
                assert np.abs(pixels(slide).astype(int) - want).max() <= 1
            elif want is None:
                want = np.asarray(
                    Image.alpha_composite(
                        Image.new("RGBA", data.shape[1::-1], "white"), Image.fromarray(data)
                    )
                )[..., :3]
                assert np.abs(pixels(slide).astype(int) - want).max() <= 1
            else:
                np.testing.assert_array_equal(pixels(slide), want)


def test_colours_that_are_not_rgb_are_refused(tmp_path: Path) -> None:
    cmyk = np.concatenate([PICTURE, PICTURE[..., :1]], axis=2)
    tifffile.imwrite(tmp_path / "cmyk.tif", cmyk, photometric="separated")
    tifffile.imwrite(tmp_path / "lab.tif", PICTURE, photometric="cielab")
    tifffile.imwrite(
        tmp_path / "two.tif",
        PICTURE[..., :2],
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=[2],
    )
    for name in ("cmyk.tif", "lab.tif", "two.tif"):
        with pytest.raises(SlideError, match=rf"{name}: .*not (8-bit )?RGB"):
            open_slide(tmp_path / name)


@pytest.mark.parametrize("tiled", [False, True], ids=["one strip", "tiles"])
def test_a_corner_of_a_huge_flat_tiff_takes_little_memory(tmp_path: Path, tiled: bool) -> None:
    side = 30_000  # 2.7 GB of pixels; the file is sparse, or one tile many times
    options: dict[str, object] = {
        "shape": (side, side, 3),
        "dtype": np.uint8,
        "photometric": "rgb",
        "bigtiff": True,
    }
    options["metadata"] = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    file = tmp_path / "huge.ome.tif"
    if tiled:
        tile = imagecodecs.zstd_encode(np.full((512, 512, 3), 7, np.uint8).tobytes())
        tiles = (tile for _ in range((-(-side // 512)) ** 2))
        tifffile.imwrite(file, tiles, tile=(512, 512), compression="zstd", **options)
    else:
        tifffile.imwrite(file, **options)
    tracemalloc.start()
    try:
        with open_slide(file) as slide:
            assert (slide.read(0, Box(20_000, 20_000, 20_600, 20_600)) == (7 if tiled else 0)).all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        file.unlink()
    assert peak < 100 << 20


def test_a_tile_missing_from_an_ome_tiff_is_white_and_a_damaged_one_fails_alone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.ome.tif"
    write_pyramid(file, tile=(64, 64), compression="jpeg")
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        offset, count, counts = page.dataoffsets[9], page.databytecounts[9], page.tags[325]
        width = counts.valuebytecount // counts.count
    with file.open("r+b") as stream:
        stream.seek(offset + count // 2)
        stream.write(b"\0" * (count - count // 2))
        stream.seek(counts.valueoffset + 3 * width)
        stream.write(b"\0" * width)
    with open_slide(file) as slide:
        assert (slide.read(0, Box(0, 192, 64, 256)) == 255).all()
        with pytest.raises(DamagedTileError) as caught:
            slide.read(0, Box(70, 130, 80, 140))
        assert (caught.value.level, caught.value.box) == (0, (64, 128, 128, 192))
        assert slide.read(0, Box(128, 0, 300, 390)).shape == (172, 390, 3)


def write_zarr(
    folder: Path,
    *,
    version: str,
    channels: int = 0,
    unit: str | None = "micrometer",
    shift: float = 0.25,
    **extra: object,
) -> None:
    """An OME-Zarr of two levels by zarr alone; ``channels`` is the place of the channel axis among
    t, z, y, x."""
    names = ["t", "z", "y", "x"]
    names.insert(channels, "c")
    order = [{"y": 0, "x": 1, "c": 2}[n] for n in names if n in "yxc"]
    three = int(version == "0.5") + 2
    for level, picture in enumerate((PICTURE, HALF)):
        data = np.expand_dims(
            picture.transpose(order), tuple(i for i, n in enumerate(names) if n in "tz")
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


def test_the_first_image_of_a_converted_collection_is_the_slide(tmp_path: Path) -> None:
    root = tmp_path / "c.zarr"
    write_zarr(root / "0", version="0.4")
    write_zarr(root / "1", version="0.4")
    (root / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
    with open_slide(root) as slide:
        np.testing.assert_array_equal(pixels(slide), PICTURE)
        assert slide.info.associated == ("1",)


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


def save(format: str) -> Callable[[Path], None]:
    return lambda file: Image.fromarray(PICTURE).save(file, format)


TRUNCATED: dict[str, Callable[[Path], None]] = {
    "flat.png": save("PNG"),
    "flat.jpg": save("JPEG"),
    "strips.tif": lambda file: tifffile.imwrite(file, PICTURE, compression="zlib", rowsperstrip=20),
    "tiled.tif": lambda file: tifffile.imwrite(
        file, PICTURE, compression="jpeg", tile=(64, 64), photometric="rgb"
    ),
    "pyramid.ome.tif": lambda file: write_pyramid(file, tile=(64, 64), compression="jpeg"),
    "plain.ome.tif": write_pyramid,
}


def check_truncated(content: bytes, short: Path) -> None:
    """At twenty lengths: refused in one sentence, or every pixel as it was."""
    short.write_bytes(content)
    with open_slide(short, mpp=0.5) as slide:
        whole = [pixels(slide, level) for level in range(len(slide.levels))]
    lengths = [
        *(int(len(content) * share) for share in np.linspace(0.01, 0.99, 16)),
        *(len(content) - cut for cut in (1, 2, 9, 60)),
    ]
    for length in lengths:
        short.write_bytes(content[:length])
        refusal = None
        try:
            with open_slide(short, mpp=0.5) as slide:
                for level, want in enumerate(whole):
                    np.testing.assert_array_equal(pixels(slide, level), want)
        except SlideError as error:
            refusal = str(error)
        assert refusal is None or short.name in refusal


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_file_cut_off_anywhere_is_refused_or_shows_what_it_showed(
    tmp_path: Path, name: str
) -> None:
    TRUNCATED[name](tmp_path / name)
    check_truncated((tmp_path / name).read_bytes(), tmp_path / name)


@pytest.mark.parametrize(
    "name",
    [
        "CMU-1-Small-Region.svs",
        "TCGA-CR-7395-01A-01-TS1.svs",
        "generic_tiff_asap/example.tif",
        "test3-TRITC-2-560.ndpi",
    ],
)
def test_a_real_slide_cut_off_anywhere_is_refused_or_shows_what_it_showed(
    tmp_path: Path, name: str
) -> None:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    file = Path(folder) / "wsi" / name
    check_truncated(file.read_bytes(), tmp_path / file.name)


def patch_tag(file: Path, tag: int, value: int) -> None:
    with tifffile.TiffFile(file, mode="r+") as tiff:
        tiff.pages.first.tags[tag].overwrite(value, dtype="I")


@pytest.mark.parametrize("size", [1_000_000, 2**32 - 1, 0])
@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_a_tiff_of_a_huge_declared_size_is_refused_before_memory_is_asked_for(
    tmp_path: Path, tile: tuple[int, int] | None, size: int
) -> None:
    file = tmp_path / "forged.tif"
    tifffile.imwrite(file, PICTURE, photometric="rgb", tile=tile, compression="zlib", metadata=None)
    patch_tag(file, 256, size)
    patch_tag(file, 257, size)
    tracemalloc.start()
    with pytest.raises(SlideError, match=r"forged\.tif: damaged: .*px"):
        open_slide(file, mpp=0.5)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_tiles_of_a_huge_declared_size_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "forged.tif"
    tifffile.imwrite(
        file, PICTURE, photometric="rgb", tile=(64, 64), compression="zlib", metadata=None
    )
    patch_tag(file, 322, 1 << 20)
    patch_tag(file, 323, 1 << 20)
    with pytest.raises(SlideError, match=r"tiles of 1048576 x 1048576 px"):
        open_slide(file)


def test_a_png_or_jpeg_of_a_huge_declared_size_is_refused_before_it_is_decoded(
    tmp_path: Path,
) -> None:
    for side in (30_000, 1_000_000):
        save("PNG")(tmp_path / "forged.png")
        content = bytearray((tmp_path / "forged.png").read_bytes()[:3000])
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (tmp_path / "forged.png").write_bytes(content)
        with pytest.raises(SlideError, match=r"forged\.png: .*(declares|more than)"):
            open_slide(tmp_path / "forged.png")
    for side in (32_000, 65_500):
        stream = io.BytesIO()
        Image.fromarray(PICTURE).save(stream, "JPEG")
        content = bytearray(stream.getvalue())
        at = content.index(b"\xff\xc0")
        content[at + 5 : at + 9] = struct.pack(">HH", side, side)
        (tmp_path / "forged.jpg").write_bytes(content)
        with pytest.raises(SlideError, match=r"forged\.jpg: .*(declares|more than)"):
            open_slide(tmp_path / "forged.jpg")


def test_a_loop_of_tiff_directories_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "loop.tif"
    tifffile.imwrite(file, PICTURE, tile=(64, 64), photometric="rgb", metadata=None)
    with tifffile.TiffFile(file) as tiff:
        start, link = tiff.pages.first.offset, tiff.pages.first.tags
        end = start + 2 + 12 * len(link)
    with file.open("r+b") as stream:
        stream.seek(end)
        stream.write(struct.pack("<I", start))
    with pytest.raises(SlideError, match=r"loop\.tif: damaged: .*comes twice"):
        open_slide(file)
    write_pyramid(file := tmp_path / "sub.ome.tif", tile=(64, 64))
    with tifffile.TiffFile(file) as tiff:
        place, start = tiff.pages.first.tags[330].valueoffset, tiff.pages.first.offset
        size = tiff.tiff.offsetsize
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(start.to_bytes(size, "little"))
    with pytest.raises(SlideError, match=r"sub\.ome\.tif: damaged: .*comes twice"):
        open_slide(file)


def test_a_folder_one_may_not_read_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read everything
    with pytest.raises(SlideError, match="permission to read the folder is denied"):
        open_slide(tmp_path)
