"""HTML from the templates of this room: every value is escaped, and an unknown one is an error."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent
STATIC = {
    "report.css": "text/css",
    "report.js": "text/javascript",
    "capsule.js": "text/javascript",
    "viewer.css": "text/css",
    "viewer.js": "text/javascript",
    "vectors.js": "text/javascript",
    "openseadragon.min.js": "text/javascript",
    "openseadragon.LICENSE.txt": "text/plain",
}
"""The files that pages use, with their types."""
_VENDORED = "openseadragon"


def page(template: str, **values: Any) -> str:
    """A page as text.

    Raises:
        jinja2.UndefinedError: a value is missing.
    """
    return _environment().get_template(template).render(**values)


def static(name: str) -> bytes:
    """One of the STATIC files."""
    folder = "vendor" if name.startswith(_VENDORED) else "static"
    return (HERE / folder / name).read_bytes()


def whole(value: float | None) -> str:
    """A number with marks at its thousands, "" if there is none."""
    return "" if value is None else f"{value:,.0f}"


def figure(value: float | None, digits: int = 3) -> str:
    """A number with so many digits that count, "" if there is none."""
    if value is None:
        return ""
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"whole": whole, "figure": figure}
    made.globals["quote"] = functools.partial(quote, safe="")
    return made
