"""Text files of annotations: read as a whole, JSON and XML parsed, with an error that names the
file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from quadrat.core.errors import AnnotationError
from quadrat.core.text import not_utf8


def read_text(path: Path) -> str:
    """The file's text (UTF-8, with or without a byte order mark).

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
    """The content of a JSON file, whose text this is.

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


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file, whose declared encoding counts. A file with a DTD is refused:
    entities can blow up.

    Raises:
        AnnotationError: unreadable, not well-formed, or with a document type.
    """
    content = _xml_content(path)
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise _not_xml(path, error) from error


def root_tag(path: Path) -> str:
    """The name of an XML file's root, for which nothing behind it need be well-formed.

    Raises:
        AnnotationError: see ``parse_xml``.
    """
    try:
        _, root = next(ElementTree.iterparse(io.BytesIO(_xml_content(path)), events=("start",)))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise _not_xml(path, error) from error
    return str(root.tag)


def _xml_content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error})") from error
    if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:
        raise AnnotationError(
            f"{path}: declares a document type or entities; annotation files need none, so remove "
            "it"
        )
    return content


def _not_xml(path: Path, error: Exception) -> AnnotationError:
    return AnnotationError(f"{path}: not well-formed XML ({error}); is the file cut short?")
