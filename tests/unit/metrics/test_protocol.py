"""What holds for the METRICS of every kind."""

import numpy as np
import pytest

from helpers import answers
from helpers.compared import CLASSES, blobs, compact, images, instances, measure_boxes, of_map
from quadrat.annotations.types import SlideTruth
from quadrat.core.errors import AnnotationError
from quadrat.metrics import classification, detection, instance, semantic


@pytest.mark.parametrize("metrics", [semantic.METRICS, detection.METRICS, instance.METRICS])
def test_a_truth_that_lacks_what_is_compared_is_refused(metrics):
    answer = answers.of_label_image(np.zeros((5, 5), np.int32), [])
    with pytest.raises(AnnotationError, match="the truth holds no"):
        metrics.measure(answer, SlideTruth(), classes=CLASSES)


def test_the_order_of_slides_changes_no_figure():
    rng = np.random.default_rng(8)
    pairs = [(blobs(rng), blobs(rng)) for _ in range(4)]
    cases = [
        (
            instance.METRICS,
            [instances(t, f, score=rng.random(len(compact(f)[1]))) for t, f in pairs],
        ),
        (
            semantic.METRICS,
            [semantic.METRICS.measure(*of_map(f % 4, t % 4), classes=CLASSES) for t, f in pairs],
        ),
        (detection.METRICS, [measure_boxes((*i[:4], rng.random(len(i[2])))) for i in images(9)]),
    ]
    for metrics, measured in cases:
        one, other = (
            metrics.summarise(order, classes=CLASSES) for order in (measured, measured[::-1])
        )
        assert one.keys() == other.keys()
        assert metrics.main in one
        for name, value in one.items():
            assert other[name] == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize(
    "metrics", [semantic.METRICS, classification.METRICS, detection.METRICS, instance.METRICS]
)
def test_no_slides_give_undefined_figures_and_no_error(metrics):
    got = metrics.summarise([], classes=CLASSES)
    assert np.isnan(got[metrics.main])
