"""Manifests of the public training sets: ``python data/make_manifests.py FOLDER_OF_THE_SETS --out
manifests``.

Folds, splits, cases and assumed mpp come from the committed files in data/splits; only the paths
are made here, relative to the manifest. A set that the folder lacks is left out, and it is said; a
set that lacks files is an error.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

COLUMNS = ("name", "slide", "annotation", "mpp", "label", "case", "split", "annotated", "fold")
SPLITS = Path(__file__).parent / "splits"

Row = dict[str, str]

PLACES = {
    "dsb2018": "instances/dsb2018_stained",
    "brca_m2c": "detection/brca_m2c",
    "bccd": "detection/bccd",
    "ebhi": "classification_segmentation/ebhi_seg",
}
MANIFESTS = {
    "dsb2018": ("dsb2018", "dsb2018_by_image"),
    "brca_m2c": ("brca_m2c",),
    "bccd": ("bccd",),
    "ebhi": ("ebhi_classes", "ebhi_masks"),
}


def rows_of(manifest: str, splits: Sequence[Row], place: Path) -> Iterator[Row]:
    """The rows of a manifest from those of its split file; paths below ``place``.

    dsb2018: whole groups out. dsb2018_by_image: tiles of one field on both sides, for an optimistic
    figure beside the other.
    """
    for row in splits:
        image = row["image"]
        mask = place / "labels" / f"{image}.png"
        if manifest == "dsb2018":
            files = {
                "slide": place / "images" / mask.name,
                "annotation": mask,
                "case": row["case"],
                "fold": row["fold"],
            }
        elif manifest == "dsb2018_by_image":
            files = {
                "slide": place / "images" / mask.name,
                "annotation": mask,
                "fold": row["fold_by_image_optimistic"],
            }
        elif manifest == "brca_m2c":
            if row["split"] == "left out":
                continue
            points = place / "labels" / f"{image.removesuffix('.png')}_gt_class_coords.txt"
            files = {
                "slide": place / "images" / image,
                "annotation": points,
                "case": row["case"],
                "split": row["split"],
            }
        elif manifest == "bccd":
            files = {
                "slide": place / "JPEGImages" / f"{image}.jpg",
                "annotation": place / "Annotations" / f"{image}.xml",
            }
            files |= {"case": row["case"], "split": row["split"]}
        else:
            label, name = image.split("/")
            files = {
                "slide": place / label / "image" / f"{name}.png",
                "case": row["case"],
                "name": f"{label}-{name}",
            }
            if manifest == "ebhi_classes":
                files |= {"label": label, "fold": row["fold"]}
            else:
                files |= {
                    "annotation": place / label / "label" / f"{name}.png",
                    "split": row["split"],
                }
        yield {"mpp": row["mpp"], "annotated": "all" if "annotation" in files else ""} | {
            k: str(v) for k, v in files.items()
        }


def write(path: Path, rows: Sequence[Row]) -> None:
    """A manifest; files are named relative to it.

    Raises:
        SystemExit: a file is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            files = {k: row[k] for k in ("slide", "annotation") if row.get(k)}
            missing = [f for f in files.values() if not Path(f).is_file()]
            if missing:
                raise SystemExit(
                    f"{path}: there is no {missing[0]}; is the set complete? (data/README.md has "
                    "its sums)"
                )
            writer.writerow(
                row
                | {k: Path(os.path.relpath(f, path.parent)).as_posix() for k, f in files.items()}
            )


def main() -> None:
    """Write the manifests of every set that the folder holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder of the sets (data/README.md)")
    parser.add_argument("--out", type=Path, default=Path("manifests"))
    arguments = parser.parse_args()
    for name, place in PLACES.items():
        if not (arguments.folder / place).is_dir():
            print(f"{name}: {arguments.folder} has no {place}; no manifest written")
            continue
        with (SPLITS / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            splits = list(csv.DictReader(stream))
        for manifest in MANIFESTS[name]:
            rows = list(rows_of(manifest, splits, arguments.folder / place))
            path = arguments.out / f"{manifest}.csv"
            write(path, rows)
            print(f"{path}: {len(rows)} images")


if __name__ == "__main__":
    main()
