import numpy as np
import pytest
import torch

from helpers import foreign_maps as fm
from quadrat.core.errors import PackageError
from quadrat.core.lattice import Lattice
from quadrat.core.objects import FLAG_CAPPED
from quadrat.models.decoders import DECODERS

LABELS = DECODERS["labels"]
LATTICE = Lattice(core=32, halo=8, stride=1, shard=32)


def image(*squares):
    """Labels (1, 48, 48) of squares (label, row, col, side)."""
    out = torch.zeros(1, 48, 48, dtype=torch.int32)
    for label, row, col, side in squares:
        out[0, row : row + side, col : col + side] = label
    return out


def found_in(outputs, **head):
    return LABELS.adapt(outputs, fm.head_of(LABELS, **head)).of_cores([(0, 0)], LATTICE)[0]


def test_an_object_belongs_to_the_core_that_holds_the_centre_of_its_bounding_box():
    found = found_in({"labels": image((9, 1, 20, 4), (2, 20, 20, 4), (70000, 7, 30, 4))})
    assert found.cell.tolist() == [[1, 24], [14, 14]]
    assert found.area.tolist() == [16, 16]
    assert found.score.tolist() == [65535, 65535]


def test_an_object_at_the_windows_border_is_flagged():
    found = found_in({"labels": image((2, 10, 2, 30), (1, 20, 34, 4))})
    assert found.area.tolist() == [16, 900]
    assert (found.flags & FLAG_CAPPED > 0).tolist() == [False, True]


def test_of_a_label_in_pieces_the_largest_piece_is_the_object():
    found = found_in({"labels": image((1, 20, 20, 4), (1, 26, 26, 2))})
    assert found.area.tolist() == [16]


def test_a_window_that_is_one_object_has_no_background():
    found = found_in({"labels": torch.full((1, 48, 48), 3.0)})
    assert found.area.tolist() == [48 * 48]


def test_cells_of_a_smaller_label_image_are_repeated():
    found = found_in({"labels": image((1, 10, 10, 3))[:, :24, :24]}, out_stride=2)
    assert found.area.tolist() == [36]


def test_the_class_of_most_pixels_is_the_objects():
    classes = image((2, 20, 20, 4))
    classes[0, 20, 20:23] = 1
    outputs = {"labels": image((5, 20, 20, 4)), "classes": classes}
    assert found_in(outputs, classes=2).class_id.tolist() == [1]


@pytest.mark.parametrize("value", [0, 3])
def test_an_object_without_a_class_is_named(value):
    outputs = {"labels": image((5, 20, 20, 4)), "classes": image((value, 20, 20, 4))}
    with pytest.raises(PackageError, match=r"object 5 has no class, or one beyond the card's 2"):
        found_in(outputs, classes=2)


@pytest.mark.parametrize(
    ("outputs", "classes", "message"),
    [
        ({}, 1, r"needs an output 'labels' .* and the network gives none"),
        ({"labels": image()}, 2, r"needs an output 'classes' for 2 class\(es\), .* gives labels"),
        ({"labels": image()[0]}, 1, r"'labels' is int32 \(48, 48\), and it must be \(batch, hei"),
        ({"labels": image()[:, None].expand(1, 2, 48, 48)}, 1, r"'labels' is int32 \(1, 2, 48, 48"),
        ({"labels": image(), "classes": image()[:, 1:]}, 2, r"outputs differ in shape"),
    ],
)
def test_images_that_are_none_are_refused(outputs, classes, message):
    with pytest.raises(PackageError, match=message):
        found_in(outputs, classes=classes)


def test_values_that_are_no_labels_are_refused():
    with pytest.raises(PackageError, match=r"'labels' holds values .* such as -1"):
        found_in({"labels": image((-1, 20, 20, 4))})
    with pytest.raises(PackageError, match=r"'labels' holds values .* such as 0.5"):
        found_in({"labels": image((1, 20, 20, 4)) / 2})
    with pytest.raises(PackageError, match=r"the label image covers \(47, 48\) px, and the window"):
        found_in({"labels": image()[:, 1:]})
    assert np.array_equal(found_in({"labels": image()}).area, [])
