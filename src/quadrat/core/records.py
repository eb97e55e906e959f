"""Frozen dataclasses to JSON values and back: receipts, plans and summaries go through here.

A record with a field ``unit`` that is px has no field ``mpp`` in JSON (of a frame it is the scale,
level-0 px per px); one of um does not state its unit. Fields with a um unit in their names are
called otherwise where ``unit`` is px.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from quadrat.core.unit import MPP_OF_PX, PX, Unit, named

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")
_SCALARS = (str, int, float, bool, type(None))


def to_json(record: DataclassInstance, *, unit: Unit = "um") -> dict[str, Any]:
    """The fields of a dataclass, and of those in it, as ``json.dumps`` takes them, by their names
    in ``unit``."""
    names = _names(type(record))
    return _written(unit, [(name, _plain(getattr(record, name), unit)) for name in names])


def from_json(kind: type[Record], values: object) -> Record:
    """The inverse of :func:`to_json`, for either unit. Keys that are no field are left out.

    Raises:
        ValueError: a field is missing or of another type; the message names it.
    """
    try:
        record: Record = _adapter(kind).validate_python(_read(kind, values))
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"]) or kind.__name__
        raise ValueError(f"{place}: {wrong['msg'].lower()}") from error
    return record


def _plain(value: Any, unit: Unit) -> Any:
    """A field as :func:`dataclasses.asdict` makes it, but in the names of ``unit``."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if is_dataclass(kind):
        return to_json(value, unit=unit)
    if isinstance(value, tuple | list):
        return [_plain(one, unit) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one, unit) for key, one in value.items()}
    return value


@cache
def _names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind))


def _written(unit: Unit, fields: list[tuple[str, Any]]) -> dict[str, Any]:
    own = dict(fields)
    left_out = {"mpp"} if own.get("unit") == PX else {"unit"} if own.get("unit") == "um" else set()
    return {named(name, unit): value for name, value in fields if name not in left_out}


def _read(kind: Any, values: Any) -> Any:
    """Values for a type, with the fields of dataclasses by their own names. Only those are
    renamed: keys of mappings are the user's."""
    if isinstance(values, Mapping) and is_dataclass(kind) and isinstance(kind, type):
        own = dict(values)
        for name, of in _types(kind).items():
            key = next((key for key in (name, named(name, PX)) if key in values), None)
            if key is not None:
                own[name] = _read(of, values[key])
        if own.get("unit") == PX and "mpp" in _types(kind):
            own.setdefault("mpp", values.get("scale_row", MPP_OF_PX))
        return own
    if isinstance(values, list | tuple):
        inner = next((of for of in get_args(kind) if is_dataclass(of)), None)
        return values if inner is None else [_read(inner, value) for value in values]
    for of in get_args(kind):  # the alternatives of a union
        if is_dataclass(of):
            values = _read(of, values)
    return values


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _adapter(kind: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(kind)
