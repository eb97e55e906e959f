"""Frozen dataclasses to JSON values and back: receipts, plans and summaries go through here."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def to_json(record: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass, and of those in it, as ``json.dumps`` takes them."""
    return asdict(record)


def from_json(kind: type[Record], values: object) -> Record:
    """The inverse of :func:`to_json`. Keys that are no field are left out.

    Raises:
        ValueError: a field is missing or of another type; the message names it.
    """
    try:
        record: Record = _adapter(kind).validate_python(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"]) or kind.__name__
        raise ValueError(f"{place}: {wrong['msg'].lower()}") from error
    return record


@cache
def _adapter(kind: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(kind)
