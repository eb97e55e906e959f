"""The pages that a training leaves: written for every kind of answer, and about the mistakes that
they say they are about."""

import numpy as np
import pytest
from PIL import Image

from helpers import fields
from helpers.answers import frame, label_truth, of_label_image, reader, table
from quadrat.annotations.types import SlideTruth
from quadrat.core.geometry import Box
from quadrat.core.predictions import TileScores
from quadrat.metrics.protocol import Answer
from quadrat.training.pages import (
    COLUMNS,
    FOUND,
    ROWS,
    TRUTH,
    examples_page,
    learning_curves,
    short,
)

CLASSES = ("tumour", "stroma")
SIDE = 640


@pytest.fixture
def drawn():
    """The panels of each page by the titles of their sections; see :func:`page`."""
    return []


def page(drawn, path, slides, *, classes):
    sections = examples_page(path, slides, classes=classes)
    drawn.append({section.title.partition(",")[0]: section.panels for section in sections})


def read(box):
    """Pixels that tell their place: red the row, green the column."""
    rows, cols = np.arange(box.row0, box.row1), np.arange(box.col0, box.col1)
    out = np.zeros((*box.shape, 3), np.uint8)
    out[..., 0] = (rows % 256)[:, None]
    out[..., 1] = cols % 256
    return out


def size_of(path):
    with Image.open(path) as picture:
        picture.load()
        return picture.size


def objects(xyxy, class_id, score):
    return Answer(frame(SIDE, SIDE), objects=table(xyxy, class_id, score))


class Things:
    classes = CLASSES

    def __init__(self, xyxy, class_id):
        self.xyxy, self.class_id = (
            np.asarray(xyxy, np.float64).reshape(-1, 4),
            np.asarray(class_id, np.int64),
        )

    def boxes(self, box, scale):
        return self.xyxy, self.class_id

    def points(self, box, scale):
        return (self.xyxy[:, :2] + self.xyxy[:, 2:]) / 2, self.class_id


