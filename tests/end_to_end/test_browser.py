"""The report and the viewer in a real browser (Chromium, driven by Playwright), on a desk and on a
phone: nothing on the console, and what a reader does has its effect."""

import shutil
import threading
import time

import pytest

from helpers import shown
from quadrat.outputs.figures import save_png
from quadrat.pages.folder import read_run
from quadrat.pages.report import write_report
from quadrat.pages.server import Server
from quadrat.pages.shown import Viewing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SIZES = {"desk": (1280, 800), "phone": (390, 780)}
OBJECTS = 400

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    names = ("one", "two", shown.MARKUP, "gone", "five", "six")
    out = shown.make_run(tmp_path_factory.mktemp("browser"), names, objects=OBJECTS)
    plants = shown.planted(900, 99)
    shown.write_objects(out / "results" / "six", plants)
    save_png(shown.picture(plants), out / "results" / "six" / "density.png")
    write_report(read_run(out), capsule_mpp=0.5)
    return out


@pytest.fixture(scope="module")
def server(out):
    with Server(Viewing(read_run(out))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=SIZES)
def page(browser, request):
    """A page of a size; in the end nothing must stand on its console, and nothing have failed."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    page, faults = context.new_page(), []
    page.on("console", lambda said: faults.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda asked: faults.append(f"{asked.url}: {asked.failure}"))
    page.on("response", lambda got: got.status >= 400 and faults.append(f"{got.url} {got.status}"))
    yield page
    context.close()
    assert faults == []


def until(page, condition, *, seconds=20.0):
    """Wait for something on a page; its content policy forbids Playwright's own way (eval)."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.03)


def ready(page):
    until(
        page, "window.quadratView && quadratView.counters.loaded && !quadratView.counters.missing"
    )


def names_shown(page):
    return page.evaluate(
        "[...document.querySelectorAll('#slides tbody tr')].filter((row) => !row.hidden)"
        ".map((row) => row.cells[0].textContent.trim())"
    )


def ink(page, colour):
    """How many px of a colour the canvas of objects has."""
    return page.evaluate(
        """([r, g, b]) => {
          const canvas = document.querySelector("canvas.things");
          const copy = document.createElement("canvas");
          copy.width = canvas.width; copy.height = canvas.height;
          const pen = copy.getContext("2d", { willReadFrequently: true });
          pen.drawImage(canvas, 0, 0);
          const data = pen.getImageData(0, 0, copy.width, copy.height).data;
          let n = 0;
          for (let i = 0; i < data.length; i += 4)
            n += data[i + 3] > 60 && Math.hypot(data[i] - r, data[i + 1] - g, data[i + 2] - b) < 25;
          return n;
        }""",
        list(colour),
    )


