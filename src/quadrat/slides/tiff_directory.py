"""The directories of a TIFF file as tifffile reads them; what makes no sense there is an error that
names the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tifffile

from quadrat.core.errors import SlideError
from quadrat.core.xml import DocumentTypeError, XmlError, root_tag

UNREADABLE = (
    tifffile.TiffFileError,
    struct.error,
    ValueError,
    OSError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    TypeError,
)
"""What tifffile raises at directories that make no sense."""


@contextmanager
def tiff_directory(path: Path) -> Iterator[tifffile.TiffFile]:
    """An open file. tifffile parses directories and descriptions when they are used.

    Raises:
        SlideError: the directories make no sense, or the description is XML with a document type.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            refuse_document_type(tiff)
            yield tiff
    except DocumentTypeError as error:
        raise SlideError(
            f"{path}: its XML description {error}, which could fill the memory or name other "
            "files; remove it (e.g. with tifftools)"
        ) from error
    except UNREADABLE as error:
        raise SlideError(
            f"{path}: damaged: its TIFF directory cannot be understood ({error})"
        ) from error


def refuse_document_type(tiff: tifffile.TiffFile) -> None:
    """Check the description of an open file before tifffile parses it (for ``series``).

    Raises:
        DocumentTypeError: it is XML with a document type.
    """
    description = tiff.pages.first.description.lstrip()
    if description.startswith("<"):
        try:
            root_tag(description)
        except DocumentTypeError:
            raise
        except XmlError:  # some other text, which tifffile does not parse
            pass
