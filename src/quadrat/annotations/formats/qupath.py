"""What QuPath calls its objects, in every version and however a program after it spelt them
(pure)."""

from __future__ import annotations

import re
from typing import Literal

from quadrat.annotations.types import Kind

_KINDS: dict[str, Kind] = {"detection": "object", "cell": "object", "annotation": "region"}
_ASIDE = ("tile", "tmacore", "root")


def meaning_of(object_type: str) -> Kind | Literal["aside", "unknown"]:
    """Whether a type ("annotation", "PathCellObject", "TMA core") is an object or a region.

    "aside": neither (a tile, a TMA core, the root of all objects). "unknown": no type of QuPath.
    """
    word = _word(object_type)
    return _KINDS.get(word, "aside" if word in _ASIDE else "unknown")


def is_core(object_type: str) -> bool:
    """Whether a type is a core of a tissue microarray."""
    return _word(object_type) == "tmacore"


def _word(object_type: str) -> str:
    word = re.sub(r"[\s_-]", "", object_type.casefold())
    return word.removeprefix("path").removesuffix("object")


def left_out_note(count: int, what: str, object_type: str) -> str:
    """The sentence on ``count`` features or lines of a type that is neither object nor region."""
    return f"{count} {what} of the type '{object_type}' left out: neither objects nor regions"
