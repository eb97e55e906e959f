"""The judge: reads a run's result files and the truth files, and says how well they agree.

``python -m quadrat.cli.judge --truth FOLDER --results FOLDER --task TASK --out scores.json`` runs
as a process of its own and takes every figure from files on disk; nothing of inference, stitching
or tasks is imported, so that a fault there cannot hide itself here. docs/artifacts.md describes the
files.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
import tifffile
from rich.console import Console
from rich.table import Table

from quadrat.annotations.formats.geojson import load_annotations
from quadrat.annotations.formats.label_image import stream_label_image
from quadrat.core.errors import QuadratError
from quadrat.core.objects import Frame
from quadrat.metrics import classification, counts, detection, instance, semantic
from quadrat.store.tiles import ShardedArray

REGIONS = ("stroma", "gland", "tumour")
"""Values 1, 2, 3 of a phantom's region map; 0 is glass."""
TILE_TISSUE = 0.5
"""A tile is judged if more than this share of it is tissue in truth; its truth is the class of most
of that tissue."""
MAIN_METRIC = {
    "instance": "pq",
    "detection": "f1",
    "semantic": "dice_mean",
    "classification": "tile_balanced_accuracy",
}
Image = npt.NDArray[np.integer[Any]]
Value = float | str | None


@dataclass(frozen=True, slots=True)
class Score:
    """One figure. ``planted`` and ``found`` are counts, areas in mm² or labels, by metric; None
    where not defined."""

    task: str
    slide: str
    metric: str
    value: float | None
    planted: Value
    found: Value
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Case:
    """One slide to judge: where its truth and its result lie, and how long the result took (None:
    not stated)."""

    slide: str
    truth: Path
    result: Path
    frame: Frame
    facts: dict[str, Any]
    seconds: float | None

    @staticmethod
    def open(slide: str, *, truth: Path, results: Path) -> Case:
        """Read ``summary.json`` and ``<slide>.truth.json``. Raises QuadratError where one is
        missing or broken."""
        summary = _json(results / slide / "summary.json")
        facts = _json(truth / f"{slide}.truth.json")
        try:
            frame = Frame(**{name: summary["frame"][name] for name in Frame.__slots__})
        except (KeyError, TypeError) as error:
            raise QuadratError(
                f"{results / slide / 'summary.json'}: no frame with {', '.join(Frame.__slots__)}"
            ) from error
        return Case(slide, truth, results / slide, frame, facts, _seconds(results, slide))

    def truth_file(self, end: str) -> Path:
        return self.truth / f"{self.slide}.truth.{end}"

    def score(
        self, task: str, metric: str, value: float, planted: Value = None, found: Value = None
    ) -> Score:
        """A record; a value that is not finite (nothing planted, nothing found) becomes None."""
        return Score(
            task,
            self.slide,
            metric,
            value if math.isfinite(value) else None,
            planted,
            found,
            self.seconds,
        )


def _seconds(results: Path, slide: str) -> float | None:
    """Seconds of work on a slide, summed over its units, from the run's timings (the last complete
    run of it)."""
    path = results.parent / "run" / "timings.jsonl"
    if not path.is_file():
        return None
    records = [json.loads(line) for line in path.read_text().splitlines()]
    found = [sum(r["seconds"].values()) for r in records if r["slide"] == slide and r["seconds"]]
    return round(found[-1], 2) if found else None


def judge_instance(case: Case) -> list[Score]:
    """Count, panoptic quality (of all, and by class where class names are the truth's), AJI; on the
    result's grid."""
    truth = load_annotations(case.truth_file("geojson"), kind="object")
    ids, names, _, _ = _objects(case.result)
    labels = ShardedArray.open(
        case.result / "slide.ome.zarr" / "labels" / "objects" / "0", mode="r"
    )
    blocks = _blocks(case.truth_file("nuclei.tiff"), labels, case.frame, reduction=1)
    overlaps = instance.Overlaps.of(
        instance.OverlapCounts.total(instance.OverlapCounts.of(t, f) for t, f in blocks)
    )
    _need_known(overlaps.truth_ids, np.arange(1, len(truth) + 1), case.truth_file("nuclei.tiff"))
    _need_known(overlaps.found_ids, ids, case.result / "objects.parquet")
    all_ = instance.panoptic_quality(overlaps)
    planted, found = len(truth), len(ids)
    scores = [_count(case, "instance", planted, found)]
    for metric, value in (("pq", all_.pq), ("sq", all_.sq), ("dq", all_.dq), ("f1", all_.dq)):
        scores.append(case.score("instance", metric, value, planted, found))
    scores.append(
        case.score("instance", "aji", instance.aggregated_jaccard(overlaps), planted, found)
    )
    classes = _class_names(truth.classes, names)
    truth_class = _as_index(np.array(truth.classes, object)[truth.class_id], classes)
    found_class = _as_index(names, classes)
    if set(names) <= set(truth.classes):
        position = np.searchsorted(ids, overlaps.found_ids)
        by_class = instance.panoptic_quality_by_class(
            overlaps,
            truth_class[overlaps.truth_ids - 1],
            found_class[position],
            n_classes=len(classes),
        )
        for k, name in enumerate(classes):
            n = int((truth_class == k).sum()), int((found_class == k).sum())
            scores.append(case.score("instance", f"pq_{name}", by_class[k].pq, *n))
    return scores


