"""What of two files differs, in a few words."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path

SHOWN = 5


def unlike(one: Path, other: Path) -> str:
    """What differs between two files of one name, of which one may be missing."""
    for path, when in ((one, "then"), (other, "now")):
        if not path.exists():
            return f"is missing {when}"
    find = {".json": _json, ".csv": _lines, ".geojson": _lines, ".parquet": _parquet}
    a, b = one.read_bytes(), other.read_bytes()
    try:
        found = find.get(one.suffix, _nothing)(one, other)
    except (ValueError, OSError) as error:
        found = f"cannot be read ({error})"
    at = next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    sizes = f"{len(a)} and {len(b)} bytes" if len(a) != len(b) else f"{len(a)} bytes"
    return f"{found or 'bytes differ'} (first at byte {at}; {sizes})"


def _nothing(one: Path, other: Path) -> str:
    return ""


def _json(one: Path, other: Path) -> str:
    a, b = (json.loads(path.read_bytes()) for path in (one, other))
    if not isinstance(a, dict) or not isinstance(b, dict):
        return ""
    return _some("keys", [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)])


def _lines(one: Path, other: Path) -> str:
    pairs = zip_longest(*(path.read_bytes().splitlines() for path in (one, other)))
    return _some(
        "lines", [str(i) for i, (a, b) in enumerate(pairs, start=1) if a != b], ordered=True
    )


def _parquet(one: Path, other: Path) -> str:
    import pyarrow.parquet as pq

    a, b = (pq.read_table(path) for path in (one, other))
    if a.num_rows != b.num_rows:
        return f"{a.num_rows} and {b.num_rows} rows"
    names = dict.fromkeys([*a.column_names, *b.column_names])
    both = set(a.column_names) & set(b.column_names)
    return _some("columns", [n for n in names if n not in both or not a[n].equals(b[n])])


def _some(what: str, names: list[str], *, ordered: bool = False) -> str:
    if not names:
        return ""
    shown = names if ordered else sorted(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what} {', '.join(shown[:SHOWN])}{more}"
