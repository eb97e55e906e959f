"""Truth for training: what is taken of a file, what bad records do, and what bounds
the learning.
"""

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_files import DATA, WHOLE, feature, qupath, square, voc
from quadrat.annotations.truth import load_truth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection, MaskColour
from quadrat.core.errors import AnnotationError, ConfigError
from quadrat.core.geometry import Box, Scale


def test_boxes_of_voc_are_exact_and_counted_from_one(tmp_path):
    ref = voc(tmp_path, ("RBC", 1, 1, 100, 80), ("WBC", 11, 21, 30, 50))
    truth = load_truth(ref, DataSection(), ["RBC", "WBC"])
    boxes, class_id = truth.objects.boxes(WHOLE, Scale(1.0, 1.0))
    assert boxes.tolist() == [[0, 0, 100, 80], [10, 20, 30, 50]]
    assert class_id.tolist() == [0, 1]
    assert (truth.regions, truth.bounds, truth.label, truth.skipped) == (None, None, -1, ())


def test_bad_records_are_refused_with_file_place_count_and_remedy(tmp_path):
    ref = voc(
        tmp_path,
        ("RBC", 5, 5, 5, 5),
        ("RBC", 11, 21, 30, 50),
        ("RBC", 200, 21, 230, 50),
        ("rbc", 1, 1, 9, 9),
    )
    with pytest.raises(AnnotationError) as caught:
        load_truth(ref, DataSection(), ["RBC"])
    message = str(caught.value)
    assert "a.xml: 3 bad records for a: object 1 (RBC): degenerate box" in message
    assert "object 3 (RBC): outside" in message
    assert "object 4: unknown class: class 'rbc' is not one of RBC; did you mean 'RBC'?" in message
    assert "data.bad_records: skip" in message


def test_skipped_records_are_left_out_and_listed(tmp_path):
    ref = voc(tmp_path, ("RBC", 5, 5, 5, 5), ("RBC", 11, 21, 30, 50), ("RBC", 200, 21, 230, 50))
    truth = load_truth(ref, DataSection(bad_records="skip"), ["RBC"])
    assert truth.objects.boxes(WHOLE, Scale(1.0, 1.0))[0].tolist() == [[10, 20, 30, 50]]
    assert [line.split(" (")[0] for line in truth.skipped] == ["object 1", "object 3"]


def test_points_come_from_qupath_as_well_and_an_outline_among_them_is_bad(tmp_path):
    data = DataSection(annotations="points", point_diameter_um=8)
    ref = qupath(
        tmp_path,
        feature([[1, 2], [3, 4]], sort="MultiPoint"),
        feature(square(0, 0, 50), "ROI"),
        annotated="ROI",
    )
    truth = load_truth(ref, data, ["Tumor"])
    assert truth.objects.points(WHOLE, Scale(1.0, 1.0))[0].tolist() == [[1, 2], [3, 4]]
    assert truth.bounds.regions(WHOLE, Scale(1.0, 1.0)).sum() == 2500
    with pytest.raises(AnnotationError, match=r"feature 1 .Tumor.: not asked for: an outline"):
        load_truth(qupath(tmp_path, feature(square(0, 0, 5), kind="detection")), data, ["Tumor"])
    with pytest.raises(ConfigError, match="point_diameter_um"):
        load_truth(ref, DataSection(annotations="points"), ["Tumor"])


def test_what_lies_outside_the_slide_is_found_where_its_size_is_known(tmp_path):
    ref = qupath(
        tmp_path,
        feature(square(0, 0, 9), kind="detection"),
        feature(square(190, 70, 20), kind="detection"),
    )
    assert load_truth(ref, DataSection(), ["Tumor"]).skipped == ()
    assert (
        load_truth(ref, DataSection(), ["Tumor"], size=(80, 200)).skipped == ()
    )  # partly outside is no more than a warning
    assert (
        load_truth(ref, DataSection(), ["Tumor"], size=(80, 189), tolerance=3).skipped == ()
    )  # a grid may lack its last px
    with pytest.raises(
        AnnotationError,
        match=r"feature 2 .Tumor.: outside: x 190 to 210, y 70 to 90; the slide has",
    ):
        load_truth(ref, DataSection(), ["Tumor"], size=(60, 80))


