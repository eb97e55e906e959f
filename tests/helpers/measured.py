"""Results of made-up objects, as a run writes them, and what ``quadrat measure`` makes of them."""

import csv
import json
from dataclasses import replace

import numpy as np

from helpers.summaries import summary_of
from quadrat.core.objects import ClassInfo, Frame, ObjectTable, Polygons
from quadrat.measure.measure import Wanted, measure
from quadrat.outputs.objects import ObjectWriter
from quadrat.outputs.summary import write_summary
from quadrat.outputs.tissue import write_tissue
from quadrat.slides.tissue.overview import FILLED
from quadrat.stitching.features import nearest_distances

FRAME = Frame(height=400, width=600, mpp=0.5, scale_row=2.0, scale_col=2.0)
"""800 x 1,200 px of level 0 at 0.25 um/px: 200 x 300 um, or 0.06 mm²."""
MASK = 40
"""Grid px a pixel of the tissue mask: 20 um."""
NAMES = ("a", "b")


def mask_frame(frame=FRAME, mask=MASK):
    return Frame(
        frame.height // mask,
        frame.width // mask,
        frame.mpp * mask,
        frame.scale_row * mask,
        frame.scale_col * mask,
        frame.unit,
    )


def table_of(centres, class_id, *, size=4.0):
    """Objects as squares of ``size`` grid px around (row, column)."""
    centres = np.asarray(centres, np.float64).reshape(-1, 2)
    bbox = np.concatenate([centres - size / 2, centres + size / 2], axis=1)
    n = len(centres)
    table = ObjectTable(
        anchor=np.floor(centres).astype(np.int64),
        class_id=np.asarray(class_id, np.uint8),
        score=np.full(n, 0.9, np.float32),
        bbox=bbox,
        centroid=centres,
        area_px=np.full(n, size**2),
        perimeter_px=np.full(n, 4 * size),
        flags=np.zeros(n, np.uint8),
    )
    return table, Polygons.boxes(bbox)


def write_slide(out, table, polygons, *, name="s", codes=None, frame=FRAME, names=NAMES, **more):
    """results/NAME of one slide. ``codes``: the tissue mask; None: all of it is tissue; False: the
    results are of an older version."""
    folder = out / "results" / name
    classes = tuple(ClassInfo(one, (228, 26, 28)) for one in names)
    nearest = nearest_distances(table.centroid * frame.mpp, table.class_id, len(names))
    with ObjectWriter(folder / "objects.parquet", frame=frame, classes=classes, slide=name) as w:
        w.append(table, polygons, nearest, first_id=1)
    place = mask_frame(frame)
    if codes is None:
        codes = np.zeros((place.height, place.width), np.uint8)
    area = {}
    if codes is not False:
        write_tissue(folder, codes, place)
        px = (place.mpp / 1000) ** 2
        area = {
            "tissue_mm2": round(float(np.isin(codes, (0, FILLED)).sum()) * px, 6),
            "tissue_filled_mm2": round(float((codes == FILLED).sum()) * px, 6),
        }
    made = summary_of(frame, **more)
    figures = replace(made.figures, area=replace(made.figures.area, **area))
    provenance = replace(made.provenance, classes=classes)
    made = replace(made, slide=name, figures=figures, provenance=provenance)
    write_summary(folder, made)


def write_rois(path, *features):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def write_yaml(path, text):
    path.write_text(text)
    return path


def rows_of(out, **wanted):
    """Measure a run; the rows of measurements.csv."""
    measure(Wanted(out=out, **wanted))
    with ((wanted.get("to") or out) / "measurements.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def value(rows, measure, *, region="whole slide", of="all", slide="s", key="value"):
    """One figure as it is written; there must be exactly one."""
    found = [
        row
        for row in rows
        if (row["slide"], row["region"], row["class"], row["measure"])
        == (slide, region, of, measure)
    ]
    assert len(found) == 1, (measure, region, of, len(found))
    return found[0][key]


def write_asked(out, *slides):
    """What a command was asked for, as a run notes it."""
    folder = out / "run" / "asked"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps({"until": "results", "slides": list(slides)}))