def judge_detection(case: Case) -> list[Score]:
    """Count, and F1 of boxes matched one to one at IoU >= 0.5 within classes: macro
    and by class.
    """
    truth = load_annotations(case.truth_file("geojson"), kind="object")
    _, names, boxes, score = _objects(case.result)
    classes = _class_names(truth.classes, names)
    truth_class = _as_index(np.array(truth.classes, object)[truth.class_id], classes)
    found_class = _as_index(names, classes)
    matches = detection.match_boxes(
        truth.bbox[:, [1, 0, 3, 2]], boxes, score, truth_class=truth_class, found_class=found_class
    )
    by_class = detection.detection_by_class(
        matches, truth_class=truth_class, found_class=found_class, n_classes=len(classes)
    )
    planted, found = len(truth), len(names)
    scores = [_count(case, "detection", planted, found)]
    scores.append(case.score("detection", "f1", detection.macro_f1(by_class), planted, found))
    for name, d in zip(classes, by_class, strict=True):
        scores.append(case.score("detection", f"f1_{name}", d.f1, d.planted, d.found))
    return scores


def judge_semantic(case: Case) -> list[Score]:
    """Dice of each region class and their mean, pooled over all pixels of the slide's grid;
    planted, found in mm²."""
    names = [name for name, _ in _count_rows(case.result)]
    _need_regions(names, case.result / "counts.csv")
    to_truth = np.array([0, *(REGIONS.index(name) + 1 for name in names)], np.uint8)
    labels = ShardedArray.open(
        case.result / "slide.ome.zarr" / "labels" / "classes" / "0", mode="r"
    )
    matrix = np.zeros((len(REGIONS) + 1,) * 2, np.int64)
    for truth, found in _blocks(
        case.truth_file("regions.tiff"), labels, case.frame, reduction=_reduction(case)
    ):
        if int(found.max(initial=0)) >= len(to_truth):
            raise QuadratError(
                f"{case.result}: class value {found.max()} in the label image, but {len(names)} "
                "classes"
            )
        matrix += semantic.confusion(truth, to_truth[found], n_values=len(REGIONS) + 1)
    dice = semantic.dice(matrix)[1:]
    mm2 = (case.frame.mpp / 1000) ** 2
    planted, found_mm2 = matrix.sum(axis=1)[1:] * mm2, matrix.sum(axis=0)[1:] * mm2
    scores = [
        case.score(
            "semantic", f"dice_{name}", float(dice[k]), float(planted[k]), float(found_mm2[k])
        )
        for k, name in enumerate(REGIONS)
    ]
    present = dice[~np.isnan(dice)]
    mean = float(present.mean()) if len(present) else float("nan")
    return [
        *scores,
        case.score("semantic", "dice_mean", mean, float(planted.sum()), float(found_mm2.sum())),
    ]


def judge_classification(case: Case) -> list[Score]:
    """Whether the slide's label is right (1 or 0), and the balanced accuracy of its tiles (see
    TILE_TISSUE).

    For tiles ``planted`` is how many were judged and ``found`` how many of them are right.
    """
    rows = _csv(case.result / "classes.csv", ("class", "probability"))
    label = max(rows, key=lambda row: float(row["probability"]))["class"] if rows else ""
    planted = str(_fact(case, "slide_label"))
    scores = [case.score("classification", "slide_label", float(label == planted), planted, label)]
    tiles = _csv(case.result / "tiles.csv", ("class", "x0_l0", "y0_l0", "x1_l0", "y1_l0"))
    _need_regions([tile["class"] for tile in tiles], case.result / "tiles.csv")
    regions = tifffile.imread(case.truth_file("regions.tiff"), key=0)
    k = _reduction(case)
    matrix = np.zeros((len(REGIONS),) * 2, np.int64)
    for tile in tiles:
        x0, y0, x1, y1 = (
            max(0, math.ceil(float(tile[c]) / k - 0.5))
            for c in ("x0_l0", "y0_l0", "x1_l0", "y1_l0")
        )
        cover = np.bincount(regions[y0:y1, x0:x1].ravel(), minlength=len(REGIONS) + 1)
        if cover[1:].sum() > TILE_TISSUE * cover.sum():
            matrix[int(np.argmax(cover[1:])), REGIONS.index(tile["class"])] += 1
    value = classification.balanced_accuracy(matrix)
    judged, right = int(matrix.sum()), int(np.trace(matrix))
    return [*scores, case.score("classification", "tile_balanced_accuracy", value, judged, right)]


