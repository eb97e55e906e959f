"""All bad records of an annotation file, named by file and place, as training would find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quadrat.annotations.faults import geometry_problems
from quadrat.annotations.formats.coco import orphans
from quadrat.annotations.formats.pictures import other_picture
from quadrat.annotations.formats.reading import pictures
from quadrat.annotations.items import Loaded, named
from quadrat.annotations.record import Code, Problem, Record, Sheet
from quadrat.annotations.scale import scale_problems
from quadrat.annotations.selection import bounding_records, record_problems, sort_records
from quadrat.config.pipeline import Pipeline
from quadrat.core.unit import um_or_none


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    file: str
    """The annotation file."""
    slide: str
    """Name of the slide; "" if it concerns none."""
    place: str
    """Where the record stands in the file; "" for the whole file."""
    name: str
    """Class of the record."""
    code: Code
    """What is wrong, in one word or two."""
    text: str
    """What is wrong, in a sentence."""
    warning: bool
    """It is reported, but the record is used."""

    def __str__(self) -> str:
        place = f", {self.place}" if self.place else ""
        name = f" ({self.name})" if self.name and "class" not in self.code else ""
        return (
            f"{'warning: ' if self.warning else ''}{self.file}{place}{name}: {self.code}: "
            f"{self.text}"
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in the annotations of one slide."""

    findings: tuple[Finding, ...]
    """Everything that is wrong."""
    records: int
    """How many records were checked."""
    notes: tuple[str, ...] = ()
    """Sentences on derived and ignored classes."""


def check_item(loaded: Loaded, *, pipeline: Pipeline | None) -> Checked:
    """Everything that is wrong with the annotations of one slide.

    With a pipeline, only the records that it would take are judged, as training would judge them.
    Without one, all records of any class are judged.
    """
    item, sheet = loaded.item, loaded.sheet
    file = str(item.path or (item.ref.path if item.ref else ""))
    whole = [Problem("unreadable", text) for text in loaded.unreadable]
    judged: list[tuple[Record, Sequence[Problem]]] = []
    notes: Sequence[str] = () if sheet is None else sheet.notes
    if pipeline is not None:
        whole += _label_problems(loaded, pipeline)
    if sheet is not None and (pipeline is None or pipeline.data.annotations != "none"):
        if pipeline is None:
            problems = geometry_problems(sheet.records, size=loaded.size)
            judged = [
                (r, own + _class_problems(r, sheet))
                for r, own in zip(sheet.records, problems, strict=True)
            ]
        else:
            judged, more, of_kinds = _as_trained(loaded, sheet, pipeline)
            whole += more
            notes = [*notes, *of_kinds]
        looked_at = replace(sheet, records=tuple(record for record, _ in judged))
        whole += [*_nothing_used(sheet, judged, whole, notes), *_nothing_painted(sheet)]
        whole += [
            *scale_problems(looked_at, size=loaded.size, mpp=um_or_none(loaded.mpp)),
            *_picture_problems(loaded, sheet),
        ]
        judged = [(record, [*own, *_piece_problems(record, sheet)]) for record, own in judged]
    whole += [] if pipeline is None else _manifest_problems(loaded, pipeline)
    found = [
        Finding(file, item.slide, "", "", p.code, _shortened(p.text, file), p.warning)
        for p in whole
    ]
    found += [
        Finding(file, item.slide, r.place, r.name, p.code, p.text, p.warning)
        for r, own in judged
        for p in own
    ]
    return Checked(tuple(found), len(judged), tuple(notes))


def shared_files(loaded: Sequence[Loaded]) -> list[Finding]:
    """Slides that name the annotation file of another slide, although it holds those of one
    slide."""
    found, first = [], dict[str, str]()
    for one in loaded:
        if (
            one.item.ref is None
            or one.item.path is None
            or (one.sheet is not None and one.sheet.format in MANY)
        ):
            continue
        file = str(one.item.path)
        if first.setdefault(file, one.item.slide) != one.item.slide:
            text = (
                f"the manifest names it for {one.item.slide} and for {first[file]}, but it holds "
                "the annotations of one slide"
            )
            found.append(Finding(file, one.item.slide, "", "", "other slide", text, warning=False))
    return found


def orphan_findings(loaded: Sequence[Loaded]) -> list[Finding]:
    """Annotations of COCO files that belong to none of the pictures of their file."""
    files = dict.fromkeys(
        one.item.path for one in loaded if one.sheet is not None and one.sheet.format == "COCO"
    )
    return [
        Finding(
            str(path),
            "",
            place,
            "",
            "other slide",
            "its image_id is none of the file's images",
            warning=False,
        )
        for path in files
        if path is not None
        for place in orphans(path)
    ]


def unused_pictures(loaded: Sequence[Loaded]) -> list[Finding]:
    """Files of several pictures with pictures that are no slide of the manifest, so that nobody
    uses what is drawn in them."""
    used: dict[Path, set[str]] = {}
    for one in loaded:
        if one.item.ref is not None and one.sheet is not None and one.sheet.picture:
            used.setdefault(Path(one.sheet.source), set()).add(one.sheet.picture)
    found = []
    for path, own in used.items():
        others = [name for name in pictures(path) if name not in {*own, ""}]
        if others:
            shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            text = (
                f"{len(others)} of its {len(others) + len(own)} pictures are no slide of the "
                f"manifest ({shown}); what is drawn in them is not used"
            )
            found.append(Finding(str(path), "", "", "", "other slide", text, warning=True))
    return found


