"""What must not be on two sides: cases, slides listed twice, one file under two names; found before
time is spent.

``check_leakage`` computes; ``content_digests`` reads files, and reads whole only those that could
be the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quadrat.config.manifest import SlideRef
from quadrat.config.splits import case_of, notes_on, one_side
from quadrat.core.errors import ConfigError
from quadrat.core.files import sha256_of


def check_leakage(refs: Sequence[SlideRef], digests: Mapping[str, str] | None = None) -> None:
    """Refuse slides on which training and testing would share anything.

    ``digests``: by path, of files that may be the same (``content_digests``); two paths of one
    digest are one slide.

    Raises:
        ConfigError: a slide listed twice (the same path, or the same bytes under two names), a
        case in two splits, or a case in
            two folds. The message names both slides and the way out.
    """
    seen: dict[str, SlideRef] = {}
    for ref in refs:
        first = seen.setdefault(str(Path(ref.path).resolve()), ref)
        if first is not ref:
            raise ConfigError(
                f"the slide {ref.path} is listed twice (as {first.name} and as {ref.name}); keep "
                "one row"
            )
    content: dict[str, SlideRef] = {}
    for ref in refs:
        if digests and ref.path in digests:
            first = content.setdefault(digests[ref.path], ref)
            if first is not ref:
                raise ConfigError(
                    f"{first.path} and {ref.path} hold the same bytes: it is one slide under two "
                    "names; keep one row"
                )
    if any(ref.split for ref in refs):
        one_side(refs, {ref.name: f"split '{ref.split or 'train'}'" for ref in refs})
    folded = [ref for ref in refs if ref.fold is not None]
    one_side(folded, {ref.name: f"fold {ref.fold}" for ref in folded})


def check_training(
    refs: Sequence[SlideRef], digests: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Refuse what cannot be trained on; the notes on what can.

    Raises:
        ConfigError: as ``check_leakage``, or no slide of split "train".
    """
    check_leakage(refs, digests)
    if not any(ref.split in ("", "train") for ref in refs):
        raise ConfigError(
            f"none of the {len(refs)} slides is of split 'train' (or of none): there is nothing to "
            "learn from; give slides of at "
            "least one case the split 'train'"
        )
    return notes_on(refs)


@dataclass(frozen=True, slots=True)
class Seen:
    """Slides that a model was trained, stopped or calibrated on, itself or by what it was begun
    from."""

    slides: frozenset[str]
    """Their names (``SlideRef.name``)."""
    cases: frozenset[str]
    """Their cases; another slide of such a case counts as seen too."""

    def of(self, refs: Sequence[SlideRef]) -> list[SlideRef]:
        """Those of the slides that were seen, by their name or their case."""
        return [ref for ref in refs if ref.name in self.slides or case_of(ref) in self.cases]


def seen_by(card: Mapping[str, Any]) -> Seen | None:
    """What a package's card says that was seen; None where it, or a package that it was begun from,
    does not say."""
    training = card.get("training")
    if not isinstance(training, Mapping) or not {"slides", "cases"} <= set(training):
        return None
    inherited = training.get("inherited", {"slides": (), "cases": ()})
    if inherited is None:
        return None
    own = (*training["slides"], *training.get("validation_slides", ()))
    return Seen(
        frozenset((*own, *inherited["slides"])),
        frozenset((*training["cases"], *inherited["cases"])),
    )


def content_digests(paths: Sequence[str]) -> dict[str, str]:
    """sha256 by path, of those files and folders that agree with another in size (a folder: in its
    files' names and sizes).

    Those that agree with none cannot be the same and are not read. What is not there is left out:
    whoever opens it says so.
    """
    alike: dict[object, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        if Path(path).exists():
            alike[_outline(Path(path))].append(path)
    return {
        path: _digest(Path(path)) for group in alike.values() if len(group) > 1 for path in group
    }


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _outline(path: Path) -> tuple[tuple[str, int], ...]:
    return tuple((f.relative_to(path).as_posix(), f.stat().st_size) for f in _files(path))


def _digest(path: Path) -> str:
    return sha256_of(*_files(path))
