"""Which annotation file belongs to which slide, by their names alone (pure); what is not sure is
not matched."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath

from quadrat.annotations.formats.pictures import same_pictures

_SUFFIXES = (
    "svs tif tiff btf ndpi mrxs scn bif vms vmu svslide czi qptiff dcm png jpg jpeg bmp zarr ome "
    "geojson json xml csv tsv txt "
    "parquet gz"
)
_TRUTH = (
    "annotation annotations label labels mask masks seg segmentation segmentations gt truth "
    "groundtruth instances"
)
_OTHER = (
    "annotated anno labeled labelled ground class classes coords coordinates centres centers point "
    "points cell cells nuclei "
    "nucleus detection detections object objects polygon polygons box boxes region regions roi "
    "rois instance contours export "
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
    """Which annotation is of which slide. Paths are as given, relative to their folder, with
    forward slashes."""

    pairs: Mapping[str, str]
    """By slide, the one annotation that fits it best."""
    slides_alone: tuple[str, ...]
    """Slides that no annotation fits."""
    annotations_alone: tuple[str, ...]
    """Annotations that fit no slide, or not surely, or less well than another one."""
    doubtful: tuple[tuple[str, tuple[str, ...]], ...]
    """(slide, annotations) where several fit equally well; the slide gets none of them."""


def match_names(slides: Sequence[str], annotations: Sequence[str]) -> Matches:
    """Pair slides and annotation files of the same name.

    Names agree if the annotation's is the slide's whole name, with or without a suffix behind
    (``a.tif`` and ``a.tif.geojson``), else if they are equal without suffixes (``a.ome.tif`` and
    ``a.geojson``), else if they are equal without words like ``_annotations`` and ``-labels`` at
    either end of the annotation's, else of both. Upper and lower case agree, as do the composed and
    decomposed forms of a letter. Where several slides have that name, the one whose folder is
    called alike (``b/images/x`` and ``b/labels/x``).
    """
    by_name, by_stem, by_core = (_index(slides, key) for key in (whole, bare, _core))
    of_slide: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for annotation in annotations:
        exact = dict.fromkeys([*by_name[whole(annotation)], *by_name[_without_suffix(annotation)]])
        levels = (
            list(exact),
            by_stem[bare(annotation)],
            by_stem[_core(annotation)],
            by_core[_core(annotation)],
        )
        level, found = next(
            ((level, found) for level, found in enumerate(levels) if found), (0, [])
        )
        slide = _of_like_folder(found, annotation)
        if slide is not None:
            of_slide[slide].append((level, annotation))
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


def match_pictures(names: Sequence[str], slides: Sequence[str]) -> dict[str, list[str]]:
    """The names by which a file of many pictures means each slide (by its path, see
    ``same_pictures``), for those it means.

    A name that may mean several slides means the one whose path agrees with it over the most
    folders, or none.
    """
    claims = {slide: same_pictures(names, slide) for slide in slides}
    claimants: dict[str, list[str]] = defaultdict(list)
    for slide, claimed in claims.items():
        for name in claimed:
            claimants[name].append(slide)
    owner = {name: _nearest_path(name, several) for name, several in claimants.items()}
    mine = {
        slide: [name for name in claimed if owner[name] == slide]
        for slide, claimed in claims.items()
    }
    return {slide: claimed for slide, claimed in mine.items() if claimed}


def whole(path: str) -> str:
    """The file's name without folders and QuPath's " - Series 0", letters composed and in lower
    case."""
    return _without_series(_plain(PurePosixPath(path).name))


def bare(path: str) -> str:
    """The file's name in lower case without folders and suffixes, and without QuPath's " - Series
    0"."""
    name = whole(path)
    while True:
        start, dot, end = name.rpartition(".")
        if not dot or end not in SUFFIXES or not start:
            return name
        name = _without_series(start)


def without_marks(name: str) -> str:
    """A name without words like ``_annotations`` at its ends; a name of nothing else stays as it
    is."""
    parts = re.split(r"([-_. ]+)", name)
    while len(parts) > 1 and parts[-1] in MARKS:
        parts = parts[:-2]
    while len(parts) > 1 and parts[0] in MARKS:
        parts = parts[2:]
    return "".join(parts)


def is_truth_picture(path: str) -> bool:
    """Whether a picture's own name, or a folder it lies in, says that it is an annotation (for
    slides next to annotations)."""
    words = re.split(r"[-_. ]+", bare(path))
    return words[-1] in TRUTH_MARKS or any(
        part.casefold() in TRUTH_MARKS for part in PurePosixPath(path).parts[:-1]
    )


def context(path: str) -> tuple[str, ...]:
    """The folders of a path that are not called "images", "labels" and the like, in lower case."""
    return tuple(part for part in map(_plain, PurePosixPath(path).parts[:-1]) if part not in MARKS)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _without_series(name: str) -> str:
    return re.sub(r"\s+-\s+series \d+$", "", name)


def _without_suffix(path: str) -> str:
    return _without_series(PurePosixPath(whole(path)).stem)


def _core(path: str) -> str:
    return without_marks(bare(path))


def _index(paths: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[key(path)].append(path)
    return found


def _like(slide: str, annotation: str) -> bool:
    return context(slide) == context(annotation)


def _of_like_folder(slides: Sequence[str], annotation: str) -> str | None:
    """The only one of a like folder; the only one, where none is; else none is sure."""
    like = [s for s in slides if _like(s, annotation)] or slides
    return like[0] if len(like) == 1 else None


def _nearest_path(name: str, slides: Sequence[str]) -> str | None:
    """The slide that has the most steps in common with a name, from the end of both; None if
    several have."""
    agreed = [
        len(
            list(
                takewhile(
                    lambda pair: pair[0] == pair[1], zip(_steps(name), _steps(s), strict=False)
                )
            )
        )
        for s in slides
    ]
    best = [s for s, n in zip(slides, agreed, strict=True) if n == max(agreed)]
    return best[0] if len(best) == 1 else None


def _steps(path: str) -> list[str]:
    """The file and the folders of a path of any system, the file first."""
    return re.split(r"[/\\]", path)[::-1]
