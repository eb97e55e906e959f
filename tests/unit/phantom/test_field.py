"""Where pen and dust lie."""

from typing import Any

from quadrat.phantom import PhantomSpec
from quadrat.phantom.field import make_plan


def test_pen_and_dust_are_not_tissue_and_hold_no_nuclei(phantom: Any) -> None:
    plan = make_plan(phantom.spec)
    assert len(plan.strokes) > 0
    for x0, y0, x1, y1, _ in plan.strokes:
        x, y = int((x0 + x1) / 2), int((y0 + y1) / 2)
        if 0 <= x < phantom.spec.width and 0 <= y < phantom.spec.height:
            assert phantom.regions[y // 8, x // 8] == 0
            assert phantom.labels[y, x] == 0
    assert (
        len(make_plan(PhantomSpec(name="n", width=2048, height=2048, seed=5, pen=False)).strokes)
        == 0
    )
