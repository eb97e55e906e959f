"""Whether coordinates are px of the full resolution."""

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_files import check, feature, project, qupath, square
from quadrat.annotations.truth import load_truth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection
from quadrat.core.errors import AnnotationError


def cells(scale, n=12, side=20):
    return [
        feature(square(20 * scale + 40 * i * scale, 300 * scale, side * scale), kind="detection")
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("scale", "bad", "text"),
    [
        (1, False, "none is bad"),
        (
            4,
            True,
            "of 12 lie outside; are the coordinates px of another level, or um (1 px is 0.5 um)",
        ),
        (0.05, True, "the median diameter of 12 objects is 0.564 um at 0.5 um/px"),
        (0.5, False, "all within the first 24% x 32%"),
    ],
)
def test_a_wrong_scale_is_told_from_all_records_together(tmp_path, capsys, scale, bad, text):
    given = project(tmp_path, *cells(scale), size=(500, 1000), pipeline="annotations: objects")
    code, lines = check(capsys, *given)
    assert code == int(bad)
    assert any(text in line for line in lines), lines
    assert any("wrong scale" in line for line in lines) == (scale != 1)


def test_an_image_of_another_size_than_the_slide_is_a_wrong_scale(tmp_path, capsys):
    given = project(tmp_path, annotation="labels.png", pipeline="annotations: labels")
    labels = np.zeros((40, 50), np.uint16)
    labels[2:9, 2:9], labels[20, 20] = 1, 1
    Image.fromarray(labels).save(tmp_path / "labels.png")
    (tmp_path / "p.yaml").write_text(
        (tmp_path / "p.yaml").read_text().replace(", {name: Stroma}", "")
    )
    code, lines = check(capsys, *given)
    assert code == 1
    assert (
        "wrong scale: the file is of a picture of 50 x 40 px, the slide has 100 x 80 (2 times as "
        "large" in lines[0]
    )
    assert "label 1 (Tumor): in pieces: its pixels are in 2 pieces" in lines[1]


def test_coordinates_of_another_scale_are_refused_and_doubtful_ones_are_noted(tmp_path):
    def drawn(scale):
        squares = [
            feature(square(i * 20 * scale, 5 * scale, 16 * scale), kind="detection")
            for i in range(12)
        ]
        return load_truth(
            qupath(tmp_path, *squares), DataSection(), ["Tumor"], size=(1000, 1000), mpp=0.5
        )

    assert drawn(2).notes == ()
    (note,) = drawn(1).notes
    assert note.startswith(
        "wrong scale? the records reach x 236, y 21; the slide has 1000 x 1000 px"
    )
    with pytest.raises(AnnotationError, match="wrong scale: the median diameter of 12 objects is "):
        drawn(0.1)
    Image.fromarray(np.eye(80, 100, dtype=np.uint8)).save(tmp_path / "labels.png")
    ref = SlideRef("a", "a.png", annotation=str(tmp_path / "labels.png"), annotated="all")
    with pytest.raises(
        AnnotationError,
        match=r"wrong scale: the median diameter of 1 objects is 0\.101 um at 0\.01 um/px",
    ):
        load_truth(ref, DataSection(annotations="labels"), ["a"], size=(80, 100), mpp=0.01)
