"""The scale of pictures that state none: stated, or from what is annotated."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers.flat_images import HEIGHT, WIDTH, slides
from quadrat.cli.init import start
from quadrat.cli.init.finding import AnnotationFound
from quadrat.cli.init.scale import Measure, measure_of, mpp_of_objects
from quadrat.cli.main import main
from quadrat.config.manifest import read_manifest
from quadrat.config.pipeline import load_pipeline
from quadrat.core.errors import ConfigError
from quadrat.models.spec import need_stated
from quadrat.tasks import get_task


@pytest.mark.parametrize(
    ("text", "name", "um"),
    [
        ("objects=7um", "objects", 7),
        ("objects=7", "objects", 7),
        ("RBC = 7.5 µm", "RBC", 7.5),
        ("RBC=.5μm", "RBC", 0.5),
        ("a=b=7um", "a=b", 7),
    ],
)
def test_a_measure_is_a_name_and_a_diameter(text, name, um):
    assert measure_of(text) == Measure(name, um)


@pytest.mark.parametrize("text", ["", "7um", "objects", "objects=", "objects=7mm", "objects=0um"])
def test_what_is_no_measure_is_refused(text):
    with pytest.raises(ConfigError, match="want a name and a diameter, such as objects=7um"):
        measure_of(text)


def drawn(**sizes):
    """What is drawn on one slide: diameters by "kind_class"."""
    by_sort = {(*key.split("_", 1), "")[:2]: own for key, own in sizes.items()}
    return AnnotationFound(
        "COCO",
        sizes={
            (kind, "outline", name): np.array(own, float) for (kind, name), own in by_sort.items()
        },
    )


def test_the_scale_is_from_the_median_of_all_objects_or_of_one_class():
    found = {
        Path("a"): drawn(object_RBC=[60, 70], object_WBC=[150], region_Field=[900]),
        Path("b"): drawn(object_RBC=[80]),
        Path("c"): drawn(),
    }
    mpp, note = mpp_of_objects(Measure("RBC", 7), found)
    assert mpp == 0.1
    assert "0.1 um/px, from the median of 3 objects of 'RBC' on 2 slides, 70 px," in note
    assert mpp_of_objects(Measure("objects", 7.5), found)[0] == 0.1
    assert mpp_of_objects(Measure("Field", 90), found)[0] == 0.1
    regions = {Path("a"): drawn(region_Nest=[30, 50])}
    assert mpp_of_objects(Measure("objects", 8), regions)[0] == 0.2
    with pytest.raises(ConfigError, match=r"--mpp-from rbc: .*\(classes with outlines: Field, RBC"):
        mpp_of_objects(Measure("rbc", 7), found)
    with pytest.raises(ConfigError, match="classes with outlines: none"):
        mpp_of_objects(Measure("objects", 7), {Path("c"): drawn()})


def test_slides_of_several_magnifications_are_said():
    even = {Path(str(k)): drawn(object_c=[10 + k] * 5) for k in range(5)}
    assert "magnification" not in mpp_of_objects(Measure("c", 7), even)[1]
    uneven = even | {Path("x"): drawn(object_c=[40] * 5)}
    assert (
        "slides are 10 to 40 px: if they are of different magnification"
        in (mpp_of_objects(Measure("c", 7), uneven)[1])
    )


def boxes(tmp_path, *, sides=(10, 10)):
    """Two slides without a scale, with three boxes each."""
    slides(tmp_path / "slides", ["a.png", "b.png"])
    images = [
        {"id": i, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH}
        for i, n in enumerate("ab")
    ]
    found = [
        {"id": 3 * i + k, "image_id": i, "category_id": 1, "bbox": [15 * k, 5, *sides]}
        for i in range(2)
        for k in range(3)
    ]
    content = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "RBC"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return ["--slides", str(tmp_path / "slides"), "--annotations", str(tmp_path / "coco.json")]


def column(tmp_path):
    return [ref.mpp for ref in read_manifest(tmp_path / "out/manifest.csv")]


@pytest.mark.parametrize(
    ("options", "mpp", "said"),
    [
        (["--mpp", "0.25"], 0.25, "mpp: --mpp 0.25 is that of 2 slides; 0 state their own"),
        (["--mpp-from", "objects=7um"], 0.7, "from the median of 6 objects on 2 slides, 10 px"),
        (["--mpp-from", "RBC=7"], 0.7, "from the median of 6 objects of 'RBC' on 2 slides"),
        ([], None, "2 of 2 slides state none that can be used; fill the manifest's column mpp"),
    ],
)
def test_init_fills_the_column_mpp(tmp_path, capsys, options, mpp, said):
    given = boxes(tmp_path)
    assert main(["init", "detection", *given, "--out", str(tmp_path / "out"), *options]) == 0
    assert said in capsys.readouterr().out
    assert column(tmp_path) == [mpp, mpp]
    pipeline = str(tmp_path / "out/pipeline.yaml")
    manifest = str(tmp_path / "out/manifest.csv")
    checked = main(["annotations", "check", manifest, "--pipeline", pipeline])
    assert ("no mpp" in capsys.readouterr().out) == (mpp is None) == bool(checked)


def test_a_box_is_as_wide_as_what_it_holds_and_a_label_image_as_its_circle(tmp_path):
    given = boxes(tmp_path, sides=(9, 16))  # the ellipse in it has the area of a circle of 12 px
    assert main(["init", "detection", *given, "--out", str(tmp_path / "out"), "--mpp-from",
                 "objects=6um"]) == 0  # fmt: skip
    assert column(tmp_path) == [0.5, 0.5]
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    disc = (rows - 20) ** 2 + (cols - 20) ** 2 <= 10**2
    (tmp_path / "labels").mkdir()
    for name in "ab":
        Image.fromarray(disc.astype(np.uint8) * 7).save(tmp_path / f"labels/{name}.png")
    report = start(
        "instance", slides=tmp_path / "slides", annotations=tmp_path / "labels",
        out=tmp_path / "out", mpp_from="objects=10um", overwrite=True,
    )  # fmt: skip
    assert any("2 objects on 2 slides" in line for line in report.lines)
    assert column(tmp_path)[0] == pytest.approx(0.5, rel=0.01)


def test_a_mask_of_areas_shows_no_objects(tmp_path):
    slides(tmp_path / "slides", ["a.png"])
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)).save(tmp_path / "masks/a.png")
    with pytest.raises(
        ConfigError, match="masks of areas have no objects with a size, so say --mpp"
    ):
        start(
            "semantic", slides=tmp_path / "slides", annotations=tmp_path / "masks",
            out=tmp_path / "out", mpp_from="objects=7um",
        )  # fmt: skip


def test_slides_that_state_their_scale_keep_it(tmp_path):
    boxes(tmp_path)
    picture = np.asarray(Image.open(tmp_path / "slides/b.png"))
    tifffile.imwrite(
        tmp_path / "slides/b.ome.tif", picture, tile=(32, 32), photometric="rgb", ome=True,
        metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )  # fmt: skip
    (tmp_path / "slides/b.png").unlink()
    content = (tmp_path / "coco.json").read_text().replace("b.png", "b.ome.tif")
    (tmp_path / "coco.json").write_text(content)
    for options, mpp in (({"mpp": 0.25}, 0.25), ({"mpp_from": "objects=7um"}, 0.7)):
        report = start(
            "detection", slides=tmp_path / "slides", annotations=tmp_path / "coco.json",
            out=tmp_path / "out", overwrite=True, **options,
        )  # fmt: skip
        assert column(tmp_path) == [mpp, 0.5]
        assert any("1 slides; 1 state their own" in x or "on 1 slides" in x for x in report.lines)


def test_a_scale_that_cannot_be_had_is_refused_before_anything_is_written(tmp_path, capsys):
    given = boxes(tmp_path)
    for options, words in (
        (["--mpp-from", "WBC=9um"], "no outline or box of that name"),
        (["--mpp-from", "9um"], "want a name and a diameter"),
        (["--mpp", "0.5", "--mpp-from", "objects=7um"], "give one of them"),
        (["--mpp-from", "objects=7000um"], "10 px make 700: slides of 0.05 to 40 um/px"),
        (["--mpp", "50"], "--mpp 50: slides of 0.05 to 40 um/px can be analysed"),
        (["--mpp", "0"], "must be a number of um/px above 0"),
    ):
        assert main(["init", "detection", *given, "--out", str(tmp_path / "out"), *options]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out/manifest.csv").exists()


@pytest.mark.parametrize(
    ("task", "thresholds"),
    [("detection", {}), ("instance", {"min_area_um2": 8, "cap_um": 500})],
)
def test_pictures_without_a_scale_can_be_worked_on_in_pixels(tmp_path, capsys, task, thresholds):
    given = [task, *boxes(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["init", *given]) == 0
    assert "or with --mpp px to work in pixels" in capsys.readouterr().out
    assert main(["init", *given, "--mpp", "px", "--overwrite"]) == 0
    told = capsys.readouterr().out
    assert "mpp: work is in pixels\n" in told
    assert "manifest's column mpp" not in told
    assert (tmp_path / "out/manifest.csv").read_text().startswith("slide,annotation,case,")
    pipeline = load_pipeline(str(tmp_path / "out/pipeline.yaml"))
    assert (pipeline.model.mpp, pipeline.slide.tissue) == ("px", "all")
    assert pipeline.thresholds == thresholds  # a tenth of a disc of 10 px
    need_stated(pipeline, get_task(task))
    assert main(["init", *given, "--mpp", "px", "--mpp-from", "RBC=7um", "--overwrite"]) == 2
    assert "give one of them" in capsys.readouterr().err