def test_a_file_of_a_picture_of_another_size_is_refused(tmp_path):
    ref = voc(tmp_path, ("RBC", 1, 1, 9, 9))
    assert load_truth(ref, DataSection(), ["RBC"], size=(80, 100)).skipped == ()
    with pytest.raises(
        AnnotationError, match="it is of a picture of 100 x 80 px, but the slide a has 400 x 320"
    ):
        load_truth(ref, DataSection(), ["RBC"], size=(320, 400))
    Image.fromarray(np.full((80, 100), 255, np.uint8)).save(tmp_path / "labels.png")
    ref = SlideRef("a", "a.png", annotation=str(tmp_path / "labels.png"), annotated="all")
    for what in ("labels", "mask"):
        load_truth(ref, DataSection(annotations=what), ["RBC"], size=(81, 99))
        with pytest.raises(AnnotationError, match="the slide a has 98 x 80"):
            load_truth(ref, DataSection(annotations=what), ["RBC"], size=(80, 98))
        with pytest.raises(AnnotationError, match="of 100 x 80 px, but the slide a has 200 x 160"):
            load_truth(ref, DataSection(annotations=what), ["RBC"], size=(160, 200))


def test_a_note_tells_that_everything_lies_outside_the_bounds(tmp_path):
    roi = feature(square(0, 0, 20), "ROI")
    inside, outside = (
        feature(square(5, 5, 5), kind="detection"),
        feature(square(50, 50, 5), kind="detection"),
    )
    assert (
        load_truth(
            qupath(tmp_path, roi, inside, outside, annotated="ROI"), DataSection(), ["Tumor"]
        ).notes
        == ()
    )
    (note,) = load_truth(
        qupath(tmp_path, roi, outside, annotated="ROI"), DataSection(), ["Tumor"]
    ).notes
    assert note == "all 1 records of the classes lie outside the regions 'ROI', so none is learnt"


def test_a_mask_below_its_threshold_is_refused_with_the_way_out(tmp_path):
    Image.fromarray(np.eye(80, 100, dtype=np.uint8)).save(tmp_path / "mask.png")
    ref = SlideRef("a", "a.png", annotation=str(tmp_path / "mask.png"), annotated="all")
    with pytest.raises(
        AnnotationError,
        match=r"the highest value of this mask is 1, .*data.mask_threshold .127.; set it to 0",
    ):
        load_truth(ref, DataSection(annotations="mask", mask_threshold=127), ["a"])
    for threshold in (None, 0):
        truth = load_truth(ref, DataSection(annotations="mask", mask_threshold=threshold), ["a"])
        assert truth.regions.regions(WHOLE, Scale(1.0, 1.0)).sum() == 80
        assert truth.notes == ()


def test_a_mask_of_colours_is_learnt_by_the_table_of_the_pipeline(tmp_path):
    colours = np.zeros((80, 100, 3), np.uint8)
    colours[:4, :5], colours[10:13, :5] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(colours).save(tmp_path / "mask.png")
    ref = SlideRef("a", "a.png", annotation=str(tmp_path / "mask.png"))
    table = (
        MaskColour(name="b", color=(255, 0, 0)),
        MaskColour(name="a", color=(0, 0, 255)),
    )
    numbers = load_truth(
        ref, DataSection(annotations="mask", mask_colours=table), ["a", "b"]
    ).regions.regions(WHOLE, Scale(1.0, 1.0))
    assert [(numbers == v).sum() for v in (1, 2)] == [15, 20]


