"""PNG and JPEG images as slides."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import pytest
from PIL import Image

from helpers.slide_files import save
from quadrat.core.errors import SlideError
from quadrat.slides import flat as flat_module
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import on_white

rng = np.random.default_rng(0)
PICTURE = rng.integers(0, 256, (120, 200, 3), np.uint8)


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


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_a_png_of_eight_bits_is_read_as_rgb_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PICTURE).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(rng.integers(0, 256, PICTURE.shape[:2], np.uint8)))
    image.save(tmp_path / "flat.png")
    want = on_white(np.asarray(image.convert("RGBA")))
    with open_slide(tmp_path / "flat.png") as slide:
        np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), want)
        assert slide.mpp is None


def test_a_cut_off_png_or_jpeg_is_refused(tmp_path: Path) -> None:
    for name in ("cut.png", "cut.jpg"):
        Image.fromarray(PICTURE).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(SlideError, match=f"{name}: .*truncated"):
            open_slide(tmp_path / name)


def test_a_flat_image_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat_module, "MAX_PIXELS", 1000)
    Image.fromarray(PICTURE).save(tmp_path / "big.png")
    with pytest.raises(SlideError, match=r"200 x 120 px is more than the 1000 px"):
        open_slide(tmp_path / "big.png")


@pytest.mark.parametrize("suffix", ["bmp", "webp", "jp2", "ppm", "png"])
def test_flat_images_of_every_lossless_kind_are_read(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (60, 80, 3), np.uint8)
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **options)
    with open_slide(tmp_path / f"a.{suffix}") as slide:
        np.testing.assert_array_equal(slide.read(0, slide.levels[0].box), pixels)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_is_refused_with_the_number_of_its_pictures(
    tmp_path: Path, suffix: str
) -> None:
    frames = [Image.fromarray(np.full((20, 30, 3), grey, np.uint8)) for grey in (10, 200, 90)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(SlideError, match=r"holds 3 pictures \(an animation\); save the one"):
        open_slide(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["webp", "jpg", "png"])
def test_exif_that_makes_no_sense_does_not_damage_a_picture(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (30, 20), (9, 99, 199)).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0junk")
    with open_slide(tmp_path / f"a.{suffix}") as slide:
        assert slide.levels[0].box.shape == (20, 30)


def test_the_limit_of_pillow_holds_again_when_the_last_thread_has_left() -> None:
    before = Image.MAX_IMAGE_PIXELS
    started, leave = Barrier(9), Event()

    def enter() -> None:
        with flat_module.pillow_limit_lifted():
            started.wait()
            leave.wait()
            assert Image.MAX_IMAGE_PIXELS is None

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(enter) for _ in range(8)]
        started.wait()
        assert Image.MAX_IMAGE_PIXELS is None
        leave.set()
        for one in done:
            one.result()
    assert before == Image.MAX_IMAGE_PIXELS
