import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quadrat.annotations.regions import EXCLUDE, INCLUDE, inside, load_regions, restrict
from quadrat.config.pipeline import SlideSection
from quadrat.core.errors import AnnotationError
from quadrat.core.objects import Frame
from quadrat.slides.tissue.mask import TissueMap, whole_slide
from quadrat.slides.tissue.overview import SPECK_MAX_MM2, THRESHOLD

# 100 x 80 mask px of 4 level-0 px each; tissue in the left half
FRAME = Frame(height=100, width=80, mpp=2.0, scale_row=4.0, scale_col=4.0)
GRID = Frame(height=200, width=160, mpp=1.0, scale_row=2.0, scale_col=2.0)
PX_MM2 = 4e-6


def half_tissue() -> TissueMap:
    mask = np.zeros((100, 80), bool)
    mask[:, :40] = True
    return TissueMap(mask, FRAME)


def rectangle(
    row0: float, col0: float, row1: float, col1: float, name: str | None, kind: str = "annotation"
) -> dict:
    ring = [[col0, row0], [col1, row0], [col1, row1], [col0, row1], [col0, row0]]
    properties = {"objectType": kind} | ({"classification": {"name": name}} if name else {})
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def written(folder: Path, *features: dict) -> Path:
    path = folder / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def by_reason(tissue: TissueMap) -> dict[str, int]:
    return {part.reason: round(part.mm2 / PX_MM2) for part in tissue.excluded}


@pytest.mark.parametrize(
    "name", ["Exclude", "exclude", "ARTEFACT", "artifact", "Pen", "Fold", "Ignore*"]
)
def test_tissue_inside_an_excluded_region_is_left_out(tmp_path: Path, name: str) -> None:
    found = restrict(
        half_tissue(), load_regions(written(tmp_path, rectangle(40, 80, 80, 320, name)))
    )
    assert not found.mask[10:20, 20:40].any()
    assert found.mask.sum() == 4000 - 10 * 20
    assert by_reason(found) == {"glass": 4000, "user exclusion": 200}


@pytest.mark.parametrize("name", ["Include", "roi", "Region*", "Region 3", "Tissue"])
def test_only_tissue_inside_included_regions_counts_if_there_are_any(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path, rectangle(0, 0, 40, 40, name), rectangle(80, 120, 120, 200, name))
    found = restrict(half_tissue(), load_regions(path))
    expected = np.zeros((100, 80), bool)
    expected[:10, :10] = expected[20:30, 30:40] = True
    assert np.array_equal(found.mask, expected)
    assert by_reason(found) == {"glass": 4000, "outside user inclusion": 3800}


@pytest.mark.parametrize("excluded_first", [True, False])
def test_exclusion_wins_over_inclusion_in_whatever_order_they_were_drawn(
    tmp_path: Path, excluded_first: bool
) -> None:
    drawn = [rectangle(40, 40, 80, 80, "Pen"), rectangle(0, 0, 400, 120, "ROI")]
    found = restrict(
        half_tissue(), load_regions(written(tmp_path, *(drawn if excluded_first else drawn[::-1])))
    )
    assert found.mask.sum() == 100 * 30 - 100
    assert by_reason(found) == {
        "glass": 4000,
        "user exclusion": 100,
        "outside user inclusion": 1000,
    }
    assert found.area_mm2 + sum(part.mm2 for part in found.excluded) == pytest.approx(
        found.slide_mm2
    )


def test_a_hole_in_a_region_does_not_belong_to_it(tmp_path: Path) -> None:
    region = rectangle(0, 0, 80, 80, "Exclude")
    region["geometry"]["coordinates"].append(
        rectangle(20, 20, 40, 40, None)["geometry"]["coordinates"][0]
    )
    found = restrict(half_tissue(), load_regions(written(tmp_path, region)))
    assert found.mask[5:10, 5:10].all()
    assert found.mask.sum() == 4000 - 400 + 25


def test_without_a_tissue_mask_an_included_region_is_what_is_analysed(tmp_path: Path) -> None:
    regions = load_regions(written(tmp_path, rectangle(40, 40, 80, 120, "ROI")))
    found = restrict(whole_slide(GRID), regions)
    assert found.area_mm2 == pytest.approx(20 * 40 * 1e-6)


def test_the_user_can_choose_the_class_names(tmp_path: Path) -> None:
    path = written(
        tmp_path, rectangle(0, 0, 80, 80, "Tumor"), rectangle(0, 0, 40, 80, "Necrosis: old")
    )
    found = restrict(half_tissue(), load_regions(path, include=("tumor",), exclude=("necrosis*",)))
    assert found.mask.sum() == 10 * 20


