"""``quadrat init``: a manifest and a filled pipeline from folders of slides and annotations, and what could not be matched."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quadrat.annotations.pictures import same_pictures
from quadrat.annotations.reading import pictures
from quadrat.durable import write_durably
from quadrat.errors import AnnotationError, ConfigError, SlideError
from quadrat.leakage import check_leakage, content_digests
from quadrat.manifest import SlideRef, slide_name
from quadrat.splits import split_by_case
from quadrat.start.files import manifest_text, pipeline_text, relative, shape_for
from quadrat.start.finding import (
    PICTURES,
    AnnotationFound,
    SlideFound,
    annotations_below,
    labels_of,
    look_at_annotation,
    look_at_slide,
    slides_below,
)
from quadrat.start.matching import context, is_truth_picture, match_names
from quadrat.start.proposal import TASKS, are_flat, model_mpp, propose

LISTED = 10
"""Names that a line of the report gives before it counts."""
TCGA = re.compile(r"^(TCGA-[A-Za-z0-9]{2}-[A-Za-z0-9]{4})(?=$|[-_. ])")
"""A TCGA barcode up to the participant (docs.gdc.cancer.gov, Encyclopedia: TCGA barcode)."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was written and what the user should be told, a line each."""

    manifest: Path
    pipeline: Path
    lines: tuple[str, ...]


@dataclass(slots=True)
class _Gathered:
    """Slides that open, the annotation of each, and what could not be used, while the folders are gone through."""

    slides: dict[Path, SlideFound] = field(default_factory=dict)
    annotation: dict[Path, Path] = field(default_factory=dict)
    drawn: dict[Path, AnnotationFound] = field(default_factory=dict)
    labels: dict[Path, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    passed_over: int = 0


def start(task: str, *, slides: Path, annotations: Path | None, out: Path, overwrite: bool = False, seed: int = 0) -> Report:
    """Write ``manifest.csv`` and ``pipeline.yaml`` into ``out``.

    Raises:
        ConfigError: an unknown task, a folder that is not there, files that would be overwritten, or nothing to learn from.
    """
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=1)
        raise ConfigError(f"there is no task '{task}' (tasks: {', '.join(TASKS)}){f'; did you mean {near[0]}?' if near else ''}")
    if annotations is None and task != "classification":
        raise ConfigError(f"{task} is learnt from annotations: say --annotations FOLDER (or a file that serves all slides)")
    if not slides.is_dir():
        raise ConfigError(f"--slides {slides} is not a folder")
    if annotations is not None and not annotations.exists():
        raise ConfigError(f"--annotations {annotations} is not there")
    manifest, pipeline = out / "manifest.csv", out / "pipeline.yaml"
    existing = [path for path in (manifest, pipeline) if path.exists()]
    if existing and not overwrite:
        raise ConfigError(f"{existing[0]} exists; say --overwrite to replace it, or --out ANOTHER_FOLDER")
    gathered = _gather(task, slides, annotations)
    texts = _texts(task, gathered, slides, out, seed=seed)
    for path, text in zip((manifest, pipeline), texts[:2], strict=True):
        write_durably(path, text.encode())
    lines = (
        *texts[2],
        f"wrote {manifest} and {pipeline}; look at what stands behind CHECK, then",
        f"  quadrat annotations check {manifest} --pipeline {pipeline}",
        f"  quadrat train {pipeline}",
    )
    return Report(manifest, pipeline, lines)


def _gather(task: str, slides: Path, annotations: Path | None) -> _Gathered:
    seen = _Gathered()
    files = _annotation_files(annotations, slides)
    beside = annotations is None or annotations.resolve() == slides.resolve()
    for path in slides_below(slides):
        if path in files:
            continue
        if beside and is_truth_picture(relative(str(path), slides)):
            seen.passed_over += 1
            continue
        try:
            seen.slides[path] = look_at_slide(path)
        except SlideError as error:
            seen.unreadable.append(str(error))
    if not seen.slides:
        told = f"; the first that could not be read: {seen.unreadable[0]}" if seen.unreadable else ""
        raise ConfigError(f"there is no slide that can be read in {slides}{told}")
    if task == "classification":
        _find_labels(seen, slides, files)
    if not seen.labels:
        _match(seen, files, slides, annotations or slides)
    return seen


def _annotation_files(annotations: Path | None, slides: Path) -> list[Path]:
    """All that may be annotations; pictures in the slides' own folder only if their name or folder says so."""
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


def _find_labels(seen: _Gathered, folder: Path, files: Sequence[Path]) -> None:
    """Labels of whole slides: of a CSV (slide, label), else of the folder that a slide lies in."""
    for file in files:
        if file.suffix.lower() not in (".csv", ".tsv", ".txt"):
            continue
        seen.labels, others = labels_of(file, list(seen.slides))
        if seen.labels:
            seen.unused = [f"{name} of {file.name}" for name in others] + [f.name for f in files if f != file]
            return
    if files:
        return
    for path in seen.slides:
        parts = [part for part in path.relative_to(folder).parts[:-1] if context(f"{part}/x")]
        if parts:
            seen.labels[path] = parts[0]


