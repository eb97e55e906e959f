"""How many objects and regions there are, and how large."""

import json

import numpy as np

from helpers.annotation_files import feature, project, square
from quadrat.cli.main import main


def stats(capsys, *arguments):
    code = main(["annotations", "stats", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_stats_count_and_measure_in_micrometres_by_slide_case_and_split(tmp_path, capsys):
    drawn = [feature(square(0, 0, s), kind="detection") for s in (10, 20)] + [
        feature(square(0, 0, 40))
    ]
    given = project(tmp_path, *drawn, case="p1", split="val")
    code, out = stats(capsys, given[0], "--json")
    report = json.loads(out)
    assert code == 0
    assert report["left_out"] == []
    for level, group in (("slide", "a"), ("case", "p1"), ("split", "val"), ("all", None)):
        objects, regions = report[level]
        assert objects.get(level) == group
        assert (objects["class"], objects["kind"], objects["count"], objects["slides"]) == (
            "Tumor",
            "object",
            2,
            1,
        )
        assert objects["area_um2"] == 500 * 0.25
        np.testing.assert_allclose(objects["diameter_median_um"], 15 * 2 / np.sqrt(np.pi) * 0.5)
        assert (regions["kind"], regions["area_um2"]) == ("region", 400)
    code, out = stats(capsys, given[0], "--by", "case")
    assert [line.split()[:5] for line in out.splitlines()[1:]] == [
        ["p1", "Tumor", "object", "1", "2"],
        ["p1", "Tumor", "region", "1", "1"],
    ]


def test_stats_without_an_mpp_are_in_pixels_and_points_have_no_size(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("x,y,class\n1,2,c\n3,4,c\n5,z,c\n")
    (tmp_path / "b.csv").write_text("x,y,width,height,class\n1,2,3,3,c\n")
    code, out = stats(capsys, tmp_path / "a.csv", tmp_path / "b.csv", "--json")
    report = json.loads(out)
    assert code == 1
    assert len(report["left_out"]) == 1
    assert "a.csv, line 4: no geometry: '5', 'z' are not numbers; left out" in report["left_out"][0]
    boxes, points = report["all"]
    assert (boxes["count"], boxes["area_px2"], points["count"], points["area_px2"]) == (
        1,
        9,
        2,
        None,
    )
    assert (
        json.loads(stats(capsys, tmp_path / "b.csv", "--json", "--mpp", 2)[1])["all"][0]["area_um2"]
        == 36
    )
