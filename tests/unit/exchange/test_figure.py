"""Figures of a part of a slide."""

import re

import numpy as np
import pytest
from PIL import Image

from helpers.planted_runs import write_slide
from helpers.runs import contents, quadrat
from quadrat.config.manifest import SlideRef
from quadrat.core.objects import Frame
from quadrat.engine.drivers import note_imported

WIDTH, HEIGHT = 800, 600
BOXES = [(100, 50, 110, 60), (150, 80, 170, 90), (300, 200, 310, 210)]
COLOURS = np.array([(228, 26, 28), (55, 126, 184)])
EXACT = ("--dpi", 100, "--width-mm", 50.8)
"""200 px wide."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run with three objects, and its slide, of which each pixel tells its place."""
    folder = tmp_path_factory.mktemp("figures")
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([rows // 4, cols // 4, np.full(rows.shape, 200)], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "s.png")
    write_slide(folder / "out", "s", BOXES, [0, 1, 1])
    note_imported(folder / "out", SlideRef("s", str(folder / "s.png"), mpp=0.25))
    return folder / "out"


def drawn(tmp_path, out, *words, name="f.png", code=0):
    done = quadrat("figure", out, "s", "--out", tmp_path / name, *words)
    assert done.code == code, done.err
    if code:
        assert done.err.count("\n") == 1
        return done.err
    return np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)


def test_the_picture_is_the_part_that_was_asked_for(tmp_path, out):
    rgb = drawn(tmp_path, out, "--bbox", "120,80,320,180", "--no-outlines", *EXACT)
    assert rgb.shape == (100, 200, 3)
    rows, cols = np.mgrid[80:180, 120:320]
    assert np.abs(rgb - np.stack([rows // 4, cols // 4, 0 * rows + 200], -1)).max() <= 2


def test_outlines_lie_on_their_objects_in_the_colours_of_their_classes(tmp_path, out):
    part = ("--bbox", "180,80,380,220", *EXACT)
    rgb, plain = (drawn(tmp_path, out, *part, *more) for more in ((), ("--no-outlines",)))
    inked = np.abs(rgb - plain).sum(axis=-1) > 60
    for box, colour in zip(BOXES[:2], COLOURS[:2], strict=True):
        x0, y0, x1, y1 = np.array(box) * 2 - (180, 80, 180, 80)
        around = np.zeros_like(inked)
        around[y0 - 9 : y1 + 9, x0 - 9 : x1 + 9] = True
        rows, cols = np.nonzero(inked & around)
        assert (cols.min(), cols.max()) == (pytest.approx(x0, abs=1), pytest.approx(x1, abs=1))
        assert (rows.min(), rows.max()) == (pytest.approx(y0, abs=1), pytest.approx(y1, abs=1))
        ink, paper = rgb[inked & around].mean(axis=0), plain[inked & around].mean(axis=0)
        assert np.abs(ink - colour).sum() < np.abs(paper - colour).sum() / 2
        inked &= ~around
    assert not inked.any()


def test_the_scale_bar_is_as_long_as_it_says(tmp_path, out):
    done = quadrat(
        "figure", out, "s", "--bbox", "0,0,200,100", "--scale-bar", "--no-outlines", *EXACT,
        "--out", tmp_path / "f.png",
    )  # fmt: skip
    assert "0 objects, scale bar 10 µm" in done.out  # at most a quarter of 50 um
    rgb = np.asarray(Image.open(tmp_path / "f.png").convert("RGB"))
    black = (rgb.sum(axis=-1) < 90)[85:].sum(axis=1).max()
    assert black == pytest.approx(10 / 0.25, abs=1)


def test_an_object_is_shown_by_its_id_with_what_is_around_it(tmp_path, out):
    done = quadrat("figure", out, "s", "--object", 2, "--out", tmp_path / "f.pdf")
    assert "x 160 to 480, y 10 to 330 px, 2 objects" in done.out
    assert "have the ids 1 to 3" in drawn(tmp_path, out, "--object", 4, code=2)


def test_a_large_part_is_read_no_finer_than_the_figure_needs(tmp_path, out, monkeypatch):
    from quadrat.slides.source import SlideSource

    read = []
    own = SlideSource.read
    monkeypatch.setattr(
        SlideSource, "read", lambda self, box: (read.append(box), own(self, box))[1]
    )
    rgb = drawn(tmp_path, out, "--bbox", "0,0,800,600", *EXACT)
    assert rgb.shape == (150, 200, 3)
    assert [box.shape for box in read] == [(150, 200)]


@pytest.mark.parametrize("name", ["f.png", "f.pdf", "f.svg"])
def test_the_same_figure_has_the_same_bytes_in_every_format(tmp_path, out, name):
    words = ("--bbox", "0,0,400,300", "--scale-bar", *EXACT)
    for folder in ("one", "two"):
        done = quadrat("figure", out, "s", "--out", tmp_path / folder / name, *words)
        assert done.code == 0, done.err
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    data = (tmp_path / "one" / name).read_bytes()
    assert not re.search(rb"20\d\d-\d\d|CreationDate", data)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "say either --bbox X0,Y0,X1,Y1 or --object ID"),
        (("--bbox", "0,0,9,9", "--object", 1), "--bbox is 0,0,9,9; it must be"),
        (("--bbox", "0,0,90,90", "--object", 1), "say either"),
        (("--bbox", "90,0,0,90"), "it must be X0,Y0,X1,Y1"),
        (("--bbox", "a,b"), "it must be X0,Y0,X1,Y1"),
        (("--bbox", "900,0,1000,90"), "is not on the slide 's', which is 800 x 600 px"),
        (("--object", 1, "--dpi", 5), "--dpi is 5; it must be 30 to 2400"),
        (("--object", 1, "--width-mm", 5), "--width-mm is 5"),
        (("--object", 1, "--slide-file", "/nowhere/s.png"), "the file of 's' is gone"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(tmp_path, out, words, told):
    assert told in drawn(tmp_path, out, *words, code=2)
    assert not (tmp_path / "f.png").exists()


def test_another_format_slide_or_file_is_refused(tmp_path, out):
    assert "is none of .png, .pdf, .svg" in drawn(
        tmp_path, out, "--object", 1, name="f.tiff", code=2
    )
    done = quadrat("figure", out, "t", "--object", 1, "--out", tmp_path / "f.png")
    assert (done.code, "no results of a slide 't'" in done.err) == (2, True)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "small.png")
    words = ("--object", 1, "--slide-file", tmp_path / "small.png")
    assert "it is another file" in drawn(tmp_path, out, *words, code=2)


def test_a_run_that_nobody_noted_a_file_of_asks_for_it(tmp_path):
    write_slide(tmp_path / "out", "s", BOXES, frame=Frame(300, 400, 0.5, 2.0, 2.0))
    assert "name it with --slide-file" in drawn(tmp_path, tmp_path / "out", "--object", 1, code=2)
