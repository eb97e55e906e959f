"""What a package's card says of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quadrat.config.leakage import Seen, seen_by
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.config.splits import case_of
from quadrat.core.unit import renamed
from quadrat.core.version import __version__
from quadrat.models.card import read_card
from quadrat.models.spec import versions
from quadrat.training.loop import Trained
from quadrat.training.thresholds import Trial


def card_of(
    pipeline: Pipeline,
    refs: Sequence[SlideRef],
    trained: Trained,
    *,
    tried: Sequence[Trial],
    final: Trial | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """JSON values; the specification and what was measured of the network are not among them.

    Args:
        pipeline: of the training.
        refs: its slides, of splits train and val.
        trained: what came out.
        tried: settings of the thresholds with their figures.
        final: the one that was chosen; None without validation slides.
        notes: what was left out of the annotations.
    """
    model, data = pipeline.model, pipeline.data
    trials = [asdict(t) | {"thresholds": renamed(t.thresholds, model.unit)} for t in tried]
    validation = {} if final is None else {**final.figures, "count_error": final.count_error}
    weights = model.encoder_weights and Path(model.encoder_weights).name
    return {
        "metrics": {
            "training_loss": dict(trained.losses),
            "validation": validation,
            "calibration": {"aim": pipeline.train.calibrate, "tried": trials},
        },
        "training": {
            "slides": [ref.name for ref in refs if ref.split != "val"],
            "validation_slides": [ref.name for ref in refs if ref.split == "val"],
            "cases": sorted({case_of(ref) for ref in refs}),
            "inherited": inherited(pipeline.train.init),
            "annotation_notes": list(notes),
            "source": data.source,
            "data_license": data.license,
            "settings": asdict(pipeline.train),
            "kept_step": trained.step,
            "begun_from": pipeline.train.init or weights,
        },
        "license": model.license,
        "limits": model.limits,
        "versions": versions() | {"quadrat": __version__},
    }


def inherited(init: str) -> dict[str, list[str]] | None:
    """What the package that a training begins with has seen; empty without one, None where its card
    does not say."""
    seen = seen_by(read_card(Path(init))) if init else Seen(frozenset(), frozenset())
    return None if seen is None else {"slides": sorted(seen.slides), "cases": sorted(seen.cases)}
