"""The text on methods that can be pasted into a paper, from summary.json and the model's card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from quadrat.core.unit import PX, large_area, length, named
from quadrat.outputs.summary import Summary
from quadrat.pages.cohort import Entry

WHAT = {
    "instance": "instance segmentation",
    "instance_masks": "instance segmentation by masks",
    "detection": "object detection",
    "semantic": "semantic segmentation",
    "classification": "classification of tiles",
}
PROMISES = {
    "tiling-exact": "the network sees all that its answer depends on in every window "
    "(tiling-exact), so that results do not depend on how the work was cut up",
    "schedule-exact": "windows have a fixed place on the slide (schedule-exact), so that results "
    "do not depend on how the work was divided among workers, but the network's answer may depend "
    "on where windows lie",
}


def methods_text(entries: Sequence[Entry], card: Mapping[str, Any] | None) -> list[str]:
    """Paragraphs on slides of one task and model."""
    summary = entries[0].slide.summary
    return [
        _work(entries, summary),
        _model(summary, card),
        _area(entries, summary),
        _reading(entries),
        *_limits(card),
    ]


def _work(entries: Sequence[Entry], summary: Summary) -> str:
    versions = summary.provenance.versions
    names = [one.name for one in summary.provenance.classes]
    n = len(entries)
    libraries = [f"{name} {versions[name]}" for name in ("torch", "numpy") if name in versions]
    return (
        f"{n} {'slide was' if n == 1 else 'slides were'} analysed by "
        f"{WHAT.get(summary.task, summary.task)} ({_listed(names)}) with quadrat "
        f"{_values(entries, lambda s: s.provenance.versions.get('quadrat', 'unknown'))} "
        f"({', '.join(libraries)}; network on "
        f"{_values(entries, lambda s: s.provenance.device)}), pipeline "
        f"{_values(entries, lambda s: s.provenance.pipeline)}."
    )


def _model(summary: Summary, card: Mapping[str, Any] | None) -> str:
    unit, frame = summary.frame.unit, summary.frame
    scale = "in pixels of level 0" if unit == PX else f"at {frame.mpp:.4g} µm per pixel"
    decided = ", ".join(
        f"{named(name, unit)} {value:g}" for name, value in sorted(summary.thresholds.items())
    )
    text = (
        f"The model (sha256 of its weights {summary.provenance.package.weights_sha256[:16]}…) "
        f"worked {scale}" + (f" with the thresholds {decided}" if decided else "")
    )
    training = (card or {}).get("training")
    source = training.get("source") if isinstance(training, dict) else None
    if source:
        text += f"; it was trained on {source}"
    exactness = summary.provenance.package.exactness or {}
    promise = PROMISES.get(str(exactness.get("promise")))
    if promise:
        text += f"; {promise}"
    return text + "."


def _area(entries: Sequence[Entry], summary: Summary) -> str:
    unit = summary.frame.unit
    areas = [one.slide.summary.figures.area for one in entries]
    tissue = sum(one.tissue_mm2 for one in areas)
    filled = [one.tissue_filled_mm2 for one in areas if one.tissue_filled_mm2 is not None]
    reasons = Counter[str]()
    for one in areas:
        reasons.update(one.excluded_mm2)
    sign = large_area(unit)
    left_out = _listed([f"{name} {mm2:.2f} {sign}" for name, mm2 in sorted(reasons.items())])
    text = f"{tissue:.2f} {sign} were analysed"
    if filled:
        text += f" (of which {sum(filled):.2f} {sign} are gaps and holes that were filled)"
    if left_out:
        text += f"; not analysed were {left_out}"
    damaged = sum(one.slide.summary.damaged for one in entries)
    if damaged:
        text += f"; {damaged} tiles could not be decoded and were read as white"
    return text + ". Densities refer to the analysed area."


def _reading(entries: Sequence[Entry]) -> str:
    formats = _values(entries, lambda s: s.reader.format)
    summary = entries[0].slide.summary
    if summary.frame.unit == PX:
        return f"Slides were of the formats {formats}; their scale was not used."
    values = [s.value for e in entries if (s := e.slide.summary.slide_mpp).value is not None]
    sources = _values(entries, lambda s: s.slide_mpp.source)
    span = f"{min(values):.4g} to {max(values):.4g} {length('um')} per pixel" if values else ""
    return f"Slides were of the formats {formats}; their scale ({span}) was taken from: {sources}."


def _limits(card: Mapping[str, Any] | None) -> list[str]:
    if card is None:
        return ["Limits: the model's card was not found. Research use only, not for diagnosis."]
    given = [str(card[name]) for name in ("limits", "intended_use") if card.get(name)]
    return [f"Limits: {' '.join(_sentence(text) for text in given)}"] if given else []


def _values(entries: Sequence[Entry], of: Any) -> str:
    """What slides have in common, or all of it."""
    return _listed(sorted({str(of(one.slide.summary)) for one in entries}))


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
