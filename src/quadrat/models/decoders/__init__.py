"""Conventions in which other people's networks answer, by the name that an import card gives."""

from __future__ import annotations

from collections.abc import Mapping

from quadrat.models.decoders.boxes import BOXES, MASKS
from quadrat.models.decoders.cellpose import CELLPOSE
from quadrat.models.decoders.decoder import Decoder
from quadrat.models.decoders.hovernet import HOVERNET
from quadrat.models.decoders.labels import LABELS
from quadrat.models.decoders.points import POINTS
from quadrat.models.decoders.simple import ARGMAX, CLASSES, DISTANCE
from quadrat.models.decoders.stardist import STARDIST

DECODERS: Mapping[str, Decoder] = {
    decoder.name: decoder
    for decoder in (
        CLASSES,
        ARGMAX,
        DISTANCE,
        BOXES,
        MASKS,
        POINTS,
        HOVERNET,
        STARDIST,
        CELLPOSE,
        LABELS,
    )
}
