"""Annotation files that are text: read whole, JSON and XML parsed, with errors that name
the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from quadrat.core.errors import AnnotationError
from quadrat.core.text import not_utf8
from quadrat.core.xml import DocumentTypeError, XmlError

Read = TypeVar("Read")


def read_text(path: Path) -> str:
    """The text of a file (UTF-8, with or without a byte order mark).

    Raises:
        AnnotationError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(not_utf8(path, error)) from error
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read as text ({error})") from error


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
        return parse(path.read_bytes())
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error})") from error
    except DocumentTypeError as error:
        raise AnnotationError(
            f"{path}: {error}; annotation files need none, so remove it"
        ) from error
    except XmlError as error:
        raise AnnotationError(f"{path}: {error}; is the file cut short?") from error
