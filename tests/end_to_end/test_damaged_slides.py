"""A slide with a damaged tile, or one that is replaced while it is read: said, recorded, never
silently wrong."""

import json
import os
import shutil
from pathlib import Path

import pytest
import tifffile

from helpers.runs import contents, difference, quadrat, table
from quadrat.engine import steps

MARK = ("--set", "slide.damaged=mark")


@pytest.fixture
def damaged(lab, tmp_path):
    """The oblong phantom with the bytes of one tile in the middle of level 0 overwritten, and that
    tile's box (l0)."""
    path = tmp_path / "oblong.tiff"
    shutil.copyfile(lab.slides[0], path)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        across = -(-page.imagewidth // page.tilewidth)
        row, col = page.imagelength // page.tilelength // 2, across // 2
        at, length = page.dataoffsets[row * across + col], page.databytecounts[row * across + col]
        side = page.tilewidth
    with path.open("r+b") as file:
        file.seek(at + length // 4)
        file.write(b"\xff" * (length // 2))
    return path, [col * side, row * side, (col + 1) * side, (row + 1) * side]


def test_a_damaged_tile_fails_the_slide_and_not_the_batch(damaged, lab, tmp_path):
    path, box = damaged
    done = quadrat("run", lab.pipeline("instance"), path, lab.slides[1], "--out", tmp_path / "out")
    assert done.code == 1
    rows = table(tmp_path / "out" / "results" / "summary.csv")
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert "damaged" in rows[0]["reason"]
    assert "slide.damaged=mark" in rows[0]["reason"]
    assert str(box[0]) in rows[0]["reason"]


def test_a_damaged_tile_can_be_marked_and_is_then_recorded_and_not_counted_as_analysed(
    damaged, lab, reference, tmp_path
):
    path, box = damaged
    results = []
    for source in ("streamed", "stored"):
        out = tmp_path / source
        done = quadrat(
            "run",
            lab.pipeline("instance"),
            path,
            "--out",
            out,
            *MARK,
            "--set",
            f"run.source={source}",
        )
        assert done.code == 0, done.err
        results.append(contents(out / "results"))
    assert difference(*results) == [], "the mark does not depend on how the slide was read"
    about = json.loads((out / "results" / "oblong" / "summary.json").read_text())
    whole = json.loads((reference("instance") / "oblong" / "summary.json").read_text())
    assert about["damaged_tiles_l0"] == [box]
    lost = about["excluded_mm2"]["damaged tiles"]
    tile_mm2 = (box[2] - box[0]) * (box[3] - box[1]) * (about["slide_mpp"]["value"] / 1000) ** 2
    assert 0 < lost <= tile_mm2 * 1.1
    assert about["tissue_mm2"] == pytest.approx(whole["tissue_mm2"] - lost, abs=2e-6)
    assert whole["damaged_tiles_l0"] == []
    (row,) = table(out / "results" / "summary.csv")
    assert row["status"] == "done"
    assert "1 damaged tile" in row["reason"]


@pytest.mark.parametrize("how", ["another file of the name", "other bytes in the file"])
def test_a_slide_that_is_replaced_while_it_is_read_fails_and_is_begun_anew(
    how, lab, reference, tmp_path, monkeypatch
):
    path = tmp_path / "oblong.tiff"
    shutil.copyfile(lab.slides[0], path)
    calls, real = [], steps.predict_groups

    def replaced(*values, **named):
        calls.append(1)
        if len(calls) == 3 and how == "another file of the name":
            shutil.copyfile(lab.slides[1], tmp_path / "other.tiff")
            os.replace(tmp_path / "other.tiff", path)
        elif len(calls) == 3:
            shutil.copyfile(lab.slides[1], path)
        return real(*values, **named)

    words = ("run", lab.pipeline("semantic"), path, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "predict_groups", replaced)
        done = quadrat(*words)
    assert done.code == 1
    assert "changed while" in done.err
    shutil.copyfile(lab.slides[0], path)
    done = quadrat(*words)
    assert done.code == 0, done.err
    assert (
        difference(
            contents(tmp_path / "out" / "results" / "oblong"),
            contents(reference("semantic") / "oblong"),
        )
        == []
    )


def test_the_record_of_damage_outlives_the_tile_store_also_where_that_level_shows_tissue(
    lab, tmp_path
):
    sample = Path(os.environ.get("QUADRAT_DATA", "")) / "wsi" / "CMU-1-Small-Region.svs"
    if not sample.exists():
        pytest.skip("QUADRAT_DATA does not lead to the public samples")
    path = tmp_path / "one_level.svs"
    shutil.copyfile(sample, path)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        index = 5 * -(-page.imagewidth // page.tilewidth) + 5
        at, length = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as file:
        file.seek(at + length // 4)
        file.write(bytes(length // 2))
    words = (
        lab.pipeline("instance"),
        path,
        "--out",
        tmp_path / "out",
        *MARK,
        "--set",
        'run.keep=["predictions"]',
    )
    done = quadrat("run", *words, "--set", "run.source=stored")
    assert done.code == 0, done.err
    summary = tmp_path / "out" / "results" / "one_level" / "summary.json"
    before = json.loads(summary.read_text())
    assert len(before["damaged_tiles_l0"]) == 1
    done = quadrat("run", *words, "--overwrite", "--set", "thresholds.min_area_um2=30")
    assert done.code == 0, done.err
    after = json.loads(summary.read_text())
    assert after["fingerprint"] != before["fingerprint"]
    for key in ("damaged_tiles_l0", "tissue_mm2", "excluded_mm2"):
        assert after[key] == before[key]
