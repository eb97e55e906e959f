"""``quadrat init``: a manifest and a filled pipeline from folders of slides and annotations, and
what could not be matched."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quadrat.annotations.types import F64
from quadrat.cli.init.files import manifest_text, names_for, pipeline_text, relative, shape_for
from quadrat.cli.init.finding import (
    PICTURES,
    AnnotationFound,
    SlideFound,
    annotations_below,
    in_utf8,
    labels_of,
    look_at_annotation,
    look_at_slide,
    one_slide,
    pictures_of,
    readable,
    slides_below,
)
from quadrat.cli.init.matching import context, is_truth_picture, match_names, match_pictures
from quadrat.cli.init.naming import about_cases, case_in, pattern_of, tcga_participant, unique_names
from quadrat.cli.init.proposal import TASKS, are_flat, model_mpp, propose
from quadrat.cli.init.scale import measure_of, measured, need_possible, stated
from quadrat.config.leakage import check_leakage, content_digests
from quadrat.config.manifest import SlideRef, read_manifest, slide_name
from quadrat.config.splits import split_by_case
from quadrat.core.errors import AnnotationError, ConfigError, SlideError
from quadrat.core.files import write_file
from quadrat.core.text import did_you_mean
from quadrat.core.unit import PX, Mpp, um_or_none

LISTED = 10
"""Names that a line of the report gives before it counts."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was written, and what the user should know."""

    manifest: Path
    """Path of the CSV file that was written."""
    pipeline: Path
    """Path of the YAML file that was written."""
    lines: tuple[str, ...]
    """What was found, what was left out and what to check, then the next commands."""


