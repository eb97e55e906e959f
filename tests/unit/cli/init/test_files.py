"""The names and the shape that are written into a pipeline."""

import pytest

from quadrat.cli.init.files import names_for, shape_for


@pytest.mark.parametrize(
    ("out", "named"),
    [
        ("", ("detection", "packages/detection")),
        ("mine", ("mine", "packages/mine-detection")),
        ("detection", ("detection", "packages/detection-detection")),
        ("a/mine", ("mine", "packages/a/mine-detection")),
    ],
)
def test_every_folder_has_a_package_of_its_own(tmp_path, out, named):
    assert names_for("detection", tmp_path / out, tmp_path) == named


def test_folders_elsewhere_have_packages_of_their_own_without_their_path(tmp_path):
    one, other = (names_for("detection", tmp_path / k / "mine", tmp_path / "here") for k in "ab")
    assert one[0] == other[0] == "mine"
    assert one[1] != other[1]
    assert all(
        package.startswith("packages/mine-") and ".." not in package for _, package in (one, other)
    )


def test_a_classifier_of_flat_images_sees_each_as_a_whole():
    shape = shape_for("classification", flat=True, largest_px=224)
    assert (shape.core, shape.patch, shape.shard % shape.core) == (224, 224, 0)
    assert shape_for("classification", flat=False, largest_px=224).core == 128
