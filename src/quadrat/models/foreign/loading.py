"""A package's imported network: checked against its card, and put together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.files import sha256_of
from quadrat.core.text import did_you_mean
from quadrat.models.decoders import DECODERS
from quadrat.models.decoders.decoder import Decoder
from quadrat.models.foreign.files import Loaded, load_file
from quadrat.models.foreign.head import ForeignHead
from quadrat.models.foreign.network import ForeignNetwork, ForeignSection
from quadrat.models.task import ModelSpec

FOREIGN = "foreign"
"""The member of ``card.json`` that only an imported network has."""
AGAIN = "import the network again"


def decoder_named(name: str) -> Decoder:
    """The decoder of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in DECODERS:
        hint = did_you_mean(name, DECODERS)
        raise ConfigError(f"there is no decoder '{name}' (known: {', '.join(DECODERS)}){hint}")
    return DECODERS[name]


def digest_of(section: Mapping[str, Any]) -> str:
    """What stands for an imported network in fingerprints: its file's digest and all that is done
    around it."""
    return hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()


def load_foreign(folder: Path, card: Mapping[str, Any], spec: ModelSpec) -> ForeignNetwork:
    """The network of an imported package, with the promise of its card.

    Raises:
        PackageError: its file or its card was changed, it cannot be loaded here, or the card
            promises what was not measured.
    """
    section = _section(folder, card)
    _check_promise(folder, card.get("exactness"), section, spec)
    return _load(folder, section, spec)


def _load(folder: Path, section: ForeignSection, spec: ModelSpec) -> ForeignNetwork:
    path = folder / Path(section.file).name
    if not path.is_file():
        raise PackageError(f"{folder} has no {section.file}")
    found = sha256_of(path)
    if found != section.sha256:
        raise PackageError(
            f"{path} has sha256 {found[:12]}..., the card says {section.sha256[:12]}...: "
            "the file was changed or damaged; copy the package again"
        )
    loaded = load_file(
        path,
        section.format,
        architecture=section.architecture,
        options=section.architecture_options,
        classes=len(spec.classes),
    )
    return put_together(loaded, section, spec)


def put_together(loaded: Loaded, section: ForeignSection, spec: ModelSpec) -> ForeignNetwork:
    """A loaded file with what is done around it."""
    head = ForeignHead(
        classes=len(spec.classes),
        activation=section.activation,
        options=section.options,
        mpp=spec.mpp,
        halo=spec.lattice.halo,
        out_stride=section.out_stride,
    )
    network = ForeignNetwork(
        loaded,
        decoder_named(section.decoder),
        head,
        input=section.input,
        outputs=section.outputs,
        stride=section.stride,
    )
    return network.eval()


def _section(folder: Path, card: Mapping[str, Any]) -> ForeignSection:
    """What the card keeps of the network, held against its digest, lattice and promise."""
    where, values = folder / "card.json", card[FOREIGN]
    if not isinstance(values, dict) or digest_of(values) != card.get("weights_sha256"):
        raise PackageError(f"{where} was changed where it describes the network; {AGAIN}")
    try:
        return TypeAdapter(ForeignSection).validate_json(json.dumps(values))
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise PackageError(f"{where}: {FOREIGN}.{place}: {wrong['msg']}; {AGAIN}") from error


def _check_promise(folder: Path, stated: object, section: ForeignSection, spec: ModelSpec) -> None:
    """Refuse a card whose promise is not what was measured of its network when it was imported."""
    lattice = spec.lattice
    if not isinstance(stated, dict) or "promise" not in stated:
        raise PackageError(f"{folder} does not say what was measured of the network; {AGAIN}")
    if lattice.stride % section.stride:
        raise PackageError(
            f"{folder}: the lattice is in multiples of {lattice.stride} px, not of the network's "
            f"stride {section.stride}; {AGAIN}"
        )
    beyond = section.radius is None or section.radius > lattice.halo
    if stated["promise"] == "tiling-exact" and (beyond or not section.exact):
        raise PackageError(
            f"{folder} promises tiling-exact, but the network's radius is {section.radius} px and "
            f"the halo {lattice.halo} px; {AGAIN}"
        )
