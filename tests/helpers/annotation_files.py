"""Annotation files of every format, a project that names them, and what is read of them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quadrat.annotations.formats.reading import Choice, read_sheet
from quadrat.cli.main import main
from quadrat.config.manifest import SlideRef
from quadrat.core.geometry import Box

DATA = Path(os.environ.get("QUADRAT_DATA", ""))
BOW_TIE = [[[10, 10], [20, 20], [20, 10], [10, 20], [10, 10]]]
VOC = """<annotation><filename>a.png</filename><size><width>100</width><height>80</height></size>
{}
</annotation>"""
WHOLE = Box(0, 0, 80, 100)


def read(path, picture="", **choice):
    return read_sheet(Path(path), choice=Choice(picture=picture, **choice))


def faults(sheet):
    return {r.place: r.fault.text for r in sheet.records if r.fault}


def sample(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in QUADRAT_DATA")
    return path


def ring(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(coordinates, name="Tumor", *, sort="Polygon", kind="annotation"):
    properties = {"objectType": kind} | ({"classification": {"name": name}} if name else {})
    return {
        "type": "Feature",
        "geometry": {"type": sort, "coordinates": coordinates},
        "properties": properties,
    }


def square(x, y, side):
    return [ring(x, y, side)]


def project(tmp_path, *features, size=(80, 100), mpp=0.5, pipeline="", **row):
    """A manifest of one slide ``a.png`` with a GeoJSON, and a pipeline file."""
    Image.fromarray(np.full((*size, 3), 200, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    columns = {"slide": "a.png", "annotation": "a.geojson", "mpp": mpp, "annotated": "all"} | row
    (tmp_path / "slides.csv").write_text(
        ",".join(columns) + "\n" + ",".join(map(str, columns.values())) + "\n"
    )
    (tmp_path / "p.yaml").write_text(
        "task: semantic\nclasses: [{name: Tumor}, {name: Stroma}]\nmodel: {package: p}\n"
        f"data: {{manifest: slides.csv, {pipeline or 'annotations: regions'}}}\n"
    )
    return str(tmp_path / "slides.csv"), "--pipeline", str(tmp_path / "p.yaml")


def check(capsys, *arguments):
    code = main(["annotations", "check", *map(str, arguments)])
    return code, capsys.readouterr().out.splitlines()


def voc(tmp_path, *boxes):
    text = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>\n"
        for name, x0, y0, x1, y1 in boxes
    )
    (tmp_path / "a.xml").write_text(VOC.format(text))
    return SlideRef("a", str(tmp_path / "a.png"), annotation=str(tmp_path / "a.xml"))


def qupath(tmp_path, *features, annotated=""):
    (tmp_path / "a.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    return SlideRef(
        "a", str(tmp_path / "a.svs"), annotation=str(tmp_path / "a.geojson"), annotated=annotated
    )


def export(path, to, out, *more):
    return main(["annotations", "export", str(path), "--to", to, "--out", str(out), *more])