@pytest.mark.parametrize("annotations", ["mask", "labels"])
def test_a_picture_of_nothing_is_noted(tmp_path, annotations):
    Image.fromarray(np.zeros((80, 100), np.uint8)).save(tmp_path / "mask.png")
    ref = SlideRef("a", "a.png", annotation=str(tmp_path / "mask.png"), annotated="all")
    truth = load_truth(ref, DataSection(annotations=annotations), ["a"])
    assert truth.notes == ("no pixel of its picture is of a class",)


def test_masks_give_the_first_class_or_the_class_numbers(tmp_path):
    values = np.zeros((80, 100), np.uint8)
    values[:4, :5], values[10:13, :5] = 1, 2
    Image.fromarray(values).save(tmp_path / "mask.png")
    ref = SlideRef("a", "a.png", annotation=str(tmp_path / "mask.png"))
    numbers = load_truth(
        ref, DataSection(annotations="mask", mask_threshold=None), ["a", "b"]
    ).regions.regions(WHOLE, Scale(1.0, 1.0))
    assert [(numbers == v).sum() for v in (1, 2)] == [20, 15]
    assert (
        load_truth(ref, DataSection(annotations="mask", mask_threshold=1), ["a"]).regions.regions(
            WHOLE, Scale(1.0, 1.0)
        )
    ).sum() == 15
    with pytest.raises(AnnotationError, match="a label image or mask holds no region of that name"):
        load_truth(
            SlideRef("a", "a.png", annotation=ref.annotation, annotated="ROI"),
            DataSection(annotations="mask"),
            ["a"],
        )


def test_the_label_of_a_slide_is_a_column_or_a_table(tmp_path):
    data = DataSection(annotations="none")
    assert load_truth(SlideRef("a", "a.png", label="b"), data, ["a", "b"]).label == 1
    (tmp_path / "labels.csv").write_text("Slide;Label\nx/a.png;b\nc;a\n")
    ref = SlideRef("a", "a.png", annotation=str(tmp_path / "labels.csv"))
    assert load_truth(ref, data, ["a", "b"]).label == 1
    assert (
        load_truth(SlideRef("c", "c.png", annotation=ref.annotation), data, ["a", "b"]).label == 0
    )
    with pytest.raises(ConfigError, match="label 'x' is none of the classes a, b"):
        load_truth(SlideRef("a", "a.png", label="x"), data, ["a", "b"])
    with pytest.raises(AnnotationError, match=r"none of its . pictures .* may be d\.png"):
        load_truth(SlideRef("d", "d.png", annotation=ref.annotation), data, ["a", "b"])


def test_a_slide_without_an_annotation_is_refused():
    with pytest.raises(ConfigError, match="names no annotation"):
        load_truth(SlideRef("a", "a.png"), DataSection(), ["a"])


@pytest.mark.skipif(
    not (DATA / "detection/bccd/Annotations").is_dir(), reason="BCCD is not in QUADRAT_DATA"
)
def test_two_boxes_of_bccd_are_bad_and_every_other_is_taken_exactly():
    classes, bad, boxes = ["RBC", "WBC", "Platelets"], [], 0
    for path in sorted((DATA / "detection/bccd/Annotations").glob("*.xml")):
        ref = SlideRef(path.stem, f"{path.stem}.jpg", annotation=str(path))
        truth = load_truth(ref, DataSection(bad_records="skip"), classes)
        bad += [f"{path.name}, {line}" for line in truth.skipped]
        found = truth.objects.boxes(Box(0, 0, 480, 640), Scale(1.0, 1.0))[0]
        assert (found == np.round(found)).all()
        boxes += len(found)
    assert [line.split(" (")[0] for line in bad] == [
        "BloodImage_00338.xml, object 13",
        "BloodImage_00343.xml, object 4",
    ]
    assert all("degenerate box" in line for line in bad)
    assert boxes == 4155 + 372 + 361 - 2
