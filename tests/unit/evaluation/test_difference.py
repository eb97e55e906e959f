"""What came, went and changed between two results."""

import numpy as np
import pytest

from helpers.planted_runs import FRAME, random_boxes, write_slide
from quadrat.core.errors import ConfigError
from quadrat.core.objects import ClassInfo
from quadrat.evaluation.difference import Same, Tally, difference
from quadrat.outputs.results import read_results

BOXES = [(10, 10, 20, 20), (40, 10, 50, 20), (70, 10, 80, 20), (10, 60, 20, 70)]


def found(tmp_path, before, after, **options):
    """The difference of two results, each (boxes, class_id, score)."""
    for name, one in (("one", before), ("two", after)):
        write_slide(tmp_path / name, "s", *one)
    one, two = (read_results(tmp_path / name)["s"] for name in ("one", "two"))
    return difference(one, two, same=Same(**options))


def test_every_kind_of_change_is_found_and_counted_in_its_class(tmp_path):
    before = BOXES, [0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]
    moved, new = (71, 10, 80, 20), (200, 200, 210, 210)
    after = [BOXES[3], new, BOXES[1], moved], [0, 1, 0, 0], [0.5, 0.5, 0.9, 0.5]
    diff = found(tmp_path, before, after)
    assert diff.went.tolist() == [0]
    assert diff.came.tolist() == [1]
    assert diff.changed.truth.tolist() == [2, 3]
    assert diff.changed.found.tolist() == [3, 0]
    assert diff.changed.value.tolist() == [pytest.approx(0.9), 1]
    assert diff.of_class.tolist() == [False, True]
    assert diff.tally("a") == Tally(
        before=3, after=3, same=1, went=1, shape_changed=1, score_changed=1
    )
    assert diff.tally("b") == Tally(before=1, after=1, came=1, class_changed=1)
    assert diff.tally(None) == Tally(
        before=4,
        after=4,
        same=1,
        came=1,
        went=1,
        class_changed=1,
        shape_changed=1,
        score_changed=1,
    )
    assert not diff.tally(None).equal


def test_the_order_of_rows_is_no_difference_and_doubled_objects_are_counted_twice(tmp_path):
    boxes = np.concatenate([random_boxes(300, 1), [BOXES[0], BOXES[0]]])
    kinds = np.arange(len(boxes)) % 2
    order = np.random.default_rng(0).permutation(len(boxes))
    diff = found(tmp_path, (boxes, kinds), (boxes[order], kinds[order]))
    assert diff.tally(None).equal
    assert np.array_equal(boxes[diff.same.truth], boxes[order][diff.same.found])
    fewer = found(tmp_path / "again", (boxes, kinds), (boxes[:-1], kinds[:-1]))
    assert (len(fewer.went), len(fewer.came), len(fewer.changed.truth)) == (1, 0, 0)


def test_an_object_of_its_own_class_is_taken_before_a_nearer_one_of_another(tmp_path):
    before = [BOXES[0]], [0]
    after = [(11, 10, 21, 20), (10, 10, 20, 19)], [1, 0]
    diff = found(tmp_path, before, after)
    assert (diff.changed.found.tolist(), diff.came.tolist()) == ([1], [0])
    assert not diff.of_class.any()


def test_what_is_one_object_is_a_matter_of_iou_or_of_distance(tmp_path):
    before, after = ([BOXES[0]],), ([(16, 10, 26, 20)],)  # 6 px apart: 3 um, IoU 0.25
    assert len(found(tmp_path / "a", before, after).went) == 1
    assert len(found(tmp_path / "b", before, after, iou=0.2).went) == 0
    assert found(tmp_path / "c", before, after, distance_um=3.0).changed.value.tolist() == [3.0]
    assert len(found(tmp_path / "d", before, after, distance_um=2.9).went) == 1


def test_results_without_objects_differ_by_all_of_the_other(tmp_path):
    diff = found(tmp_path, ([],), (BOXES,))
    assert diff.tally(None) == Tally(after=4, came=4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frame": FRAME.__class__(300, 500, 0.5, 2.0, 2.0)}, "they are two slides of one name"),
        ({"frame": FRAME.__class__(600, 800, 1.0, 1.0, 1.0, "px")}, "is in um and .* in px"),
    ],
)
def test_results_of_another_slide_or_unit_are_not_compared(tmp_path, change, told):
    write_slide(tmp_path / "one", "s", BOXES)
    write_slide(tmp_path / "two", "s", BOXES, **change)
    one, two = (read_results(tmp_path / name)["s"] for name in ("one", "two"))
    with pytest.raises(ConfigError, match=told):
        difference(one, two, same=Same())


def test_classes_are_compared_by_name_and_not_by_number(tmp_path):
    write_slide(tmp_path / "one", "s", BOXES, [0, 0, 1, 1])
    turned = (ClassInfo("b", (0, 0, 0)), ClassInfo("a", (9, 9, 9)))
    write_slide(tmp_path / "two", "s", BOXES, [1, 1, 0, 0], classes=turned)
    one, two = (read_results(tmp_path / name)["s"] for name in ("one", "two"))
    assert difference(one, two, same=Same()).tally(None).equal


@pytest.mark.parametrize("options", [{"iou": 0.0}, {"iou": 1.5}, {"distance_um": 0.0}])
def test_a_limit_out_of_range_is_refused(options):
    with pytest.raises(ConfigError, match="--"):
        Same(**options)
