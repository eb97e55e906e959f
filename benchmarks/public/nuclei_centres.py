"""How well instances agree with drawn centres: F1 of centroids within 6 um, and the error of
counts, whatever the class.

``quadrat run nuclei --manifest test.csv --out out`` first; then ``python
benchmarks/public/nuclei_centres.py test.csv out/results --pipeline cells``. BRCA-M2C has centres
and no outlines, so this is what can be said in numbers of the shipped nuclei model on real H&E.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from quadrat.config.manifest import read_manifest
from quadrat.config.pipeline import load_pipeline
from quadrat.evaluation.pooling import read_truths
from quadrat.evaluation.results import read_answer
from quadrat.metrics.matching import match_points

DISTANCE_UM = 6.0


def main() -> None:
    """Print a row a slide and one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--pipeline", default="cells", help="whose data section reads the centres")
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    pipeline = load_pipeline(options.pipeline)
    classes = [c.name for c in pipeline.classes]
    rows = []
    for ref in (r for r in read_manifest(options.manifest) if r.split == options.split):
        answer = read_answer(options.results / ref.name, classes=["nucleus"], label_image=None)
        expected = read_truths([replace(ref, annotated="all")], pipeline.data, classes)[ref.name]
        assert answer.objects is not None
        assert expected.objects is not None
        truth, _ = expected.objects.points(answer.frame.box, answer.scale)
        found = answer.objects.centroid[:, ::-1]
        alike = {
            "truth_class": np.zeros(len(truth), np.int64),
            "found_class": np.zeros(len(found), np.int64),
        }
        matches = match_points(truth, found, **alike, mpp=answer.frame.mpp, distance_um=DISTANCE_UM)
        rows.append((len(matches.truth), len(truth), len(found)))
        print(f"{ref.name}: planted {len(truth)}, found {len(found)}, matched {len(matches.truth)}")
    matched, planted, found_ = np.array(rows).sum(axis=0).tolist()
    errors = [abs(f - p) / p for _, p, f in rows if p]
    figures = {
        "f1": 2 * matched / (planted + found_),
        "precision": matched / found_,
        "recall": matched / planted,
    }
    print(
        json.dumps(
            figures
            | {"planted": planted, "found": found_, "median_count_error": float(np.median(errors))}
        )
    )


if __name__ == "__main__":
    main()
