"""Files that people write in YAML: read, and checked by typed sections. All that is wrong is
reported at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from quadrat.config.reference import faults
from quadrat.core.errors import ConfigError

Content = TypeVar("Content")


class Yaml(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 is a number."""


Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, not checked.

    Raises:
        ConfigError: it is broken, or holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=Yaml)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(content).__name__}")
    return content


def checked(
    content: dict[str, Any],
    adapter: TypeAdapter[Content],
    schema: Callable[[], dict[str, Any]],
    *,
    where: str,
) -> Content:
    """The content of a file as typed sections. ``schema`` is asked only for what is wrong;
    ``where`` begins the message of an error.

    Raises:
        ConfigError: wrong keys and values, all of them.
    """
    try:
        text = json.dumps(content, default=str)  # JSON's lists and sections are what is strict here
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: keys must be text, and no value hold itself: {error}"
        ) from error
    return validated(text, adapter, schema, where=where)


def validated(
    text: str, adapter: TypeAdapter[Content], schema: Callable[[], dict[str, Any]], *, where: str
) -> Content:
    """The same of what is JSON already."""
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        wrong = faults(error, schema())
        if len(wrong) == 1:
            raise ConfigError(f"{where}: {wrong[0]}") from error
        raise ConfigError("\n  ".join([f"{where}: {len(wrong)} faults", *wrong])) from error
