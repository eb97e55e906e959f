"""The viewer's server: what it answers, and what it refuses."""

import http.client
import io
import json
import threading
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from helpers import shown
from quadrat.pages.folder import read_run
from quadrat.pages.server import Server
from quadrat.pages.shown import Viewing


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return shown.make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def server(out):
    (out / "secret.txt").write_text("secret")
    (out / "results" / "one" / "secret.txt").write_text("secret")
    with Server(Viewing(read_run(out))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path, *, host="", method="GET", token=None):
    """Status, headers and body of a request, sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, f"/{server.token if token is None else token}/{path}", True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_the_slides_are_listed_and_names_with_markup_are_escaped(server):
    status, headers, body = ask(server, "")
    text = body.decode()
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "a &lt;b&gt;bold &amp; &#34;quoted&#34; &#39;x&#39;" in text
    assert "<b>bold" not in text
    assert "the file &lt;b&gt;ends&lt;/b&gt; early" in text
    assert f'href="slide/{quote(shown.MARKUP, safe="")}/"' in text


def test_a_slide_with_markup_in_its_name_has_a_page(server):
    path = f"slide/{quote(shown.MARKUP, safe='')}/"
    status, _, body = ask(server, path)
    assert status == 200
    assert "<b>bold" not in body.decode()
    about = json.loads(ask(server, f"{path}about.json")[2])
    assert about["slide"] == shown.MARKUP
    assert [c["name"] for c in about["classes"]] == [c.name for c in shown.CLASSES]


def test_tiles_of_the_picture_and_of_objects_are_sent(server):
    about = json.loads(ask(server, "slide/one/about.json")[2])
    status, headers, body = ask(server, f"slide/one/image/{about['levels'] - 1}/0_0.jpg")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(body)).size == (512, 512)
    status, headers, body = ask(server, "slide/one/things/0/0_0")
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    assert len(body) > 1000
    for place in ("image/99/0_0.jpg", "image/10/9_9.jpg", "things/0/9_9", "things/-9/0_0"):
        assert ask(server, f"slide/one/{place}")[0] == 404


def test_a_slide_without_its_file_says_so_and_still_has_objects(server):
    about = json.loads(ask(server, "slide/gone/about.json")[2])
    assert "its file is gone" in about["gone"]
    assert (about["width"], about["height"]) == (shown.WIDTH, shown.HEIGHT)
    assert ask(server, "slide/gone/image/5/0_0.jpg")[0] == 404
    assert len(ask(server, "slide/gone/things/0/0_0")[2]) > 1000


def test_an_object_is_told_by_its_row(server, out):
    plants = shown.planted(120, 0)
    row, col = plants.table.centroid[7] * shown.SCALE
    asked = f"slide/one/pick?x={col}&y={row}&reach=5&classes=0,1&score=0"
    found = json.loads(ask(server, asked)[2])
    x0, y0, x1, y1 = found["box"]
    assert x0 <= col <= x1
    assert y0 <= row <= y1
    assert found["row"]["id"] == found["index"] + 1
    assert found["row"]["class"] in [c.name for c in shown.CLASSES]
    assert json.loads(ask(server, asked.replace("classes=0,1", "classes="))[2]) is None
    assert json.loads(ask(server, asked.replace("score=0", "score=1"))[2]) is None


def test_the_heat_map_follows_classes_and_score(server):
    def total(asked):
        body = ask(server, f"slide/one/heat?{asked}")[2]
        cols, rows = np.frombuffer(body, "<u4", 2)
        values = np.frombuffer(body, "<f4", offset=8)
        assert len(values) == cols * rows
        cell_mm2 = (200 * 0.25 / 1000) ** 2  # cells of 50 um, 0.25 um a px of level 0
        return round(float(values.sum()) * cell_mm2)

    plants = shown.planted(120, 0).table
    assert total("classes=0,1&score=0") == 120
    assert total("classes=1&score=0") == (plants.class_id == 1).sum()
    sure = np.round(plants.score * 255) >= round(0.7 * 255)
    assert total("classes=0,1&score=0.7") == sure.sum()


@pytest.mark.parametrize(
    "asked", ["pick?x=a", "pick?x=nan&y=1", "heat?score=inf", "heat?classes=x"]
)
def test_what_is_no_number_is_refused(server, asked):
    assert ask(server, f"slide/one/{asked}")[0] == 400


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt", "slide/../secret.txt", "slide/one/secret.txt",
        "slide/one/../../secret.txt",
        "slide/%2e%2e/secret.txt", "slide/one/..%2f..%2f..%2fsecret.txt", "file/../server.py",
        "file/..%2fserver.py", "file/server.py", "slide//etc/passwd", "slide/%2fetc%2fpasswd/",
        "/etc/passwd", "slide/one/overlay.png/..", "slide/nobody/", "slide/failed/", "slide/one",
        "slide/one/summary.json", "slide/one/image/3/0_0.jpg/../../../summary.json", "slide/../",
    ],
)  # fmt: skip
def test_what_lies_outside_is_refused(server, path):
    status, _, body = ask(server, path)
    assert status == 404
    assert b"secret" not in body


def test_pictures_of_the_results_are_handed_out(server):
    status, headers, body = ask(server, "slide/one/overlay.png")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert body.startswith(b"\x89PNG")
    assert ask(server, "slide/one/density.png")[0] == 404


@pytest.mark.parametrize("token", ["", "x", "a" * 32, "%00"])
def test_a_wrong_token_is_refused(server, token):
    for path in ("", "slide/one/", "file/viewer.js"):
        status, _, body = ask(server, path, token=token)
        assert status == 403
        assert b"no valid token" in body


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:80", "::1"]
)
def test_a_request_to_another_name_is_refused(server, host):
    assert ask(server, "", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1", "[::1]:4000"])
def test_the_names_of_this_machine_are_answered_through_a_tunnel_as_well(server, host):
    assert ask(server, "", host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(server, method):
    assert ask(server, "slide/one/", method=method)[0] == 501


def test_a_damaged_result_is_named_and_the_server_goes_on(tmp_path):
    run = read_run(shown.make_run(tmp_path, ("one",), objects=4))
    (run.slides["one"].folder / "objects.parquet").write_bytes(b"PAR1")
    with Server(Viewing(run)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        status, _, body = ask(server, "slide/one/about.json")
        assert (status, ask(server, "")[0]) == (500, 200)
        assert b"cannot be read" in body
        server.shutdown()
        thread.join()
