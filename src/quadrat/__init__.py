"""quadrat: one trustworthy answer a whole slide, from training to the count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quadrat.core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quadrat.exchange.counting import Count, Pixels
    from quadrat.exchange.opened import Run

__all__ = ["__version__", "count", "open_run"]


def open_run(out: str | Path) -> Run:
    """The results in the folder of a run: slides, tables, label images (docs/exchange.md).

    Raises:
        ConfigError: there are none, or some cannot be read.
    """
    from quadrat.exchange.opened import open_run

    return open_run(out)


def count(
    image: Pixels | str | Path,
    *,
    model: str = "nuclei",
    mpp: float | None = None,
    scene: str = "",
    overrides: Sequence[str] = (),
) -> Count:
    """Count the objects on a slide, a picture or an array uint8 (height, width, 3), in this
    process; see :func:`quadrat.exchange.counting.count`.

    Raises:
        QuadratError: it cannot be read or analysed.
    """
    from quadrat.exchange.counting import count

    return count(image, model=model, mpp=mpp, scene=scene, overrides=overrides)