def test_detections_in_the_file_are_left_aside(tmp_path: Path) -> None:
    path = written(
        tmp_path, rectangle(0, 0, 8, 8, "Nucleus", "detection"), rectangle(0, 0, 40, 40, "Exclude")
    )
    assert restrict(half_tissue(), load_regions(path)).mask.sum() == 4000 - 100


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (
            [rectangle(0, 0, 8, 8, "Tumor")],
            "class 'Tumor' is neither included nor excluded .*slide.include: Include, ROI",
        ),
        ([rectangle(0, 0, 8, 8, None)], "1 regions have no class"),
        ([], "holds no region"),
        ([rectangle(0, 0, 8, 8, "Nucleus", "detection")], "holds no region"),
        (
            [rectangle(0, 0, 8, 8, "ROI") | {"geometry": {"type": "Point", "coordinates": [3, 4]}}],
            "a region is a point and has no area",
        ),
    ],
)
def test_a_region_whose_meaning_is_not_clear_is_refused(
    tmp_path: Path, features: list[dict], words: str
) -> None:
    with pytest.raises(AnnotationError, match=words):
        load_regions(written(tmp_path, *features))


def test_a_class_that_is_both_included_and_excluded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="class 'Pen' is both included and excluded"):
        load_regions(written(tmp_path, rectangle(0, 0, 8, 8, "Pen")), include=("p*",))


def test_regions_of_another_slide_are_refused_with_both_extents(tmp_path: Path) -> None:
    regions = load_regions(written(tmp_path, rectangle(5000, 6000, 7000, 8000, "ROI")))
    with pytest.raises(
        AnnotationError, match=r"x 6000-8000, y 5000-7000, and the slide has 320 x 400 px"
    ):
        restrict(half_tissue(), regions)


def test_objects_are_kept_by_the_users_regions_and_not_by_the_tissue_mask(tmp_path: Path) -> None:
    rows, cols = np.array([10, 10, 50, 190]), np.array([10, 150, 50, 159])
    assert inside(half_tissue(), rows, cols, frame=GRID).all()
    found = restrict(
        half_tissue(), load_regions(written(tmp_path, rectangle(80, 80, 120, 120, "Fold")))
    )
    assert inside(found, rows, cols, frame=GRID).tolist() == [True, True, False, True]
    assert inside(found, np.array([39.9, 40.0]), np.array([45.0, 45.0]), frame=GRID).tolist() == [
        True,
        False,
    ]


def test_objects_beyond_the_last_whole_mask_pixel_follow_it(tmp_path: Path) -> None:
    found = restrict(
        half_tissue(), load_regions(written(tmp_path, rectangle(0, 0, 400, 300, "ROI")))
    )
    assert inside(found, np.array([203]), np.array([163]), frame=GRID).tolist() == [False]


@pytest.mark.parametrize("seed", range(3))
def test_every_user_region_keeps_the_account_a_partition(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 6, (100, 80)).astype(np.uint8)
    tissue = TissueMap.of_codes(codes, frame=FRAME)
    drawn = [
        rectangle(
            *sorted(rng.uniform(0, 400, 2)),
            *sorted(rng.uniform(0, 320, 2)),
            str(rng.choice(["ROI", "Fold"])),
        )
        for _ in range(6)
    ]
    for feature in drawn:
        ring = feature["geometry"]["coordinates"][0]
        ring[1:4] = [
            [ring[0][0] + 60, ring[0][1]],
            [ring[0][0] + 60, ring[0][1] + 90],
            [ring[0][0], ring[0][1] + 90],
        ]
    found = restrict(tissue, load_regions(written(tmp_path, *drawn)))
    assert found.area_mm2 + sum(part.mm2 for part in found.excluded) == pytest.approx(
        found.slide_mm2
    )
    assert not (found.mask & ~tissue.mask).any()
    assert np.array_equal(found.mask, tissue.mask & found.allowed)


def test_the_pipeline_and_the_functions_have_the_same_defaults() -> None:
    section = SlideSection()
    assert (section.include, section.exclude) == (INCLUDE, EXCLUDE)
    assert (section.tissue_min_mm2, section.tissue_margin_um, section.tissue_threshold) == (
        SPECK_MAX_MM2,
        0.0,
        THRESHOLD,
    )


def test_regions_of_a_picture_that_is_shown_turned_are_refused(tmp_path: Path) -> None:
    path, exif = written(tmp_path, rectangle(0, 0, 9, 9, "ROI")), Image.Exif()
    for orientation in (1, 6):
        exif[274] = orientation
        Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
        picture = str(tmp_path / "a.jpg")
        if orientation == 1:
            assert load_regions(path, picture=picture).includes
            continue
        with pytest.raises(AnnotationError, match=r"a\.jpg is shown turned \(EXIF orientation 6\)"):
            load_regions(path, picture=picture)
