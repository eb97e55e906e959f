"""Result files of a slide come back as they were written; what is refused, and what reads them."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import quadrat
from helpers import annotated, answers
from helpers.annotated import NAMES, right_answer
from quadrat.core.errors import QuadratError
from quadrat.core.geometry import Box
from quadrat.evaluation.results import read_answer
from quadrat.metrics.protocol import Answer


def test_an_object_table_comes_back_from_its_file_as_it_was_written(tmp_path):
    written = right_answer(1, "instance")
    written = replace(
        written, frame=replace(written.frame, mpp=0.48, scale_row=1.93, scale_col=1.91)
    )
    annotated.write_result(tmp_path / "s", written, task="instance")
    got = read_answer(tmp_path / "s", classes=NAMES, label_image="objects")
    assert got.frame == written.frame
    for name in ("class_id", "score", "bbox", "centroid", "area_px", "perimeter_px", "flags"):
        np.testing.assert_allclose(
            getattr(got.objects, name), getattr(written.objects, name), rtol=1e-12, err_msg=name
        )
    for box in (annotated.whole(written.frame), Box(10, 20, 70, 33)):
        np.testing.assert_array_equal(got.labels(box), written.labels(box))


@pytest.mark.parametrize(
    ("shape", "cells"),
    [
        ((96, 96), [(0, 0), (0, 1), (1, 1)]),
        ((50, 96), [(0, 1)]),
        ((40, 60), [(0, 0)]),
        ((200, 90), [(2, 0)]),
    ],
)
def test_tiles_come_back_with_the_side_of_their_cores(tmp_path, shape, cells):
    frame = answers.frame(*shape, scale=2.3)
    probability = np.random.default_rng(0).dirichlet((1, 1), len(cells))
    written = Answer(frame, tiles=answers.tile_scores(cells, probability), core=64)
    annotated.write_result(tmp_path / "s", written, task="classification")
    got = read_answer(tmp_path / "s", classes=NAMES, label_image=None)
    np.testing.assert_array_equal(got.tiles.cell, cells)
    np.testing.assert_allclose(
        got.tiles.probability.astype(int), written.tiles.probability.astype(int), atol=1
    )
    # where there is one core only, and it reaches over the slide's edge, its side on the slide is
    # all that can be known
    want, found = (
        [Box(r * n, c * n, r * n + n, c * n + n).intersect(frame.box) for r, c in cells]
        for n in (64, got.core)
    )
    assert found == want


def test_an_unfinished_slide_is_named(tmp_path):
    with pytest.raises(QuadratError, match=r"s.summary\.json: no finished result"):
        read_answer(tmp_path / "s", classes=NAMES, label_image=None)


def test_results_of_other_classes_are_refused(tmp_path):
    annotated.write_result(tmp_path / "s", right_answer(0, "detection"), task="detection")
    with pytest.raises(QuadratError, match=r"class . is '.', but the pipeline's classes are b, a"):
        read_answer(tmp_path / "s", classes=("b", "a"), label_image=None)


def test_what_reads_and_compares_results_imports_nothing_of_what_made_them():
    root = Path(quadrat.__file__).parent
    files = [root / "evaluation" / "results.py", *(root / "metrics").glob("*.py")]
    rooms = {
        node.module.split(".")[1]
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("quadrat.")
    }
    assert rooms <= {"annotations", "core", "metrics", "outputs", "store"}
