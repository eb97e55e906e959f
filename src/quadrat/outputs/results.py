"""The results of a run as they lie on disk, slide by slide (docs/artifacts.md). Nothing is inferred
and no slide is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quadrat.core.errors import ConfigError
from quadrat.core.objects import ClassInfo
from quadrat.core.text import did_you_mean
from quadrat.core.unit import Unit
from quadrat.outputs.summary import SUMMARY, ObjectFigures, Summary, read_summary
from quadrat.outputs.tables import CountRow

OBJECTS = "objects.parquet"
REGIONAL = "semantic"
"""The task with objects that are regions: they are measured and not counted."""


@dataclass(frozen=True, slots=True)
class SlideResult:
    """A slide with results."""

    folder: Path
    """Where they lie."""
    summary: Summary
    """What they say of themselves."""

    @property
    def name(self) -> str:
        """The slide."""
        return self.folder.name

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The model's classes, by class_id."""
        return self.summary.provenance.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(c.name for c in self.classes)

    @property
    def regional(self) -> bool:
        """Whether its objects are regions of a semantic map, which are measured and not counted."""
        return self.summary.task == REGIONAL

    @property
    def um_per_l0(self) -> tuple[float, float]:
        """um per level-0 px, of x and of y (1 in pixel work)."""
        frame = self.summary.frame
        return frame.mpp / frame.scale_col, frame.mpp / frame.scale_row

    @property
    def unit(self) -> Unit:
        """Of lengths."""
        return self.summary.frame.unit

    @property
    def size_l0(self) -> tuple[float, float]:
        """Width and height in level-0 px."""
        return self.summary.frame.size_l0

    @property
    def counts(self) -> tuple[CountRow, ...]:
        """A row per class, then that of all; none where the task finds no objects."""
        answer = self.summary.figures.answer
        return answer.counts if isinstance(answer, ObjectFigures) else ()

    @property
    def objects(self) -> Path:
        """The object table.

        Raises:
            ConfigError: there is none.
        """
        self.need_objects()
        return self.folder / OBJECTS

    def need_objects(self) -> None:
        """Refuse (ConfigError) results of a task that finds no objects."""
        if not (self.folder / OBJECTS).is_file():
            raise ConfigError(
                f"{self.folder}: there is no {OBJECTS}, so there are no objects (the task is "
                f"{self.summary.task}); name a run of a task that finds objects or regions"
            )


def read_results(out: Path, *, named: Sequence[str] = ()) -> dict[str, SlideResult]:
    """The slides of a run that have results, sorted by name; ``named``: these only.

    Raises:
        ConfigError: there are none, some cannot be read, or a name is not among them.
    """
    folders = sorted(path.parent for path in (out / "results").glob(f"*/{SUMMARY}"))
    folders = [folder for folder in folders if not folder.name.startswith(".")]
    if not folders:
        raise ConfigError(
            f"{out} holds no results (there is no results/SLIDE/{SUMMARY}); name the --out of "
            "'quadrat run', after a slide is done"
        )
    known = {folder.name: folder for folder in folders}
    for name in named:
        if name not in known:
            raise ConfigError(
                f"{out}: there are no results of a slide '{name}'"
                + did_you_mean(name, known, otherwise=f"; there are those of {some(list(known))}")
            )
    chosen = {name: known[name] for name in known if name in named} if named else known
    return {name: SlideResult(folder, _read(folder)) for name, folder in chosen.items()}


def some(names: Sequence[str], *, most: int = 3) -> str:
    """The first few of many names, for messages."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _read(folder: Path) -> Summary:
    try:
        return read_summary(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / SUMMARY} cannot be read ({error}); another version of quadrat may have "
            "written it: run the slide again with --overwrite"
        ) from error
