"""The list of slides: a CSV manifest or the paths of the command line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import abspath, expanduser
from pathlib import Path, PureWindowsPath

from quadrat.core.errors import ConfigError
from quadrat.core.text import did_you_mean, mark_of, not_utf8

COLUMNS = (
    "slide",
    "annotation",
    "mpp",
    "label",
    "case",
    "split",
    "regions",
    "annotated",
    "fold",
    "name",
    "scene",
)
SPLITS = ("", "train", "val", "test")
NO_FOLDERS = re.compile(r"|\..*|.*\.partial|summary\.csv|.*[/\0].*", re.DOTALL)
"""Names that no slide may have: hidden and unfinished folders are called so, and the table of all
slides."""
_MARKS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True, slots=True)
class SlideRef:
    """One slide of a run or a training set.

    Raises:
        ConfigError: a name that cannot be the name of a folder under ``results/``.
    """

    name: str
    """What its results are called: a folder under ``results/`` and under ``run/work/``."""
    path: str
    """The slide's file or folder."""
    mpp: float | None = None
    """um/px, instead of what the file states."""
    annotation: str = ""
    """The annotation file, or ""."""
    label: str = ""
    """Class of the whole slide, or ""."""
    case: str = ""
    """The patient (or source) of the slide; "": the slide is a case of its own."""
    split: str = ""
    """"train", "val", "test", or "" (train)."""
    regions: str = ""
    """GeoJSON file of what to include and exclude, or ""."""
    annotated: str = ""
    """Where the truth is complete: "all" (the whole slide, so what is not annotated is background),
    the name of a region class (inside regions of that class), or "" (only what is drawn is known,
    and the rest is ignored)."""
    fold: int | None = None
    """Fold of a cross-validation, from 0, or None."""
    scene: str = ""
    """Which picture of a file with several, by name or number; "": the only or largest one."""

    def absolute(self) -> SlideRef:
        """With paths that hold from any working folder."""
        regions = self.regions and abspath(self.regions)
        return replace(self, path=abspath(self.path), regions=regions)

    def __post_init__(self) -> None:
        if NO_FOLDERS.fullmatch(self.name):
            raise ConfigError(
                f"the results of the slide {self.path!r} would be called {self.name!r}, which "
                "cannot be the name of their folder; rename the slide, or fill the manifest's "
                "column 'name'"
            )
        try:
            f"{self.name}{self.path}".encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"the path of the slide {self.path!r} is not UTF-8, so no result can name it; "
                "rename the file or folder, or set LC_ALL=C.UTF-8 if the name looks right elsewhere"
            ) from None


def read_manifest(path: Path) -> list[SlideRef]:
    """Slides of a CSV with the columns slide, annotation, mpp, label, case, split, regions,
    annotated, fold, name, scene (only ``slide`` is needed), in upper or lower case, separated by
    commas, semicolons (the mpp may have a decimal comma then) or tabs.

    Paths are relative to the manifest. One annotation file may serve many slides. ``name`` is what
    the results are called, for slides whose files are called the same; empty, it is the file's name
    without its suffix.

    Raises:
        ConfigError: no such file, no UTF-8 text, no column ``slide``, an unknown or repeated
        column, a row longer than
            the header, a bad mpp, split, fold or name, or two slides of one name.
    """
    if not path.is_file():
        raise ConfigError(f"there is no manifest {path}")
    try:
        text_of_file = path.read_text(
            encoding="utf-8-sig"
        )  # a spreadsheet puts a byte order mark first
    except UnicodeDecodeError as error:
        raise ConfigError(not_utf8(path, error)) from error
    if "\0" in text_of_file:
        line = text_of_file.partition("\0")[0].count("\n") + 1
        raise ConfigError(
            f"{path}, line {line}: a NUL character, which no text has; save it as UTF-8"
        )
    return unique_names([_slide_ref(row, path, line) for line, row in _rows(text_of_file, path)])


def with_mpp(slides: Sequence[SlideRef], mpp: float | None) -> list[SlideRef]:
    """The slides, of the scale ``mpp`` where their row states none; as they are without one."""
    return [replace(ref, mpp=mpp) if ref.mpp is None else ref for ref in slides]


