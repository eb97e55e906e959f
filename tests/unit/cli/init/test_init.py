"""`quadrat init`: files are matched by name, what is not sure is said, and what is written can be
used as it is."""

import gzip
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.flat_images import HEIGHT, WIDTH, picture, slides
from quadrat.annotations.formats.table import Entry, to_table, write_parquet
from quadrat.annotations.record import Sheet, box_record
from quadrat.annotations.truth import load_truth
from quadrat.cli.init import finding, start
from quadrat.cli.init.files import manifest_text
from quadrat.cli.init.proposal import TASKS
from quadrat.cli.main import main
from quadrat.config.manifest import read_manifest
from quadrat.config.pipeline import load_pipeline
from quadrat.config.splits import case_of
from quadrat.core.errors import ConfigError
from quadrat.models.spec import spec_of
from quadrat.tasks import get_task


def square(x, y, name, kind="detection", side=8):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {"objectType": kind, "classification": {"name": name}}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def geojson(path, features):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def grey(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def coco(path, names, box=(5, 5, 10, 10)):
    """A file with one box in each of the pictures."""
    images = [
        {"id": i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in enumerate(names)
    ]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": list(box), "iscrowd": 0}
        for i in range(len(names))
    ]
    path.write_text(
        json.dumps(
            {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "RBC"}]}
        )
    )


def begun(tmp_path, task, **more):
    """Run init; the report, the pipeline, the manifest, all of which must load, with its truth."""
    options = {
        "slides": tmp_path / "slides",
        "annotations": tmp_path / "drawn",
        "out": tmp_path / "out",
    } | more
    report = start(task, **options)
    pipeline, refs = load_pipeline(str(report.pipeline)), read_manifest(report.manifest)
    spec_of(pipeline, get_task(task))
    for ref in refs:
        load_truth(ref, pipeline.data, [c.name for c in pipeline.classes], size=(HEIGHT, WIDTH))
    return "\n".join(report.lines), pipeline, refs