def _match(seen: _Gathered, files: Sequence[Path], slides: Path, annotations: Path) -> None:
    """Give each slide its file: of those that name the slides they serve, else by the file's own name."""
    own: list[Path] = []
    for file in files:
        try:
            served = pictures(file)
        except AnnotationError as error:
            seen.unreadable.append(str(error))
            continue
        if served == [""]:
            own.append(file)
            continue
        mine = {s: same_pictures(served, s.name) for s in seen.slides if s not in seen.annotation}
        seen.annotation |= dict.fromkeys((s for s, names in mine.items() if names), file)
        known = {name for names in mine.values() for name in names}
        seen.unused += [f"{name} of {file.name}" for name in served if name not in known]
    root = annotations if annotations.is_dir() else annotations.parent
    by_name = {relative(str(f), root): f for f in own}
    free = {relative(str(s), slides): s for s in seen.slides if s not in seen.annotation}
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


def _texts(task: str, seen: _Gathered, folder: Path, out: Path, *, seed: int) -> tuple[str, str, list[str]]:
    """The manifest, the pipeline and the lines of the report."""
    proposal = propose(task, {str(s): one for s, one in seen.drawn.items()}, list(seen.labels.values()))
    used = [s for s in seen.slides if s in seen.drawn or seen.labels.get(s)]
    refs = _refs(used, seen, proposal.annotated, folder)
    check_leakage(refs, content_digests([ref.path for ref in refs]))
    objects = {
        ref.name: sum(seen.drawn[s].drawn.values()) + len(seen.drawn[s].values)
        for ref, s in zip(refs, used, strict=True)
        if s in seen.drawn
    }
    division = split_by_case(refs, seed=seed, objects=objects)
    looks = [seen.slides[s] for s in used]
    flat, mpp = are_flat(looks), model_mpp(task, looks)
    longest = max((max(one.size) * (one.mpp or mpp) / mpp for one in looks), default=0.0)
    notes = [*proposal.notes, *division.notes, *_about_cases(refs)]
    missing = sum(one.mpp is None for one in looks)
    if missing:
        notes.append(f"mpp: {missing} of {len(refs)} slides state none that can be used; fill the manifest's column mpp")
    shape = shape_for(task, flat=flat, largest_px=longest)
    text = pipeline_text(task, proposal, mpp=mpp, shape=shape, flat=flat, slides_state_mpp=not missing, notes=notes)
    lines = _told(seen, used, proposal.classes, Counter(ref.split for ref in division.slides))
    return manifest_text(division.slides, out), text, lines + [f"check {note}" for note in notes]


def _refs(used: Sequence[Path], seen: _Gathered, annotated: Mapping[str, str], folder: Path) -> list[SlideRef]:
    """A row a slide, with its case guessed from its name; slides of one file name are told apart by their folders."""
    often = Counter(slide_name(path) for path in used)
    refs = []
    for path in used:
        name = slide_name(path)
        if often[name] > 1:
            name = "-".join([*path.relative_to(folder).parts[:-1], name])
        file = seen.annotation.get(path)
        refs.append(
            SlideRef(
                name=name,
                path=str(path),
                mpp=seen.slides[path].mpp,
                annotation=str(file) if file and path in seen.drawn else "",
                label=seen.labels.get(path, ""),
                case=guess_case(slide_name(path)),
                annotated=annotated.get(str(path), ""),
            )
        )
    return refs


def guess_case(name: str) -> str:
    """The participant of a TCGA barcode; else the slide's name."""
    found = TCGA.match(name)
    return found.group(1).upper() if found else name


def _about_cases(refs: Sequence[SlideRef]) -> list[str]:
    """That cases were guessed, and whether names that begin alike may be of one patient."""
    own = [ref.case for ref in refs if ref.case == slide_name(Path(ref.path))]
    if not own:
        return []
    begin = Counter(re.split(r"[-_. ]", case)[0] for case in own)
    alike, n = begin.most_common(1)[0]
    hint = f" (names begin alike, {n} with '{alike}': is that the patient?)" if 1 < len(begin) < 0.8 * len(own) else ""
    return [
        f"case: {len(own)} of {len(refs)} slides are taken for a case of their own; slides of one patient need one case{hint}"
    ]


def _told(seen: _Gathered, used: Sequence[Path], classes: Sequence[str], splits: Mapping[str, int]) -> list[str]:
    what = "labels" if seen.labels else "annotations"
    lines = [f"{len(used)} of {len(seen.slides)} slides with {what}; classes: {', '.join(classes)}"]
    lines.append("split by case: " + ", ".join(f"{splits[s]} {s}" for s in ("train", "val", "test") if splits.get(s)))
    alone = [path.name for path in seen.slides if path not in set(used)]
    for title, names in (
        (f"slides without {what.removesuffix('s')}, left out", alone),
        ("annotations that belong to no slide, or not surely, left out", seen.unused),
        ("slides with several annotation files, left out (name one like the slide)", seen.doubtful),
    ):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            lines.append(f"{title}: {', '.join(names[:LISTED])}{more}")
    if seen.passed_over:
        lines.append(f"{seen.passed_over} pictures are taken for annotations by their name or folder, and not for slides")
    return lines + [f"unreadable, left out: {reason}" for reason in seen.unreadable]


__all__ = ["Report", "guess_case", "start"]
