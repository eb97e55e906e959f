"""How the files of data/splits were made: ``python data/make_splits.py FOLDER_OF_THE_SETS [--out
data/splits]``.

The files are committed and stand as they are; this script is their record and makes the same bytes
again. Nothing here looks at a model's answer. The looks and groups of DSB2018 rest on pixels and
were then looked at (data/splits/README.md).
"""

from __future__ import annotations

import argparse
import csv
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from scipy.cluster.hierarchy import fcluster, linkage
from skimage.measure import regionprops

from quadrat.config.splits import balanced_parts

SEED = 5
F64 = npt.NDArray[np.float64]

NUCLEUS_UM = 7.0  # assumed median diameter of a nucleus in DSB2018 (docs/decisions.md, 11)
RED_CELL_UM = 7.5  # assumed diameter of a human red cell in a smear (7 to 8 um in textbooks)
CRYPT_UM = 70.0  # assumed diameter of a normal colonic crypt cut across


def dsb2018(folder: Path) -> tuple[Sequence[str], list[list[object]]]:
    """Images, the field that each was cut from, groups of fields that look alike (the case), looks,
    assumed mpp and folds."""
    paths = sorted((folder / "images").glob("*.png"))
    images = [np.asarray(Image.open(p).convert("RGB"), np.float64) for p in paths]
    labels = [np.asarray(Image.open(folder / "labels" / p.name)).astype(np.int32) for p in paths]
    field = fields_by_borders(images)
    groups, looks = groups_of_fields(images, labels, field)
    nuclei = [int(np.count_nonzero(np.unique(x))) for x in labels]
    mpp = {}
    for look in set(looks):
        diameters = [whole_diameters(x) for x, k in zip(labels, looks, strict=True) if k == look]
        mpp[look] = NUCLEUS_UM / float(np.median(np.concatenate(diameters)))
    cases = sorted(set(groups))
    table = [
        [groups.count(c), sum(n for n, g in zip(nuclei, groups, strict=True) if g == c)]
        for c in cases
    ]
    table = [
        row + [row[0] * (c[0] == look) for look in "ABCD"]
        for row, c in zip(table, cases, strict=True)
    ]
    fold = dict(zip(cases, balanced_parts(cases, table, [1.0] * 5, seed=SEED), strict=True))
    names = [p.stem for p in paths]
    alone = [
        [1, n] + [int(k == look) for look in "ABCD"] for n, k in zip(nuclei, looks, strict=True)
    ]
    by_image = balanced_parts(names, alone, [1.0] * 5, seed=SEED)
    rows: list[list[object]] = [
        [
            names[i],
            names[field[i]][:6],
            groups[i],
            looks[i],
            nuclei[i],
            f"{mpp[looks[i]]:.3f}",
            fold[groups[i]],
            by_image[i],
        ]
        for i in range(len(names))
    ]
    return (
        "image",
        "field",
        "case",
        "look",
        "nuclei",
        "mpp",
        "fold",
        "fold_by_image_optimistic",
    ), rows


def fields_by_borders(images: Sequence[F64]) -> list[int]:
    """The first image (index) of the field that each image was cut from.

    Two images are neighbours in one field if the last column (row) of one continues in the first of
    the other: correlation of the three colours above 0.88 and a mean difference below 8 grey
    levels. 104 pairs are; the next best pair, of two fields, has 0.80 (or, at 10 grey levels and
    more, 0.85). Every field found is a rectangle of 2 x 2 images, or a part of one.
    """
    parent = list(range(len(images)))
    sides = {
        "left": [x[:, 0] for x in images],
        "right": [x[:, -1] for x in images],
        "top": [x[0] for x in images],
        "bottom": [x[-1] for x in images],
    }
    for one, other in (("right", "left"), ("bottom", "top")):
        for i, a in enumerate(sides[one]):
            for j, b in enumerate(sides[other]):
                if i == j or np.abs(a - b).mean() >= 8:
                    continue
                x, y = a - a.mean(0), b - b.mean(0)
                if (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum() + 1e-9) > 0.88:
                    low, high = sorted((_root(parent, i), _root(parent, j)))
                    parent[high] = low
    return [_root(parent, i) for i in range(len(images))]


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        i = parent[i]
    return i


