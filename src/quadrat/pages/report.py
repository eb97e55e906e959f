"""``OUT/report``: a folder of pages that opens from disk, without a network or a server.

The same results and slides give the same bytes. Slides are taken one after the other, so that
memory does not grow with their number.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from quadrat.core.errors import QuadratError
from quadrat.core.files import new_folder, write_file
from quadrat.core.unit import PX, Unit, in_um, large_area, named, renamed
from quadrat.pages.capsule import VIEW, write_capsule, write_shared
from quadrat.pages.cohort import FLAG, LEAST, Crop, Entry, compare, group_of, outliers_first
from quadrat.pages.crops import choose, cut
from quadrat.pages.deep_zoom import encoded
from quadrat.pages.folder import Finished, RunFolder, card_of
from quadrat.pages.methods import methods_text
from quadrat.pages.plots import Plot, histogram, scatter
from quadrat.pages.quality import FIGURES, area_and_counts, crowding, sharpness, stain
from quadrat.pages.rendering import page, static
from quadrat.pages.things import read_things
from quadrat.slides.protocol import Rgb, Slide
from quadrat.slides.thumbnail import thumbnail

REPORT = "report"
THUMBNAIL_PX, SMALL_PX = 1024, 132
"""Longer side of the thumbnail on a slide's page, and in the overview."""
WIDEST_PX = 1400
"""Pictures of the results are made no wider than this."""
PICTURES = {"overlay": "overlay.png", "density": "density.png", "heatmap": "heatmap.png"}
MULTIQC = "quadrat_mqc.tsv"
UNITS: tuple[Unit, ...] = ("um", PX)
_LONG = 40
"""Values of a card that are longer, or lists with more members, are cut in the table."""


def write_report(run: RunFolder, *, capsule_mpp: float | None = None) -> Path:
    """Write the report of a run; the page to open. ``capsule_mpp``: with each slide in deep zoom, a
    px of its finest pictures so many um (or px) wide.

    Raises:
        QuadratError: an object table cannot be read.
        WriteError: it cannot be written. A report that was there stays.
    """
    target = run.out / REPORT
    with new_folder(target) as folder:
        for name in ("report.css", "report.js"):
            write_file(folder / name, static(name))
        entries = [look_at(slide, folder / "slides" / name) for name, slide in run.slides.items()]
        for one in entries:
            one.figures = renamed(one.figures, one.unit)
        compare(entries)
        if capsule_mpp is not None:
            write_shared(folder)
            for one in entries:
                write_capsule(one.slide, folder / "slides" / one.slide.name / VIEW, mpp=capsule_mpp)
                one.capsule = True
        _write_pages(folder, run, outliers_first(entries))
    return target / "index.html"


def look_at(slide: Finished, folder: Path) -> Entry:
    """Measure a slide and write its pictures.

    Raises:
        QuadratError: its results are missing or damaged.
    """
    things = read_things(slide)
    entry = Entry(slide, area_and_counts(slide))
    entry.pictures = dict(_copies(slide, folder))
    if slide.count is not None and not slide.regions:
        entry.figures = {**entry.figures, **crowding(slide, things.places)}
    try:
        with slide.open() as picture:
            entry.figures = {**entry.figures, **_of_picture(picture, entry, folder)}
            cuts = list(cut(slide, picture, things, choose(slide, things.places)))
    except (QuadratError, OSError) as error:
        path = "" if slide.ref is None else slide.ref.path
        entry.problem = str(error).replace(path, Path(path).name) if path else str(error)
        return entry
    entry.figures = {**entry.figures, **sharpness([one.pixels for one in cuts])}
    classes, crops = slide.summary.provenance.classes, list[Crop]()
    for number, one in enumerate(cuts, start=1):
        file, index = f"crop_{number:02d}.jpg", one.chosen.index
        write_file(folder / file, encoded(one.drawn))
        name = classes[int(things.places.class_id[index])].name
        score = float(things.places.score[index])
        place = f"x {things.places.x[index]:.0f}, y {things.places.y[index]:.0f}"
        crops.append(Crop(file, one.chosen.why, f"{name}, score {score:.2f}, at {place}"))
    entry.crops = crops
    return entry


def _of_picture(picture: Slide, entry: Entry, folder: Path) -> dict[str, float]:
    small, _ = thumbnail(picture, longer_px=THUMBNAIL_PX)
    tiny = Image.fromarray(small)
    tiny.thumbnail((SMALL_PX, SMALL_PX), Image.Resampling.BOX)
    write_file(folder / "small.jpg", encoded(np.asarray(tiny)))
    entry.pictures = {"small": "small.jpg", **entry.pictures}
    if "overlay" not in entry.pictures:
        write_file(folder / "thumbnail.jpg", encoded(small))
        entry.pictures = {"thumbnail": "thumbnail.jpg", **entry.pictures}
    return stain(small)


