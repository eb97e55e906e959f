"""The list of slides: a CSV manifest or the paths of the command line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quadrat.errors import ConfigError

COLUMNS = ("slide", "annotation", "mpp", "label", "case", "split", "regions")


@dataclass(frozen=True, slots=True)
class SlideRef:
    """One slide of a run or a training set. ``mpp``: override in um/px; ``label``: class of the whole slide, or "";
    ``regions``: GeoJSON file of what to include and exclude, or ""."""

    name: str
    path: str
    mpp: float | None = None
    annotation: str = ""
    label: str = ""
    case: str = ""
    split: str = ""
    regions: str = ""


def read_manifest(path: Path) -> list[SlideRef]:
    """Slides of a CSV with the columns slide, annotation, mpp, label, case, split, regions (only ``slide`` is needed).

    Paths are relative to the manifest.

    Raises:
        ConfigError: no such file, no column ``slide``, an unknown column, a bad mpp, or a slide named twice.
    """
    if not path.is_file():
        raise ConfigError(f"there is no manifest {path}")
    try:
        text_of_file = path.read_text(encoding="utf-8-sig")  # a spreadsheet puts a byte order mark first
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    with io.StringIO(text_of_file, newline="") as stream:
        reader = csv.DictReader(stream)
        fields = reader.fieldnames or []
        if "slide" not in fields:
            raise ConfigError(f"{path} has no column 'slide' (its columns: {', '.join(fields) or 'none'})")
        unknown = [f for f in fields if f not in COLUMNS]
        if unknown:
            raise ConfigError(f"{path}: unknown column '{unknown[0]}' (known: {', '.join(COLUMNS)})")
        rows = list(reader)
    slides = []
    for number, row in enumerate(rows, start=2):
        text = {k: (v or "").strip() for k, v in row.items() if k in COLUMNS}
        if not text["slide"]:
            raise ConfigError(f"{path}, line {number}: the slide is missing")
        slide = path.parent / text["slide"]
        annotation, regions = text.get("annotation", ""), text.get("regions", "")
        slides.append(
            SlideRef(
                name=slide_name(slide),
                path=str(slide),
                mpp=_mpp(text.get("mpp", ""), where=f"{path}, line {number}"),
                annotation=str(path.parent / annotation) if annotation else "",
                label=text.get("label", ""),
                case=text.get("case", ""),
                split=text.get("split", ""),
                regions=str(path.parent / regions) if regions else "",
            )
        )
    return unique_names(slides)


def slides_from_paths(paths: Sequence[str], *, mpp: float | None) -> list[SlideRef]:
    """Slides of the command line."""
    return unique_names([SlideRef(name=slide_name(Path(p)), path=p, mpp=mpp) for p in paths])


def slide_name(path: Path) -> str:
    """What a slide's results are called: the file's name without its suffix, or the folder's name."""
    return path.name if path.is_dir() else path.stem


def unique_names(slides: list[SlideRef]) -> list[SlideRef]:
    """The slides as they are.

    Raises:
        ConfigError: two of them would write the same results, or there are none.
    """
    if not slides:
        raise ConfigError("no slide was given; name slide files or use --manifest slides.csv")
    seen: dict[str, str] = {}
    for slide in slides:
        if slide.name in seen:
            raise ConfigError(
                f"two slides are called '{slide.name}' ({seen[slide.name]} and {slide.path}); rename one or run them apart"
            )
        seen[slide.name] = slide.path
    return slides


def _mpp(text: str, *, where: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{where}: mpp '{text}' is not a number") from None
