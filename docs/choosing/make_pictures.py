"""The four pictures of docs/choosing.md, and what each kind of model costs.

    python docs/choosing/make_pictures.py SLIDE --work FOLDER [--cost]

SLIDE is CMU-1-Small-Region.svs (CC0; data/README.md says where it is from). Two small models are
trained in FOLDER, which takes minutes: `tissue` and `tiles`, both from the outlines in
regions.geojson, which lie on the lower part of the slide. They and the shipped models `cells` and
`nuclei` are then run on the whole slide, and the same field of its upper part is drawn from the
files in `results/`. Nothing is drawn that is not in these files.

`--cost` runs each model on one slide and on five copies of it, on one thread, and prints one JSON
object: CPU seconds per mm2 of tissue, the start of the program not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from PIL import Image, ImageDraw, ImageFont

from quadrat.core.geometry import Box

HERE = Path(__file__).parent
PICTURES = HERE.parent / "pictures"
FIELD = Box(768, 896, 1152, 1408)
"""What is shown, in level-0 px: 256 x 192 um that no outline touches, 4 x 3 tiles of 64 um."""
ZOOM = 1.5
COLOURS = 128
TINT = 85
"""How much of a class's colour is laid over the pixels, of 255."""
COPIES = 5
MODELS = {"tissue": "tissue.yaml", "tiles": "tiles.yaml", "cells": "cells", "nuclei": "nuclei"}
"""Name of a picture, and the pipeline that gives it."""
TRAINED = ("tissue", "tiles")
Colour = tuple[int, int, int]
Ring = list[list[float]]
Feature = dict[str, Any]


def quadrat(*words: str | Path, work: Path) -> None:
    """Run a quadrat command in the folder."""
    command = [sys.executable, "-m", "quadrat", *map(str, words)]
    subprocess.run(command, cwd=work, check=True)


def train(slide: Path, work: Path) -> None:
    """Train the two small models, unless they are there."""
    for name in ("regions.geojson", *(MODELS[model] for model in TRAINED)):
        shutil.copy(HERE / name, work)
    rows = f"slide,annotation,annotated\n{slide},regions.geojson,ROI\n"
    (work / "slides.csv").write_text(rows)
    for model in TRAINED:
        if not (work / model / "card.json").exists():
            quadrat("train", MODELS[model], work=work)


def features(results: Path) -> Iterator[Feature]:
    """The objects of a result."""
    with (results / "objects.geojson").open(encoding="utf-8") as file:
        yield from json.load(file)["features"]


def colour_of(feature: Feature) -> Colour:
    """The colour of a feature's class."""
    red, green, blue = feature["properties"]["classification"]["color"]
    return red, green, blue


def name_of(feature: Feature) -> str:
    """The class of a feature."""
    return str(feature["properties"]["classification"]["name"])


def shown(ring: Ring) -> list[tuple[float, float]]:
    """A ring in px of the picture."""
    return [((x - FIELD.col0) * ZOOM, (y - FIELD.row0) * ZOOM) for x, y in ring]


def in_field(feature: Feature) -> bool:
    """Whether the middle of a feature's outline lies in the field."""
    x, y = np.mean(feature["geometry"]["coordinates"][0][:-1], axis=0)
    return bool(FIELD.col0 <= x < FIELD.col1 and FIELD.row0 <= y < FIELD.row1)


class Picture:
    """The field, enlarged, and a bar below it that says what was found."""

    def __init__(self, slide: Path) -> None:
        size = FIELD.width, FIELD.height
        with openslide.OpenSlide(str(slide)) as handle:
            rgb = handle.read_region((FIELD.col0, FIELD.row0), 0, size).convert("RGB")
        larger = round(size[0] * ZOOM), round(size[1] * ZOOM)
        self.image = rgb.resize(larger, Image.Resampling.LANCZOS)

    def tint(self, rings: list[Ring], colour: Colour) -> int:
        """Lay a colour over a shell less its holes; returns how many pixels it covers."""
        mask = Image.new("L", self.image.size)
        for number, ring in enumerate(rings):
            ImageDraw.Draw(mask).polygon(shown(ring), fill=0 if number else TINT)
        self.image.paste(Image.new("RGB", mask.size, colour), mask=mask)
        return int(np.count_nonzero(np.asarray(mask)))

    def line(self, ring: Ring, colour: Colour, width: int) -> None:
        """Draw along a ring."""
        ImageDraw.Draw(self.image).line(shown(ring), fill=colour, width=width, joint="curve")

    def save(self, name: str, words: list[tuple[str, Colour]]) -> None:
        """Write the picture with a bar of words, each behind a square of its colour."""
        width, height = self.image.size
        out = Image.new("RGB", (width, height + 54), (255, 255, 255))
        out.paste(self.image)
        draw, font, x = ImageDraw.Draw(out), ImageFont.load_default(size=31), 6
        for text, colour in words:
            draw.rectangle((x, height + 15, x + 24, height + 39), fill=colour)
            draw.text((x + 33, height + 27), text, fill=(0, 0, 0), font=font, anchor="lm")
            x += 33 + round(draw.textlength(text, font=font)) + 24
        if x - 24 > width:
            raise ValueError(f"{name}: the bar needs {x - 24} px, the picture has {width}")
        out = out.quantize(COLOURS, dither=Image.Dither.NONE)
        out.save(PICTURES / f"{name}.png", optimize=True)


