"""What the shipped model ``nuclei`` learns from, as one set.

``python data/make_nuclei_set.py FOLDER_OF_THE_SETS --phantoms DIR --out DIR`` writes a GeoJSON a
picture and a manifest ``nuclei.csv``. Three sources, one class "nucleus":

- DSB2018's stained images (CC0): outlines of the label images; fold 3 of data/splits/dsb2018.csv is
  validation.
- Phantoms made by ``quadrat phantom``: their exact outlines.
- BRCA-M2C's training patches (BSD-3-Clause), real H&E, which give centres and no outlines: a disc
  of 2.5 um about each centre is nucleus, what is 5.5 um away from every centre is background, and
  the ring between is left out (region class "Known"). The validation and test patches are not used.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from make_manifests import COLUMNS, PLACES, SPLITS, Row
from PIL import Image

from quadrat.annotations.formats.label_image import renumber
from quadrat.annotations.formats.pixels import labels_in, read_pixels
from quadrat.annotations.outlines import label_parts

VALIDATION_FOLD = "3"
INSIDE_UM, OUTSIDE_UM = 2.5, 5.5
"""A nucleus at least reaches this far from its centre; beyond that it certainly ends."""
CLASS, KNOWN = "nucleus", "Known"


def feature(geometry: Any, *, kind: str, name: str) -> dict[str, Any]:
    """A QuPath feature of a shapely geometry or a GeoJSON geometry."""
    shape = geometry if isinstance(geometry, dict) else shapely.geometry.mapping(geometry)
    return {
        "type": "Feature",
        "geometry": shape,
        "properties": {"objectType": kind, "classification": {"name": name}},
    }


def outlined(labels: Path) -> Iterator[dict[str, Any]]:
    """The objects of a label image."""
    values, ids = renumber(labels_in(read_pixels(labels), labels))
    for parts in label_parts(values, len(ids)):
        polygons = [shapely.Polygon(rings[0], rings[1:]) for rings in parts]
        yield feature(
            polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons),
            kind="detection",
            name=CLASS,
        )


def centred(points: Path, image: Path, *, mpp: float) -> Iterator[dict[str, Any]]:
    """Discs about centres (rows of y, x, class), and the region in which it is known
    what is what.
    """
    yx = np.loadtxt(points, ndmin=2)[:, :2]
    with Image.open(image) as picture:
        width, height = picture.size
    centres = shapely.points(yx[:, 1] + 0.5, yx[:, 0] + 0.5)
    frame = shapely.box(0, 0, width, height)
    discs = shapely.intersection(shapely.buffer(centres, INSIDE_UM / mpp), frame)
    near = shapely.union_all(shapely.buffer(centres, OUTSIDE_UM / mpp))
    known = shapely.union_all([shapely.difference(frame, near), *discs])
    yield from (feature(disc, kind="detection", name=CLASS) for disc in discs if not disc.is_empty)
    yield feature(known, kind="annotation", name=KNOWN)


def renamed(truth: Path) -> Iterator[dict[str, Any]]:
    """The objects of a phantom, all of one class."""
    for item in json.loads(truth.read_text())["features"]:
        if item["properties"].get("objectType") == "detection":
            yield feature(item["geometry"], kind="detection", name=CLASS)


def rows(sets: Path, phantoms: Path | None, out: Path) -> Iterator[Row]:
    """Write every annotation; a manifest row each."""
    place = sets / PLACES["dsb2018"]
    for row in _splits("dsb2018"):
        truth = _write(
            out / f"{row['image']}.geojson", outlined(place / "labels" / f"{row['image']}.png")
        )
        split = "val" if row["fold"] == VALIDATION_FOLD else "train"
        yield _row(
            place / "images" / f"{row['image']}.png", truth, row["mpp"], row["case"], split, "all"
        )
    place = sets / PLACES["brca_m2c"]
    for row in _splits("brca_m2c"):
        if row["split"] == "train":
            image, name = place / "images" / row["image"], row["image"].removesuffix(".png")
            points = place / "labels" / f"{name}_gt_class_coords.txt"
            truth = _write(out / f"{name}.geojson", centred(points, image, mpp=float(row["mpp"])))
            yield _row(image, truth, row["mpp"], row["case"], "train", KNOWN)
    for slide in sorted(phantoms.glob("*.tiff")) if phantoms is not None else ():
        truth = slide.with_name(f"{slide.stem}.truth.geojson")
        if truth.is_file():
            yield _row(
                slide,
                _write(out / f"{slide.stem}.geojson", renamed(truth)),
                "",
                slide.stem,
                "train",
                "all",
            )


def _splits(name: str) -> list[Row]:
    with (SPLITS / f"{name}.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _row(slide: Path, truth: Path, mpp: str, case: str, split: str, annotated: str) -> Row:
    place = {"slide": str(slide.resolve()), "annotation": truth.name}
    return place | {"mpp": mpp, "case": case, "split": split, "annotated": annotated}


def _write(path: Path, features: Iterable[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", type=Path)
    parser.add_argument("--phantoms", type=Path)
    parser.add_argument("--out", type=Path, default=Path("manifests/nuclei"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    found = list(rows(options.sets, options.phantoms, options.out))
    with (options.out / "nuclei.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(f"{options.out / 'nuclei.csv'}: {len(found)} images")


if __name__ == "__main__":
    main()
