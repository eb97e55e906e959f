"""A capsule is the viewer's data as files: the same tiles, down to a chosen level."""

import base64
import json
import re
import zlib

import pytest
from PIL import Image

from helpers import shown
from helpers.runs import contents, quadrat
from quadrat.pages.capsule import FILES
from quadrat.pages.folder import read_run
from quadrat.pages.report import write_report
from quadrat.pages.shown import Shown


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = shown.make_run(tmp_path_factory.mktemp("capsule"), ("one", "gone"), objects=60)
    (out / "results" / "one" / "counts.csv").write_text("class,count\n")
    done = quadrat("report", out, "--capsule-mpp", "0.5")
    assert done.code == 0, done.err
    return out


def about_of(out, name):
    text = (out / "report" / "slides" / name / "view" / "about.js").read_text(encoding="utf-8")
    return json.loads(re.fullmatch(r"window\.quadratAbout = (.*);\n", text)[1])


def test_the_finest_pictures_have_the_scale_that_was_asked_for(out):
    about, folder = about_of(out, "one"), out / "report" / "slides" / "one" / "view" / "image"
    assert about["finest"] == about["levels"] - 2  # 0.25 um/px of level 0
    assert sorted(int(p.name) for p in folder.iterdir()) == list(range(about["finest"] + 1))
    with Image.open(folder / str(about["finest"]) / "0_0.jpg") as image:
        assert image.size == (shown.WIDTH // 2, shown.HEIGHT // 2)


def test_tiles_of_objects_are_those_that_the_viewer_is_sent(out):
    about, folder = about_of(out, "one"), out / "report" / "slides" / "one" / "view"
    served = Shown(read_run(out).slides["one"])
    assert {key.split("/")[0] for key in about["tiles"]} == {"0", "1"}
    for key in about["tiles"]:
        text = (folder / "things" / f"{key}.js").read_text(encoding="utf-8")
        name, data = re.fullmatch(r'quadratTile\("(.*)", "(.*)"\);\n', text).groups()
        level, col, row = (int(word) for word in re.split(r"[/_]", key))
        assert (name, zlib.decompress(base64.b64decode(data))) == (
            key,
            served.vectors(level, col, row),
        )


def test_a_slide_without_its_file_has_objects_and_says_so(out):
    about = about_of(out, "gone")
    assert "could not be read" in about["gone"]
    assert about["tiles"]
    assert not (out / "report" / "slides" / "gone" / "view" / "image").exists()


def test_it_is_whole_and_the_same_each_time(out):
    report = out / "report"
    assert {name for name in FILES if (report / name).is_file()} == set(FILES)
    assert (report / "slides" / "one" / "view" / "counts.csv").is_file()
    assert "deep zoom" in (report / "slides" / "one" / "index.html").read_text(encoding="utf-8")
    before = contents(report)
    write_report(read_run(out), capsule_mpp=0.5)
    assert contents(report) == before


def test_without_being_asked_for_there_is_none(out):
    write_report(read_run(out))
    assert not list((out / "report").rglob("about.js"))
    assert not (out / "report" / "openseadragon.min.js").exists()
