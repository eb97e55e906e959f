"""The report of a run: complete, escaped, offline, and the same bytes each time."""

import csv
import html.parser
import re
import resource
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from PIL import Image

from helpers import shown
from helpers.runs import contents, quadrat
from quadrat.pages.folder import read_run
from quadrat.pages.report import flattened, write_report


class Page(html.parser.HTMLParser):
    """Links and texts of a page; tags that are not ours."""

    def __init__(self, path):
        super().__init__()
        self.links, self.tags = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    names = ("one", "two", shown.MARKUP, "gone", "five", "six")
    out = shown.make_run(tmp_path_factory.mktemp("report"), names)
    plants = shown.planted(900, 99)
    shown.write_objects(out / "results" / "six", plants)
    done = quadrat("report", out)
    assert done.code == 0, done.err
    assert f"6 slides: {out / 'report' / 'index.html'}" in done.out
    return out / "report"


def test_every_link_leads_to_a_file_of_the_report(report):
    pages = sorted(report.rglob("*.html"))
    assert len(pages) == 3 + 6
    for path in pages:
        for link in Page(path).links:
            assert re.match(r"(?!\w+:)", link) or link == "data:,", f"{path} links to {link}"
            if not link.startswith(("#", "data:")):
                assert (path.parent / unquote(link)).is_file(), f"{path} links to {link}"


def test_names_with_markup_are_text(report):
    for path in report.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not {"b", "i"} & Page(path).tags
        assert "<b>bold" not in text
        assert "<i>stroma" not in text
    index = (report / "index.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt;bold &amp; &#34;quoted&#34;" in index
    assert "the file &lt;b&gt;ends&lt;/b&gt; early" in index
    assert "fetch it again" in index


def test_the_slide_that_stands_out_is_first_and_flagged(report):
    index = (report / "index.html").read_text(encoding="utf-8")
    table = index[index.index('<table id="slides"') :]
    first = table.index('href="slides/six/')
    assert all(table.index(f'href="slides/{name}/') >= first for name in ("one", "two", "five"))
    assert "Stands out by" in (report / "slides" / "six" / "index.html").read_text("utf-8")


def test_a_slide_has_its_pictures_classes_crops_and_quality(report):
    folder = report / "slides" / "one"
    assert len(list(folder.glob("crop_*.jpg"))) == 12
    for name in ("overlay.jpg", "small.jpg", "crop_01.jpg"):
        with Image.open(folder / name) as image:
            image.verify()
    text = (folder / "index.html").read_text(encoding="utf-8")
    for part in ("random", "least sure", "hotspot", "pen", "0.0020", "sharpness", "od_green"):
        assert part in text


def test_a_slide_without_its_file_has_a_page_that_says_so(report):
    text = (report / "slides" / "gone" / "index.html").read_text(encoding="utf-8")
    assert "No crops and no thumbnail: its file is gone: 3.png" in text
    assert not list((report / "slides" / "gone").glob("crop_*"))
    assert str(report.parent.parent) not in text


def test_no_page_names_a_place_of_this_machine(report):
    for path in report.rglob("*"):
        if path.is_file():
            assert str(report.parent.parent).encode() not in path.read_bytes()


def test_the_same_results_give_the_same_bytes(report):
    before = contents(report)
    write_report(read_run(report.parent))
    assert contents(report) == before


def test_multiqc_finds_a_table_with_its_settings(report):
    lines = (report / "quadrat_mqc.tsv").read_text(encoding="utf-8").splitlines()
    head = [line[2:] for line in lines if line.startswith("#")]
    assert yaml.safe_load("\n".join(head))["plot_type"] == "table"
    rows = list(csv.DictReader(lines[len(head) :], delimiter="\t"))
    assert [row["Sample"] for row in rows] == sorted(row["Sample"] for row in rows)
    assert next(row for row in rows if row["Sample"] == "six")["count"] == "900"


def test_the_scripts_are_small_and_name_no_other_place(report):
    scripts = [*report.glob("*.js"), *report.glob("*.css")]
    assert sum(path.stat().st_size for path in scripts) < 600_000
    for path in scripts:
        assert b"http" not in path.read_bytes()


@pytest.mark.parametrize("task", ["semantic", "classification", "detection"])
def test_every_task_has_a_report(tmp_path, task):
    out = shown.make_run(tmp_path, ("one", "two"), task=task)
    index = write_report(read_run(out)).read_text(encoding="utf-8")
    assert "<svg" in index
    assert task in (out / "report" / "slides" / "two" / "index.html").read_text(encoding="utf-8")


def test_slides_without_objects_and_runs_without_results_have_a_report(tmp_path):
    write_report(read_run(shown.make_run(tmp_path / "a", ("one",), objects=0)))
    out = shown.make_run(tmp_path / "b", ())
    assert "fetch it again" in write_report(read_run(out)).read_text(encoding="utf-8")


def test_work_in_pixels_has_columns_in_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(shown, "frame", _in_pixels(shown.frame))
    out = shown.make_run(tmp_path, ("one",), objects=10)
    index = write_report(read_run(out)).read_text(encoding="utf-8")
    assert "tissue_mpx" in index
    assert "mm2" not in index
    assert "mm²" not in index


def _in_pixels(frame):
    from dataclasses import replace

    return lambda *words: replace(frame(*words), unit="px", mpp=shown.SCALE)


def test_a_card_is_a_table_without_its_long_lists():
    card = {"a": {"b": 1, "c": {"d": None}}, "slides": ["x" * 50, "y"], "e": "text", "f": [1, 2]}
    assert list(flattened(card)) == [
        ("a.b", "1"),
        ("a.c.d", "null"),
        ("slides", "2 entries"),
        ("e", "text"),
        ("f", "[1, 2]"),
    ]


@pytest.mark.slow
def test_a_hundred_slides_take_a_minute_and_a_gigabyte_at_most(tmp_path):
    out = shown.make_run(Path(tmp_path), tuple(f"s{i}" for i in range(100)), objects=2000)
    run, start = read_run(out), time.perf_counter()
    write_report(run)
    assert time.perf_counter() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # kB