@dataclass(slots=True)
class _Gathered:
    """Slides below ``root`` that open, the annotation of each, and what could not be used, while
    the folders are gone through."""

    root: Path
    slides: dict[Path, SlideFound] = field(default_factory=dict)
    annotation: dict[Path, Path] = field(default_factory=dict)
    drawn: dict[Path, AnnotationFound] = field(default_factory=dict)
    labels: dict[Path, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    scale: list[str] = field(default_factory=list)
    passed_over: int = 0


def start(
    task: str,
    *,
    slides: Path,
    annotations: Path | None,
    out: Path,
    case: str | None = None,
    mpp: Mpp | None = None,
    mpp_from: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> Report:
    """Write ``manifest.csv`` and ``pipeline.yaml`` into ``out``.

    ``slides``: a folder, or one slide. ``case``: a regular expression; its first group (or the
    whole match) in a slide's path below ``slides`` is the slide's case. ``mpp``: um/px of slides
    that state none, or "px" to work in pixels; ``mpp_from``: the same from what is annotated
    ("objects=7um").

    Raises:
        ConfigError: an unknown task, a folder that is not there, files that would be overwritten,
            nothing to learn from (with what could not be used), a slide in which ``case`` finds
            nothing, a name that a manifest cannot hold, or a scale that cannot be had.
    """
    if mpp is not None and mpp_from is not None:
        raise ConfigError("--mpp states the scale, and --mpp-from finds it; give one of them")
    if mpp is not None and mpp != PX:
        need_possible(mpp, f"--mpp {mpp:g}")
    measure = None if mpp_from is None else measure_of(mpp_from)
    if task not in TASKS:
        raise ConfigError(
            f"there is no task '{task}' (tasks: {', '.join(TASKS)}){did_you_mean(task, TASKS)}"
        )
    if annotations is None and task != "classification":
        raise ConfigError(
            f"{task} is learnt from annotations: say --annotations FOLDER (or a file that serves "
            "all slides)"
        )
    if not slides.exists():
        raise ConfigError(f"--slides {slides} is not there")
    if annotations is not None and not annotations.exists():
        raise ConfigError(f"--annotations {annotations} is not there")
    if not in_utf8(out):
        raise ConfigError(
            f"--out {readable(out)}: its name is not UTF-8; give a folder of another name"
        )
    pattern = None if case is None else pattern_of(case)
    manifest, pipeline = out / "manifest.csv", out / "pipeline.yaml"
    existing = [path for path in (manifest, pipeline) if path.exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"{existing[0]} exists; say --overwrite to replace it, or --out ANOTHER_FOLDER"
        )
    seen = _gather(task, slides, annotations, mpp=mpp)
    if measure is not None:
        seen.slides, seen.scale = measured(task, seen.slides, seen.drawn, measure)
    rows, text, told = _texts(task, seen, out, pattern=pattern, seed=seed)
    _write_manifest(manifest, rows, in_px=mpp == PX)
    write_file(pipeline, text)
    lines = (
        *told,
        f"wrote {manifest} and {pipeline}; look at what stands behind CHECK, then",
        f"  quadrat annotations check {manifest} --pipeline {pipeline}",
        f"  quadrat train {pipeline}",
    )
    return Report(manifest, pipeline, lines)


def _write_manifest(path: Path, rows: Sequence[SlideRef], *, in_px: bool) -> None:
    """Write a manifest that reads as it was meant.

    Raises:
        ConfigError: it does not, and is taken away again.
    """
    write_file(path, manifest_text(rows, path.parent, in_px=in_px))
    try:
        for row, again in zip(rows, read_manifest(path), strict=True):
            if manifest_text([row], path.parent) != manifest_text([again], path.parent):
                raise ConfigError(
                    f"{row.path} cannot be written into a manifest (does its name, or that of its "
                    "annotation, begin or end with "
                    "a space, or hold a line break?); rename it"
                )
    except ConfigError:
        path.unlink()
        raise


def _gather(task: str, slides: Path, annotations: Path | None, *, mpp: Mpp | None) -> _Gathered:
    one = one_slide(slides)
    seen = _Gathered(slides if one is None else one.parent)
    files = _annotation_files(annotations, seen.root)
    together = annotations is None or annotations.resolve() == seen.root.resolve()
    for path in _in_utf8(slides_below(slides) if one is None else [one], seen):
        if path in files:
            continue
        if together and is_truth_picture(relative(str(path), seen.root)):
            seen.passed_over += 1
            continue
        try:
            seen.slides[path] = look_at_slide(path)
        except SlideError as error:
            seen.unreadable.append(str(error))
    if not seen.slides:
        told = (
            f"; the first that could not be read: {seen.unreadable[0]}" if seen.unreadable else ""
        )
        raise ConfigError(f"there is no slide that can be read in {readable(slides)}{told}")
    if mpp is not None:
        seen.slides, seen.scale = stated(seen.slides, mpp)
    files = _in_utf8(files, seen)
    if task == "classification":
        _find_labels(seen, files)
    if not seen.labels:
        _match(seen, files, annotations or slides)
    return seen


def _in_utf8(paths: Iterable[Path], seen: _Gathered) -> list[Path]:
    """The paths that a manifest can hold; the others are reported."""
    found = list(paths)
    seen.unreadable += [
        f"{readable(path)}: its name is not UTF-8; rename it" for path in found if not in_utf8(path)
    ]
    return [path for path in found if in_utf8(path)]


def _annotation_files(annotations: Path | None, slides: Path) -> list[Path]:
    """All that may be annotations; pictures in the slides' own folder only if their name or folder
    says so."""
    if annotations is None:
        return []
    if annotations.is_file():
        return [annotations]
    root, own = annotations.resolve(), slides.resolve()
    files = []
    for path in annotations_below(annotations):
        picture = path.suffix.lower() in PICTURES or path.is_dir()
        inside = root == own or (own.is_relative_to(root) and path.resolve().is_relative_to(own))
        if not picture or not inside or is_truth_picture(relative(str(path), annotations)):
            files.append(path)
    return files


def _find_labels(seen: _Gathered, files: Sequence[Path]) -> None:
    """Labels of whole slides: of a CSV (slide, label), else of the folder that a slide lies in."""
    for file in files:
        if file.suffix.lower() not in (".csv", ".tsv", ".txt"):
            continue
        seen.labels, others = labels_of(file, list(seen.slides))
        if seen.labels:
            seen.unused = [f"{name} of {file.name}" for name in others] + [
                f.name for f in files if f != file
            ]
            return
    if files:
        return
    for path in seen.slides:
        parts = [part for part in path.relative_to(seen.root).parts[:-1] if context(f"{part}/x")]
        if parts:
            seen.labels[path] = parts[0].strip()


def _match(seen: _Gathered, files: Sequence[Path], annotations: Path) -> None:
    """Give each slide its file: of those that name the slides they serve, else by the file's own
    name."""
    own: list[Path] = []
    for file in files:
        try:
            served = pictures_of(file)
        except AnnotationError as error:
            seen.unreadable.append(str(error))
            continue
        if served == [""]:
            own.append(file)
            continue
        mine = match_pictures(served, [str(s) for s in seen.slides if s not in seen.annotation])
        seen.annotation |= dict.fromkeys(map(Path, mine), file)
        known = {name for names in mine.values() for name in names}
        seen.unused += [f"{name} of {file.name}" for name in served if name not in known]
    root = annotations if annotations.is_dir() else annotations.parent
    by_name = {relative(str(f), root): f for f in own}
    free = {relative(str(s), seen.root): s for s in seen.slides if s not in seen.annotation}
    matches = match_names(list(free), list(by_name))
    seen.annotation |= {free[s]: by_name[a] for s, a in matches.pairs.items()}
    seen.unused += matches.annotations_alone
    seen.doubtful = [f"{s}: {', '.join(several)}" for s, several in matches.doubtful]
    for slide, file in list(seen.annotation.items()):
        try:
            seen.drawn[slide] = look_at_annotation(file, slide, seen.slides[slide])
        except AnnotationError as error:
            seen.unreadable.append(str(error))
            del seen.annotation[slide]


def _texts(
    task: str, seen: _Gathered, out: Path, *, pattern: re.Pattern[str] | None, seed: int
) -> tuple[Sequence[SlideRef], str, list[str]]:
    """The rows of the manifest, the pipeline and the lines of the report."""
    used = [s for s in seen.slides if s in seen.drawn or seen.labels.get(s)]
    left_out = _left_out(seen, used)
    try:
        proposal = propose(
            task,
            {str(s): one for s, one in seen.drawn.items()},
            [x for x in seen.labels.values() if x],
        )
    except ConfigError as error:
        raise ConfigError("\n".join([str(error), *left_out])) from error
    refs = _refs(used, seen, proposal.annotated, pattern)
    check_leakage(refs, content_digests([ref.path for ref in refs]))
    objects = {
        ref.name: sum(seen.drawn[s].drawn.values()) + len(seen.drawn[s].values)
        for ref, s in zip(refs, used, strict=True)
        if s in seen.drawn
    }
    division = split_by_case(refs, seed=seed, objects=objects)
    looks = [seen.slides[s] for s in used]
    flat, mpp = are_flat(looks), model_mpp(task, looks)
    longest = max((_longest_px(one, mpp) for one in looks), default=0.0)
    notes = [
        *seen.scale,
        *proposal.notes,
        *division.notes,
        *(about_cases(refs) if pattern is None else []),
    ]
    missing = sum(one.mpp is None for one in looks)
    if missing:
        notes.append(
            f"mpp: {missing} of {len(refs)} slides state none that can be used; fill the "
            "manifest's column mpp, or run init with --mpp X, with --mpp-from objects=7um, or with "
            "--mpp px to work in pixels, without any scale"
        )
    name, package = names_for(task, out, Path())
    text = pipeline_text(
        task,
        proposal,
        name=name,
        package=package,
        mpp=mpp,
        shape=shape_for(task, flat=flat, largest_px=longest),
        flat=flat,
        slides_state_mpp=not missing,
        sizes=np.concatenate([np.zeros(0), *_sizes(seen, used)]),
        notes=notes,
    )
    lines = [
        *_told(seen, division.slides, proposal.classes),
        *left_out,
        *(f"CHECK {note}" for note in notes),
    ]
    return division.slides, text, lines


def _longest_px(slide: SlideFound, mpp: Mpp) -> float:
    """The longer side of a slide in px of the model."""
    own = um_or_none(slide.mpp)
    return max(slide.size) * (1.0 if mpp == PX or own is None else own / mpp)


def _sizes(seen: _Gathered, used: Sequence[Path]) -> list[F64]:
    """Diameters in px of all that is annotated with an outline."""
    return [own for path in used if path in seen.drawn for own in seen.drawn[path].sizes.values()]


def _refs(
    used: Sequence[Path],
    seen: _Gathered,
    annotated: Mapping[str, str],
    pattern: re.Pattern[str] | None,
) -> list[SlideRef]:
    """A row a slide. ``pattern`` finds its case in its path; without one it is a TCGA participant,
    or the slide's own name."""
    below = {path: relative(str(path), seen.root) for path in used}
    names = unique_names({below[path]: slide_name(path) for path in used})
    refs = []
    for path in used:
        name, file = names[below[path]], seen.annotation.get(path)
        refs.append(
            SlideRef(
                name=name,
                path=str(path),
                mpp=um_or_none(seen.slides[path].mpp),
                annotation=str(file) if file and path in seen.drawn else "",
                label=seen.labels.get(path, ""),
                case=case_in(below[path], pattern)
                if pattern
                else tcga_participant(slide_name(path)) or name,
                annotated=annotated.get(str(path), ""),
            )
        )
    return refs


def _told(seen: _Gathered, rows: Sequence[SlideRef], classes: Sequence[str]) -> list[str]:
    """What was found: slides and classes, cases and splits."""
    splits, cases = Counter(row.split for row in rows), len({row.case for row in rows})
    dealt = ", ".join(f"{splits[s]} {s}" for s in ("train", "val", "test") if splits.get(s))
    return [
        f"{len(rows)} of {len(seen.slides)} slides with {_what(seen)}s; classes: "
        f"{', '.join(classes)}",
        f"split by case ({cases} cases): {dealt}",
    ]


def _left_out(seen: _Gathered, used: Sequence[Path]) -> list[str]:
    """What was found and could not be used, a line a reason."""
    lines = []
    alone = [relative(str(path), seen.root) for path in seen.slides if path not in set(used)]
    for title, names in (
        (f"slides without {_what(seen)}, left out", alone),
        (
            "annotations that belong to no slide, or not surely, left out (a.tif.geojson is surely "
            "of a.tif)",
            seen.unused,
        ),
        ("slides with several annotation files, left out (name one like the slide)", seen.doubtful),
    ):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            lines.append(f"{title}: {', '.join(names[:LISTED])}{more}")
    if seen.passed_over:
        lines.append(
            f"{seen.passed_over} pictures are taken for annotations by their name or folder, and "
            "not for slides"
        )
    return lines + [f"unreadable, left out: {reason}" for reason in seen.unreadable]


def _what(seen: _Gathered) -> str:
    return "label" if seen.labels else "annotation"


__all__ = ["Report", "start"]
