"""How well instances agree with drawn centres: F1 of centroids within 6 um, and the error of
counts, whatever the class.

``quadrat run nuclei --manifest test.csv --out out`` first; then ``python
benchmarks/public/nuclei_centres.py test.csv out/results --pipeline cells``. BRCA-M2C has centres
and no outlines, so this is what can be said in numbers of the shipped nuclei model on real H&E.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from quadrat.config.manifest import SlideRef, read_manifest
from quadrat.config.pipeline import Pipeline, load_pipeline
from quadrat.evaluation.pooling import read_truths
from quadrat.evaluation.results import read_answer
from quadrat.metrics.matching import match_points

DISTANCE_UM = 6.0
HERE = Path(__file__).parent
SPLITS = HERE.parents[1] / "data" / "splits"
sys.path.append(str(HERE.parent))  # this script lies one folder below the modules it shares

from samples import sample  # noqa: E402 - after the path


def compare(refs: Sequence[SlideRef], results: Path, pipeline: Pipeline) -> dict[str, float]:
    """Print a row a slide; the figures of all."""
    classes = [c.name for c in pipeline.classes]
    rows = []
    for ref in refs:
        answer = read_answer(results / ref.name, classes=["nucleus"], label_image=None)
        expected = read_truths([replace(ref, annotated="all")], pipeline.data, classes)[ref.name]
        assert answer.objects is not None
        assert expected.objects is not None
        truth, _ = expected.objects.points(answer.frame.box, answer.scale)
        found = answer.objects.centroid[:, ::-1]
        matches = match_points(
            truth,
            found,
            truth_class=np.zeros(len(truth), np.int64),
            found_class=np.zeros(len(found), np.int64),
            mpp=answer.frame.mpp,
            distance_um=DISTANCE_UM,
        )
        rows.append((len(matches.truth), len(truth), len(found)))
        print(f"{ref.name}: planted {len(truth)}, found {len(found)}, matched {len(matches.truth)}")
    matched, planted, found_ = np.array(rows).sum(axis=0).tolist()
    return {
        "f1": 2 * matched / (planted + found_),
        "precision": matched / found_,
        "recall": matched / planted,
        "planted": planted,
        "found": found_,
        "median_count_error": float(np.median([abs(f - p) / p for _, p, f in rows if p])),
    }


def quick(folder: Path) -> tuple[Path, Path]:
    """The manifest of two test patches, and the results of a run of `nuclei` on them."""
    place = sample("detection/brca_m2c")
    with (SPLITS / "brca_m2c.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"][:2]
    manifest = folder / "test.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(("slide", "annotation", "mpp", "annotated", "split"))
        for row in rows:
            image = row["image"]
            points = f"labels/{image.removesuffix('.png')}_gt_class_coords.txt"
            out.writerow((place / "images" / image, place / points, row["mpp"], "all", "test"))
    run = ["run", "nuclei", "--manifest", str(manifest), "--out", str(folder / "out")]
    settings = ("slide.tissue=all", "run.cluster=serial", "run.threads=1")
    for setting in settings:
        run += ["--set", setting]
    subprocess.run([sys.executable, "-m", "quadrat", *run], check=True)
    return manifest, folder / "out" / "results"


def main() -> None:
    """Compare and print; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--pipeline", default="cells", help="whose data section reads the centres")
    parser.add_argument("--split", default="test")
    parser.add_argument("--quick", action="store_true", help="runs nuclei on two patches first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.quick:
            options.manifest, options.results = quick(Path(folder))
        elif options.results is None:
            parser.error("name a manifest and the results of its slides, or take --quick")
        refs = [ref for ref in read_manifest(options.manifest) if ref.split == options.split]
        print(json.dumps(compare(refs, options.results, load_pipeline(options.pipeline))))


if __name__ == "__main__":
    main()