def groups_of_fields(
    images: Sequence[F64], labels: Sequence[npt.NDArray[np.int32]], field: Sequence[int]
) -> tuple[list[str], list[str]]:
    """Group ("A1") and look ("A") of each image: Ward's clustering of the fields, cut at 14 and at
    4.

    Features of a field: optical density of glass (5th percentile), of nuclei and of the rest, a
    channel; log median diameter; log sharpness (SD of the Laplacian). The divisors are what differs
    visibly.
    """
    first = sorted(set(field))
    features = []
    for f in first:
        of_field = [i for i, g in enumerate(field) if g == f]
        density = np.concatenate([-np.log((images[i].reshape(-1, 3) + 1) / 256) for i in of_field])
        nucleus = np.concatenate([labels[i].ravel() > 0 for i in of_field])
        diameter = np.concatenate(
            [[p.equivalent_diameter_area for p in regionprops(labels[i])] for i in of_field]
        )
        sharp = np.mean([ndimage.laplace(images[i].mean(-1)).std() for i in of_field])
        features.append(np.concatenate([
            np.percentile(density, 5, axis=0) / 0.03,
            density[nucleus].mean(0) / [0.15, 0.3, 0.06],
            density[~nucleus].mean(0) / [0.05, 0.08, 0.04],
            [np.log(np.median(diameter)) / 0.2, np.log(sharp) / 0.4],
        ]))  # fmt: skip
    tree = linkage(np.stack(features), "ward")
    look_of, group_of = fcluster(tree, 4, "maxclust"), fcluster(tree, 14, "maxclust")
    letters = {k: "ABCD"[n] for n, k in enumerate(dict.fromkeys(sorted(look_of)))}
    names: dict[int, str] = {}
    for k, g in sorted(zip(look_of, group_of, strict=True)):
        if g not in names:
            names[g] = f"{letters[k]}{1 + sum(n[0] == letters[k] for n in names.values())}"
    name_of = {f: names[g] for f, g in zip(first, group_of, strict=True)}
    groups = [name_of[f] for f in field]
    return groups, [g[0] for g in groups]


def whole_diameters(labels: npt.NDArray[np.int32]) -> F64:
    """Equivalent diameters (px) of the nuclei that do not touch the image's border."""
    height, width = labels.shape
    return np.array([
        p.equivalent_diameter_area
        for p in regionprops(labels)
        if p.bbox[0] > 0 and p.bbox[1] > 0 and p.bbox[2] < height and p.bbox[3] < width
    ])  # fmt: skip


def brca_m2c(folder: Path) -> tuple[Sequence[str], list[list[object]]]:
    """The original validation list is the test set; of the training list, patients of the test set
    go, 8 patches are val."""
    test, train = (
        (folder / f"brca_ds_{name}.txt").read_text().split() for name in ("val", "train")
    )
    case = {name: name[:12] for name in test + train}
    held_out = {case[name] for name in test}
    learn = [name for name in train if case[name] not in held_out]
    cases = sorted({case[name] for name in learn})
    cells = {
        name: np.loadtxt(
            folder / "labels" / f"{name.removesuffix('.png')}_gt_class_coords.txt", ndmin=2
        )
        for name in case
    }
    counts = {
        name: [int(np.count_nonzero(x[:, 2] == c)) for c in (1, 2, 3)] for name, x in cells.items()
    }
    site = sorted({name[5:7] for name in learn})
    table = [
        np.sum(
            [[1, *counts[n], *(int(n[5:7] == s) for s in site)] for n in learn if case[n] == c],
            axis=0,
        )
        for c in cases
    ]
    part = dict(
        zip(cases, balanced_parts(cases, table, [len(learn) - 8, 8], seed=SEED), strict=True)
    )
    split = dict.fromkeys(train, "left out") | dict.fromkeys(test, "test")
    split |= {name: ("train", "val")[part[case[name]]] for name in learn}
    rows: list[list[object]] = [[n, case[n], *counts[n], "0.5", split[n]] for n in sorted(case)]
    return ("image", "case", "lymphocyte", "tumour", "stroma", "mpp", "split"), rows


