"""XML files that people hand in: parsed only if they declare no document type.

A document type can declare entities that grow without bound or that name other files. No format
that quadrat reads needs one.
"""

from __future__ import annotations

from typing import NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

Element = ElementTree.Element


class XmlError(ValueError):
    """The content is not well-formed XML."""


class DocumentTypeError(XmlError):
    """The XML declares a document type."""


class _Found(Exception):
    """Ends the parsing at the root element; holds its name."""


def root_tag(content: str | bytes) -> str:
    """The name of the root element ("namespace}name" with a namespace); what follows is not read.

    Raises:
        DocumentTypeError: a document type is declared.
        XmlError: the content is not well-formed up to the root element.
    """

    def refuse(*_: object) -> NoReturn:
        raise DocumentTypeError("declares a document type or entities")

    def stop(name: str, _: object) -> NoReturn:
        raise _Found(name)

    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        parser.Parse(content, True)
    except _Found as found:
        return str(found)
    except XmlError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # unknown encodings among them
        raise XmlError(f"not well-formed XML ({error})") from error
    raise XmlError("not well-formed XML (no element)")


def parse_xml(content: str | bytes) -> Element:
    """The root element; the encoding that bytes declare counts.

    Raises:
        DocumentTypeError: a document type is declared.
        XmlError: the content is not well-formed.
    """
    root_tag(content)
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise XmlError(f"not well-formed XML ({error})") from error