def test_instances_of_qupath_with_an_roi(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png", "c.png", "lonely.png"])
    for name in "abc":
        features = [
            square(2, 2, "ROI", "annotation", 40),
            square(5, 5, "Tumor"),
            square(20, 5, "Immune cells: CD3"),
            square(20, 20, "Ignore*"),
        ]
        geojson(tmp_path / "drawn" / f"{name}_annotations.geojson", features)
    geojson(tmp_path / "drawn" / "nobody.geojson", [])
    text, pipeline, refs = begun(tmp_path, "instance")
    assert [c.name for c in pipeline.classes] == ["Immune cells: CD3", "Tumor"]
    assert {ref.annotated for ref in refs} == {"ROI"}
    assert {ref.split for ref in refs} == {"train", "val", "test"}
    assert pipeline.data.annotations == "objects"
    assert "3 of 4 slides with annotations" in text
    assert "slides without annotation, left out: lonely.png" in text
    assert "nobody.geojson" in text
    assert "CHECK case: 3 of 3 slides" in text
    assert "--case REGEX" in text
    assert "mpp: 3 of 3 slides state none" in text
    assert text.endswith(f"quadrat train {tmp_path / 'out' / 'pipeline.yaml'}")


def test_objects_drawn_as_annotations_are_taken_as_such_and_an_empty_annotated_is_told(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    for name in "ab":
        geojson(tmp_path / "drawn" / f"{name}.geojson", [square(5, 5, "glomerulus", "annotation")])
    text, pipeline, refs = begun(tmp_path, "instance_masks")
    assert pipeline.data.objects_as == "annotations"
    assert {ref.annotated for ref in refs} == {""}
    assert "annotated: empty for 2 of 2 files" in text
    assert "no slide is for testing" in text


def test_annotations_that_are_packed_with_gzip_are_found_and_read(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    for name in ("a", "b"):
        text = json.dumps([square(9, 9, "Tumor"), square(29, 9, "Tumor")])
        (tmp_path / "drawn").mkdir(exist_ok=True)
        (tmp_path / f"drawn/{name}.geojson.gz").write_bytes(gzip.compress(text.encode()))
    _, pipeline, refs = begun(tmp_path, "instance")
    assert [Path(ref.annotation).name for ref in refs] == ["a.geojson.gz", "b.geojson.gz"]
    assert [c.name for c in pipeline.classes] == ["Tumor"]


def test_regions_for_segmentation(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png", "c.png"])
    for name in "abc":
        geojson(
            tmp_path / "drawn" / f"{name}.geojson",
            [square(5, 5, "Tumor", "annotation"), square(20, 5, "Größe\"'#", "annotation")],
        )
    _, pipeline, _ = begun(tmp_path, "semantic")
    assert [c.name for c in pipeline.classes] == ["Größe\"'#", "Tumor"]
    assert pipeline.data.annotations == "regions"


def test_masks_of_class_numbers_and_of_one_foreground(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[5:20, 5:20], values[30:40, 30:40] = 1, 3
    for name in "ab":
        grey(tmp_path / "drawn" / f"{name}_mask.png", values)
    _, pipeline, refs = begun(tmp_path, "semantic")
    assert [c.name for c in pipeline.classes] == ["class_1", "class_2", "class_3"]
    assert pipeline.data.mask_threshold is None
    assert {ref.annotated for ref in refs} == {"all"}
    for name in "ab":
        grey(tmp_path / "drawn" / f"{name}_mask.png", (values > 0).astype(np.uint8) * 255)
    _, pipeline, _ = begun(tmp_path, "semantic", overwrite=True)
    assert (pipeline.data.annotations, pipeline.data.mask_threshold) == ("mask", 127)


def test_masks_of_colours_get_a_table_of_them(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[5:20, 5:20], values[30:40, 30:40] = 1, 2
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)[values]
    for name in "ab":
        grey(tmp_path / "drawn" / f"{name}_mask.png", colours)
    text, pipeline, _ = begun(tmp_path, "semantic")
    assert [(one.name, one.color) for one in pipeline.data.mask_colours] == [
        ("class_1", (255, 0, 0)),
        ("class_2", (0, 0, 255)),
    ]
    assert "CHECK classes, mask_colours: name the classes in both" in text
    with pytest.raises(ConfigError, match="a picture of colours, which shows areas"):
        begun(tmp_path, "instance", overwrite=True)
    noise = np.random.default_rng(0).integers(0, 255, colours.shape).astype(np.uint8)
    grey(tmp_path / "drawn" / "a_mask.png", noise)
    text, _, _ = begun(tmp_path, "semantic", overwrite=True)
    assert "colours, which is no mask" in text


@pytest.mark.parametrize("palette", [False, True])
def test_numbers_of_classes_beside_255_are_not_taken_for_black_and_white(tmp_path, palette):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[5:20, 5:20], values[30:40, 30:40], values[0] = 1, 2, 255
    colour = [(k, k, k) for k in range(256)]
    if palette:
        colour[1], colour[2], colour[255] = (128, 0, 0), (0, 128, 0), (224, 224, 192)
    for name in "ab":
        image = Image.fromarray(values, "P" if palette else None)
        if palette:
            image.putpalette([channel for one in colour for channel in one])
        (tmp_path / "drawn").mkdir(exist_ok=True)
        image.save(tmp_path / "drawn" / f"{name}_mask.png")
    _, pipeline, _ = begun(tmp_path, "semantic")
    assert {one.color for one in pipeline.data.mask_colours} == {
        colour[1], colour[2], colour[255]
    }  # fmt: skip


def test_label_images_in_a_folder_beside_the_slides(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint16)
    values[5:20, 5:20], values[30:40, 30:40] = 1, 700
    for seed, group in enumerate("xy"):
        picture(tmp_path / "set" / group / "images" / "1.png", seed)
        grey(tmp_path / "set" / group / "labels" / "1.png", values)
    text, pipeline, refs = begun(
        tmp_path, "instance", slides=tmp_path / "set", annotations=tmp_path / "set"
    )
    assert (pipeline.data.annotations, [c.name for c in pipeline.classes]) == ("labels", ["object"])
    assert sorted(ref.name for ref in refs) == ["x-images-1", "y-images-1"]
    assert all(f"/{ref.name[0]}/labels/" in ref.annotation for ref in refs)
    assert "give the objects their name" in text


def test_points_with_y_first_and_numbered_classes(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    for name in "ab":
        (tmp_path / "drawn").mkdir(exist_ok=True)
        (tmp_path / "drawn" / f"{name}_gt_class_coords.txt").write_text("10 60 1\n20 55 3\n")
    text, pipeline, _ = begun(tmp_path, "detection")
    data = pipeline.data
    assert (data.annotations, data.point_layout, data.point_first_class) == (
        "points",
        "y x class",
        1,
    )
    assert [c.name for c in pipeline.classes] == ["class_1", "class_2", "class_3"]
    assert data.point_diameter_um > 0
    assert "name them in that order" in text


def test_where_the_order_of_columns_cannot_be_told_it_is_said(tmp_path):
    slides(tmp_path / "slides", ["a.png"])
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "a.txt").write_text("10 20 1\n")
    text, _, _ = begun(tmp_path, "detection")
    assert "whether x or y stands first cannot be told" in text
    (tmp_path / "drawn" / "a.txt").write_text("y,x,class\n10,20,1\n")
    text, _, _ = begun(tmp_path, "detection", overwrite=True)
    assert "stands first" not in text


def test_one_coco_file_serves_all_slides_and_its_other_pictures_are_named(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png", "c.png"])
    coco(tmp_path / "all.json", ["a.png", "b.png", "gone.png"])
    text, pipeline, refs = begun(tmp_path, "detection", annotations=tmp_path / "all.json")
    assert {ref.annotation for ref in refs} == {str(tmp_path / "out" / "../all.json")}
    assert ([c.name for c in pipeline.classes], {ref.annotated for ref in refs}) == (
        ["RBC"],
        {"all"},
    )
    assert "gone.png of all.json" in text
    assert "left out: c.png" in text


def test_labels_of_folders_and_of_a_table(tmp_path):
    for seed in range(6):
        picture(tmp_path / "slides" / ("normal", "tumour ")[seed % 2] / f"{seed}.png", seed)
    _, pipeline, refs = begun(tmp_path, "classification", annotations=None)
    assert [c.name for c in pipeline.classes] == ["normal", "tumour"]
    assert {(ref.name, ref.label) for ref in refs} == {
        (str(i), ("normal", "tumour")[i % 2]) for i in range(6)
    }
    (tmp_path / "labels.csv").write_text("slide,label\n0.png,good\n1.png,bad\n99.png,bad\n")
    text, pipeline, refs = begun(
        tmp_path, "classification", annotations=tmp_path / "labels.csv", overwrite=True
    )
    assert {(ref.name, ref.label) for ref in refs} == {("0", "good"), ("1", "bad")}
    assert "99.png of labels.csv" in text
    assert "slides without label, left out: normal/2.png" in text


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png", "c.png"])
    (tmp_path / "slides" / "broken.svs").write_bytes(b"no slide")
    for name in "ab":
        geojson(tmp_path / "drawn" / f"{name}.geojson", [square(5, 5, "Tumor")])
    (tmp_path / "drawn" / "c.geojson").write_text('{"features": [')
    text, _, refs = begun(tmp_path, "instance")
    assert [ref.name for ref in refs] == ["a", "b"]
    assert "broken.svs: neither a slide format" in text
    assert "c.geojson" in text


def test_a_label_image_of_another_size_than_its_slide_is_left_out(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    grey(tmp_path / "drawn" / "a.png", np.ones((HEIGHT, WIDTH), np.uint8))
    grey(tmp_path / "drawn" / "b.png", np.ones((HEIGHT, 2 * WIDTH), np.uint8))
    text, _, refs = begun(tmp_path, "instance")
    assert [ref.name for ref in refs] == ["a"]
    assert "b.png: 128 x 48 px, but the slide b.png has 64 x 48" in text


def test_one_file_under_two_names_is_refused_before_anything_is_written(tmp_path):
    picture(tmp_path / "slides" / "a.png", 1)
    picture(tmp_path / "slides" / "b.png", 1)
    for name in "ab":
        geojson(tmp_path / "drawn" / f"{name}.geojson", [square(5, 5, "Tumor")])
    with pytest.raises(ConfigError, match="hold the same bytes"):
        begun(tmp_path, "instance")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unless_asked(tmp_path):
    slides(tmp_path / "slides", ["a.png"])
    geojson(tmp_path / "drawn" / "a.geojson", [square(5, 5, "Tumor")])
    begun(tmp_path, "instance")
    (tmp_path / "out" / "pipeline.yaml").write_text("mine\n")
    with pytest.raises(ConfigError, match="exists; say --overwrite"):
        begun(tmp_path, "instance")
    assert (tmp_path / "out" / "pipeline.yaml").read_text() == "mine\n"
    begun(tmp_path, "instance", overwrite=True)


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("instances", {}, r"no task 'instances'.*did you mean 'instance'\?"),
        ("semantic", {"annotations": None}, "say --annotations"),
        ("semantic", {"slides": "nowhere"}, "nowhere is not there"),
        ("semantic", {"annotations": "nowhere"}, "is not there"),
        ("semantic", {}, "no slide that can be read"),
    ],
)
def test_what_init_cannot_begin_with_is_refused(tmp_path, task, options, words):
    (tmp_path / "slides").mkdir()
    (tmp_path / "drawn").mkdir()
    options = {k: tmp_path / v if v else v for k, v in options.items()}
    with pytest.raises(ConfigError, match=words):
        begun(tmp_path, task, **options)


@pytest.mark.parametrize("task", TASKS)
def test_slides_without_anything_to_learn_are_refused(tmp_path, task):
    slides(tmp_path / "slides", ["a.png"])
    (tmp_path / "drawn").mkdir()
    with pytest.raises(ConfigError, match=f"nothing to learn {task} from"):
        begun(tmp_path, task)


def test_slides_of_one_participant_are_on_one_side(tmp_path):
    names = [f"TCGA-A7-A0D{i}-01Z-00-DX{k}.png" for i in range(4) for k in (1, 2)]
    slides(tmp_path / "slides", names)
    for name in names:
        geojson(
            tmp_path / "drawn" / f"{name.removesuffix('.png')}.geojson", [square(5, 5, "Tumor")]
        )
    _, _, refs = begun(tmp_path, "detection")
    sides = {(case_of(ref), ref.split) for ref in refs}
    assert len(sides) == 4
    assert {split for _, split in sides} == {"train", "val", "test"}


def test_the_same_folders_give_the_same_files(tmp_path):
    slides(tmp_path / "slides", [f"{i}.png" for i in range(6)])
    for i in range(6):
        geojson(tmp_path / "drawn" / f"{i}.geojson", [square(5, 5, "Tumor")])
    texts = []
    for _ in range(2):
        begun(tmp_path, "instance", overwrite=True)
        texts.append(
            [(tmp_path / "out" / n).read_bytes() for n in ("manifest.csv", "pipeline.yaml")]
        )
    assert texts[0] == texts[1]
    assert str(tmp_path).encode() not in b"".join(texts[0])


def test_the_manifest_leaves_out_columns_that_are_empty(tmp_path):
    slides(tmp_path / "slides", ["a.png"])
    geojson(tmp_path / "drawn" / "a.geojson", [square(5, 5, "Tumor")])
    _, _, refs = begun(tmp_path, "instance")
    assert (
        manifest_text(refs, tmp_path / "out").splitlines()[0]
        == "slide,annotation,mpp,case,split,annotated"
    )


def test_the_command_line_prints_what_it_did(tmp_path, capsys):
    slides(tmp_path / "slides", ["a.png"])
    geojson(tmp_path / "drawn" / "a.geojson", [square(5, 5, "Tumor")])
    options = [
        "--slides",
        str(tmp_path / "slides"),
        "--annotations",
        str(tmp_path / "drawn"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["init", "instance", *options]) == 0
    assert "1 of 1 slides with annotations; classes: Tumor" in capsys.readouterr().out
    assert main(["init", "instance", *options]) == 2
    assert "exists; say --overwrite" in capsys.readouterr().err


def test_files_that_name_folders_serve_the_slides_in_them(tmp_path):
    slides(tmp_path / "slides", ["train/1.png", "val/1.png", "more/1.png"])
    coco(tmp_path / "all.json", ["train/1.png", "val/1.png"])
    text, _, refs = begun(tmp_path, "detection", annotations=tmp_path / "all.json")
    assert [ref.name for ref in refs] == ["train-1", "val-1"]
    assert "left out: more/1.png" in text
    (tmp_path / "labels.csv").write_text("slide,label\ntrain/1.png,good\nval/1.png,bad\n")
    _, _, refs = begun(
        tmp_path, "classification", annotations=tmp_path / "labels.csv", overwrite=True
    )
    assert [(ref.name, ref.label) for ref in refs] == [("train-1", "good"), ("val-1", "bad")]


def test_what_could_not_be_used_is_told_where_nothing_is_left(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png", "c.png"])
    geojson(tmp_path / "drawn" / "A1.geojson", [square(5, 5, "Tumor")])
    for name in ("b.geojson", "b.json"):
        geojson(tmp_path / "drawn" / name, [square(5, 5, "Tumor")])
    (tmp_path / "drawn" / "c.geojson").write_text('{"features": [')
    with pytest.raises(ConfigError) as error:
        begun(tmp_path, "instance")
    for words in (
        "no slide has an annotation",
        "a.png",
        "A1.geojson",
        "b.png: b.geojson, b.json",
        "c.geojson: not valid JSON",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        ["x.png", "x.tif"],
        ["x/a.png", "y/a.png", "x-a.png"],
        ["p:1/a.png", "p:2/a.png"],
        [' "a", b.png'],
        ["line\nbreak.png"],
    ],
)
def test_the_manifest_can_be_read_whatever_the_slides_are_called(tmp_path, names):
    slides(tmp_path / "slides", names)
    for name in names:
        geojson(tmp_path / "drawn" / f"{name}.geojson", [square(5, 5, "Tumor")])
    _, _, refs = begun(tmp_path, "detection")
    assert {Path(ref.path).resolve() for ref in refs} == {
        tmp_path / "slides" / name for name in names
    }
    assert all(ref.annotation.endswith(f"{ref.path.split('slides/')[1]}.geojson") for ref in refs)
    assert len({ref.case for ref in refs}) == len(names)


def test_a_manifest_that_would_not_read_as_it_was_meant_is_taken_away(tmp_path):
    slides(tmp_path, [" a.png"])
    geojson(tmp_path / "drawn" / " a.geojson", [square(5, 5, "Tumor")])
    with pytest.raises(ConfigError, match=r" a\.png cannot be written into a manifest"):
        begun(tmp_path, "detection", slides=tmp_path, out=tmp_path)
    assert not (tmp_path / "manifest.csv").exists()


def test_the_case_is_found_in_the_path_if_asked_for(tmp_path, capsys):
    slides(tmp_path / "slides", [f"{k}/P{i}_{k}.png" for i in range(4) for k in "ab"])
    for i in range(4):
        for k in "ab":
            geojson(tmp_path / "drawn" / f"P{i}_{k}.geojson", [square(5, 5, "Tumor")])
    text, _, refs = begun(tmp_path, "detection", case="([^/_]+)_[^/]*$")
    assert len({(ref.case, ref.split) for ref in refs}) == 4
    assert "split by case (4 cases)" in text
    assert "CHECK case" not in text
    options = [
        "--slides",
        str(tmp_path / "slides"),
        "--annotations",
        str(tmp_path / "drawn"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["init", "detection", *options, "--overwrite", "--case", "P[0-2]"]) == 2
    assert "finds no case in the slide 'a/P3_a.png'" in capsys.readouterr().err


def test_names_agree_in_either_form_of_unicode(tmp_path):
    slides(tmp_path / "slides", [unicodedata.normalize("NFD", "Jörg.png")])
    geojson(
        tmp_path / "drawn" / unicodedata.normalize("NFC", "Jörg.geojson"), [square(5, 5, "Tumor")]
    )
    assert len(begun(tmp_path, "detection")[2]) == 1


def test_the_table_of_annotations_is_found_in_a_folder(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    (tmp_path / "drawn").mkdir()
    entries = [
        Entry(name, Sheet(name, "VOC", (box_record("object 1", "RBC", (5, 5, 15, 15)),)))
        for name in "ab"
    ]
    write_parquet(tmp_path / "drawn" / "all.parquet", to_table(entries))
    _, pipeline, refs = begun(tmp_path, "detection")
    assert ([ref.name for ref in refs], [c.name for c in pipeline.classes]) == (["a", "b"], ["RBC"])


def test_one_slide_is_enough(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    geojson(tmp_path / "drawn" / "a.geojson", [square(5, 5, "Tumor")])
    assert [
        ref.name for ref in begun(tmp_path, "detection", slides=tmp_path / "slides" / "a.png")[2]
    ] == ["a"]


def test_boxes_are_told_to_be_no_outlines(tmp_path):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    coco(tmp_path / "all.json", ["a.png", "b.png"])
    assert (
        "2 of 2 outlines are boxes"
        in begun(tmp_path, "instance", annotations=tmp_path / "all.json")[0]
    )
    text = begun(tmp_path, "detection", annotations=tmp_path / "all.json", overwrite=True)[0]
    assert "are boxes" not in text


def test_the_pipeline_is_called_like_its_folder(tmp_path, monkeypatch):
    slides(tmp_path / "slides", ["a.png"])
    geojson(tmp_path / "drawn" / "a.geojson", [square(5, 5, "Tumor")])
    monkeypatch.chdir(tmp_path)
    made = [begun(tmp_path, "instance", out=Path(out))[1] for out in ("mine", "more/mine", ".")]
    assert [one.name for one in made] == ["mine", "mine", "instance"]
    assert [one.model.package for one in made] == [
        "packages/mine-instance",
        "packages/more/mine-instance",
        "packages/instance",
    ]


def test_names_that_are_not_utf8_are_left_out_and_told(tmp_path, capsys):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    for name in "ab":
        geojson(tmp_path / "drawn" / f"{name}.geojson", [square(5, 5, "Tumor")])
    for name in ("slides/b.png", "drawn/b.geojson"):
        path = tmp_path / name
        try:
            os.rename(path, os.fsencode(path.parent) + b"/J\xf6rg" + path.suffix.encode())
        except OSError:
            pytest.skip("the file system takes no such name")
    options = [
        "--slides",
        str(tmp_path / "slides"),
        "--annotations",
        str(tmp_path / "drawn"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["init", "detection", *options]) == 0
    told = capsys.readouterr().out
    assert told.count("its name is not UTF-8") == 2
    assert r"J\xf6rg.png" in told
    assert [ref.name for ref in read_manifest(tmp_path / "out" / "manifest.csv")] == ["a"]
    options[-1] = os.fsdecode(b"J\xf6rg")
    assert main(["init", "detection", *options]) == 2


def test_an_annotation_file_over_which_a_reader_stumbles_is_told(tmp_path, monkeypatch):
    slides(tmp_path / "slides", ["a.png", "b.png"])
    for name in "ab":
        geojson(tmp_path / "drawn" / f"{name}.geojson", [square(5, 5, "Tumor")])
    read = finding.read_sheet

    def stumble(path, *, choice):
        if path.stem == "b":
            raise TypeError("unhashable type: 'list'")
        return read(path, choice=choice)

    monkeypatch.setattr(finding, "read_sheet", stumble)
    text, _, refs = begun(tmp_path, "detection")
    assert [ref.name for ref in refs] == ["a"]
    assert "b.geojson: its content makes no sense (TypeError: unhashable" in text