def _rows(text: str, path: Path) -> list[tuple[int, dict[str, str]]]:
    """Each row that is not empty with the number of its (last) line; cells without spaces around
    them."""
    mark = mark_of(text.partition("\n")[0]) or ","
    with io.StringIO(text, newline="") as stream:
        reader = csv.DictReader(stream, restval="", delimiter=mark)
        fields = [(f or "").strip().lower() for f in reader.fieldnames or []]
        if "slide" not in fields:
            raise ConfigError(
                f"{path} has no column 'slide' (its columns: {', '.join(fields) or 'none'})"
            )
        unknown = [f for f in fields if f not in COLUMNS]
        if unknown:
            raise ConfigError(
                f"{path}: unknown column '{unknown[0]}' (known: {', '.join(COLUMNS)})"
                f"{did_you_mean(unknown[0], COLUMNS)}"
            )
        twice = [f for f in fields if fields.count(f) > 1]
        if twice:
            raise ConfigError(f"{path}: the column '{twice[0]}' stands there twice; keep one")
        reader.fieldnames = fields
        rows = []
        for row in reader:
            if None in row:
                raise ConfigError(
                    f"{path}, line {reader.line_num}: {len(fields) + len(row[None])} cells for "
                    f"{len(fields)} columns; "
                    f'put a cell that holds a {_MARKS[mark]} into "quotes"'
                )
            if mark != "," and "mpp" in row:
                row["mpp"] = row["mpp"].replace(",", ".")
            rows.append((reader.line_num, {k: v.strip() for k, v in row.items()}))
    return rows


def _slide_ref(text: dict[str, str], path: Path, line: int) -> SlideRef:
    where = f"{path}, line {line}"
    if not text["slide"]:
        raise ConfigError(f"{where}: the slide is missing")
    slide = _place(text["slide"], path, where)
    annotation, regions = text.get("annotation", ""), text.get("regions", "")
    split = text.get("split", "")
    if split not in SPLITS:
        raise ConfigError(f"{where}: split '{split}' is not train, val or test (empty means train)")
    name = text.get("name", "")
    if set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise ConfigError(
            f"{where}: the name '{name}' cannot be a folder's (no / \\ : * ? \" < > |, and no dot "
            "in front)"
        )
    return SlideRef(
        name=name or slide_name(slide),
        path=str(slide),
        mpp=_mpp(text.get("mpp", ""), where=where),
        annotation=str(_place(annotation, path, where)) if annotation else "",
        label=text.get("label", ""),
        case=text.get("case", ""),
        split=split,
        regions=str(_place(regions, path, where)) if regions else "",
        annotated=text.get("annotated", ""),
        fold=_fold(text.get("fold", ""), where=where),
        scene=text.get("scene", ""),
    )


def _place(text: str, manifest: Path, where: str) -> Path:
    """The file that a cell names, from the manifest's folder. A manifest from Windows may separate
    folders by backslashes, which other systems allow in a name; the file that exists is meant."""
    place = manifest.parent / expanduser(text)
    if "\\" not in text or place.exists():
        return place
    if PureWindowsPath(text).drive:
        raise ConfigError(
            f"{where}: '{text}' is a path of a Windows drive or share, which this system does not "
            "have; write it relative to the manifest, or as it is called here"
        )
    return manifest.parent / expanduser(text.replace("\\", "/"))


def slides_from_paths(paths: Sequence[str], *, mpp: float | None) -> list[SlideRef]:
    """Slides of the command line.

    Raises:
        ConfigError: an empty path, a slide without a usable name, or two slides of one name.
    """
    if not all(paths):
        raise ConfigError("the path of a slide is empty")
    slides = [expanduser(path) for path in paths]
    return unique_names([SlideRef(name=slide_name(Path(p)), path=p, mpp=mpp) for p in slides])


def slide_name(path: Path) -> str:
    """What a slide's results are called: the file's name without its suffix, or the folder's name;
    for ``.`` and ``..`` the name of the folder that is meant. ``/`` has the name ""."""
    if path.name in ("", ".."):
        path = path.resolve()
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
        if seen.get(slide.name) == slide.path and not slide.scene:
            raise ConfigError(f"the slide {slide.path} is listed twice; keep one row")
        if slide.name in seen:
            raise ConfigError(
                f"two slides are called '{slide.name}' ({seen[slide.name]} and {slide.path}); "
                "rename one, run them apart, "
                "or tell them apart in the manifest's column 'name'"
            )
        seen[slide.name] = slide.path
    return slides


def _mpp(text: str, *, where: str) -> float | None:
    if not text:
        return None
    try:
        mpp = float(text)
    except ValueError:
        raise ConfigError(f"{where}: mpp '{text}' is not a number") from None
    if not 0 < mpp < float("inf"):
        raise ConfigError(
            f"{where}: mpp '{text}' must be a number of um/px above 0 (leave it empty to use the "
            "file's own)"
        )
    return mpp


def _fold(text: str, *, where: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"{where}: fold '{text}' is not a whole number from 0")
    return int(text)
