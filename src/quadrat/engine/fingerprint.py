"""Hashes over everything that decides the content of stores, predictions and results."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.records import to_json
from quadrat.core.unit import PX
from quadrat.engine.journal import Key, Level
from quadrat.engine.work import SlideWork
from quadrat.models.task import ModelSpec
from quadrat.slides.identity import regions_digest, slide_identity

RESULT_SCHEMA = 3
SHOWN, MACHINE = 16, 4
"""Characters of a fingerprint in a receipt's key, and how many of them are the machine's."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Hashes over everything that decides the content. Each is part of the next one."""

    tile: str
    """Of the plan and the tile store."""
    predict: str
    """Of the predictions."""
    result: str
    """Of the results."""
    machine: str = ""
    """Of what the network is computed with (see :meth:`on`); it is in receipts only, because a
    finished slide stays finished on another machine."""

    def of_run(self, until: str) -> str:
        """The one that decides on what a run to ``until`` comes to."""
        return {"tile": self.tile, "predict": self.predict}.get(until, self.result)

    def on(self, numerics: str) -> Fingerprints:
        """Those of work on a machine: what another kind of machine inferred is not gone on with.
        ``numerics``: see :mod:`quadrat.core.numerics`."""
        return replace(self, machine=hashlib.sha256(numerics.encode()).hexdigest()[:MACHINE])

    def of(self, level: Level) -> str:
        """The first characters of the one of a level, as receipts carry it."""
        fingerprint: str = getattr(self, level)
        machine = "" if level == "tile" else self.machine
        return fingerprint[: SHOWN - len(machine)] + machine

    def elsewhere(self, key: Key) -> Fingerprints | None:
        """These fingerprints on the machine that a receipt was given on; None: it was given for
        other pixels, models or settings."""
        if key.level == "tile" or len(key.fingerprint) != SHOWN:
            return None
        there = replace(self, machine=key.fingerprint[SHOWN - MACHINE :])
        return there if there.own(key) else None

    def own(self, key: Key) -> bool:
        """Whether a receipt was given for what this slide is now, under these settings."""
        return key.fingerprint == self.of(key.level)


def fingerprints(work: SlideWork, pipeline: Pipeline, *, weights_sha256: str) -> Fingerprints:
    """The three fingerprints of a slide in this run.

    Raises:
        SlideError: the user's regions cannot be read.
    """
    spec, lattice = work.spec, work.spec.lattice
    tile = _digest(
        work.identity,
        work.ref.mpp if spec.unit != PX else None,
        *((work.ref.scene,) if work.ref.scene else ()),
        regions_digest(work.ref.regions),
        asdict(work.slide),
        spec.mpp,
        *((spec.unit,) if spec.unit == PX else ()),
        asdict(lattice),
        work.margin,
        schema=RESULT_SCHEMA,
    )
    frozen = {k: v for k, v in to_json(spec).items() if k != "thresholds"}
    predict = _digest(tile, frozen, weights_sha256)
    result = _digest(predict, dict(spec.thresholds), asdict(pipeline.outputs))
    return Fingerprints(tile=tile, predict=predict, result=result)


def identified(
    ref: SlideRef, folder: Path, spec: ModelSpec, pipeline: Pipeline, *, weights_sha256: str
) -> tuple[SlideWork, Fingerprints]:
    """The work on a slide as its file is now, in ``folder``, and its fingerprints.

    Raises:
        SlideError: the file or the user's regions cannot be read.
    """
    identity = slide_identity(ref.path)
    work = SlideWork(ref, str(folder), spec, pipeline.slide, pipeline.task, identity)
    return work, fingerprints(work, pipeline, weights_sha256=weights_sha256)


def _digest(*values: Any, schema: int = 0) -> str:
    text = json.dumps([*values, schema], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
