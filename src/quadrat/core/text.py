"""Text files that people hand in (UTF-8; the first line shows what separates the columns), and
text for people to read."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

# a polygon as well-known text is longer than the 131072 characters that csv begins with
csv.field_size_limit(2**31 - 1)

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""What a file of UTF-16 text begins with."""


def utc_now() -> str:
    """The date and time of now (UTC), to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV: a comma, ``\\n``, quotes only where needed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def mark_of(line: str) -> str | None:
    """What separates the columns of a line: a tab, else a semicolon, else a comma, else None
    (spaces)."""
    return next((mark for mark in "\t;," if mark in line), None)


def not_utf8(path: Path, error: UnicodeDecodeError) -> str:
    """The sentence on a file that is not UTF-8 text."""
    what = "UTF-16 text" if error.object[:2] in UTF16 else f"not UTF-8 text ({error.reason})"
    return f"{path}: {what}; save it as UTF-8"


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """The end of a message on an unknown name: the nearest known one, else ``otherwise``."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else otherwise


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as lines: every column has one width, and two spaces separate columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
