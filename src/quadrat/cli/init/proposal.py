"""What a pipeline could learn from what was found: kind of annotation, classes, where it is
complete, sizes (pure)."""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadrat.annotations.formats.mask_image import Colour
from quadrat.cli.init.finding import AnnotationFound, Drawn, SlideFound
from quadrat.core.errors import ConfigError
from quadrat.core.unit import PX, Mpp, um_or_none

TARGET_MPP = {
    "semantic": 2.0,
    "classification": 1.0,
    "detection": 0.5,
    "instance": 0.5,
    "instance_masks": 2.0,
}
"""um/px that the shipped pipelines use, task by task."""
TASKS = tuple(TARGET_MPP)
CLASS_NUMBERS = (
    50  # a grey picture with higher values, and 255 among them, is a mask with soft edges
)
FLAT_PX = 2048  # slides no larger than this a side are flat images: all of them is analysed

BLACK = (0, 0, 0)
"""The colour that is of no class unless somebody says so."""

PARTLY = ("QuPath GeoJSON", "ASAP XML")
"""Formats in which people draw on parts of a slide; in others a file speaks of a whole picture."""
COLOURS = (
    (228, 26, 28),
    (55, 126, 184),
    (77, 175, 74),
    (152, 78, 163),
    (255, 127, 0),
    (255, 221, 51),
    (166, 86, 40),
    (247, 129, 191),
    (0, 190, 190),
    (120, 120, 120),
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """The sections ``classes`` and ``data`` of a pipeline, and where each slide's annotation is
    complete."""

    classes: tuple[str, ...]
    """Class names, in the order of the section ``classes``."""
    annotations: str
    """``data.annotations``: what is learnt; "none": the labels of whole slides."""
    annotated: Mapping[str, str]
    """By key of the annotation, where the truth is complete: "all", a region class, or "" (only
    what is drawn is known)."""
    objects_as: str = "detections"
    """``data.objects_as``: "annotations" where QuPath annotations are the objects."""
    point_layout: str = "x y class"
    """``data.point_layout``: columns of a text file of points that has no header."""
    first_class: int | None = None
    """``data.point_first_class``: number of the first class; None: classes have names."""
    mask_threshold: int | None = 127
    """``data.mask_threshold``: values above it are class 1; None: values are class numbers."""
    mask_colours: tuple[tuple[str, Colour], ...] = ()
    """``data.mask_colours``: what each colour of the masks is."""
    notes: tuple[str, ...] = ()
    """What the user has to check, a sentence each."""


def propose(
    task: str, found: Mapping[str, AnnotationFound], labels: Sequence[str] = ()
) -> Proposal:
    """What ``task`` can learn from the annotations (by any key) or, for classification, from the
    slides' labels.

    Raises:
        ConfigError: nothing to learn is found; pictures and drawn annotations are mixed; a
        classification of one class.
    """
    proposal = _propose(task, found, labels)
    if task == "classification" and len(proposal.classes) < 2:
        raise ConfigError(
            "classification tells two or more classes apart, and all that is found is of one, "
            f"'{proposal.classes[0]}' "
            f"(slides: {len(labels) or len(found)}); put the slides into a folder a class, or give "
            "a CSV (slide, label) as "
            "--annotations"
        )
    return proposal


def _propose(task: str, found: Mapping[str, AnnotationFound], labels: Sequence[str]) -> Proposal:
    if task == "classification" and any(labels):
        return Proposal(tuple(sorted({x for x in labels if x})), "none", dict.fromkeys(found, ""))
    pictures = [key for key, one in found.items() if one.form == "picture"]
    if pictures and len(pictures) < len(found):
        other = next(key for key in found if key not in pictures)
        raise ConfigError(
            f"{pictures[0]} is a picture and {other} is {found[other].form}: one pipeline reads "
            "pictures or drawn annotations, "
            "not both; run init on each kind by itself"
        )
    if not found:
        raise ConfigError(
            f"nothing to learn {task} from: no slide has an annotation"
            + (
                " or a label; put slides into a folder a class, or give a CSV (slide, label)"
                if task == "classification"
                else ""
            )
        )
    return _of_pictures(task, found) if pictures else _of_records(task, found)


def _of_pictures(task: str, found: Mapping[str, AnnotationFound]) -> Proposal:
    """Masks and label images. Everything in them is annotated."""
    everywhere = dict.fromkeys(found, "all")
    values = Counter[int]()
    for one in found.values():
        values.update(one.values)
    coloured = [key for key, one in found.items() if one.colours and not one.values]
    odd = [key for key in coloured if set(found[key].colours) - {BLACK}]
    areas = task in ("semantic", "classification")
    if odd and not areas:
        raise ConfigError(
            f"{odd[0]} is a picture of colours, which shows areas of classes and no single "
            "objects; init semantic learns it"
        )
    if odd or (areas and _has_unknown(values)):
        return _of_colours(found, everywhere)
    if not values:
        raise ConfigError(f"the {len(found)} pictures hold no value but 0: nothing is annotated")
    highest = max(values)
    if not areas:
        notes = ["classes: a label image has no class names; give the objects their name"]
        if all(len(one.values) <= 1 for one in found.values()):
            notes.append(
                "every picture holds one value besides 0: are they masks? Objects of one value "
                "count as one object"
            )
        return Proposal(("object",), "labels", everywhere, notes=tuple(notes))
    if highest <= CLASS_NUMBERS and len(values) > 1:
        classes = tuple(f"class_{n}" for n in range(1, highest + 1))
        return Proposal(
            classes,
            "mask",
            everywhere,
            mask_threshold=None,
            notes=("classes: name them, in the order of the numbers",),
        )
    threshold = highest // 2 if highest in values and highest > 1 else 0
    return Proposal(
        ("foreground",),
        "mask",
        everywhere,
        mask_threshold=threshold,
        notes=("classes: give the foreground its name",),
    )


def _has_unknown(values: Mapping[int, int]) -> bool:
    """Whether 255 stands beside numbers of classes, as it does where nobody knows the class."""
    numbers = values.keys() - {255}
    return 255 in values and bool(numbers) and max(numbers) <= CLASS_NUMBERS


def _of_colours(found: Mapping[str, AnnotationFound], annotated: Mapping[str, str]) -> Proposal:
    """Masks of which a table says what each colour means."""
    unlisted = next((key for key, one in found.items() if one.values and not one.colours), None)
    if unlisted is not None:
        raise ConfigError(
            f"{unlisted} holds numbers, and other pictures colours: run init on each kind by itself"
        )
    total = Counter[Colour]()
    for one in found.values():
        total.update(one.colours)
    del total[BLACK]
    names = [f"class_{k}" for k, _ in enumerate(total, start=1)]
    listed = tuple(zip(names, (colour for colour, _ in total.most_common()), strict=True))
    note = (
        "classes, mask_colours: name the classes in both; a colour that is of no class (white, a "
        "border, what nobody knows) is named 'none' and taken out of classes"
    )
    return Proposal(
        tuple(names), "mask", annotated, mask_threshold=None, mask_colours=listed, notes=(note,)
    )


def _of_records(task: str, found: Mapping[str, AnnotationFound]) -> Proposal:
    bounds = {key: bounding_class(one) for key, one in found.items()}
    total = Counter[Drawn]()
    for key, one in found.items():
        total.update(
            {
                sort: n
                for sort, n in one.drawn.items()
                if not (sort[0] == "region" and sort[2] == bounds[key])
            }
        )
    want = wanted(task, total)
    as_regions = want == "objects" and not any(
        sort[0] != "region" and sort[1] == "outline" for sort in total
    )
    names = Counter[str]()
    for sort, n in total.items():
        if _asked(sort, want, as_regions):
            names[sort[2]] += n
    notes = [
        f"annotated: inside regions of the class '{name}' all is taken to be annotated, in {n} of "
        f"{len(found)} files"
        for name, n in Counter(b for b in bounds.values() if b).items()
    ]
    if as_regions:
        notes.append(
            "objects_as: the objects are QuPath annotations, not detections; regions are not told "
            "from objects then"
        )
    without = names.pop("", 0)
    if without and all(one.one_class for one in found.values()):
        names["object"] += without
        notes.append("classes: the format names no classes; give the objects their name")
    elif without:
        notes.append(
            f"{without} of {without + sum(names.values())} records have no class; `quadrat "
            "annotations check` names them"
        )
    notes += [*_misfits(task, want, found), *_boxes_as_outlines(task, found)]
    left_out = sorted(name for name in names if name.endswith("*"))
    classes, first, more = _classes([name for name in names if name not in left_out])
    if not classes:
        have = ", ".join(
            f"{n} {'points' if s == 'point' else k + ' outlines'}"
            for (k, s, _), n in total.most_common(3)
        )
        raise ConfigError(
            f"nothing to learn {task} from: {want} with a class are wanted, and the files hold "
            f"{have or 'nothing'}"
        )
    layout, about_layout = _layout(one.order for one in found.values())
    notes += about_layout
    annotated = {
        key: bounds[key] or ("" if one.form in PARTLY else "all") for key, one in found.items()
    }
    partly = sum(not where for where in annotated.values())
    if partly:
        refused = "" if want == "regions" else ", which training refuses for objects"
        notes.append(
            f"annotated: empty for {partly} of {len(found)} files: only what is drawn is known "
            f"there{refused}; write 'all' where "
            "the whole slide is annotated, or draw regions of a class (ROI) in which all is, and "
            "write its name"
        )
    return Proposal(
        classes,
        want,
        annotated,
        "annotations" if as_regions else "detections",
        layout,
        first,
        notes=(*notes, *more),
    )


def bounding_class(found: AnnotationFound) -> str:
    """The region class that says where all is annotated: ROI, else Region*, else Include; "" if
    there is none."""
    names = sorted(
        {name for kind, shape, name in found.drawn if kind == "region" and shape == "outline"}
    )
    exact = {name.casefold(): name for name in reversed(names)}
    regions = (name for name in names if name.startswith("Region"))
    return exact.get("roi") or next(regions, "") or exact.get("include", "")


def wanted(task: str, drawn: Mapping[Drawn, int]) -> str:
    """The kind of annotation that ``task`` learns from these records: "regions", "points" or
    "objects"."""
    if task in ("semantic", "classification"):
        return "regions"
    points = sum(n for (_, shape, _), n in drawn.items() if shape == "point")
    outlines = sum(
        n for (kind, shape, _), n in drawn.items() if shape == "outline" and kind != "region"
    )
    return "points" if task == "detection" and points > outlines else "objects"


def _misfits(task: str, want: str, found: Mapping[str, AnnotationFound]) -> list[str]:
    """That points stand among the outlines that are learnt, or outlines among points: training
    refuses them."""
    if want == "regions":
        return []
    chosen, other = ("outlines", "points") if want == "objects" else ("points", "outlines")
    count = _points if other == "points" else _outlines
    misfits = {Path(key).name: n for key, one in found.items() if (n := count(one))}
    if not misfits:
        return []
    named = ", ".join([*misfits][:3]) + (", ..." if len(misfits) > 3 else "")
    return [
        f"annotations: {chosen} are learnt ('{want}'); {sum(misfits.values())} {other} on "
        f"{len(misfits)} of {len(found)} slides "
        f"({named}) are not, and training may refuse them: take those files away, or leave the "
        f"{other} out with "
        f"data.bad_records: skip; to learn {other}, run init detection on their files alone"
    ]


def _boxes_as_outlines(task: str, found: Mapping[str, AnnotationFound]) -> list[str]:
    """That boxes are no outlines of objects."""
    boxes = sum(one.boxes for one in found.values())
    if not boxes or task == "detection":
        return []
    return [
        f"annotations: {boxes} of {sum(map(_outlines, found.values()))} outlines are boxes, so "
        "rectangles are learnt where the "
        "objects' outlines are wanted; what boxes tell is learnt by `quadrat init detection`"
    ]


def _points(one: AnnotationFound) -> int:
    return sum(n for (_, shape, _), n in one.drawn.items() if shape == "point")


def _outlines(one: AnnotationFound) -> int:
    """Outlines but those of regions."""
    return sum(
        n for (kind, shape, _), n in one.drawn.items() if shape == "outline" and kind != "region"
    )


def _asked(sort: Drawn, want: str, as_regions: bool) -> bool:
    kind, shape, _ = sort
    if want == "points":
        return shape == "point"
    if want == "regions":
        return shape == "outline" and kind != "object"
    return shape == "outline" and (as_regions or kind != "region")


def _classes(names: Sequence[str]) -> tuple[tuple[str, ...], int | None, tuple[str, ...]]:
    """Class names sorted, the number that means the first, and notes; numbers get names to be
    replaced."""
    if names and all(name.isascii() and name.isdigit() for name in names):
        low, high = min(map(int, names)), max(map(int, names))
        if high - low < CLASS_NUMBERS:
            classes = tuple(f"class_{n}" for n in range(low, high + 1))
            return (
                classes,
                low,
                (f"classes: the files number them {low} to {high}; name them in that order",),
            )
    return tuple(sorted(names)), None, ()


def _layout(orders: Iterable[str]) -> tuple[str, list[str]]:
    """The key ``point_layout``, and what to check."""
    seen = set(orders) - {""}
    certain = sorted(seen - {"?"})
    if len(certain) > 1:
        return certain[0], [
            "point_layout: points of some files lie outside their slide with x first, of others "
            "with y first"
        ]
    if certain:
        return certain[0], []
    return "x y class", [
        "point_layout: whether x or y stands first cannot be told from the files"
    ] if seen else []


def colours(n: int) -> list[tuple[int, int, int]]:
    """``n`` colours (0-255) that can be told apart: a list for the first ten, then hues at golden
    angles."""
    more = [
        colorsys.hsv_to_rgb((0.07 + 0.618034 * i) % 1, 0.55 + 0.4 * (i % 2), 0.9 - 0.2 * (i % 3))
        for i in range(n)
    ]
    return [*COLOURS, *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in more)][:n]


def model_mpp(task: str, slides: Iterable[SlideFound]) -> Mpp:
    """um/px to learn at: the task's usual one, or the coarsest slide's where that is coarser,
    rounded up to two digits; px in pixel work."""
    scales = [slide.mpp for slide in slides]
    if PX in scales:
        return PX
    coarsest = max(map(um_or_none, scales), key=lambda mpp: mpp or 0.0, default=0.0) or 0.0
    if coarsest <= TARGET_MPP[task]:
        return TARGET_MPP[task]
    digits = 1 - math.floor(math.log10(coarsest))
    return float(math.ceil(round(coarsest * 10.0**digits, 6)) / 10.0**digits)


def are_flat(slides: Iterable[SlideFound]) -> bool:
    """Whether all are small pictures, which have no glass around the tissue."""
    return all(max(slide.size) <= FLAT_PX and slide.levels == 1 for slide in slides)
