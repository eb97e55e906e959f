"""Counts of one picture in Python: ``quadrat.count``."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quadrat.config.manifest import SlideRef, slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.core.errors import ConfigError, QuadratError
from quadrat.core.unit import PX, large_area
from quadrat.engine.progress import Reporter
from quadrat.engine.run import run
from quadrat.exchange.opened import open_run
from quadrat.outputs.figures import save_png
from quadrat.outputs.summary import Summary
from quadrat.outputs.tables import CountRow

Pixels = npt.NDArray[Any]
ARRAY = "image"
"""What results of an array are called."""


@dataclass(frozen=True)
class Count:
    """What a model found on one picture. All is in memory; a notebook shows picture and table."""

    slide: str
    """Name of the picture."""
    rows: tuple[CountRow, ...]
    """One row per class, then that of all."""
    objects: pa.Table
    """As objects.parquet; outlines are WKB in px of the picture."""
    summary: Summary
    """As summary.json."""
    overlay: bytes
    """overlay.png."""

    @property
    def count(self) -> int:
        """All objects."""
        return self.rows[-1].count

    @property
    def counts(self) -> dict[str, int]:
        """Objects of each class."""
        return {row.class_name: row.count for row in self.rows[:-1]}

    def __repr__(self) -> str:
        own = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        area = self.summary.figures.area.tissue_mm2
        unit = large_area(self.summary.frame.unit)
        return f"Count({self.slide!r}: {self.count} on {area:.4g} {unit} ({own}))"

    def _repr_html_(self) -> str:
        unit = large_area(self.summary.frame.unit)
        cells = [("class", "count", f"per {unit}")]
        for row in self.rows:
            density = "" if row.per_mm2 is None else f"{row.per_mm2:,.1f}"
            cells.append((row.class_name, f"{row.count:,}", density))
        lines = [
            "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in line) + "</tr>"
            for line in cells
        ]
        picture = b64encode(self.overlay).decode("ascii")
        return (
            f'<div><img alt="{escape(self.slide)}" style="max-width:100%" '
            f'src="data:image/png;base64,{picture}"><table>{"".join(lines)}</table></div>'
        )


def count(
    image: Pixels | str | Path,
    *,
    model: str = "nuclei",
    mpp: float | None = None,
    scene: str = "",
    overrides: Sequence[str] = (),
) -> Count:
    """Count the objects on a slide, a picture or an array, as ``quadrat run`` does, in this
    process.

    Args:
        image: the path of a slide or a picture, or an array uint8 (height, width, 3).
        model: a shipped pipeline's name, or a YAML file.
        mpp: um/px of the picture, instead of what its file states; an array states none.
        scene: which of several pictures in a file.
        overrides: keys of the pipeline, such as "slide.tissue=all".

    Raises:
        ConfigError: the picture has no scale, is no such array, or the model counts nothing.
        QuadratError: it cannot be read or analysed.
    """
    fixed = ["run.cluster=serial", "outputs.overlay=true"]
    pipeline = load_pipeline(model, [*fixed, *overrides])
    in_px = pipeline.model.unit == PX
    with TemporaryDirectory(prefix="quadrat-count-") as name:
        folder = Path(name)
        if isinstance(image, str | Path):
            (ref,) = slides_from_paths([str(image)], mpp=None if in_px else mpp)
        else:
            pixels = _checked(image)
            if mpp is None and not in_px:
                raise ConfigError(
                    f"an array has no scale, and {pipeline.name} works in um; say mpp=0.5 (um/px)"
                )
            save_png(pixels, folder / f"{ARRAY}.png")
            path = str(folder / f"{ARRAY}.png")
            ref = SlideRef(name=ARRAY, path=path, mpp=None if in_px else mpp)
        ref = replace(ref, scene=scene)
        with Reporter(quiet=True) as reporter:
            report = run(pipeline, [ref], folder / "out", cluster="serial", reporter=reporter)
        if report.exit_code:
            reasons = [row.reason for row in report.rows if row.reason]
            raise QuadratError("; ".join(reasons) or f"{ref.path}: no results were written")
        slide = open_run(folder / "out")[ref.name]
        if not slide.counts:
            raise ConfigError(
                f"{pipeline.name} ({pipeline.task}) counts nothing; choose a model "
                "that finds objects"
            )
        return Count(
            slide=ref.name,
            rows=slide.result.counts,
            objects=slide.objects,
            summary=slide.summary,
            overlay=(slide.folder / "overlay.png").read_bytes(),
        )


def _checked(image: Pixels) -> npt.NDArray[np.uint8]:
    """The array as pixels.

    Raises:
        ConfigError: it is no RGB picture of 8 bits.
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ConfigError(
            f"the array is {pixels.dtype} {pixels.shape}; it must be uint8 (height, width, 3), RGB"
        )
    return pixels
