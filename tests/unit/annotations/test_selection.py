"""Which records are learnt, and as what."""

import json

import pytest

from helpers.annotation_files import WHOLE, check, feature, project, qupath, square, voc
from quadrat.annotations.truth import load_truth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Scale


@pytest.mark.parametrize(
    ("drawn", "want", "text"),
    [
        (
            [feature([3, 3], sort="Point"), feature(square(2, 2, 9))],
            "regions",
            "a point has no outline",
        ),
        (
            [feature(square(2, 2, 9), kind="detection")],
            "regions",
            "1 objects of class 'Tumor', and nothing else",
        ),
        ([feature(square(2, 2, 9))], "points", "1 regions of class 'Tumor', and nothing else"),
    ],
)
def test_nothing_of_the_pipelines_classes_is_dropped_in_silence(
    tmp_path, capsys, drawn, want, text
):
    given = project(tmp_path, *drawn, pipeline=f"annotations: {want}, point_diameter_um: 5")
    code, lines = check(capsys, *given)
    assert code == 1
    assert any("not asked for" in line and text in line for line in lines), lines


OTHER = feature(square(2, 2, 9), "Other")
NAMELESS = feature(square(22, 2, 9), "")


@pytest.mark.parametrize(
    ("drawn", "want", "group"),
    [
        ([NAMELESS], "objects", "1 regions without class"),
        ([OTHER, OTHER], "objects", "2 regions of class 'Other'"),
        ([OTHER, NAMELESS], "points", "1 regions of class 'Other', 1 regions without class"),
        ([feature(square(2, 2, 9), "", kind="cell")], "regions", "1 objects without class"),
        ([feature([3, 3], "Other", sort="Point")], "regions", "1 points of class 'Other'"),
        ([feature(square(2, 2, 9), kind="tile")], "objects", "1 tiles or TMA cores"),
    ],
)
def test_a_file_of_which_nothing_is_learnt_is_bad(tmp_path, capsys, drawn, want, group):
    pipeline = f"annotations: {want}, point_diameter_um: 5"
    code, lines = check(capsys, *project(tmp_path, *drawn, pipeline=pipeline))
    assert code == 1
    assert f"a.geojson: not asked for: it has {group}" in lines[0]
    ref = qupath(tmp_path, *drawn, annotated="all")
    with pytest.raises(AnnotationError, match=f"for a it has {group}"):
        load_truth(ref, DataSection(annotations=want, point_diameter_um=5), ["Tumor"])


def test_what_is_left_aside_is_told_where_something_else_is_learnt(tmp_path, capsys):
    cell = feature(square(50, 50, 9), kind="detection")
    given = project(tmp_path, cell, OTHER, NAMELESS, pipeline="annotations: objects")
    code, lines = check(capsys, *given)
    assert code == 0
    assert lines[0].endswith(
        "a.geojson: 1 regions of class 'Other', 1 regions without class left aside, since "
        "data.annotations asks for objects"
    )
    empty = feature(square(0, 0, 60), "ROI")  # an area without an object is learnt as background
    code, lines = check(
        capsys, *project(tmp_path, empty, OTHER, pipeline="annotations: objects", annotated="ROI")
    )
    assert code == 0
    assert "1 regions of class 'Other' left aside" in lines[0]


def test_a_file_of_ignored_features_alone_is_no_error_but_is_never_called_good(tmp_path, capsys):
    for name, ignore in (("Ignore*", "[]"), ("Other", "[Other]"), ("", '["*"]')):
        pipeline = f"annotations: objects, ignore: {ignore}"
        given = project(tmp_path, feature(square(2, 2, 9), name), pipeline=pipeline)
        code, lines = check(capsys, *given)
        assert code == 0
        assert "warning: " in lines[0]
        assert "nothing used: none of its 1 features is used: 1 of the ignored class" in lines[0]
        assert lines[-1] == "0 records of 1 slides: none is bad, 1 warnings (1 nothing used)"
    assert check(capsys, *project(tmp_path, pipeline="annotations: objects"))[1] == [
        "0 records of 1 slides: none is bad"  # a file without features says that there is nothing
    ]


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
