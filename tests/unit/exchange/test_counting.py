"""Counts of one picture in Python, as ``quadrat run`` counts it."""

import html.parser

import numpy as np
import pytest
from PIL import Image

import quadrat
from helpers.runs import quadrat as command
from quadrat.core.errors import ConfigError, QuadratError

MPP = 0.5


@pytest.fixture(scope="module")
def pixels():
    """A field of 320 x 384 px with dark discs on pale tissue."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:320, :384]
    rgb = np.full((320, 384, 3), (226, 178, 208), np.float64)
    for row, col in rng.uniform(20, 300, (40, 2)):
        rgb[np.hypot(rows - row, cols - col) < 7] = (88, 50, 120)
    return np.clip(rgb + rng.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def counted(pixels):
    return quadrat.count(pixels, mpp=MPP, overrides=["slide.tissue=all"])


def test_an_array_is_counted_as_the_command_counts_its_file(tmp_path, pixels, counted):
    Image.fromarray(pixels).save(tmp_path / "image.png")
    words = ("--mpp", MPP, "--out", tmp_path / "out", "--set", "slide.tissue=all", "-q")
    assert command("run", "nuclei", tmp_path / "image.png", *words).code == 0
    slide = quadrat.open_run(tmp_path / "out")["image"]
    assert counted.count == slide.count
    assert counted.count >= 20
    assert counted.counts == {"nucleus": counted.count}
    assert counted.objects.equals(slide.objects)
    assert counted.overlay == (slide.folder / "overlay.png").read_bytes()


def test_a_notebook_shows_picture_and_table(counted):
    text = counted._repr_html_()
    tags = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.feed(text)
    assert tags[:3] == ["div", "img", "table"]
    assert tags.count("tr") == 3
    assert "data:image/png;base64,iVBOR" in text
    assert f"<td>nucleus</td><td>{counted.count}</td>" in text
    assert repr(counted).startswith(f"Count('image': {counted.count} on 0.03072 mm²")


@pytest.mark.parametrize(
    ("image", "options", "told"),
    [
        (np.zeros((8, 8, 3), np.uint8), {}, "an array has no scale, and nuclei works in um"),
        (np.zeros((8, 8), np.uint8), {"mpp": 0.5}, r"uint8 \(8, 8\); it must be uint8 \(height"),
        (np.zeros((8, 8, 3)), {"mpp": 0.5}, "float64"),
        (np.zeros((0, 8, 3), np.uint8), {"mpp": 0.5}, "must be uint8"),
    ],
)
def test_what_is_no_picture_with_a_scale_is_refused(image, options, told):
    with pytest.raises(ConfigError, match=told):
        quadrat.count(image, **options)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(QuadratError, match=r"a\.png"):
        quadrat.count(tmp_path / "a.png", mpp=0.5)