PAINTED = ("mask", "class mask", "label image")
"""Formats that are pictures."""
MANY = ("COCO", "CSV", "Parquet")
"""Formats in which one file may serve several slides."""


def _as_trained(
    loaded: Loaded, sheet: Sheet, pipeline: Pipeline
) -> tuple[list[tuple[Record, Sequence[Problem]]], list[Problem], Sequence[str]]:
    """(records with their problems, problems of the whole file, notes), as ``load_truth`` would
    find them."""
    data, classes = pipeline.data, [c.name for c in pipeline.classes]
    annotated = loaded.item.ref.annotated if loaded.item.ref else ""
    want = {"labels": "objects", "mask": "regions"}.get(data.annotations, data.annotations)
    sheet = named(sheet, classes)
    found = sort_records(
        sheet,
        classes,
        want=want,
        ignore=data.ignore,
        bounding=annotated,
        objects_as=data.objects_as,
    )
    problems = record_problems(found.taken, found.targets, classes, want=want, size=loaded.size)
    judged: list[tuple[Record, Sequence[Problem]]] = list(zip(found.taken, problems, strict=True))
    whole = []
    if annotated not in ("", "all"):
        bounds = bounding_records(sheet, annotated)
        # a region drawn twice bounds the same area
        found_there = (
            [p for p in own if p.code != "duplicate"]
            for own in geometry_problems(bounds, size=loaded.size)
        )
        judged += list(zip(bounds, found_there, strict=True))
        if not bounds:
            text = (
                f"the manifest says that '{annotated}' bounds what is annotated, but the file has "
                "no region of that class"
            )
            whole.append(Problem("not asked for", text))
    if found.nothing:
        whole.append(Problem("not asked for", f"it has {found.nothing}"))
    return judged, whole, [*found.notes, *found.others]


def _nothing_used(
    sheet: Sheet,
    judged: Sequence[object],
    found: Sequence[Problem],
    notes: Sequence[str],
) -> list[Problem]:
    """That a file has features and none of them is used, unless that has been found already. It is
    a warning if the user has said so (ignored classes, crowds)."""
    features = len(sheet.records) + sheet.left_out
    if judged or not features or any(problem.code == "not asked for" for problem in found):
        return []
    text = f"none of its {features} features is used: {'; '.join(notes)}"
    return [Problem("nothing used", text, warning=bool(sheet.records))]


def _nothing_painted(sheet: Sheet) -> list[Problem]:
    if sheet.records or sheet.format not in PAINTED:
        return []
    return [Problem("empty", f"a {sheet.format} of no pixel that is not 0", warning=True)]


def _class_problems(record: Record, sheet: Sheet) -> list[Problem]:
    missing = not record.name and not record.fault and not sheet.one_class
    return [Problem("no class", "it has no class", warning=True)] if missing else []


def _piece_problems(record: Record, sheet: Sheet) -> list[Problem]:
    """A label in a label image is one object even if its pixels are not connected. Often that is a
    mistake."""
    if sheet.format != "label image" or len(record.parts) < 2:
        return []
    return [
        Problem(
            "in pieces",
            f"its pixels are in {len(record.parts)} pieces; they count as one object",
            warning=True,
        )
    ]


def _picture_problems(loaded: Loaded, sheet: Sheet) -> list[Problem]:
    if loaded.item.ref is None:
        return []
    other = other_picture(sheet.picture, loaded.item.ref.path, called=loaded.item.slide)
    return [Problem("other slide", other, warning=True)] if other else []


def _label_problems(loaded: Loaded, pipeline: Pipeline) -> list[Problem]:
    """If the label of the slide is learnt: whether it is a class. Otherwise: whether the slide has
    an annotation."""
    ref, classes = loaded.item.ref, [c.name for c in pipeline.classes]
    if ref is None:
        return []
    if pipeline.data.annotations != "none":
        text = (
            "the manifest names no annotation, but data.annotations is "
            f"'{pipeline.data.annotations}'"
        )
        return [] if ref.annotation else [Problem("no geometry", text)]
    if loaded.label in classes or loaded.unreadable:
        return []
    return [
        Problem(
            "unknown class",
            f"the slide's label '{loaded.label}' is none of the classes {', '.join(classes)}",
        )
    ]


def _manifest_problems(loaded: Loaded, pipeline: Pipeline) -> list[Problem]:
    """What the manifest must state besides files: an mpp if the slide states none, and where all
    objects are annotated."""
    ref = loaded.item.ref
    if ref is None:
        return []
    found = []
    if loaded.size is not None and loaded.mpp is None:
        found.append(
            Problem(
                "no mpp", "the slide states no mpp (um a pixel); fill the manifest's column 'mpp'"
            )
        )
    if (
        loaded.sheet is not None
        and pipeline.data.annotations in ("objects", "points", "labels")
        and not ref.annotated
    ):
        text = (
            "the manifest does not say where all objects are: fill its column 'annotated' with "
            "'all', or with a region class"
        )
        found.append(Problem("not bounded", text))
    return found


def _shortened(text: str, file: str) -> str:
    """A message of a reader without the file name, which is printed before it anyway."""
    return text.removeprefix(f"{file}: ")
