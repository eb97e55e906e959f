"""The key of a training: everything that decides its weights, by content. Where files lie does not
count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quadrat.config.pipeline import Pipeline
from quadrat.core.files import sha256_of
from quadrat.engine.work import SlideWork
from quadrat.models.card import read_card
from quadrat.models.task import ModelSpec
from quadrat.slides.identity import regions_digest, slide_identity
from quadrat.training.checkpoint import Key
from quadrat.training.loop import key_of

NOT_DECISIVE = ("manifest", "source", "license")
"""Keys of the section ``data`` that change no weights."""
SHOWN = 16
"""Digits of a content's sha256."""


def training_key(pipeline: Pipeline, works: Sequence[SlideWork], spec: ModelSpec) -> Key:
    """Of the settings, of the slides and their annotations, and of the first weights.

    ``works``: the slides of splits train and val, in order.
    """
    return {
        **key_of(spec, pipeline.train),
        **_first_weights(pipeline),
        **_data(pipeline),
        **_slides(works),
    }


def _data(pipeline: Pipeline) -> Key:
    data = asdict(pipeline.data).items()
    return {f"data.{name}": value for name, value in data if name not in NOT_DECISIVE} | {
        f"slide.{name}": value for name, value in asdict(pipeline.slide).items()
    }


def _slides(works: Sequence[SlideWork]) -> Key:
    found: dict[str, Any] = {}
    for work in works:
        ref = work.ref
        parts = {name: getattr(ref, name) for name in ("mpp", "label", "annotated", "split")} | {
            "pixels": work.identity[:SHOWN],
            "annotation": _digest(ref.annotation)[:SHOWN],
            "regions": regions_digest(ref.regions)[:SHOWN],
        }
        found |= {f"{name} of slide {ref.name}": value for name, value in parts.items()}
    names = json.dumps([work.ref.name for work in works])
    return found | {"order of slides": hashlib.sha256(names.encode()).hexdigest()[:SHOWN]}


def _first_weights(pipeline: Pipeline) -> Key:
    init, weights = pipeline.train.init, pipeline.model.encoder_weights
    if init:
        return {"train.init": read_card(Path(init)).get("weights_sha256", "")[:SHOWN]}
    return {"model.encoder_weights": _digest(weights)[:SHOWN] or weights}


def _digest(path: str) -> str:
    """Of a file's content, of a folder's outline and ends; "" where there is none."""
    place = Path(path)
    if not path or not place.exists():
        return ""
    return slide_identity(path) if place.is_dir() else sha256_of(place)
