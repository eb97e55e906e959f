"""Truth for training: what is taken of a file, what bad records do, and what bounds
the learning.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quadrat.annotations.truth import load_truth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection
from quadrat.core.errors import AnnotationError, ConfigError
from quadrat.core.geometry import Box, Scale

DATA = Path(os.environ.get("QUADRAT_DATA", ""))
VOC = """<annotation><filename>a.png</filename><size><width>100</width><height>80</height></size>
{}
</annotation>"""
WHOLE = Box(0, 0, 80, 100)


def voc(tmp_path, *boxes):
    text = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>\n"
        for name, x0, y0, x1, y1 in boxes
    )
    (tmp_path / "a.xml").write_text(VOC.format(text))
    return SlideRef("a", str(tmp_path / "a.png"), annotation=str(tmp_path / "a.xml"))


def feature(coordinates, name="Tumor", *, sort="Polygon", kind="annotation"):
    properties = {"objectType": kind} | ({"classification": {"name": name}} if name else {})
    return {
        "type": "Feature",
        "geometry": {"type": sort, "coordinates": coordinates},
        "properties": properties,
    }


def square(x, y, side):
    return [[[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]]


def qupath(tmp_path, *features, annotated=""):
    (tmp_path / "a.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    return SlideRef(
        "a", str(tmp_path / "a.svs"), annotation=str(tmp_path / "a.geojson"), annotated=annotated
    )


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


def test_classes_to_ignore_are_left_out_knowingly_and_told(tmp_path):
    ref = voc(tmp_path, ("RBC", 1, 1, 9, 9), ("Platelets", 11, 21, 30, 50))
    truth = load_truth(ref, DataSection(ignore=("Plate*",)), ["RBC"])
    assert len(truth.objects.boxes(WHOLE, Scale(1.0, 1.0))[0]) == 1
    assert truth.notes == ("1 of the ignored class 'Platelets' left out",)


def test_a_derived_class_counts_as_its_base_only_where_it_is_no_class_itself(tmp_path):
    cells = [
        feature(square(9 * i, 0, 5), name, kind="detection")
        for i, name in enumerate(["Tumor: Positive", "Tumor"])
    ]
    ref = qupath(tmp_path, *cells)
    truth = load_truth(ref, DataSection(), ["Tumor"])
    assert truth.objects.boxes(WHOLE, Scale(1.0, 1.0))[1].tolist() == [0, 0]
    assert truth.notes == ("1 of class 'Tumor: Positive' taken as 'Tumor'",)
    truth = load_truth(ref, DataSection(), ["Tumor", "Tumor: Positive"])
    assert truth.objects.boxes(WHOLE, Scale(1.0, 1.0))[1].tolist() == [1, 0]
    assert truth.notes == ()


def test_qupaths_ignored_classes_are_left_out_unless_the_pipeline_names_them(tmp_path):
    ref = qupath(
        tmp_path,
        feature(square(0, 0, 50)),
        feature(square(0, 0, 9), "Region*"),
        feature(square(0, 0, 9), "Ignore*"),
    )
    truth = load_truth(ref, DataSection(annotations="regions"), ["Tumor"])
    assert truth.regions.regions(WHOLE, Scale(1.0, 1.0)).sum() == 2500
    assert len(truth.notes) == 2
    named = load_truth(
        ref, DataSection(annotations="regions", ignore=("Ignore*",)), ["Tumor", "Region*"]
    )
    assert (named.regions.regions(WHOLE, Scale(1.0, 1.0)) == 2).sum() == 81


def test_a_region_class_bounds_what_is_learnt(tmp_path):
    drawn = [
        feature(square(0, 0, 40), "ROI"),
        feature(square(50, 0, 10), "ROI"),
        feature(square(5, 5, 9)),
        feature(square(9, 9, 9), kind="detection"),
    ]
    for what in ("regions", "objects"):
        truth = load_truth(
            qupath(tmp_path, *drawn, annotated="ROI"), DataSection(annotations=what), ["Tumor"]
        )
        assert truth.bounds.regions(WHOLE, Scale(1.0, 1.0)).sum() == 1700
        assert truth.bounds.classes == ("ROI",)
        learnt = truth.regions if what == "regions" else truth.objects
        assert learnt.regions(WHOLE, Scale(1.0, 1.0)).sum() == 81
    truth = load_truth(
        qupath(tmp_path, *drawn[2:], annotated="all"), DataSection(annotations="regions"), ["Tumor"]
    )
    assert truth.bounds is None


def test_a_bounding_class_that_the_file_lacks_is_an_error(tmp_path):
    ref = qupath(tmp_path, feature(square(5, 5, 9)), annotated="ROI")
    with pytest.raises(
        AnnotationError,
        match=r"'ROI' bounds what is annotated, but the file has no region.*are of: Tumor",
    ):
        load_truth(ref, DataSection(annotations="regions"), ["Tumor"])


def test_objects_drawn_as_annotations_are_not_taken_for_background(tmp_path):
    ref = qupath(tmp_path, feature(square(5, 5, 9)))
    with pytest.raises(AnnotationError, match=r"1 regions .*data\.objects_as: annotations"):
        load_truth(ref, DataSection(), ["Tumor"])
    truth = load_truth(ref, DataSection(objects_as="annotations"), ["Tumor"])
    assert truth.objects.boxes(WHOLE, Scale(1.0, 1.0))[0].tolist() == [[5, 5, 14, 14]]


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
        load_truth(ref, DataSection(annotations="mask"), ["a"])
    assert load_truth(
        ref, DataSection(annotations="mask", mask_threshold=0), ["a"]
    ).regions.present() == {0}


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


def test_crowds_are_no_objects_but_areas(tmp_path):
    whole = {
        "images": [{"id": 1, "file_name": "a.png", "height": 80, "width": 100}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {
                "id": i,
                "image_id": 1,
                "category_id": 1,
                "segmentation": [[i, 0, i + 1, 0, i + 1, 1, i, 1]],
                "iscrowd": i % 2,
            }
            for i in (1, 4)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(whole))
    ref = SlideRef("a", "a.png", annotation=str(tmp_path / "a.json"))
    truth = load_truth(ref, DataSection(), ["cell"])
    assert truth.objects.boxes(WHOLE, Scale(1.0, 1.0))[0].tolist() == [[4, 0, 5, 1]]
    assert truth.notes == ("1 crowds (iscrowd) left out, since they are no single objects",)
    assert (
        load_truth(ref, DataSection(annotations="regions"), ["cell"])
        .regions.regions(WHOLE, Scale(1.0, 1.0))
        .sum()
        == 2
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
