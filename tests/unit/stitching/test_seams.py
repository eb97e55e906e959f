import json
from dataclasses import replace

import numpy as np
import pytest

from helpers.seam_fields import (
    CORE,
    SIDE,
    clustered_boxes,
    everywhere,
    in_cores,
    parts_of,
    pieces,
    table_of,
    tissue,
)
from quadrat.core.lattice import Lattice
from quadrat.core.objects import Frame, ObjectTable, Polygons
from quadrat.core.records import to_json
from quadrat.stitching import seam_tally
from quadrat.stitching.seam_tally import COLUMNS, empty_tally
from quadrat.stitching.seams import core_lattice, resample, seam_report, slide_seams, tile_lattice

LATTICE = Lattice(core=CORE, halo=32, stride=8, shard=2 * CORE)
FRAME = Frame(height=SIDE, width=SIDE, mpp=0.5, scale_row=1.0, scale_col=1.0)


def report_of(bbox, lattice, *, boxed=None, **options):
    table, parts = parts_of(bbox, boxed=np.zeros(len(bbox), bool) if boxed is None else boxed)
    return seam_report(table, parts, lattice, mpp=0.5, **options)


def field(seed, **options):
    """(boxes, lattice of a blob of tissue)"""
    rng = np.random.default_rng(seed)
    lattice = replace(everywhere(), analysed=tissue(rng, (SIDE // CORE,) * 2))
    return in_cores(clustered_boxes(rng, **options), lattice.analysed), lattice


def test_naive_disjoint_tiles_show_in_all_three_signs():
    bbox, lattice = field(1)
    cut, _ = pieces(bbox)
    report = report_of(cut, lattice, boxed=np.ones(len(cut), bool))
    assert report.density.low > 1.2
    assert report.straight_edges.near > 0.95
    assert report.straight_edges.low > 0.3
    assert report.duplicates.low > 100
    assert len(report.signs()) == 3
    assert report.verdict.startswith("density near seams is 1.")


def test_objects_lost_at_margins_show_as_a_lower_density():
    bbox, lattice = field(2)
    touches = np.any(np.floor(bbox[:, :2] / CORE) != np.floor((bbox[:, 2:] - 1) / CORE), axis=1)
    keep = ~touches | (np.random.default_rng(0).random(len(bbox)) < 0.5)
    report = report_of(bbox[keep], lattice)
    assert report.density.high < 1
    assert "density near seams is 0." in report.verdict


def test_masks_cut_at_seams_show_by_their_straight_edges_even_where_the_count_is_right():
    bbox, lattice = field(3)
    cut, index = pieces(bbox)
    largest = np.lexsort((-(cut[:, 2:] - cut[:, :2]).prod(axis=1), index))
    keep = largest[np.unique(index[largest], return_index=True)[1]]
    assert len(keep) == len(bbox)
    whole = np.isin(index, index[np.bincount(index)[index] == 1])
    report = report_of(cut[keep], lattice, boxed=~whole[keep])
    assert not report.density.differs_from(1.0)
    assert report.straight_edges.near > 0.8
    assert report.straight_edges.inside < 0.1
    assert report.signs() == [s for s in report.signs() if "straight edge" in s] != []


def test_objects_found_by_both_windows_show_as_duplicates():
    bbox, lattice = field(4)
    centre = (bbox[:, :2] + bbox[:, 2:]) / 2
    near = (np.abs((centre + CORE / 2) % CORE - CORE / 2) < 12).any(axis=1)
    twice = near & (np.random.default_rng(0).random(len(bbox)) < 0.1)
    report = report_of(np.concatenate([bbox, bbox[twice] + 1]), lattice)
    assert report.duplicates.differs_from(0.0)
    assert "duplicates per 1,000 objects near seams" in report.verdict


def test_the_same_objects_on_another_lattice_show_nothing():
    bbox, lattice = field(1)
    cut, _ = pieces(bbox)
    moved = tile_lattice(table_of(cut), tile=CORE, origin=(CORE / 2 + 7, CORE / 2 - 5))
    assert not report_of(cut, moved, boxed=np.ones(len(cut), bool)).signs()
    assert lattice.seams().any()


def test_faultless_slides_cry_wolf_about_as_often_as_the_interval_says():
    """200 slides with 95 % intervals: 10 alarms of each sign, at most 21 with a probability of 99.9
    % (binomial)."""
    alarms = np.zeros(3, int)
    for seed in range(200):
        bbox, lattice = field(1000 + seed)
        report = report_of(
            bbox,
            lattice,
            boxed=np.random.default_rng(seed).random(len(bbox)) < 0.5,
            confidence=0.95,
        )
        alarms += [
            report.density.differs_from(1.0),
            report.straight_edges.differs_from(0.0),
            report.duplicates.differs_from(0.0),
        ]
    assert (alarms <= 21).all(), alarms
    assert (alarms > 0).all(), "intervals that never miss are too wide"


def test_glass_and_the_borders_of_the_slide_are_no_seams():
    """All tissue lies in the outer corner of the cores at the edge of the analysed area; a global
    density would cry."""
    rng = np.random.default_rng(0)
    bbox = clustered_boxes(rng)
    centre = (bbox[:, :2] + bbox[:, 2:]) / 2
    bbox = bbox[(np.abs(centre - SIDE / 2) < 1500).all(axis=1)]
    frame = replace(FRAME, height=SIDE - 60, width=SIDE - 100)
    bbox = bbox[(bbox[:, 2] <= frame.height) & (bbox[:, 3] <= frame.width)]
    lattice = core_lattice(
        LATTICE, frame=frame, cells=[(r, c) for r in range(2, 14) for c in range(2, 14)]
    )
    assert not report_of(bbox, lattice).signs()
    seams = lattice.seams()
    assert not seams[0, 2].any()
    assert seams[0, 3, 2:14].all()
    assert not seams[1, 2:14, 2].any()


def test_the_report_is_the_same_however_the_objects_are_cut_into_parts_and_ordered():
    bbox, lattice = field(7)
    boxed = np.random.default_rng(0).random(len(bbox)) < 0.5
    table, parts = parts_of(bbox, boxed=boxed)
    first = seam_report(table, parts, lattice, mpp=0.5)
    again = seam_report(
        ObjectTable.concatenate([p()[0] for p in parts[::-1]]), parts[::-1], lattice, mpp=0.5
    )
    assert first.figures() == again.figures()


def test_many_cores_share_blocks(monkeypatch):
    bbox, lattice = field(8)
    monkeypatch.setattr(seam_tally, "MOST_BLOCKS", 40)
    blocks = lattice.blocks()
    assert 10 < len(np.unique(blocks)) <= 40
    report = report_of(bbox, lattice)
    assert report.blocks <= 40
    assert report.density.judged


def test_resampling_is_fixed_and_whole():
    tally = np.arange(len(COLUMNS) * 5, dtype=float).reshape(len(COLUMNS), 5)
    one, two = resample(tally), resample(tally)
    assert all(np.array_equal(one[c], two[c]) for c in COLUMNS)
    assert all((one[c] == np.floor(one[c])).all() for c in COLUMNS)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_objects_are_not_judged(n):
    bbox = np.array([[100, 250, 110, 260]] * n, np.float64).reshape(-1, 4)
    report = slide_seams(
        table_of(bbox),
        [lambda: (table_of(bbox), Polygons.boxes(bbox))],
        lattice=LATTICE,
        frame=FRAME,
        cells=[(r, c) for r in range(4) for c in range(4)],
    )
    assert report.verdict.startswith("too little to judge")
    assert report.density.low is None
    assert not report.sign_of_seams
    json.dumps(to_json(report), allow_nan=False)


def test_a_slide_of_one_core_has_no_seams():
    report = slide_seams(table_of([[0, 0, 9, 9]]), [], lattice=LATTICE, frame=FRAME, cells=[(0, 0)])
    assert report.verdict.startswith("there are no seams")
    assert empty_tally(
        tile_lattice(ObjectTable.empty(), tile=10.0, origin=(0.0, 0.0)).blocks()
    ).shape[0] == len(COLUMNS)


def test_polygons_of_pixels_have_no_more_straight_edges_on_seams_than_elsewhere():
    """Discs of pixels, whose flat tops are straight edges by nature."""
    from quadrat.core.outlines import trace
    from quadrat.stitching.features import measure

    rng = np.random.default_rng(5)
    labels = np.zeros((1024, 1024), np.int32)
    rows, cols = np.indices((21, 21)) - 10
    n = 0
    for row, col in rng.integers(10, 1013, (3000, 2)):
        disc = np.hypot(rows, cols) <= rng.uniform(5, 9)
        place = labels[row - 10 : row + 11, col - 10 : col + 11]
        if not place[disc].any():
            n += 1
            place[disc] = n
    table = measure(labels, n=n, origin=(0, 0)).table(
        class_id=np.zeros(n, np.uint8),
        score=np.ones(n, np.float32),
        anchor=np.zeros((n, 2), np.int64),
        flags=np.zeros(n, np.uint8),
    )
    report = seam_report(
        table, [lambda: (table, trace(labels, n=n, origin=(0, 0)))], everywhere(1024, 128), mpp=0.5
    )
    assert n > 1000
    assert report.straight_edges.inside > 0.02
    assert not report.straight_edges.differs_from(0.0)
