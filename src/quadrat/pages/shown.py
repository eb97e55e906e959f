"""The slides of a run as the viewer shows them: opened when somebody looks, and the last few kept
open."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from quadrat.core.errors import QuadratError
from quadrat.core.unit import PX
from quadrat.outputs.summary import ObjectFigures
from quadrat.pages.colours import confusable, safe_colours
from quadrat.pages.deep_zoom import TILE as IMAGE_TILE
from quadrat.pages.deep_zoom import DeepZoom, levels_of
from quadrat.pages.folder import Finished, RunFolder
from quadrat.pages.kept import Kept
from quadrat.pages.things import Things, at, decoded, read_things
from quadrat.pages.vectors import LEVELS, TILE, heat, vector_tile

OPEN = 4
"""Slides that are kept open, with their objects."""
TILES_KEPT = 400
"""Encoded tiles that are kept, of pictures and of objects each (about 60 kB a tile)."""
HEAT_UM, HEAT_CELLS = 50.0, 512
"""Cells of the heat map: 50 um (or px) wide as in density.png, or as many along a side."""


@dataclass(eq=False)
class Shown:
    """A slide with results that somebody looks at."""

    slide: Finished
    """What is on disk."""
    images: Kept[tuple[int, int, int], bytes | None] = field(
        default_factory=lambda: Kept(TILES_KEPT)
    )
    """Tiles of the picture by level, column and row."""
    tiles: Kept[tuple[int, int, int], bytes] = field(default_factory=lambda: Kept(TILES_KEPT))
    """Tiles of objects by level, column and row."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the files are opened."""

    @cached_property
    def picture(self) -> DeepZoom | str:
        """The picture, or why there is none."""
        try:
            return DeepZoom(self.slide.open())
        except (QuadratError, OSError) as error:
            return str(error)

    @cached_property
    def things(self) -> Things:
        """Objects, regions or tiles.

        Raises:
            QuadratError: their file is missing or damaged.
        """
        return read_things(self.slide)

    def opened(self) -> None:
        """Open the files, once."""
        with self.lock:
            _ = self.picture, self.things

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in level-0 px."""
        if isinstance(self.picture, DeepZoom):
            return self.picture.width, self.picture.height
        width, height = self.slide.size_l0
        return math.ceil(width), math.ceil(height)

    @property
    def cell_l0(self) -> float:
        """Side of a cell of the heat map in level-0 px."""
        return max(HEAT_UM / self.slide.summary.frame.mpp_l0, max(self.size) / HEAT_CELLS)

    def about(self) -> dict[str, Any]:
        """What the page has to know before it draws."""
        summary, (width, height) = self.slide.summary, self.size
        frame, classes = summary.frame, summary.provenance.classes
        own = [one.color for one in classes]
        seen = np.bincount(self.things.places.class_id, minlength=len(classes)).tolist()
        gone = self.picture if isinstance(self.picture, str) else ""
        return {
            "slide": self.slide.name,
            "task": summary.task,
            "kind": self.kind,
            "width": width,
            "height": height,
            "levels": levels_of(width, height),
            "image_tile": IMAGE_TILE,
            "gone": gone,
            "unit": "px" if frame.unit == PX else "µm",
            "mpp": 1.0 if frame.unit == PX else frame.mpp_l0,
            "grid": frame.scale_row,
            "tile": TILE,
            "least_level": LEVELS[0],
            "classes": [
                {"name": one.name, "own": own[i], "safe": safe, "count": seen[i]}
                for i, (one, safe) in enumerate(zip(classes, safe_colours(len(own)), strict=True))
            ],
            "confusable": confusable(own),
            "heat_cell": self.cell_l0,
            "thresholds": dict(summary.thresholds),
        }

    @property
    def kind(self) -> str:
        """What its things are: "objects", "regions" or "tiles"."""
        if not isinstance(self.slide.summary.figures.answer, ObjectFigures):
            return "tiles"
        return "regions" if self.slide.regions else "objects"

    def image(self, level: int, col: int, row: int) -> bytes | None:
        """A tile of the picture as JPEG; None: there is none.

        Raises:
            SlideError: the slide cannot be read.
        """
        picture = self.picture
        if isinstance(picture, str):
            return None
        return self.images.get((level, col, row), lambda: picture.jpeg(level, col, row))

    def vectors(self, level: int, col: int, row: int) -> bytes | None:
        """A tile of objects; None: there is none."""
        side = TILE * 2.0**level
        width, height = self.size
        known = LEVELS[0] <= level <= LEVELS[1]
        if not (known and 0 <= col * side < width and 0 <= row * side < height):
            return None
        grid = self.slide.summary.frame.scale_row
        return self.tiles.get(
            (level, col, row), lambda: vector_tile(self.things, level, col, row, grid_l0=grid)
        )

    def pick(self, x: float, y: float, reach: float, classes: frozenset[int], score: float) -> str:
        """The object at a place as JSON: its row, box and outline; null: there is none."""
        index = at(self.things, x, y, reach=reach, shown=self._chosen(classes, score))
        if index < 0:
            return "null"
        (polygon,) = decoded(self.things.outlines(np.array([index])))
        rings = [shapely.get_coordinates(ring).tolist() for ring in shapely.get_rings(polygon)]
        box = self.things.places.box[index].tolist()
        row = {name: value for name, value in self.things.row(index).items() if value is not None}
        return json.dumps({"index": index, "row": row, "box": box, "rings": rings})

    def heat(self, classes: frozenset[int], score: float) -> bytes:
        """The heat map: uint32 columns, rows; float32 per mm2 by row (little-endian)."""
        cell, frame = self.cell_l0, self.slide.summary.frame
        chosen = self._chosen(classes, score)
        counts = heat(self.things.places, self.size, cell, shown=chosen)
        density = counts / (cell * frame.mpp_l0 / 1000) ** 2
        shape = np.array(density.shape[::-1], "<u4")
        return shape.tobytes() + density.astype("<f4").tobytes()

    def _chosen(self, classes: frozenset[int], score: float) -> npt.NDArray[np.bool_]:
        places = self.things.places
        chosen: npt.NDArray[np.bool_] = np.isin(places.class_id, sorted(classes))
        # as in tiles: in steps of 1/255
        return chosen & (np.round(places.score * 255) >= round(score * 255))


class Viewing:
    """The slides of a run that can be looked at."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._open: Kept[str, Shown] = Kept(OPEN)

    def open_early(self, name: str) -> None:
        """Open a slide before somebody asks for it; what is wrong with it is said then."""
        with contextlib.suppress(QuadratError, OSError):
            self.shown(name)

    def shown(self, name: str) -> Shown | None:
        """A slide by its name, opened; None: it has no results.

        Raises:
            QuadratError: its results are missing or damaged.
        """
        slide = self.run.slides.get(name)
        if slide is None:
            return None
        shown = self._open.get(name, lambda: Shown(slide))
        shown.opened()
        return shown
