"""Text files of annotations: read as a whole, JSON and XML parsed, with an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from quadrat.errors import AnnotationError


def read_text(path: Path) -> str:
    """The file's text (UTF-8, with or without a byte order mark).

    Raises:
        AnnotationError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as text ({error})") from error


def parse_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        AnnotationError: unreadable, or not valid JSON.
    """
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise AnnotationError(f"{path}: not valid JSON ({error}); is the file cut short?") from error


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file, whose declared encoding counts. A file with a DTD is refused: entities can blow up.

    Raises:
        AnnotationError: unreadable, not well-formed, or with a document type.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error})") from error
    if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:
        raise AnnotationError(f"{path}: declares a document type or entities; annotation files need none, so remove it")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise AnnotationError(f"{path}: not well-formed XML ({error}); is the file cut short?") from error