def fits(page):
    """Whether nothing makes the page wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_report_opens_from_disk_without_a_network(page, out):
    page.context.set_offline(True)
    page.goto((out / "report" / "index.html").as_uri())
    assert fits(page)
    assert names_shown(page)[0] == "six"
    page.click("#slides thead th:nth-child(1) button")
    assert names_shown(page) == sorted(names_shown(page), key=str.lower)
    page.click("#slides thead th:nth-child(1) button")
    assert names_shown(page) == sorted(names_shown(page), key=str.lower, reverse=True)
    count = page.evaluate(
        "[...document.querySelectorAll('#slides thead th')].findIndex((th) => "
        "th.textContent === 'count') + 1"
    )
    page.focus(f"#slides thead th:nth-child({count}) button")
    page.keyboard.press("Enter")
    assert names_shown(page)[0] == "six"
    assert page.get_attribute(f"#slides thead th:nth-child({count})", "aria-sort") == "descending"
    page.fill("[data-filters=slides]", "bold quoted")
    assert names_shown(page) == [shown.MARKUP]
    page.fill("[data-filters=slides]", "")
    page.check("[data-flagged=slides]")
    assert names_shown(page) == ["six"]
    page.click("#slides tbody a >> text=six")
    assert page.inner_text("h1") == "six"
    assert fits(page)
    until(page, "[...document.images].every((one) => one.loading === 'lazy' || one.naturalWidth)")
    page.click("text=Methods")
    assert "were analysed by instance segmentation" in page.inner_text("main")
    page.click("text=Models")
    assert "was not found" in page.inner_text("main")


def test_a_slide_is_opened_by_its_link_and_zoomed_to_an_object(page, server):
    page.goto(server.url())
    assert fits(page)
    page.click("text=two")
    ready(page)
    assert fits(page)
    row, col = (shown.planted(OBJECTS, 1).table.centroid[11] * shown.SCALE).tolist()
    page.evaluate(f"location.hash = '#{col},{row},8'")
    until(page, "Math.abs(quadratView.place().zoom - 8) < 0.01")
    ready(page)
    middle = page.evaluate(
        "(() => { const box = quadratView.viewer.container.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    time.sleep(0.3)  # a second click within that time would be a double one
    page.mouse.click(*middle)
    until(page, "quadratView.picked")
    x0, y0, x1, y1 = page.evaluate("quadratView.picked.box")
    assert x0 <= col <= x1
    assert y0 <= row <= y1
    text = page.inner_text("#picked")
    assert "area_um2" in text
    assert page.inner_text("#bar").strip() in ("2 µm", "5 µm", "1 µm")


def test_classes_scores_and_colours_change_what_is_drawn(page, server):
    page.goto(server.url("one"))
    ready(page)
    first, second = (one.color for one in shown.CLASSES)
    until(page, "quadratView.counters.drawn > 2")
    drawn = ink(page, first), ink(page, second)
    assert min(drawn) > 200
    page.keyboard.press("1")
    until(page, "!quadratView.style.on[0]")
    page.wait_for_timeout(300)
    assert ink(page, first) == 0
    assert ink(page, second) >= drawn[1]
    page.evaluate("document.querySelector('#score').value = 0.8")
    page.dispatch_event("#score", "input")
    page.wait_for_timeout(300)
    assert 0 < ink(page, second) < drawn[1]
    page.keyboard.press("b")
    page.wait_for_timeout(300)
    assert ink(page, second) == 0
    page.keyboard.press("h")
    until(page, "quadratView.heat")
    assert page.text_content("#hottest").endswith("/ mm²")


def test_a_slide_whose_file_is_gone_shows_its_objects_and_says_so(page, server):
    page.goto(server.url("gone"))
    ready(page)
    assert "its file is gone" in page.inner_text("#gone")
    page.wait_for_timeout(300)
    assert ink(page, shown.CLASSES[0].color) > 100


def test_the_next_slide_a_screenshot_and_markup(page, server):
    page.goto(server.url("two"))
    ready(page)
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "two.png"
    page.goto(server.url(shown.MARKUP))
    ready(page)
    assert page.inner_text("summary .name") == shown.MARKUP
    page.keyboard.press("n")
    page.wait_for_url("**/five/*")
    ready(page)


def test_a_slide_in_the_report_is_looked_at_from_disk(page, out):
    page.context.set_offline(True)
    page.goto((out / "report" / "slides" / "two" / "index.html").as_uri())
    page.click("text=deep zoom")
    ready(page)
    assert fits(page)
    until(page, "quadratView.viewer.world.getItemAt(0).lastDrawn.length")
    assert ink(page, shown.CLASSES[0].color) > 200
    plants = shown.planted(OBJECTS, 1)
    row, col = (plants.table.centroid[11] * shown.SCALE).tolist()
    page.evaluate(f"location.hash = '#{col},{row},4'")
    until(page, "Math.abs(quadratView.place().zoom - 4) < 0.01")
    page.keyboard.press("Enter")
    until(page, "quadratView.picked")
    x0, y0, x1, y1 = page.evaluate("quadratView.picked.box")
    assert x0 <= col <= x1
    assert y0 <= row <= y1
    classes = [one.name for one in shown.CLASSES]
    assert page.evaluate("quadratView.picked.row.class") in classes
    page.keyboard.press("1")
    until(page, "!quadratView.style.on[0]")
    page.click("#panel summary") if page.is_hidden("text=The slide's page") else None
    page.click("text=The slide's page")
    assert page.inner_text("h1") == "two"


@pytest.mark.parametrize("task", ["semantic", "classification"])
def test_regions_and_tiles_are_shown(page, tmp_path, task):
    out = shown.make_run(tmp_path, ("one",), task=task, objects=50)
    with Server(Viewing(read_run(out))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page.goto(server.url("one"))
            ready(page)
            page.wait_for_timeout(300)
            assert ink(page, shown.CLASSES[1].color) > 100
            assert page.text_content("#kind") == {"semantic": "regions"}.get(task, "tiles")
            page.keyboard.press("Enter")
            until(page, "document.querySelector('#status').textContent || quadratView.picked")
        finally:
            server.shutdown()
            thread.join()
