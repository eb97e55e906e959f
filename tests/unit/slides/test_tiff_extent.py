"""How long a TIFF must be, and sizes that it only declares."""

import struct
import tracemalloc
from pathlib import Path

import pytest
import tifffile

from helpers.slide_files import PICTURE, write_pyramid
from quadrat.core.errors import SlideError
from quadrat.slides.opening import open_slide


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


@pytest.mark.parametrize("share", [0.0001, 0.4, 0.9, 0.999])
@pytest.mark.parametrize(
    "file", ["CMU-1-Small-Region.svs", "generic_tiff_asap/example.tif", "test3-TRITC-2-560.ndpi"]
)
def test_a_truncated_file_is_called_truncated(
    wsi: Path, tmp_path: Path, file: str, share: float
) -> None:
    content = (wsi / file).read_bytes()
    short = tmp_path / Path(file).name
    short.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SlideError, match=f"{short.name}: truncated"):
        open_slide(short)
