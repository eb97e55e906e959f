"""Annotations of slides of which only a part was scanned: of either corner, or refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.annotation_files import feature, square
from quadrat.annotations import regions
from quadrat.annotations.faults import extent
from quadrat.annotations.formats import reading
from quadrat.annotations.formats.reading import Choice, read_sheet
from quadrat.annotations.regions import load_regions
from quadrat.core.errors import AnnotationError
from quadrat.core.geometry import Box
from quadrat.slides import scanned_part as module
from quadrat.slides.scanned_part import bounds_of, scanned_part

PART = Box(1000, 3000, 1800, 4200)
"""What was scanned: 1200 x 800 px at x 3000, y 1000."""


@pytest.fixture
def margin(monkeypatch):
    """Only PART of every slide was scanned."""
    for place in (reading, regions):
        monkeypatch.setattr(place, "scanned_part", lambda path: PART if path else None)


def drawn(tmp_path, *corners, name="tumour"):
    path = tmp_path / "a.geojson"
    features = [feature(square(x, y, 20), name=name) for x, y in corners]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def corners(records):
    return [tuple(extent(record)[:2]) for record in records]


@pytest.mark.usefixtures("margin")
@pytest.mark.parametrize("shift", [0, 1])
def test_the_place_of_the_records_tells_from_which_corner_they_count(tmp_path, shift):
    places = [(3100.0, 1200.0), (4100.0, 1700.0), (3500.0, 1010.0)]
    counted = [(x - shift * PART.col0, y - shift * PART.row0) for x, y in places]
    sheet = read_sheet(drawn(tmp_path, *counted), choice=Choice(picture="slide.mrxs"))
    assert corners(sheet.records) == places
    assert [note for note in sheet.notes if "moved by 3000, 1000 px" in note] == (
        list(sheet.notes) if shift else []
    )
    assert bool(sheet.notes) == bool(shift)


@pytest.mark.usefixtures("margin")
def test_one_of_many_records_may_hang_over_the_edge(tmp_path):
    places = [(100.0 + 5 * i, 200.0) for i in range(150)] + [(-15.0, 300.0)]
    sheet = read_sheet(drawn(tmp_path, *places), choice=Choice(picture="slide.mrxs"))
    assert corners(sheet.records)[-1] == (2985.0, 1300.0)


@pytest.mark.parametrize(("origin", "moved"), [("slide", 0), ("scanned", 1)])
def test_where_both_corners_fit_the_user_says_which_is_meant(tmp_path, monkeypatch, origin, moved):
    part = Box(100, 50, 900, 1250)
    monkeypatch.setattr(reading, "scanned_part", lambda path: part)
    path = drawn(tmp_path, (200.0, 300.0))
    region = drawn(tmp_path, (200.0, 300.0), name="include")
    monkeypatch.setattr(regions, "scanned_part", lambda path: part)
    with pytest.raises(AnnotationError, match=r"set slide\.regions_origin"):
        load_regions(region, include=("include",), exclude=(), picture="slide.mrxs")
    found = load_regions(
        region, include=("include",), exclude=(), picture="slide.mrxs", origin=origin
    )
    assert found.drawn.bbox[0, :2].tolist() == [300.0 + 100 * moved, 200.0 + 50 * moved]
    path = drawn(tmp_path, (200.0, 300.0))
    with pytest.raises(AnnotationError, match=r"x 50, y 100 was scanned .* set data\.origin"):
        read_sheet(path, choice=Choice(picture="slide.mrxs"))
    sheet = read_sheet(path, choice=Choice(picture="slide.mrxs", origin=origin))
    assert corners(sheet.records) == [(200.0 + 50 * moved, 300.0 + 100 * moved)]


@pytest.mark.usefixtures("margin")
def test_records_of_which_some_fit_neither_corner_are_not_guessed_at(tmp_path):
    places = [(100.0 + 5 * i, 200.0) for i in range(40)] + [(9000.0, 9000.0)]
    with pytest.raises(AnnotationError, match=r"set data\.origin"):
        read_sheet(drawn(tmp_path, *places), choice=Choice(picture="slide.mrxs"))


@pytest.mark.usefixtures("margin")
@pytest.mark.parametrize(("size", "moved"), [((800, 1200), 1), ((9000, 9000), 0)])
def test_the_size_that_a_file_states_tells_which_corner_is_meant(tmp_path, size, moved):
    height, width = size
    coco = {
        "images": [{"id": 1, "file_name": "slide.mrxs", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco))
    sheet = read_sheet(tmp_path / "a.json", choice=Choice(picture="slide.mrxs"))
    assert corners(sheet.records) == [(10.0 + 3000 * moved, 20.0 + 1000 * moved)]
    assert sheet.size == (None if moved else size)


@pytest.mark.usefixtures("margin")
def test_records_that_fit_neither_corner_are_left_as_they_are(tmp_path):
    places = [(9000.0, 9000.0), (8000.0, 100.0), (100.0, 100.0)]
    sheet = read_sheet(drawn(tmp_path, *places), choice=Choice(picture="slide.mrxs"))
    assert corners(sheet.records) == places


@pytest.mark.usefixtures("margin")
def test_regions_that_a_user_draws_count_from_either_corner_too(tmp_path):
    for corner in ((3100.0, 1200.0), (100.0, 200.0)):
        path = drawn(tmp_path, corner, name="include")
        found = load_regions(path, include=("include",), exclude=(), picture="slide.mrxs")
        assert found.drawn.bbox.tolist() == [[1200.0, 3100.0, 1220.0, 3120.0]]
        moved = corner[0] < 3000
        assert [("moved by 3000, 1000 px" in note) for note in found.notes] == [True] * moved


def test_the_scanned_part_is_what_openslide_states(tmp_path, monkeypatch):
    def handle(**bounds):
        return SimpleNamespace(
            properties={f"openslide.bounds-{key}": str(value) for key, value in bounds.items()}
        )

    assert bounds_of(handle(x=3000, y=1000, width=1200, height=800)) == PART
    assert bounds_of(handle(x=3000, y=1000, width=1200)) is None
    assert bounds_of(handle(x="", y=0, width=1, height=1)) is None
    assert scanned_part("") is None
    assert scanned_part(str(tmp_path / "not there.mrxs")) is None


def test_pictures_without_a_margin_have_no_scanned_part(tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    assert scanned_part(str(tmp_path / "a.png")) is None
    assert module.scanned_part is scanned_part
