"""What a run's folder holds for people to look at: slides with results, slides that failed, where
their files lie, and the cards of the models that made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from quadrat.config.manifest import NO_FOLDERS, SlideRef
from quadrat.config.pipeline import shipped_pipelines
from quadrat.core.errors import ConfigError, PackageError, QuadratError, SlideError
from quadrat.core.unit import MPP_OF_PX, PX
from quadrat.engine.drivers import Asked, read_asked, slides_asked
from quadrat.engine.failures import read_failures
from quadrat.models.card import read_card
from quadrat.outputs.summary import SUMMARY, ObjectFigures, Summary, read_summary
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide

OBJECTS, TILES = "objects.parquet", "tiles.csv"
REGIONS = "semantic"
"""The task of which the objects are regions."""
OVERRIDE = "override"
"""Source of a slide's mpp that the user gave."""
UNREADABLE = "summary"
"""The step of a :class:`Lost` slide with results that cannot be read."""
SIZE_TOLERANCE = 0.01
"""Share by which the file of a slide may differ in size from what was analysed (levels and grids
are rounded)."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A slide without results."""

    slide: str
    """Name of the slide."""
    stage: str
    """The step that failed."""
    reason: str
    """Why."""
    remedy: str
    """What can be done; "": the reason says it, or nobody knows."""


@dataclass(frozen=True)
class Finished:
    """A slide with results."""

    folder: Path
    """Where they lie."""
    summary: Summary
    """What was measured."""
    ref: SlideRef | None
    """The slide's file; None: nobody noted which one it was."""

    @property
    def name(self) -> str:
        """Name of the slide."""
        return self.folder.name

    @property
    def regions(self) -> bool:
        """Whether its objects are regions."""
        return self.summary.task == REGIONS

    @property
    def size_l0(self) -> tuple[float, float]:
        """Width and height in level-0 px, as they were analysed."""
        return self.summary.frame.size_l0

    @property
    def count(self) -> int | None:
        """All objects; None: the task scores tiles."""
        answer = self.summary.figures.answer
        return answer.counts[-1].count if isinstance(answer, ObjectFigures) else None

    @cached_property
    def objects(self) -> Path | None:
        """Its object table, if it has one."""
        path = self.folder / OBJECTS
        return path if path.is_file() else None

    def open(self) -> Slide:
        """The picture.

        Raises:
            SlideError: the file is gone or cannot be read, or shows something else.
        """
        ref = self.ref
        if ref is None:
            raise SlideError("nobody noted where its file lies; name its folder with --slides")
        if not Path(ref.path).exists():
            raise SlideError(f"its file is gone: {ref.path}; name its folder with --slides")
        mpp = MPP_OF_PX if self.summary.frame.unit == PX else ref.mpp
        slide = open_slide(ref.path, mpp=mpp, scene=ref.scene)
        level, (width, height) = slide.levels[0], self.size_l0
        wrong = max(abs(level.width / width - 1), abs(level.height / height - 1))
        # a grid that is coarser than level 0 leaves out less than one of its px
        if wrong > SIZE_TOLERANCE and (
            abs(level.width - width) > self.summary.frame.scale_col
            or abs(level.height - height) > self.summary.frame.scale_row
        ):
            slide.close()
            raise SlideError(
                f"{ref.path} is {level.width} x {level.height} px, but {width:.0f} x {height:.0f} "
                "px were analysed: it is another file"
            )
        return slide


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder."""

    out: Path
    """Where it lies."""
    slides: Mapping[str, Finished]
    """Slides with results, sorted by name."""
    lost: tuple[Lost, ...]
    """Slides without, sorted by name."""
    asked: tuple[Asked, ...]
    """What commands were asked for, the last one first."""


def read_run(out: Path, *, slides: Path | None = None) -> RunFolder:
    """A run's folder. ``slides``: a folder to look in for files that are not where they were.

    Raises:
        ConfigError: it holds no results and no failures, or there is no such folder of slides.
    """
    if slides is not None and not slides.is_dir():
        raise ConfigError(f"--slides is {slides}, which is no folder")
    asked = tuple(read_asked(out))
    refs = slides_asked(out)
    found, unreadable = dict[str, Finished](), list[Lost]()
    for folder in sorted((out / "results").glob("*/")):
        if NO_FOLDERS.fullmatch(folder.name) or not (folder / SUMMARY).exists():
            continue
        try:
            summary = read_summary(folder)
        except (OSError, ValueError) as error:
            unreadable.append(_unreadable(folder.name, error))
            continue
        found[folder.name] = Finished(
            folder, summary, _placed(summary, refs.get(folder.name), slides)
        )
    failed = [
        Lost(one.slide, one.stage, one.row(out).reason.removeprefix(f"{one.stage}: "), one.remedy)
        for one in read_failures(out)
    ]
    if not found and not failed and not unreadable:
        raise ConfigError(
            f"{out} holds no results (there is no results/SLIDE/{SUMMARY}); name the --out of "
            "'quadrat run', after a slide is done"
        )
    lost = sorted((*failed, *unreadable), key=lambda one: one.slide)
    return RunFolder(out, found, tuple(lost), asked)


def card_of(run: RunFolder, weights_sha256: str) -> tuple[Path, dict[str, Any]] | None:
    """The package with these weights, and its card: one that a command of the run named, or a
    shipped one; None: there is none any more."""
    shipped = shipped_pipelines() / "packages"
    places = [Path(one.pipeline.model.package) for one in run.asked]
    places += sorted(shipped.glob("*/")) if shipped.is_dir() else []
    for place in dict.fromkeys(places):
        try:
            card = read_card(place)
        except (PackageError, OSError, QuadratError):
            continue
        if card.get("weights_sha256") == weights_sha256:
            return place, card
    return None


def _unreadable(name: str, error: Exception) -> Lost:
    return Lost(
        name,
        UNREADABLE,
        f"{SUMMARY} cannot be read ({error})",
        "run the slide again with --overwrite",
    )


def _placed(summary: Summary, ref: SlideRef | None, slides: Path | None) -> SlideRef | None:
    """The slide where it was, or else in another folder: the file that is called the same; where
    nobody noted a file, the only one that is called like the slide."""
    if slides is None or (ref is not None and Path(ref.path).exists()):
        return ref
    if ref is not None:
        other = slides / Path(ref.path).name
        return replace(ref, path=str(other)) if other.exists() else ref
    alike = [path for path in slides.iterdir() if summary.slide in (path.name, path.stem)]
    if len(alike) != 1:
        return None
    given = summary.slide_mpp.value if summary.slide_mpp.source == OVERRIDE else None
    return SlideRef(name=summary.slide, path=str(alike[0]), mpp=given)
