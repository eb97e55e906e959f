"""Annotation files that are text, packed with gzip or not: read whole, JSON and XML parsed, with
errors that name the file."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from quadrat.core.errors import AnnotationError
from quadrat.core.text import not_utf8
from quadrat.core.xml import DocumentTypeError, XmlError

Read = TypeVar("Read")
GZIP = b"\x1f\x8b"
"""What a file begins with that is packed with gzip."""


def is_packed(path: Path) -> bool:
    """Whether a file is packed with gzip, by its first bytes."""
    with path.open("rb") as stream:
        return stream.read(len(GZIP)) == GZIP


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file as a stream; those inside, if it is packed with gzip.

    Raises:
        AnnotationError: it cannot be read, or what is packed is damaged or cut short.
    """
    try:
        packed = is_packed(path)
        with cast(BinaryIO, gzip.open(path)) if packed else path.open("rb") as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise AnnotationError(
            f"{path}: the gzip is damaged or cut short ({error}); pack it anew"
        ) from error
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_bytes(path: Path) -> bytes:
    """All bytes of a file; see ``unpacked``."""
    with unpacked(path) as stream:
        return stream.read()


def read_text(path: Path) -> str:
    """The text of a file (UTF-8, with or without a byte order mark).

    Raises:
        AnnotationError: it cannot be read, or is not UTF-8.
    """
    try:
        with unpacked(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig") as text:
            return text.read()
    except UnicodeDecodeError as error:
        raise AnnotationError(not_utf8(path, error)) from error


def parse_json(text: str, path: Path) -> Any:
    """The content of a JSON file, from its text.

    Raises:
        AnnotationError: not valid JSON, nested thousands deep, or with a number of thousands of
            digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}: not valid JSON ({error}); is the file cut short?"
        ) from error
    except RecursionError as error:
        raise AnnotationError(
            f"{path}: its lists are nested too deeply to be read; is it an annotation file?"
        ) from error
    except ValueError as error:
        raise AnnotationError(
            f"{path}: holds a number of more digits than can be read ({error})"
        ) from error


def read_xml(path: Path, parse: Callable[[bytes], Read]) -> Read:
    """What ``core.xml.parse_xml`` or ``core.xml.root_tag`` finds in a file.

    Raises:
        AnnotationError: the file cannot be read, is not well-formed, or declares a document type.
    """
    try:
        return parse(read_bytes(path))
    except DocumentTypeError as error:
        raise AnnotationError(
            f"{path}: {error}; annotation files need none, so remove it"
        ) from error
    except XmlError as error:
        raise AnnotationError(f"{path}: {error}; is the file cut short?") from error