def bccd(folder: Path) -> tuple[Sequence[str], list[list[object]]]:
    """The set's own lists. mpp: 7.5 um over the median side of the boxes of red cells that do not
    touch the border."""
    split: dict[str, str] = {}
    for name in ("train", "val", "test"):
        for image in (folder / "ImageSets/Main" / f"{name}.txt").read_text().split():
            if image in split:
                raise SystemExit(f"{image} is in the lists {split[image]} and {name}")
            split[image] = name
    sides: list[float] = []
    for image in split:
        tree = ElementTree.parse(folder / "Annotations" / f"{image}.xml")
        for item in tree.iter("object"):
            x0, y0, x1, y1 = (
                float(item.findtext(f"bndbox/{k}", "nan")) for k in ("xmin", "ymin", "xmax", "ymax")
            )
            if (
                item.findtext("name") == "RBC"
                and x0 > 2
                and y0 > 2
                and x1 < 638
                and y1 < 478
                and x1 > x0
                and y1 > y0
            ):
                sides.append(((x1 - x0) * (y1 - y0)) ** 0.5)
    mpp = RED_CELL_UM / float(np.median(sides))
    return ("image", "case", "mpp", "split"), [
        [n, n, f"{mpp:.3f}", split[n]] for n in sorted(split)
    ]


def ebhi(folder: Path) -> tuple[Sequence[str], list[list[object]]]:
    """Case: the first number of the name, whatever letters stand before it. 4 folds, and a
    train/val/test split.

    mpp: 70 um over the median width of normal crypts. The names' "400" is the microscope; the
    pictures are 224 px wide since.
    """
    images = sorted((p.parent.parent.name, p.stem) for p in folder.glob("*/image/*.png"))
    case = {(label, name): re.sub(r"\D", "", name.split("-")[0]) for label, name in images}
    labels, cases = sorted({label for label, _ in images}), sorted(set(case.values()))
    table = [[1, *(int(label == k) for k in labels)] for label, _ in images]
    counts = [
        np.sum([row for row, i in zip(table, images, strict=True) if case[i] == c], axis=0)
        for c in cases
    ]
    fold = dict(zip(cases, balanced_parts(cases, counts, [1.0] * 4, seed=SEED), strict=True))
    part = dict(
        zip(cases, balanced_parts(cases, counts, [0.6, 0.15, 0.25], seed=SEED), strict=True)
    )
    mpp = f"{CRYPT_UM / crypt_px(folder):.1f}"
    rows: list[list[object]] = []
    for label, name in images:
        c = case[label, name]
        rows.append([f"{label}/{name}", label, c, mpp, fold[c], ("train", "val", "test")[part[c]]])
    return ("image", "label", "case", "mpp", "fold", "split"), rows


def crypt_px(folder: Path) -> float:
    """Median minor axis (px) of the whole, convex glands in the masks of normal mucosa."""
    widths = []
    for path in sorted((folder / "normal/label").glob("*.png")):
        mask, _ = ndimage.label(np.asarray(Image.open(path)) > 127)
        height, width = mask.shape
        for p in regionprops(mask):
            whole = p.bbox[0] > 0 and p.bbox[1] > 0 and p.bbox[2] < height and p.bbox[3] < width
            if whole and p.area > 200 and p.solidity > 0.93:
                widths.append(p.axis_minor_length)
    return float(np.median(widths))


SETS = {
    "dsb2018": (dsb2018, "instances/dsb2018_stained"),
    "brca_m2c": (brca_m2c, "detection/brca_m2c"),
    "bccd": (bccd, "detection/bccd"),
    "ebhi": (ebhi, "classification_segmentation/ebhi_seg"),
}


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV with plain newlines."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])


def main() -> None:
    """Write a split file for each set that the folder holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder of the sets (QUADRAT_DATA)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "splits")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets:
        make, place = SETS[name]
        header, rows = make(arguments.folder / place)
        write(arguments.out / f"{name}.csv", header, rows)
        print(f"{name}: {len(rows)} images -> {arguments.out / name}.csv")


if __name__ == "__main__":
    main()
