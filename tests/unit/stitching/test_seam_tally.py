"""What lies near a seam is counted, and how much room there is."""

import numpy as np

from helpers.seam_fields import everywhere, octagons, table_of
from quadrat.core.objects import Polygons
from quadrat.stitching.seam_tally import (
    COLUMNS,
    SeamLattice,
    SeamScale,
    tally_areas,
    tally_edges,
    tally_points,
)


def test_strip_areas_are_those_of_a_raster():
    lattice = SeamLattice(
        40.0, (0.0, 0.0), np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], bool), (0.0, 0.0, 101.0, 97.0)
    )
    scale = SeamScale(near=4.0, straight=4.0, pair=np.array([2.0]))
    blocks = lattice.blocks()
    rows, cols = np.indices((101, 97))
    areas = tally_areas(lattice, scale, blocks)
    for shift in (
        0.0,
        0.5,
    ):  # strips are half-open: points on their ends count as the raster's do, none twice, none lost
        points = tally_points(
            np.stack([rows.ravel(), cols.ravel()], axis=1) + shift,
            lattice,
            scale,
            blocks,
            pairs=False,
        )
        for name in ("near", "flank"):
            assert np.array_equal(
                areas[COLUMNS.index(f"{name}_area")].sum(), points[COLUMNS.index(name)].sum()
            )
    assert areas.sum() > 0


def test_edges_are_counted_against_the_line_they_lie_on():
    lattice, scale = everywhere(1024, 256), SeamScale(near=10.0, straight=9.0, pair=np.array([5.0]))
    boxes = np.array(
        [[246, 330, 256, 350],  # ends on the seam at row 256
         [247, 400, 265, 420],  # crosses it
         [310, 480, 320, 486],  # on the control line at 320
         [0, 600, 10, 620]],  # on the slide's border, which is no seam
        np.float64,
    )  # fmt: skip
    out = tally_edges(table_of(boxes), Polygons.boxes(boxes), lattice, scale, lattice.blocks()).sum(
        axis=1
    )
    found = dict(zip(COLUMNS, out, strict=True))
    assert (found["on_seams"], found["straight_on_seams"]) == (2, 1)
    assert found["straight_on_controls"] == 1
    round_ = tally_edges(table_of(boxes), octagons(boxes), lattice, scale, lattice.blocks()).sum(
        axis=1
    )
    assert dict(zip(COLUMNS, round_, strict=True))["straight_on_seams"] == 0


def test_an_edge_drawn_in_many_steps_and_over_the_rings_start_counts_whole():
    xs = np.r_[np.arange(5, 11), 10, 0, np.arange(0, 6)].astype(float) + 100
    ys = np.r_[np.full(6, 256.0), 262, 262, np.full(6, 256.0)]
    polygon = Polygons(np.stack([xs, ys], axis=1), np.array([0, len(xs)]), np.array([0, 1]))
    lattice, scale = everywhere(1024, 256), SeamScale(near=10.0, straight=9.0, pair=np.array([5.0]))
    table = table_of(
        [[256, 100, 262, 118]]
    )  # half its side would be 9 px: the edge of 10 px counts, its two parts do not
    out = tally_edges(table, polygon, lattice, scale, lattice.blocks()).sum(axis=1)
    assert dict(zip(COLUMNS, out, strict=True))["straight_on_seams"] == 1
