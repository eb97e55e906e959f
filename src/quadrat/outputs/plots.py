"""Matplotlib figures as files."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from quadrat.core.files import write_file


def save_figure(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a figure as PNG without time or version, whole or not at all."""
    FigureCanvasAgg(figure)
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
        write_file(path, stream.getvalue())
