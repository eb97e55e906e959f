"""Which picture a file means: annotation files name slides with other folders and suffixes than the
manifest (pure)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from quadrat.core.errors import AnnotationError

_KEPT = 64
"""How many lists of names stay indexed: one list is searched slide after slide."""


@dataclass(frozen=True, slots=True)
class _Index:
    """Where names stand in their list."""

    by_name: Mapping[str, Sequence[int]]
    """By the whole name."""
    by_steps: Mapping[tuple[str, ...], Sequence[int]]
    """By the folders and the file, if there are folders."""
    by_file: Mapping[str, Sequence[int]]
    """By the last step."""
    by_stem: Mapping[str, Sequence[int]]
    """By the last step without suffix."""


def same_pictures(names: Sequence[str], picture: str, *, called: str = "") -> list[str]:
    """Which names mean the slide at the path ``picture``. The first rule that a name fulfils
    decides.

    The rules: the same path; the last folders and the name of the path ("normal/a.png"); the same
    name without folders; the same without the suffix of the picture; both without their suffixes;
    the name of the slide in the manifest (``called``).
    """
    index = _index(tuple(names))
    path = _steps(picture)
    stem = without_suffix(path[-1])
    for found in (
        index.by_name.get(picture, ()),
        sorted(i for n in range(2, len(path)) for i in index.by_steps.get(path[-n:], ())),
        index.by_file.get(path[-1], ()),
        index.by_file.get(stem, ()),
        index.by_stem.get(stem, ()),
        index.by_name.get(called, ()),
    ):
        if found:
            return [names[i] for i in found]
    return []


def one_picture(names: Sequence[str], picture: str, *, called: str, where: str) -> str:
    """The one name of a file that means the slide. With an empty ``picture``, the only name there
    is.

    Raises:
        AnnotationError: no name means it, or several may. The message begins with ``where``.
    """
    found = same_pictures(names, picture, called=called) if picture else names
    if len(found) == 1:
        return found[0]
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    raise AnnotationError(
        f"{where}: {len(found) or 'none'} of its {len(names)} pictures ({shown}) may be "
        f"{picture or 'meant'}; one must have the file name of the slide"
    )


def other_picture(named: str, picture: str, *, called: str) -> str:
    """The sentence on a file that names another picture (``named``) than the slide at the path
    ``picture``; "" if it names that slide, or none."""
    if not named or same_pictures([named], picture, called=called):
        return ""
    return f"the file says it is of {named}, the manifest says {_steps(picture)[-1]}"


def without_suffix(name: str) -> str:
    """The name of a file without its folders and its suffix. A suffix begins with a letter: "s.1"
    and "a_0.98" have none."""
    return re.sub(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{1,7}$", "", _steps(name)[-1])


@lru_cache(maxsize=_KEPT)
def _index(names: tuple[str, ...]) -> _Index:
    by_name, by_file, by_stem = (defaultdict[str, list[int]](list) for _ in range(3))
    by_steps = defaultdict[tuple[str, ...], list[int]](list)
    for i, name in enumerate(names):
        steps = _steps(name)
        by_name[name].append(i)
        by_file[steps[-1]].append(i)
        if len(steps) > 1:
            by_steps[steps].append(i)
        if steps[-1]:
            by_stem[without_suffix(name)].append(i)
    return _Index(by_name, by_steps, by_file, by_stem)


def _steps(name: str) -> tuple[str, ...]:
    """Folders and file of a path written on any system."""
    return tuple(re.split(r"[/\\]", name))
