"""The card of a model package: what it is, without its weights and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quadrat.core.errors import PackageError
from quadrat.core.files import recover_folder

CARD = "card.json"
SCHEMA = 1


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a package.

    Raises:
        PackageError: no folder, no card, a card that is not JSON, or one of another schema.
    """
    recover_folder(folder)
    path = folder / CARD
    if not path.is_file():
        raise PackageError(
            f"{folder} is not a model package (it has no {CARD}); train one with 'quadrat train "
            "PIPELINE'"
        )
    try:
        card: Any = json.loads(path.read_text())
    except ValueError as error:
        raise PackageError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(card, dict):
        raise PackageError(f"{path} must hold keys and values, not {type(card).__name__}")
    if card.get("schema") != SCHEMA:
        raise PackageError(
            f"{path} has schema {card.get('schema')}; this version of quadrat reads {SCHEMA}"
        )
    checked: dict[str, Any] = card
    return checked
