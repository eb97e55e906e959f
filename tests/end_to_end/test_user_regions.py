"""Regions that the user drew decide what is counted, and the account of the area says so."""

import json

import geopandas
import pytest

from helpers.runs import contents, difference, quadrat, table

SPLIT = 1000
"""Column (level-0 px) up to which the phantom is excluded."""


def rectangle(name, x0, y0, x1, y1):
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": [0, 0, 0]},
        },
    }


def write_regions(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def account(folder):
    about = json.loads((folder / "summary.json").read_text())
    return about["tissue_mm2"], about["excluded_mm2"]


@pytest.mark.parametrize("task", ["instance", "detection", "semantic"])
@pytest.mark.parametrize("kind", ["exclude", "include"])
def test_only_what_the_regions_allow_is_counted_and_the_rest_is_as_it_was(
    task, kind, lab, reference, tmp_path
):
    drawn = ("Artefact", 0, 0, SPLIT, 2048) if kind == "exclude" else ("ROI", SPLIT, 0, 2048, 2048)
    regions = write_regions(tmp_path / "regions.geojson", rectangle(*drawn))
    done = quadrat(
        "run", lab.pipeline(task), lab.slides[0], "--regions", regions, "--out", tmp_path / "out"
    )
    assert done.code == 0, done.err
    folder, whole = tmp_path / "out" / "results" / "oblong", reference(task) / "oblong"
    found, every = (geopandas.read_parquet(f / "objects.parquet") for f in (folder, whole))
    assert 0 < found["area_um2"].sum() < every["area_um2"].sum()
    slack = 60  # a mask pixel, and half an object
    assert (found["x1_l0"] > SPLIT - slack).all()

    def right(frame):
        rows = frame[frame["x0_l0"] > SPLIT + slack]
        return rows[["class", "x0_l0", "y0_l0", "x1_l0", "y1_l0", "area_um2"]].reset_index(
            drop=True
        )

    if task != "semantic":  # regions are cut at the outline and measured anew
        assert len(right(every)) > 3
        assert right(found).equals(right(every))
    reason = "user exclusion" if kind == "exclude" else "outside user inclusion"
    (area, excluded), (all_area, before) = account(folder), account(whole)
    assert reason not in before
    assert area + excluded[reason] == pytest.approx(all_area, abs=1e-5)
    assert area + sum(excluded.values()) == pytest.approx(all_area + sum(before.values()), abs=1e-5)
    counts = table(folder / "counts.csv")[-1]
    assert float(counts["per_mm2"]) == pytest.approx(len(found) / area, rel=1e-3)


def test_regions_of_a_manifest_are_part_of_the_fingerprint(lab, tmp_path):
    regions = write_regions(tmp_path / "regions.geojson", rectangle("Exclude", 0, 0, SPLIT, 2048))
    manifest = tmp_path / "slides.csv"
    manifest.write_text(f"slide,regions\n{lab.slides[0]},{regions}\n")
    words = ("run", lab.pipeline("detection"), "--manifest", manifest, "--out", tmp_path / "out")
    assert quadrat(*words).code == 0
    before = contents(tmp_path / "out" / "results")
    again = quadrat(*words)
    assert again.code == 0
    assert "finished before" in again.err
    write_regions(regions, rectangle("Exclude", 0, 0, SPLIT // 2, 2048))
    assert quadrat(*words).code == 2
    assert quadrat(*words, "--overwrite").code == 0
    assert "oblong/objects.parquet" in difference(contents(tmp_path / "out" / "results"), before)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([], "holds no region"),
        ([rectangle("Tumour", 0, 0, 100, 100)], "neither included nor excluded"),
        ([rectangle("Exclude", 90000, 0, 90100, 100)], "no region touches the slide"),
        ([rectangle("Exclude", -10, -10, 3000, 3000)], "nothing to analyse"),
    ],
)
def test_regions_that_cannot_be_meant_fail_the_slide_with_a_reason(features, words, lab, tmp_path):
    regions = write_regions(tmp_path / "regions.geojson", *features)
    done = quadrat(
        "run",
        lab.pipeline("detection"),
        lab.slides[0],
        "--regions",
        regions,
        "--out",
        tmp_path / "out",
    )
    assert done.code == 1
    assert words in done.err


def test_regions_on_the_command_line_belong_to_one_slide(lab, tmp_path):
    regions = write_regions(tmp_path / "regions.geojson", rectangle("Exclude", 0, 0, 10, 10))
    done = quadrat(
        "run",
        lab.pipeline("detection"),
        *lab.slides,
        "--regions",
        regions,
        "--out",
        tmp_path / "out",
    )
    assert done.code == 2
    assert "manifest" in done.err
