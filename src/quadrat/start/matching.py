"""Which annotation file belongs to which slide, by their names alone (pure); what is not sure is not matched."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

_SUFFIXES = (
    "svs tif tiff btf ndpi mrxs scn bif vms vmu svslide czi qptiff dcm png jpg jpeg bmp zarr ome geojson json xml csv tsv txt"
)
_TRUTH = "annotation annotations label labels mask masks seg segmentation segmentations gt truth groundtruth instances"
_OTHER = (
    "annotated anno labeled labelled ground class classes coords coordinates centres centers point points cell cells nuclei "
    "nucleus detection detections object objects polygon polygons box boxes region regions roi rois instance contours export "
    "qupath coco image images slide slides img wsi"
)
SUFFIXES = frozenset(_SUFFIXES.split())
"""What may be stripped from the end of a name: ``a.ome.tif``, ``a.svs.geojson``."""
TRUTH_MARKS = frozenset(_TRUTH.split())
"""Words that mark a picture, or the folder it lies in, as an annotation."""
MARKS = TRUTH_MARKS | frozenset(_OTHER.split())
"""Words that say what a file is, and not of which slide."""


@dataclass(frozen=True, slots=True)
class Matches:
    """``pairs``: slide to annotation. ``doubtful``: a slide and the annotations of which more than one could be its own.

    Paths are those given, relative to their folder with forward slashes.
    """

    pairs: Mapping[str, str]
    slides_alone: tuple[str, ...]
    annotations_alone: tuple[str, ...]
    doubtful: tuple[tuple[str, tuple[str, ...]], ...]


def match_names(slides: Sequence[str], annotations: Sequence[str]) -> Matches:
    """Pair slides and annotation files of the same name.

    Names agree if they are equal without suffixes (``a.ome.tif`` and ``a.geojson``), else if they are equal without words
    like ``_annotations`` and ``-labels`` at either end of the annotation's, else of both. Upper and lower case agree. Where
    several slides have that name, the one whose folder is called alike (``b/images/x`` and ``b/labels/x``).
    """
    stem = {path: bare(path) for path in (*slides, *annotations)}
    core = {path: without_marks(name) for path, name in stem.items()}
    of_slide: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for annotation in annotations:
        levels = ((stem, stem), (stem, core), (core, core))
        for level, (of_slides, of_annotations) in enumerate(levels):
            found = [s for s in slides if of_slides[s] == of_annotations[annotation]]
            if found:
                for slide in _of_like_folder(found, annotation):
                    of_slide[slide].append((level, annotation))
                break
    pairs, doubtful = {}, []
    for slide in slides:
        near = [(level, not _like(slide, a), a) for level, a in of_slide[slide]]
        best = [a for level, far, a in near if (level, far) == min(near)[:2]] if near else []
        if len(best) == 1:
            pairs[slide] = best[0]
        elif best:
            doubtful.append((slide, tuple(best)))
    in_doubt = {a for _, several in doubtful for a in several}
    used = set(pairs.values())
    return Matches(
        pairs,
        tuple(s for s in slides if s not in pairs and s not in dict(doubtful)),
        tuple(a for a in annotations if a not in used and a not in in_doubt),
        tuple(doubtful),
    )


def bare(path: str) -> str:
    """The file's name in lower case without folders and suffixes, and without QuPath's " - Series 0"."""
    name = PurePosixPath(path).name.casefold()
    while True:
        name = re.sub(r"\s+-\s+series \d+$", "", name)
        start, dot, end = name.rpartition(".")
        if not dot or end not in SUFFIXES or not start:
            return name
        name = start


def without_marks(name: str) -> str:
    """A name without words like ``_annotations`` at its ends; a name of nothing else stays as it is."""
    parts = re.split(r"([-_. ]+)", name)
    while len(parts) > 1 and parts[-1] in MARKS:
        parts = parts[:-2]
    while len(parts) > 1 and parts[0] in MARKS:
        parts = parts[2:]
    return "".join(parts)


def is_truth_picture(path: str) -> bool:
    """Whether a picture's own name, or a folder it lies in, says that it is an annotation (for slides beside annotations)."""
    words = re.split(r"[-_. ]+", bare(path))
    return words[-1] in TRUTH_MARKS or any(part.casefold() in TRUTH_MARKS for part in PurePosixPath(path).parts[:-1])


def context(path: str) -> tuple[str, ...]:
    """The folders of a path that are not called "images", "labels" and the like, in lower case."""
    return tuple(part.casefold() for part in PurePosixPath(path).parts[:-1] if part.casefold() not in MARKS)


def _like(slide: str, annotation: str) -> bool:
    return context(slide) == context(annotation)


def _of_like_folder(slides: Sequence[str], annotation: str) -> Sequence[str]:
    """Those of like folders if there are any; all if there is but one; else none is sure."""
    like = [s for s in slides if _like(s, annotation)]
    return like or (slides if len(slides) == 1 else [])