JUDGES: dict[str, Callable[[Case], list[Score]]] = {
    "instance": judge_instance,
    "detection": judge_detection,
    "semantic": judge_semantic,
    "classification": judge_classification,
}


def judge(
    truth: Path, results: Path, task: str, *, slides: Sequence[str] | None = None
) -> list[Score]:
    """Scores of ``slides``; None takes every slide with a truth, and each of them must have a
    result.

    Raises:
        QuadratError: no slide, a slide without result, or files that are incomplete or do not
        agree with each other.
    """
    names = slides or sorted(p.name.removesuffix(".truth.json") for p in truth.glob("*.truth.json"))
    if not names:
        raise QuadratError(f"{truth}: no *.truth.json, so there is nothing to judge by")
    missing = [name for name in names if not (results / name).is_dir()]
    if missing:
        raise QuadratError(
            f"{results}: no result of {', '.join(missing)}; run them, or choose others with "
            "--slides"
        )
    return [
        s for name in names for s in JUDGES[task](Case.open(name, truth=truth, results=results))
    ]


def _blocks(
    path: Path, found: ShardedArray, frame: Frame, *, reduction: int
) -> Iterator[tuple[Image, Image]]:
    """Truth and result of one grid block after the other; ``reduction`` level-0 px a side of one
    truth pixel."""
    shape = frame.height, frame.width
    if tuple(found.shape[-2:]) != shape:
        raise QuadratError(
            f"{path.name}: the label image is {tuple(found.shape)} px but summary.json states "
            f"{shape}"
        )
    scale = frame.scale_row / reduction, frame.scale_col / reduction
    for box, truth in stream_label_image(path, shape=shape, scale=scale):
        yield truth, found.read(box).reshape(box.shape)


