"""What `quadrat inspect` tells: words, JSON and pictures; one bad slide never stops the others."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from quadrat.cli.inspect import describe, describe_text
from quadrat.cli.main import main
from quadrat.slides.thumbnail import OUTLINE


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A pink square of 0.5 x 0.5 mm on glass, 1 um/px."""
    picture = np.full((1000, 1200, 3), 245, np.uint8)
    noise = np.random.default_rng(0).integers(-20, 20, (500, 500, 1))
    picture[300:800, 200:700] = np.clip(np.array([200, 110, 170]) + noise, 0, 255)
    tifffile.imwrite(
        tmp_path / "square.tif",
        picture,
        resolution=(1e4, 1e4),
        resolutionunit="CENTIMETER",
        photometric="rgb",
    )
    return tmp_path / "square.tif"


def test_the_facts_of_a_slide_are_json_and_a_table_for_people(slide: Path) -> None:
    facts = json.loads(json.dumps(describe(str(slide))))
    assert (facts["width"], facts["height"], facts["mpp"], facts["mpp_given"]) == (
        1200,
        1000,
        [1, 1],
        False,
    )
    assert facts["tissue_mm2"] == pytest.approx(0.25, rel=0.1)
    assert facts["area_mm2"] == 1.2
    text = describe_text(facts)
    assert "1200 x 1000 px" in text
    assert "of 1.20 mm2 (glass" in text
    assert "; 0.00 of it are filled gaps and holes" in text


def test_a_given_mpp_is_used_and_said_to_be_given(slide: Path) -> None:
    facts = describe(str(slide), mpp=0.5)
    assert facts["area_mm2"] == 0.3
    assert "as given" in describe_text(facts)


def test_pictures_are_a_thumbnail_and_an_overlay_that_outlines_the_tissue(
    slide: Path, tmp_path: Path
) -> None:
    first = describe(str(slide), pictures=tmp_path / "looks")
    second = describe(str(slide), pictures=tmp_path / "looks", taken=first["pictures"])
    names = [Path(name).name for name in (*first["pictures"], *second["pictures"])]
    assert names == [
        "square.thumbnail.png",
        "square.tissue.png",
        "square_2.thumbnail.png",
        "square_2.tissue.png",
    ]
    plain, outlined = (np.asarray(Image.open(name)) for name in first["pictures"])
    assert plain.shape == outlined.shape
    assert max(plain.shape) == pytest.approx(1024, rel=0.06)
    green = (outlined == OUTLINE).all(axis=2)
    rows, cols = np.nonzero(green)
    scale = 1000 / plain.shape[0]
    assert np.array([rows.min(), rows.max(), cols.min(), cols.max()]) * scale == pytest.approx(
        [300, 800, 200, 700], abs=40
    )
    middle = tuple(side // 2 for side in plain.shape[:2])
    np.testing.assert_array_equal(outlined[middle], plain[middle])


def test_one_bad_slide_never_stops_the_others_and_the_exit_code_says_so(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.svs").write_text("not a slide")
    assert (
        main(
            [
                "inspect",
                str(tmp_path / "text.svs"),
                str(slide),
                str(tmp_path / "none.svs"),
                "--json",
            ]
        )
        == 1
    )
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [("error" in fact, Path(fact["path"]).name) for fact in facts] == [
        (True, "text.svs"),
        (False, "square.tif"),
        (True, "none.svs"),
    ]
    assert main(["inspect", str(slide)]) == 0
    assert main(["inspect", str(slide), "--mpp", "-1"]) == 2


def test_a_slide_without_mpp_is_described_with_the_problem_and_a_thumbnail(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "white").save(tmp_path / "flat.png")
    facts = describe(str(tmp_path / "flat.png"), pictures=tmp_path)
    assert "--mpp" in facts["mpp_problem"]
    assert len(facts["pictures"]) == 1
    assert "problem" in describe_text(facts)


def test_a_damaged_tile_is_told_beside_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "damaged.ome.tif"
    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    meta = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(
        file, picture, tile=(64, 64), compression="zstd", metadata=meta, photometric="rgb"
    )
    with tifffile.TiffFile(file) as tiff:
        offset = tiff.pages.first.dataoffsets[7]
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\0" * 100)
    facts = describe(str(file))
    assert facts["width"] == 300
    assert "damaged" in facts["error"]
    assert "size" in describe_text(facts)


def test_the_fluorescence_slide_is_described_without_tissue(tmp_path: Path) -> None:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    facts = describe(str(Path(folder) / "wsi" / "test3-TRITC-2-560.ndpi"))
    assert "bright-field" in facts["tissue_problem"]
    assert facts["objective"] == 40


def test_a_slide_in_pixel_work_has_an_area_in_megapixels_and_no_scale(
    slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = describe(str(slide), mpp="px")
    assert (facts["mpp"], facts["mpp_source"], facts["mpp_given"]) == (None, "", False)
    assert facts["area_mpx"] == 1.2
    assert not {"tissue_mm2", "area_mm2", "mpp_problem", "tissue_problem"} & set(facts)
    assert "not used, work is in pixels (1.20 Mpx)" in describe_text(facts)
    assert main(["inspect", str(slide), "--mpp", "px"]) == 0
    assert main(["inspect", str(slide), "--mpp", "um"]) == 2