def draw_tissue(picture: Picture, results: Path) -> list[tuple[str, Colour]]:
    """Every pixel has the colour of its class, or none."""
    covered: dict[str, tuple[int, Colour]] = {}
    for feature in features(results):
        rings, colour = feature["geometry"]["coordinates"], colour_of(feature)
        before, _ = covered.get(name_of(feature), (0, colour))
        covered[name_of(feature)] = before + picture.tint(rings, colour), colour
        for ring in rings:
            picture.line(ring, colour, 3)
    whole = picture.image.width * picture.image.height
    return [(f"{name}: {px / whole:.0%}", colour) for name, (px, colour) in sorted(covered.items())]


def draw_tiles(picture: Picture, results: Path) -> list[tuple[str, Colour]]:
    """Every tile has the colour of its class."""
    summary = json.loads((results / "summary.json").read_text())
    colours: dict[str, Colour] = {c["name"]: tuple(c["color"]) for c in summary["classes"]}
    count = dict.fromkeys(colours, 0)
    with (results / "tiles.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            x0, y0, x1, y1 = (float(row[f"{key}_l0"]) for key in ("x0", "y0", "x1", "y1"))
            tile = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
            if not (FIELD.col0 <= x0 < FIELD.col1 and FIELD.row0 <= y0 < FIELD.row1):
                continue
            count[row["class"]] += 1
            colour = colours[row["class"]]
            picture.tint([tile], colour)
            inner = [[x0 + 3, y0 + 3], [x1 - 3, y0 + 3], [x1 - 3, y1 - 3], [x0 + 3, y1 - 3]]
            picture.line([*inner, inner[0]], colour, 6)
    return [(f"{name}: {count[name]} tiles", colour) for name, colour in colours.items()]


def draw_objects(picture: Picture, results: Path) -> list[tuple[str, Colour]]:
    """The outline (or box) of every object; those whose middle lies in the field are counted."""
    count: dict[str, tuple[int, Colour]] = {}
    for feature in features(results):
        if in_field(feature):
            before, colour = count.get(name_of(feature), (0, colour_of(feature)))
            count[name_of(feature)] = before + 1, colour
        picture.line(feature["geometry"]["coordinates"][0], colour_of(feature), 3)
    return [(f"{name}: {n}", colour) for name, (n, colour) in sorted(count.items())]


DRAW = {"tissue": draw_tissue, "tiles": draw_tiles, "cells": draw_objects, "nuclei": draw_objects}


def run(pipeline: str, slides: list[Path], out: str, work: Path) -> Path:
    """Run a pipeline on slides, on one thread; the folder of the results."""
    settings = ("--set", "run.cluster=serial", "--set", "run.threads=1")
    quadrat("run", pipeline, *slides, "--out", out, *settings, work=work)
    return work / out / "results"


def child_cpu_s() -> float:
    """CPU seconds of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cost(pipeline: str, slide: Path, work: Path) -> float:
    """CPU seconds per mm2 of tissue: five copies of the slide less one."""
    copies = [work / f"copy{number}{slide.suffix}" for number in range(COPIES)]
    for copy in copies:
        if not copy.exists():
            shutil.copy(slide, copy)
    for out in ("warm_up", "one", "all"):
        shutil.rmtree(work / out, ignore_errors=True)
    run(pipeline, copies[:1], "warm_up", work)
    start = child_cpu_s()
    run(pipeline, copies[:1], "one", work)
    one, start = child_cpu_s() - start, child_cpu_s()
    results = run(pipeline, copies, "all", work)
    with (results / "summary.csv").open(newline="", encoding="utf-8") as file:
        area = sum(float(row["tissue_mm2"]) for row in list(csv.DictReader(file))[1:])
    return (child_cpu_s() - start - one) / area


def main() -> None:
    """Train, run, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--also", nargs="*", default=[], help="further pipelines, for --cost")
    given = parser.parse_args()
    slide, work = given.slide.resolve(), given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    train(slide, work)
    if given.cost:
        pipelines = *MODELS.values(), *(str(Path(path).resolve()) for path in given.also)
        print(json.dumps({name: round(cost(name, slide, work), 1) for name in pipelines}))
        return
    for model, draw in DRAW.items():
        picture = Picture(slide)
        words = draw(picture, run(MODELS[model], [slide], model + "_out", work) / slide.stem)
        picture.save(f"choosing_{model}", words)


if __name__ == "__main__":
    main()
