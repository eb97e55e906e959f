"""What the rows of a manifest are called and which case they are of, from the slides' paths alone
(pure)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path, PurePosixPath

from quadrat.config.manifest import SlideRef, slide_name
from quadrat.core.errors import ConfigError

TCGA = re.compile(r"^(TCGA-[A-Za-z0-9]{2}-[A-Za-z0-9]{4})(?=$|[-_. ])")
"""A TCGA barcode up to the participant (docs.gdc.cancer.gov, Encyclopedia: TCGA barcode)."""
FORBIDDEN = re.compile(r'[\x00-\x1f/\\:*?"<>|]')
"""What a folder's name must not hold on one system or another."""
FIRST_WORD = "([^/_. -]+)[^/]*$"
"""Finds what stands before the first mark in a file's name."""


def unique_names(own: Mapping[str, str]) -> dict[str, str]:
    """A name for the results of each slide, by its path: its own, else with its folders, else with
    its suffix, else numbered.

    ``own``: by the path below the folder of slides, what the slide alone would be called. No two
    names agree, upper and lower case alike, and each can be a folder's.
    """
    chosen: dict[str, str] = {}
    levels = (
        own,
        {path: "-".join([*PurePosixPath(path).parts[:-1], name]) for path, name in own.items()},
        {path: "-".join(PurePosixPath(path).parts) for path in own},
    )
    for level in levels:
        wanted = {path: folder_name(name) for path, name in level.items() if path not in chosen}
        often = Counter(name.casefold() for name in [*wanted.values(), *chosen.values()])
        chosen |= {path: name for path, name in wanted.items() if often[name.casefold()] == 1}
    for path in own:
        if path not in chosen:
            taken = {name.casefold() for name in chosen.values()}
            numbered = (f"{folder_name(own[path])}-{k}" for k in count(2))
            chosen[path] = next(name for name in numbered if name.casefold() not in taken)
    return {path: chosen[path] for path in own}


def folder_name(name: str) -> str:
    """The name with "_" for what a folder's name must not hold, and for a dot in front."""
    return re.sub(r"^\.|^$", "_", FORBIDDEN.sub("_", name).strip())


def tcga_participant(name: str) -> str:
    """The participant of a TCGA barcode in front of a name; "" where there is none."""
    found = TCGA.match(name)
    return found.group(1).upper() if found else ""


def pattern_of(text: str) -> re.Pattern[str]:
    """The regular expression of ``--case``.

    Raises:
        ConfigError: it is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"--case '{text}' is not a regular expression ({error})") from error


def case_in(path: str, pattern: re.Pattern[str]) -> str:
    """The case that a pattern finds in a slide's path: its first group, or the whole match where it
    has no group.

    Raises:
        ConfigError: it finds nothing.
    """
    found = pattern.search(path)
    case = (found.group(min(1, pattern.groups)) or "").strip() if found else ""
    if not case:
        raise ConfigError(
            f"--case '{pattern.pattern}' finds no case in the slide '{path}'; it must match the "
            "path of every slide below "
            "--slides, and its first group (or all that it matches) is the case"
        )
    return case


def about_cases(refs: Sequence[SlideRef]) -> list[str]:
    """That slides are taken for cases of their own, whether names that begin alike may be of one
    patient, and the remedy."""
    own = [slide_name(Path(ref.path)) for ref in refs if ref.case == ref.name]
    if not own:
        return []
    begin = Counter(re.split(r"[-_. ]", name)[0] for name in own)
    alike, n = begin.most_common(1)[0]
    hint = (
        f" (names begin alike, {n} with '{alike}': if that is the patient, --case '{FIRST_WORD}')"
    )
    return [
        f"case: {len(own)} of {len(refs)} slides are taken for a case of their own; if several are "
        "of one patient, say "
        "--case REGEX, which finds the patient in a slide's path, or what is learnt of a patient "
        "is tested on the same" + (hint if 1 < len(begin) < 0.8 * len(own) else "")
    ]
