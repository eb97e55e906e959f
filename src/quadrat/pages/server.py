"""The viewer's server: this machine only, read-only, and only for who has the token.

A request is answered if it comes to a loopback name (another name in ``Host`` is a page elsewhere
that had its name point here), begins with the token, and is one of the paths below. Slides are
looked up by name among those of the run, files in a fixed list: no path of a request ever becomes
a path of this machine.

::

    /TOKEN/                                        the slides
    /TOKEN/file/NAME                               scripts and styles
    /TOKEN/slide/NAME/                             a slide; below it:
        about.json  image/L/X_Y.jpg  things/L/X_Y  pick  heat  NAME.png
"""

from __future__ import annotations

import hmac
import json
import math
import re
import secrets
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from quadrat.core.errors import QuadratError
from quadrat.pages.rendering import STATIC, page, static
from quadrat.pages.shown import Shown, Viewing

LOOPBACK = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""Names under which this machine calls itself; behind a tunnel the port may be another."""
PICTURES = ("overlay.png", "density.png", "heatmap.png")
"""Files of a slide's results that are handed out."""
HEADERS = {
    # OpenSeadragon writes styles into the elements that it makes
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KEPT = "private, max-age=3600"
_TILE = re.compile(r"(image|things)/(-?\d{1,2})/(\d{1,7})_(\d{1,7})(\.jpg)?")
_SECONDS = 60
"""A connection without a request is closed."""


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    """As HTTP counts."""
    kind: str
    """Type of the body."""
    body: bytes
    """What it says."""
    kept: bool = False
    """Whether the browser may keep it."""


class Server(ThreadingHTTPServer):
    """Serves the slides of a run until it is shut down."""

    daemon_threads = True

    def __init__(self, viewing: Viewing, *, port: int = 0) -> None:
        """``port``: 0 takes one that is free.

        Raises:
            OSError: the port is taken.
        """
        self.viewing = viewing
        self.token = secrets.token_urlsafe(24)
        super().__init__((LOOPBACK, port), _Handler)

    def url(self, slide: str = "") -> str:
        """Where the list of slides is found, or one of them."""
        below = f"slide/{quote(slide, safe='')}/" if slide else ""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/{below}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no fault."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "quadrat", ""
    protocol_version = "HTTP/1.1"
    timeout = _SECONDS

    def do_GET(self) -> None:
        self._send(self._answer())

    def do_HEAD(self) -> None:
        self._send(self._answer(), body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to the command."""

    def _send(self, answer: Answer, *, body: bool = True) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", _KEPT if answer.kept else "no-store")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def _answer(self) -> Answer:
        host = self.headers.get("Host", "")
        if re.sub(r":\d+$", "", host) not in HOSTS:
            return _text(403, "this server answers to 127.0.0.1 and localhost alone")
        try:
            at = urlsplit(self.path)
        except ValueError as error:
            return _text(400, f"this is no address ({error})")
        token, _, rest = at.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return _text(403, "the address has no valid token; copy it from the terminal")
        try:
            return answer(self.server.viewing, rest, dict(parse_qsl(at.query)))
        except (QuadratError, OSError) as error:
            return _text(500, str(error))


def answer(viewing: Viewing, path: str, asked: Mapping[str, str]) -> Answer:
    """The answer to what stands behind the token.

    Raises:
        QuadratError: a slide or a result cannot be read.
    """
    if path == "":
        return _html(_list(viewing))
    first, _, rest = path.partition("/")
    if first == "file" and rest in STATIC:
        return Answer(200, f"{STATIC[rest]}; charset=utf-8", static(rest), kept=True)
    name, slash, below = rest.partition("/")
    shown = viewing.shown(unquote(name)) if first == "slide" and slash else None
    if shown is None:
        return _text(404, "there is no such page")
    return _of_slide(viewing, shown, below, asked)


def _of_slide(viewing: Viewing, shown: Shown, below: str, asked: Mapping[str, str]) -> Answer:
    found = _TILE.fullmatch(below)
    if found is not None:
        kind, level, col, row = found[1], *(int(found[i]) for i in (2, 3, 4))
        make = shown.image if kind == "image" else shown.vectors
        data = make(level, col, row)
        if data is None:
            return _text(404, "there is no such tile")
        return Answer(
            200, "image/jpeg" if kind == "image" else "application/octet-stream", data, kept=True
        )
    if below == "":
        names = list(viewing.run.slides)
        pictures = [name for name in PICTURES if (shown.slide.folder / name).is_file()]
        return _html(
            page(
                "viewer.html",
                slide=shown.slide,
                kind=shown.kind,
                names=names,
                pictures=pictures,
                files="../../file/",
                capsule=False,
            )
        )
    if below == "about.json":
        return _json(json.dumps(shown.about()))
    if below in ("pick", "heat"):
        return _asked(shown, below, asked)
    if below in PICTURES and (shown.slide.folder / below).is_file():
        return Answer(200, "image/png", (shown.slide.folder / below).read_bytes(), kept=True)
    return _text(404, "there is no such page")


def _asked(shown: Shown, what: str, asked: Mapping[str, str]) -> Answer:
    try:
        score = float(asked.get("score", "0"))
        words = asked.get("classes", "").split(",")
        classes = frozenset(int(word) for word in words if word)
        x, y, reach = (float(asked.get(name, "0")) for name in ("x", "y", "reach"))
        if not all(map(math.isfinite, (score, x, y, reach))):
            raise ValueError("it has no end")
    except ValueError as error:
        return _text(400, f"what was asked for is not a number ({error})")
    if what == "heat":
        return Answer(200, "application/octet-stream", shown.heat(classes, score))
    return _json(shown.pick(x, y, reach, classes, score))


def _list(viewing: Viewing) -> str:
    run = viewing.run
    return page("slides.html", run=run, slides=list(run.slides.values()), lost=run.lost)


def _html(text: str) -> Answer:
    return Answer(200, "text/html; charset=utf-8", text.encode())


def _json(text: str) -> Answer:
    return Answer(200, "application/json", text.encode())


def _text(status: int, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())