def squares(n, side=20, gap=40):
    corner = np.array([(gap * (i % 12) + 5, gap * (i // 12) + 5) for i in range(n)], np.float64)
    return np.concatenate([corner, corner + side], axis=1)


FALSE, LOST = "found where none is", "missed"


def test_what_is_found_where_none_is_and_what_is_missed_stand_out_among_the_others(drawn, tmp_path):
    xyxy = squares(6)
    score = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    answer = objects(xyxy[:5], [0, 0, 1, 0, 0], score[:5])
    truth = Things(
        xyxy[[0, 2, 4, 5]], [0, 0, 0, 0]
    )  # 1 and 3 are none, 2 is of the other class, 5 is missed
    page(
        drawn,
        tmp_path / "p.png",
        [("slide", read, answer, SlideTruth(objects=truth))],
        classes=CLASSES,
    )
    (sections,) = drawn
    assert [p.text for p in sections[FALSE]] == [
        "slide\ntumour 0.80",
        "slide\nstroma 0.70",
        "slide\ntumour 0.60",
    ]
    assert [p.text for p in sections[LOST]] == ["slide\ntumour", "slide\ntumour"]
    for title, colour, wanted in ((FALSE, FOUND, [1, 2, 3]), (LOST, TRUTH, [2, 5])):
        for panel, i in zip(sections[title], wanted, strict=True):
            box, painted = panel.boxes[panel.meant]
            assert painted == colour
            row0, col0 = int(panel.rgb[0, 0, 0]), int(panel.rgb[0, 0, 1])
            moved = np.add(box, [col0, row0, col0, row0])
            assert np.array_equal(moved % 256, xyxy[i] % 256)
            assert len(panel.boxes) > 1, "neighbours are shown as well"
    width, height = size_of(tmp_path / "p.png")
    assert width > 1500
    assert height > 500


def test_the_surest_of_all_slides_come_first_and_only_as_many_as_there_is_room_for(drawn, tmp_path):
    slides = []
    for k in range(3):
        score = np.linspace(0.3, 0.9, 30) + k / 100
        slides.append(
            (
                f"slide {k}",
                read,
                objects(squares(30), [0] * 30, score),
                SlideTruth(objects=Things([], [])),
            )
        )
    page(drawn, tmp_path / "p.png", slides, classes=CLASSES)
    (sections,) = drawn
    assert list(sections) == [FALSE]
    scores = [float(panel.text.split()[-1]) for panel in sections[FALSE]]
    assert len(scores) == COLUMNS * ROWS
    assert scores == sorted(scores, reverse=True)
    assert sections[FALSE][0].text == "slide 2\ntumour 0.92"


def test_points_are_matched_by_distance_and_drawn_at_their_diameter(drawn, tmp_path):
    xyxy = squares(4)
    answer = objects(xyxy[:3] + 4, [0, 0, 0], [0.9, 0.8, 0.7])  # 4 px are 2.8 um away
    expected = SlideTruth(objects=Things(xyxy[[0, 1, 3]], [0, 0, 0]), point_diameter_um=6.0)
    page(drawn, tmp_path / "p.png", [("slide", read, answer, expected)], classes=CLASSES)
    (sections,) = drawn
    assert [p.text for p in sections[FALSE]] == ["slide\ntumour 0.70"]
    (panel,) = sections[LOST]
    x0, y0, x1, y1 = panel.boxes[panel.meant][0]
    assert (x1 - x0, y1 - y0) == (12.0, 12.0)


class Left:
    """Bounds: the left part of the slide."""

    classes = ("ROI",)

    def __init__(self, col):
        self.col = col

    def regions(self, box, scale):
        return np.broadcast_to(
            (np.arange(box.col0, box.col1) < self.col).astype(np.uint8), box.shape
        ).copy()


def test_mistakes_outside_the_bounds_are_none(drawn, tmp_path):
    answer = objects(squares(12), [0] * 12, np.linspace(0.9, 0.3, 12))
    expected = SlideTruth(objects=Things([], []), bounds=Left(100))
    page(drawn, tmp_path / "p.png", [("slide", read, answer, expected)], classes=CLASSES)
    assert len(drawn[0][FALSE]) == 3


class Map:
    classes = CLASSES

    def __init__(self, image):
        self.image = image

    def regions(self, box, scale):
        return self.image[box.row0 : box.row1, box.col0 : box.col1]


def maps(seed, wrong):
    """(answer, truth) of a class map that is wrong in a rectangle alone."""
    labels = fields.ellipses(np.random.default_rng(seed), (SIDE, 2 * SIDE), n=20)
    truth = (labels % 3).astype(np.uint8)
    found = truth.copy()
    found[wrong] = (found[wrong] + 1) % 3
    return Answer(frame(SIDE, 2 * SIDE), objects=table([], [], []), labels=reader(found)), Map(
        truth
    )


LEAST = "least agreement: image"


def test_of_class_maps_the_place_that_agrees_least_is_shown_beside_the_truth(drawn, tmp_path):
    slides = []
    for k, wrong in enumerate((np.s_[10:20, 10:20], np.s_[:400, 1030:1270], np.s_[0:0, 0:0])):
        answer, truth = maps(k, wrong)
        slides.append((f"slide {k}", read, answer, SlideTruth(regions=truth)))
    page(drawn, tmp_path / "p.png", slides, classes=CLASSES)
    panels = drawn[0][LEAST]
    assert [p.text.partition(":")[0] for p in panels] == ["slide 1", "slide 0", "slide 2"]
    assert panels[0].text == f"slide 1: {400 * 240 / (512 * 256):.1%} of px differ"
    assert (int(panels[0].rgb[0, 0, 0]), int(panels[0].rgb[0, 0, 1])) == (0, 1024 % 256)
    height, width = panels[1].rgb.shape[:2]
    assert height == 512
    assert width > 3 * 512
    assert size_of(tmp_path / "p.png")[0] > 1500


def test_what_nobody_annotated_is_no_disagreement_and_grey(drawn, tmp_path):
    answer, truth = maps(0, np.s_[:, 200:])
    for k, (expected, share) in enumerate(
        ((SlideTruth(regions=truth, bounds=Left(200)), 0.0), (SlideTruth(regions=truth), 0.6))
    ):
        page(drawn, tmp_path / f"{k}.png", [("slide", read, answer, expected)], classes=CLASSES)
        (panel,) = drawn[k][LEAST]
        found = float(panel.text.split(": ")[1].partition("%")[0]) / 100
        assert found == 0.0 if share == 0 else found > share
    grey = drawn[0][LEAST][0].rgb[:, 512 + 8 : 512 + 8 + 512]
    assert (grey[:, 200:] == 160).all()
    assert not (grey[:, :200] == 160).all(axis=2).all()
    nothing = SlideTruth(regions=Map(np.zeros((SIDE, 2 * SIDE), np.uint8)), complete=False)
    page(drawn, tmp_path / "n.png", [("slide", read, answer, nothing)], classes=CLASSES)
    assert drawn[-1] == {}


def tiles(probability):
    share = np.round(np.asarray(probability) * 65535).astype(np.uint16)
    cell = np.array([(i // 4, i % 4) for i in range(len(share))], np.int32)
    return Answer(
        frame(SIDE, SIDE),
        tiles=TileScores(cell, share, np.zeros((len(share), 0), np.float16)),
        core=64,
    )


OTHER = "taken for another class"


def test_of_slides_taken_for_another_class_the_surest_tile_is_shown(drawn, tmp_path):
    slides = [
        ("right", read, tiles([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]), SlideTruth(label=0)),
        (
            "wrong",
            read,
            tiles([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.3, 0.7]]),
            SlideTruth(label=0),
        ),
        ("surer", read, tiles([[0.98, 0.02]]), SlideTruth(label=1)),
    ]
    page(drawn, tmp_path / "p.png", slides, classes=CLASSES)
    panels = drawn[0][OTHER]
    assert [p.text for p in panels] == [
        "surer\ntumour 0.98, is stroma",
        "wrong\nstroma 0.95, is tumour",
    ]
    assert panels[1].rgb.shape == (64, 64, 3)
    assert (int(panels[1].rgb[0, 0, 0]), int(panels[1].rgb[0, 0, 1])) == (0, 128)


def test_of_slides_with_regions_the_surest_tile_that_lies_in_another_one_is_shown(drawn, tmp_path):
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[:64, 64:192] = 1
    truth[:64, 192:256] = 2
    answer = tiles([[0.01, 0.99], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    page(
        drawn,
        tmp_path / "p.png",
        [("slide", read, answer, SlideTruth(regions=Map(truth)))],
        classes=CLASSES,
    )
    (panel,) = drawn[0][OTHER]
    assert panel.text == "slide\nstroma 0.80, is tumour"


def test_label_images_are_pages_of_objects(drawn, tmp_path):
    labels = fields.disjoint_ellipses(np.random.default_rng(0), (200, 200), n=12)
    n = int(labels.max())
    found = np.where(labels == 1, 0, labels)  # one is missed
    answer = of_label_image(found, [0] * n)
    truth = label_truth(labels, [0] * n, CLASSES)
    page(
        drawn,
        tmp_path / "p.png",
        [("slide", read, answer, SlideTruth(objects=truth))],
        classes=CLASSES,
    )
    assert len(drawn[0][LOST]) == 1
    assert len(drawn[0][FALSE]) == 1, "the empty row that stands for it"


@pytest.mark.parametrize("slides", [0, 2])
def test_no_mistake_is_a_page_as_well(slides, drawn, tmp_path):
    xyxy = squares(5)
    same = objects(xyxy, [0] * 5, [0.5] * 5), SlideTruth(objects=Things(xyxy, [0] * 5))
    empty = objects([], [], []), SlideTruth(objects=Things([], []))
    page(
        drawn,
        tmp_path / "p.png",
        [("slide", read, *pair) for pair in (same, empty)][:slides],
        classes=CLASSES,
    )
    assert drawn == [{}]
    assert size_of(tmp_path / "p.png")[0] > 1000


def test_an_object_at_the_slides_edge_is_shown_with_what_lies_beyond(drawn, tmp_path):
    answer = objects([(0, 0, 10, 10), (SIDE - 300, SIDE - 300, SIDE, SIDE)], [0, 0], [0.9, 0.8])
    asked = []

    def recorded(box):
        asked.append(box)
        return read(box)

    page(
        drawn,
        tmp_path / "p.png",
        [("slide", recorded, answer, SlideTruth(objects=Things([], [])))],
        classes=CLASSES,
    )
    assert asked[0] == Box(-43, -43, 53, 53)
    assert asked[1].width == 480


def test_long_names_keep_both_ends():
    assert short("short") == "short"
    assert short("a" * 15 + "b" * 15) == "a" * 11 + "…" + "b" * 11


@pytest.mark.parametrize(
    ("losses", "figures"),
    [
        ([0.5, 0.4, 0.3], [(1, 0.2), (3, 0.4)]),
        ([0.5], []),
        ([], []),
        ([0.0, 0.0], [(2, float("nan"))]),
        ([2.0] * 50, []),
    ],
)
def test_curves_are_drawn_of_whatever_there_is(losses, figures, tmp_path):
    history = [{"step": i, "loss": value, "part": value / 2} for i, value in enumerate(losses)]
    validations = [{"step": step, "f1": value} for step, value in figures]
    learning_curves(tmp_path / "c.png", history, validations, main="f1", kept=1)
    assert size_of(tmp_path / "c.png") == (1100, 440)