def _copies(slide: Finished, folder: Path) -> Iterator[tuple[str, str]]:
    """Pictures of the results, as JPEG."""
    for what, file in PICTURES.items():
        path = slide.folder / file
        if path.is_file():
            with Image.open(path) as image:
                shown = image.convert("RGB")
            if shown.width > WIDEST_PX:
                shown = shown.resize(
                    (WIDEST_PX, round(shown.height * WIDEST_PX / shown.width)),
                    Image.Resampling.BOX,
                    reducing_gap=2.0,
                )
            pixels: Rgb = np.asarray(shown)
            write_file(folder / f"{what}.jpg", encoded(pixels))
            yield what, f"{what}.jpg"


def _write_pages(folder: Path, run: RunFolder, entries: Sequence[Entry]) -> None:
    groups: dict[tuple[str, str], list[Entry]] = {}
    for one in sorted(entries, key=lambda e: e.slide.name):
        groups.setdefault(group_of(one), []).append(one)
    models = [_model(run, key, group) for key, group in groups.items()]
    columns = _columns(entries)
    common = {"title": run.out.resolve().name, "lost": run.lost, "flag": FLAG}
    write_file(
        folder / "index.html",
        page(
            "index.html",
            **common,
            root="",
            entries=entries,
            columns=columns,
            meanings=_meanings(columns),
            plots=[plot for group in groups.values() for plot in plots_of(group)],
            least=LEAST,
        ),
    )
    for one in entries:
        write_file(
            folder / "slides" / one.slide.name / "index.html",
            page("slide.html", **common, root="../../", entry=one, area=large_area(one.unit),
                 meanings=_meanings(one.figures)),
        )  # fmt: skip
    write_file(folder / "models.html", page("models.html", **common, root="", models=models))
    write_file(folder / "methods.html", page("methods.html", **common, root="", models=models))
    write_file(folder / MULTIQC, multiqc(entries, columns))


def _model(run: RunFolder, key: tuple[str, str], entries: Sequence[Entry]) -> dict[str, Any]:
    """What the pages on methods and models show of one model."""
    task, weights = key
    found = card_of(run, weights)
    card = None if found is None else found[1]
    return {
        "name": entries[0].slide.summary.provenance.pipeline,
        "task": task,
        "weights": weights,
        "slides": len(entries),
        "text": methods_text(entries, card),
        "rows": [] if card is None else list(flattened(card)),
        "card": "" if card is None else json.dumps(card, indent=1, sort_keys=True),
    }


def flattened(card: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, str]]:
    """A card as rows; long lists and what was only tried are left to the JSON."""
    for name, value in card.items():
        key = f"{head}{name}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{key}.")
        elif isinstance(value, list) and len(json.dumps(value)) > _LONG:
            yield key, f"{len(value)} entries"
        else:
            yield key, value if isinstance(value, str) else json.dumps(value)


def plots_of(entries: Sequence[Entry]) -> list[Plot]:
    """The plots of slides of one model."""
    area = large_area(entries[0].unit)
    name = entries[0].slide.summary.provenance.pipeline
    counted = [one for one in entries if "count" in one.figures]
    if not counted:
        return [
            histogram(
                [one.figures[key] for one in entries],
                title=f"{name}: {key.removeprefix('p_')}",
                across="probability",
            )
            for key in entries[0].figures
            if key.startswith("p_")
        ]
    points = [
        (e.slide.name, e.figures[named("tissue_mm2", e.unit)], e.figures["count"], bool(e.flags))
        for e in counted
    ]
    return [
        scatter(points, title=f"{name}: objects and tissue", across=area, up="objects"),
        histogram(
            [e.figures["count"] for e in counted],
            title=f"{name}: objects a slide",
            across="objects",
        ),
    ]


def multiqc(entries: Sequence[Entry], columns: Sequence[str]) -> str:
    """The table as custom content of MultiQC, with its settings as a commented header."""
    head = [
        "# id: quadrat",
        "# section_name: quadrat",
        "# description: 'Slides, their objects and their quality, by quadrat.'",
        "# plot_type: table",
        "# pconfig:",
        "#   id: quadrat_table",
        "#   title: 'quadrat: slides'",
    ]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["Sample", *columns, "farthest_z", "flags"])
    for one in sorted(entries, key=lambda e: e.slide.name):
        values = [f"{one.figures[c]:.6g}" if c in one.figures else "" for c in columns]
        writer.writerow([one.slide.name, *values, f"{one.farthest:.2f}", " ".join(one.flags)])
    return "\n".join(head) + "\n" + text.getvalue()


def _columns(entries: Sequence[Entry]) -> list[str]:
    """Figures that any slide has: the known ones first, those of classes behind them."""
    order = [one.name for one in FIGURES]
    having = list(dict.fromkeys((name, one.unit) for one in entries for name in one.figures))

    def place(key: tuple[str, Unit]) -> tuple[int, str]:
        plain = in_um(*key)
        return order.index(plain) if plain in order else len(order), key[0]

    return list(dict.fromkeys(name for name, _ in sorted(having, key=place)))


def _meanings(columns: Iterable[str]) -> dict[str, str]:
    known = {named(one.name, unit): one.meaning for one in FIGURES for unit in UNITS}
    of_class = {True: "objects of the class", False: "probability of the class"}
    return {name: known.get(name, of_class[name.startswith("count_")]) for name in columns}
