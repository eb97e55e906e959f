"""Matplotlib figures as files."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from quadrat.core.errors import ConfigError
from quadrat.core.files import write_file

FORMATS: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    ".svg": {"Creator": None, "Date": None},
}
"""What figures can be written as, each with what a file must not say so that its bytes repeat."""


def check_format(path: Path) -> None:
    """Raises ConfigError for a path with a suffix that is no format of figures."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"{path} is none of {', '.join(FORMATS)}; name a file with such an ending"
        )


def save_figure(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a figure as PNG, PDF or SVG without time or version, whole or not at all."""
    suffix = path.suffix.lower()
    FigureCanvasAgg(figure)
    with io.BytesIO() as stream, matplotlib.rc_context({"svg.hashsalt": "quadrat"}):
        figure.savefig(stream, format=suffix[1:], dpi=dpi, metadata=FORMATS[suffix])
        write_file(path, stream.getvalue())
