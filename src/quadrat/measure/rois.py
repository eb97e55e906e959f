"""Which file of regions belongs to which slide, and regions that another run found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadrat.annotations.items import is_manifest
from quadrat.config.manifest import SlideRef, read_manifest
from quadrat.core.errors import ConfigError
from quadrat.core.objects import Frame
from quadrat.core.text import did_you_mean
from quadrat.measure.regions import Region
from quadrat.measure.results import check_class, finished, read_outlines
from quadrat.outputs.results import SlideResult

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")


@dataclass(frozen=True, slots=True)
class RoiFiles:
    """The files of regions of a run."""

    of: Mapping[str, Path]
    """By name of the slide."""
    notes: tuple[str, ...] = ()
    """What was left out."""
    refs: Mapping[str, SlideRef] | None = None
    """The rows of the manifest by name of the slide, if there was one."""


def find_rois(place: Path, slides: Sequence[str]) -> RoiFiles:
    """The files of regions in a folder, in a manifest (column ``regions``), or a file itself.

    A file in a folder is called as its slide: ``NAME.geojson``, or as QuPath does with the slide's
    suffix in between (``NAME.svs.geojson``). A single file is that of the one slide there is, or of
    the slide that it is called after.

    Raises:
        ConfigError: there is no such place, no slide has regions, or two files are of one slide.
    """
    if place.is_dir():
        files = sorted(p for p in place.iterdir() if p.name.lower().endswith(SUFFIXES))
        return _by_name(place, files, slides)
    if not place.is_file():
        raise ConfigError(f"{place}: there is no such file or folder of regions")
    if is_manifest(place):
        refs = {ref.name: ref for ref in read_manifest(place)}
        found = {name: Path(ref.regions) for name, ref in refs.items() if ref.regions}
        mine = {name: path for name, path in found.items() if name in slides}
        if not mine:
            raise ConfigError(
                f"{place}: no row names regions (column 'regions') of a slide of the run "
                f"({', '.join(slides[:5])})"
            )
        return RoiFiles(mine, _unused(place, sorted(set(refs) - set(slides))), refs)
    if len(slides) == 1:
        return RoiFiles({slides[0]: place})
    return _by_name(place, [place], slides)


def _by_name(place: Path, files: Sequence[Path], slides: Sequence[str]) -> RoiFiles:
    found: dict[str, Path] = {}
    unused = []
    for path in files:
        name = _slide_of(path, slides)
        if name is None:
            unused.append(path.name)
        elif name in found:
            raise ConfigError(
                f"{path}: {found[name].name} is of the slide {name} as well; keep one"
            )
        else:
            found[name] = path
    if not found:
        named = ", ".join(unused[:5]) or "none"
        hint = did_you_mean(_stem(unused[0]), slides) if unused else ""
        raise ConfigError(
            f"{place}: no file of regions is called as a slide of the run (files: {named}; slides: "
            f"{', '.join(slides[:5])}){hint}"
        )
    return RoiFiles(found, _unused(place, unused))


def _unused(place: Path, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (f"{place}: no slide of the run for {', '.join(names[:5])}{more}; left out",)


def _stem(path: Path | str) -> str:
    name = Path(path).name
    suffix = next((end for end in reversed(SUFFIXES) if name.lower().endswith(end)), "")
    return name[: len(name) - len(suffix)]


def _slide_of(path: Path, slides: Sequence[str]) -> str | None:
    stem = _stem(path)
    return next((name for name in (stem, Path(stem).stem) if name in slides), None)


@dataclass(frozen=True, slots=True)
class Within:
    """A class of another run, the regions of which are a region here."""

    name: str
    """What the table calls it."""
    class_name: str
    """The class there."""
    slides: Mapping[str, SlideResult]
    """The results of the other run, by name of the slide."""
    source: str
    """As it was given, for messages."""

    def region(self, slide: SlideResult) -> Region:
        """The region of a slide: all that the other run found of the class.

        Raises:
            ConfigError: it has no result of the slide, or its slide is of another size.
        """
        other = self.slides.get(slide.name)
        if other is None:
            raise ConfigError(
                f"--within {self.source}: there is no result of the slide {slide.name} "
                f"{did_you_mean(slide.name, self.slides)}".rstrip()
            )
        mine, theirs = slide.size_l0, other.size_l0
        px = max(_grid_px(slide.summary.frame), _grid_px(other.summary.frame))
        if max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) > px:
            raise ConfigError(
                f"--within {self.source}: there the slide {slide.name} has {theirs[0]:.0f} x "
                f"{theirs[1]:.0f} px, here {mine[0]:.0f} x {mine[1]:.0f}; it is another slide of "
                "the same name"
            )
        outlines = read_outlines(other, class_id=other.class_names.index(self.class_name))
        return Region(self.name, self.class_name, "within", outlines)


def _grid_px(frame: Frame) -> float:
    return max(frame.scale_col, frame.scale_row)


def read_within(text: str) -> Within:
    """``NAME=FOLDER:CLASS``: the regions of a class in the results of another run.

    Raises:
        ConfigError: it is written otherwise, or the run has no such results or class, or counts
            objects in place of regions.
    """
    name, sign, rest = text.partition("=")
    folder, colon, class_name = rest.rpartition(":")
    if not (sign and colon and name and folder and class_name):
        raise ConfigError(f"--within {text}: write it as NAME=FOLDER:CLASS")
    results = finished(Path(folder))
    check_class(class_name, results[0].class_names, where=f"--within {text}")
    if not results[0].regional:
        raise ConfigError(
            f"--within {text}: {folder} is a run of {results[0].summary.task}, whose objects are "
            "no regions; give a run of a semantic task"
        )
    return Within(name, class_name, {one.name: one for one in results}, text)
