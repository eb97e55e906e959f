"""Annotations of pictures that viewers show turned: of either frame, or refused."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from helpers.annotation_files import check, feature, square
from quadrat.annotations.formats.reading import Choice, read_sheet
from quadrat.annotations.orientation import Turn, is_stored_frame, turn_of
from quadrat.annotations.shapes import geometry_of
from quadrat.annotations.truth import load_truth
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import DataSection
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box, Scale
from quadrat.slides.opening import open_slide
from quadrat.slides.orientation import Orientation

STORED = (30, 50)
PLACE = (slice(4, 9), slice(20, 32))
ALL = range(1, 9)


def photo(path, orientation, size=STORED):
    """A dark picture with one light box, stored turned; and what a viewer shows."""
    values = np.zeros((*size, 3), np.uint8)
    values[PLACE] = 255
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(
        path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {})
    )
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("L")) > 127


def light(shown):
    """x0, y0, x1, y1 of the light box."""
    rows, cols = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]


def coco(path, box, size=None):
    x0, y0, x1, y1 = (int(side) for side in box)
    image = {"id": 1, "file_name": "a.jpg"}
    if size is not None:
        image |= {"height": size[0], "width": size[1]}
    outline = [x0, y0, x1, y0, x1, y1, x0, y1]
    common = {"image_id": 1, "category_id": 1}
    drawn = [
        common | {"id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]},
        common | {"id": 2, "segmentation": [outline]},
        common | {"id": 3, "keypoints": [x0 + 1, y0 + 2, 2]},
    ]
    content = {"images": [image], "categories": [{"id": 1, "name": "c"}], "annotations": drawn}
    path.write_text(json.dumps(content))
    return path


def read(tmp_path, **choice):
    return read_sheet(tmp_path / "a.json", choice=Choice(picture=str(tmp_path / "a.jpg"), **choice))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", ALL)
def test_a_turn_leads_from_the_stored_picture_to_the_shown_one(tmp_path, orientation, suffix):
    path = tmp_path / f"a{suffix}"
    shown = photo(path, orientation)
    turn = turn_of(str(path))
    if orientation == 1:
        assert turn is None
        return
    assert turn == Turn(Orientation(orientation), STORED)
    assert turn.shown == shown.shape
    stored = np.zeros(STORED, np.uint8)
    stored[PLACE] = 1
    np.testing.assert_array_equal(turn.orientation.upright(stored), shown)
    corners = turn.points(np.array([[20.0, 4], [32, 9]]))
    assert [*corners.min(axis=0), *corners.max(axis=0)] == light(shown)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("frame", ["shown", "stored"])
def test_the_stated_size_tells_the_frame_and_the_box_lies_on_what_it_was_drawn_on(
    tmp_path, orientation, frame
):
    shown = photo(tmp_path / "a.jpg", orientation)
    if frame == "shown":
        coco(tmp_path / "a.json", light(shown), shown.shape)
    else:
        coco(tmp_path / "a.json", [20, 4, 32, 9], STORED)
    with open_slide(str(tmp_path / "a.jpg"), mpp=0.5) as slide:
        assert slide.levels[0].box.shape == shown.shape  # what is analysed is what is shown
    sheet = read(tmp_path)
    assert sheet.size == shown.shape
    for record in sheet.records[:2]:
        assert [*geometry_of(record).bounds] == light(shown)
    assert [record.box for record in sheet.records] == [True, False, False]
    x, y = (sheet.records[2].points[0] - 0.5).tolist()
    assert shown[int(y), int(x)]
    assert len(sheet.notes) == (frame == "stored")


@pytest.mark.parametrize(
    ("orientation", "size", "stated", "why"),
    [
        (6, STORED, None, "states no size"),
        (6, (50, 50), (50, 50), "both are 50 x 50 px"),
        (3, STORED, STORED, "both are 50 x 30 px"),
        (2, STORED, None, "states no size"),
    ],
)
def test_where_nobody_can_tell_the_frame_it_is_refused_unless_the_pipeline_says(
    tmp_path, orientation, size, stated, why
):
    shown = photo(tmp_path / "a.jpg", orientation, size)
    coco(tmp_path / "a.json", [20, 4, 32, 9], stated)
    with pytest.raises(
        AnnotationError, match=rf"a\.json: .*EXIF orientation .*\({why}\); set data"
    ):
        read(tmp_path)
    bounds = geometry_of(read(tmp_path, drawn_on="stored").records[0]).bounds
    assert [*bounds] == light(shown)
    assert [*geometry_of(read(tmp_path, drawn_on="shown").records[0]).bounds] == [20, 4, 32, 9]


def test_a_word_that_the_stated_size_contradicts_is_refused():
    turn = Turn(Orientation(6), STORED)
    with pytest.raises(
        AnnotationError, match=r"x: .*states a picture of 30 x 50 px; .* as it is st"
    ):
        is_stored_frame(turn.shown, turn, drawn_on="stored", where="x")
    assert not is_stored_frame((99, 99), turn, drawn_on="auto", where="x")  # its size is refused


def test_a_file_without_records_and_a_picture_that_is_upright_are_left_as_they_are(tmp_path):
    photo(tmp_path / "a.jpg", 6)
    (tmp_path / "a.json").write_text("[]")
    assert read(tmp_path).records == ()
    photo(tmp_path / "a.jpg", 1)
    (tmp_path / "a.json").write_text(json.dumps([feature(square(2, 2, 9))]))
    assert geometry_of(read(tmp_path).records[0]).bounds == (2, 2, 11, 11)
    for name in ("none.jpg", "", "."):
        assert turn_of(str(tmp_path / name) if name else "") is None
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff")
    assert turn_of(str(tmp_path / "b.jpg")) is None


@pytest.mark.parametrize("annotations", ["mask", "labels"])
@pytest.mark.parametrize("frame", ["shown", "stored"])
def test_masks_and_label_images_are_of_either_frame(tmp_path, frame, annotations):
    shown = photo(tmp_path / "a.jpg", 6)
    stored = np.zeros(STORED, np.uint8)
    stored[PLACE] = 1
    Image.fromarray(shown.astype(np.uint8) if frame == "shown" else stored).save(tmp_path / "m.png")
    ref = SlideRef("a", str(tmp_path / "a.jpg"), annotation=str(tmp_path / "m.png"))
    truth = load_truth(ref, DataSection(annotations=annotations), ["c"], size=shown.shape)
    found = (truth.regions or truth.objects).regions(Box(0, 0, *shown.shape), Scale(1.0, 1.0))
    np.testing.assert_array_equal(found, shown)
    assert len(truth.notes) == (frame == "stored")


def test_check_names_a_file_of_which_nobody_can_tell_the_frame(tmp_path, capsys):
    photo(tmp_path / "a.jpg", 6)
    (tmp_path / "a.geojson").write_text(json.dumps([feature(square(2, 2, 9))]))
    (tmp_path / "slides.csv").write_text("slide,annotation,mpp\na.jpg,a.geojson,0.5\n")
    code, lines = check(capsys, tmp_path / "slides.csv")
    assert code == 1
    assert "a.geojson: unreadable: its picture is shown turned (EXIF orientation 6)" in lines[0]


@pytest.mark.parametrize("codec", ["jpegxl", "jpeg2000", "png", "zstd", None])
@pytest.mark.parametrize("thumbnail", [False, True])
def test_a_tiff_is_turned_as_the_reader_of_slides_turns_it(tmp_path, codec, thumbnail):
    path, pixels = tmp_path / "a.tif", np.zeros((64, 96, 3), np.uint8)
    with tifffile.TiffWriter(path) as out:
        if thumbnail:
            out.write(pixels[::4, ::4], photometric="rgb", metadata=None)
        tags = [(274, 3, 1, 6, True)]
        out.write(pixels, photometric="rgb", metadata=None, compression=codec, extratags=tags)
    with open_slide(path) as slide:
        assert slide.levels[0].box.shape == (96, 64)
    assert turn_of(str(path)) == Turn(Orientation(6), (64, 96))


def test_a_png_is_not_decoded_to_learn_how_it_is_turned(tmp_path, monkeypatch):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    assert turn_of(str(tmp_path / "a.png")) is None