def _objects(
    result: Path,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Id, class name, box (x0, y0, x1, y1 in level-0 px) and score of every object, by ascending
    id.

    Raises:
        QuadratError: counts.csv states another number of objects.
    """
    corners = ["x0_l0", "y0_l0", "x1_l0", "y1_l0"]
    try:
        table = pyarrow.parquet.read_table(
            result / "objects.parquet", columns=["id", "class", "score", *corners]
        )
    except (OSError, ValueError, KeyError) as error:
        raise QuadratError(f"{result / 'objects.parquet'}: cannot be read ({error})") from error
    stated = sum(count for _, count in _count_rows(result))
    if stated != len(table):
        raise QuadratError(
            f"{result}: counts.csv states {stated} objects, objects.parquet holds {len(table)}"
        )
    ids = table["id"].to_numpy().astype(np.int64)
    order = np.argsort(ids)
    boxes = np.stack([table[c].to_numpy() for c in corners], axis=1).astype(np.float64)
    names = np.array(table["class"].to_pylist(), object)
    return ids[order], names[order], boxes[order], table["score"].to_numpy()[order]


def _count_rows(result: Path) -> list[tuple[str, int]]:
    """Class and count of counts.csv in the order of class ids; the row "all" must be their sum."""
    rows = [
        (row["class"], int(row["count"])) for row in _csv(result / "counts.csv", ("class", "count"))
    ]
    total = [count for name, count in rows if name == "all"]
    own = [(name, count) for name, count in rows if name != "all"]
    if total != [sum(count for _, count in own)]:
        raise QuadratError(
            f"{result / 'counts.csv'}: row 'all' is missing or not the sum of the classes"
        )
    return own


def _count(case: Case, task: str, planted: int, found: int) -> Score:
    return case.score(task, "count", counts.relative_error(planted, found), planted, found)


def _class_names(truth: Sequence[str], found: npt.NDArray[Any]) -> list[str]:
    return [*truth, *sorted(set(found) - set(truth))]


def _as_index(names: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    index = {name: k for k, name in enumerate(classes)}
    return np.array([index[name] for name in names], np.int64)


def _need_known(ids: npt.NDArray[np.int64], known: npt.NDArray[np.int64], path: Path) -> None:
    strange = np.setdiff1d(ids, known, assume_unique=True)
    if len(strange):
        raise QuadratError(
            f"{path}: id {strange[0]} is in the label image but not in the table of objects"
        )


def _need_regions(names: Sequence[str], path: Path) -> None:
    strange = sorted(set(names) - set(REGIONS))
    if strange:
        raise QuadratError(
            f"{path}: class {strange[0]!r} is not a region class of the truth "
            f"({', '.join(REGIONS)})"
        )


def _reduction(case: Case) -> int:
    return int(_fact(case, "region_map_reduction"))


def _fact(case: Case, key: str) -> Any:
    if key not in case.facts:
        raise QuadratError(f"{case.truth_file('json')}: no key {key!r}")
    return case.facts[key]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QuadratError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise QuadratError(f"{path}: not a JSON object")
    return value


def _csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise QuadratError(f"{path}: no column {', '.join(sorted(missing))}")
            return list(reader)
    except OSError as error:
        raise QuadratError(f"{path}: cannot be read ({error})") from error


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """Add records to a JSON list; those of the same task and slide that it holds are replaced, so
    judging repeats."""
    fresh = {(s.task, s.slide) for s in scores}
    kept = [s for s in read_scores(path) if (s.task, s.slide) not in fresh] if path.exists() else []
    partial = path.with_name(path.name + ".partial")
    partial.write_text(
        json.dumps([asdict(s) for s in (*kept, *scores)], indent=1) + "\n", encoding="utf-8"
    )
    os.replace(partial, path)


def read_scores(path: Path) -> list[Score]:
    """Records that ``write_scores`` wrote."""
    try:
        return [Score(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise QuadratError(f"{path}: not a list of scores ({error})") from error


def print_table(scores: Sequence[Score], *, console: Console | None = None) -> None:
    """One row a task: slides, planted, found, the largest error of a slide, and the main metric
    (mean and worst).

    Planted and found are objects; mm² of tissue for semantic; slides, and slides labelled right,
    for classification.
    """
    table = Table(
        "task", "slides", "planted", "found", "largest error", "main metric", "mean", "worst"
    )
    for task, metric in MAIN_METRIC.items():
        own = [s for s in scores if s.task == task]
        if not own:
            continue
        slides = len({s.slide for s in own})
        main = [math.nan if s.value is None else s.value for s in own if s.metric == metric]
        planted, found, error = _totals(task, own)
        mean, worst = (f"{sum(main) / len(main):.3f}", f"{min(main):.3f}") if main else ("-", "-")
        table.add_row(task, str(slides), planted, found, error, metric, mean, worst)
    (console or Console()).print(table)


def _totals(task: str, scores: Sequence[Score]) -> tuple[str, str, str]:
    """Planted, found and largest error of a task's slides, as text."""
    if task == "classification":
        labels = [s for s in scores if s.metric == "slide_label"]
        right = sum(s.planted == s.found for s in labels)
        return str(len(labels)), str(right), f"{len(labels) - right} wrong"
    metric, form = ("dice_mean", ".2f") if task == "semantic" else ("count", ".0f")
    pairs = [(float(s.planted or 0), float(s.found or 0)) for s in scores if s.metric == metric]
    error = max((abs(counts.relative_error(p, f)) for p, f in pairs), default=math.nan)
    unit = " mm²" if task == "semantic" else ""
    return (
        f"{sum(p for p, _ in pairs):{form}}{unit}",
        f"{sum(f for _, f in pairs):{form}}{unit}",
        f"{error:.2%}",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 0, or 2 with one sentence on stderr where something
    cannot be judged.
    """
    parser = argparse.ArgumentParser(
        prog="python -m quadrat.cli.judge", description="Judge results by exact truth."
    )
    parser.add_argument("--truth", type=Path, required=True, help="folder of <slide>.truth.* files")
    parser.add_argument("--results", type=Path, required=True, help="folder of one folder a slide")
    parser.add_argument("--task", choices=sorted(JUDGES), required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON list that the scores are added to"
    )
    parser.add_argument(
        "--slides", nargs="+", help="judge these slides only (default: all with a truth)"
    )
    parser.add_argument(
        "--table", action="store_true", help="print the table of all scores in --out"
    )
    options = parser.parse_args(arguments)
    try:
        write_scores(
            options.out, judge(options.truth, options.results, options.task, slides=options.slides)
        )
        if options.table:
            print_table(read_scores(options.out))
    except QuadratError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
