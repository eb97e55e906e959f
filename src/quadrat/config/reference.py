"""The schema of pipeline files in words: sentences on wrong values, and the page of all keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from quadrat.core.text import did_you_mean

Schema = dict[str, Any]
Path = Sequence[int | str]

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
}
CONTAINERS = {"array": "a list", "object": "a section of keys"}


def faults(error: ValidationError, schema: Schema) -> list[str]:
    """One sentence for each wrong value of a pipeline file: its key, the value and what it must be;
    for an unknown key the nearest known one."""
    errors = error.errors(include_url=False)
    above = {one["loc"][:n] for one in errors for n in range(len(one["loc"]))}
    return [
        _sentence(one, schema)
        for one in errors
        if one["type"] != "too_short" or one["loc"] not in above  # wrong items are not counted
    ]


def _sentence(error: ErrorDetails, schema: Schema) -> str:
    kind, path, value = error["type"], error["loc"], error["input"]
    section = _dotted(path[:-1])
    inside = f"{section}: " if section else ""
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "missing":
        return f"{inside}the key '{path[-1]}' is missing"
    if kind == "unexpected_keyword_argument":
        known = list(_at(schema, path[:-1])["properties"])
        listed = f" (known: {', '.join(known)})"
        hint = did_you_mean(str(path[-1]), known, otherwise=listed)
        return f"{inside}unknown key '{path[-1]}'{hint}"
    wanted, key = _at(schema, path), _dotted(path)
    if kind == "too_short" and not value:
        return f"{key} must be one or more, not {json.dumps(value)}"
    if kind in ("too_short", "too_long"):
        return f"{key} is {json.dumps(value)}; it must hold {wanted['minItems']} values"
    if wanted.get("type") in CONTAINERS:
        return f"{key} must be {CONTAINERS[wanted['type']]}, not {value!r}"
    if kind == "finite_number" and value == value:  # infinite, and not NaN
        return f"{key} is {value}; it must {_limits(wanted) or 'be finite'}"
    if kind.endswith("_type") or kind == "finite_number":
        return f"{key} is {value!r}; it must be {KINDS[wanted['type']]}"
    return f"{key} is {value!r}; it must {_limits(wanted)}"


def _dotted(path: Path) -> str:
    """A path as people write it: ``classes[0].color``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def _at(schema: Schema, path: Path) -> Schema:
    """The part of the schema that describes the value at a path."""
    here = schema
    for part in path:
        here = here["items"] if isinstance(part, int) else _property(here, part)
        here = _resolved(here, schema)
    return here


def _property(section: Schema, key: str) -> Schema:
    found: Schema = section.get("properties", {}).get(key) or section["additionalProperties"]
    return found


def _resolved(part: Schema, schema: Schema) -> Schema:
    """Without a reference to a definition, and without the alternative null."""
    if "anyOf" in part:
        part = part | next(one for one in part["anyOf"] if one.get("type") != "null")
    if "$ref" in part:
        return dict(schema["$defs"][part["$ref"].rpartition("/")[2]])
    return part


def _limits(value: Schema) -> str:
    """What a value of the right type must do: ``lie in 0 to 1``, ``be one of a, b``; "" if it is
    free."""
    if "values" in value:
        return f"be {value['values']}"
    if "enum" in value:
        return f"be one of {', '.join(value['enum'])}"
    least, above = value.get("minimum"), value.get("exclusiveMinimum")
    most, below = value.get("maximum"), value.get("exclusiveMaximum")
    if most is not None or below is not None:
        return f"lie in {least} to {f'below {below}' if most is None else most}"
    if least is not None:
        return f"be at least {least}"
    return "" if above is None else f"be above {above}"


HEAD = """# Pipeline files

<!-- Written by `make docs` from src/quadrat/config/pipeline.py: change the fields there. -->

A pipeline is one YAML file. `--set section.key=value` lays another value over it, for one command.
All that is wrong in a file is reported at once; an unknown key is answered with the nearest one.

`quadrat config schema > quadrat.schema.json` writes the JSON Schema of these keys. An editor with
the YAML language server completes and checks a pipeline that begins with
`# yaml-language-server: $schema=quadrat.schema.json`.
"""


def markdown(schema: Schema) -> str:
    """The page ``docs/pipeline.md``: every key with its default, unit, values and meaning."""
    return "\n".join([HEAD, *_tables("", schema, schema)])


def _tables(name: str, section: Schema, schema: Schema) -> Iterator[str]:
    """A table of a section's keys, then those of the sections in it."""
    yield f"## {f'`{name}`' if name else 'The file'}\n\n{_line(section)}\n"
    yield "| key | default | unit | values | meaning |\n|---|---|---|---|---|"
    inner = []
    for key, part in section["properties"].items():
        value, items = _resolved(part, schema), _resolved(part.get("items", {}), schema)
        inner += [(f"{name}.{key}".strip("."), d) for d in (value, items) if "properties" in d]
        default = f"`{json.dumps(value['default'])}`" if "default" in value else ""
        cells = (
            f"`{key}`",
            default or "needed" * (key in section.get("required", ())),
            value.get("unit", ""),
            _values(value, items) + " or null" * ({"type": "null"} in part.get("anyOf", ())),
            _line(part),
        )
        yield f"| {' | '.join(cells)} |"
    for title, one in inner:
        yield from ("", *_tables(title, one, schema))


def _values(value: Schema, items: Schema) -> str:
    """What a value may be, in short: ``whole number, at least 1``."""
    if value["type"] == "array":
        return "list of sections" if "properties" in items else f"list of: {_values(items, {})}"
    if value["type"] == "object":
        return "section"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    kind = "" if "values" in value else KINDS[value["type"]].removeprefix("a ")
    limits = _limits(value).removeprefix("lie in ").removeprefix("be ")
    return ", ".join(part for part in (kind, limits) if part)


def _line(part: Schema) -> str:
    return " ".join(part.get("description", "").replace("``", "`").split())
