"""Ripley's K: against every pair of objects, and where attraction was planted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.measured import rows_of, table_of, value, write_slide, write_yaml
from quadrat.core.errors import ConfigError
from quadrat.measure import spatial
from quadrat.measure.spatial import ripley

points = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 1)), min_size=2, max_size=12
)


def border_of(xy, side):
    return np.minimum(xy, side - xy).min(axis=1)


@settings(max_examples=50, deadline=None)
@given(points, st.booleans())
def test_k_is_that_of_all_pairs(drawn, same):
    xy, kind = np.array([p[:2] for p in drawn], float), np.array([p[2] for p in drawn])
    of, to = kind == 0, kind == (0 if same else 1)
    border = border_of(xy, 20.0)
    radii = (6.0, 2.0)
    found = ripley(xy, of, to, border, 400.0, radii, permutations=3)
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    for radius, one in zip(radii, found, strict=True):
        asked = of & (border >= radius)
        targets = to.sum() - same
        if not asked.any() or targets < 1:
            assert np.isnan(one.k)
            continue
        pairs = (apart[asked][:, to] <= radius).sum()
        assert one.asked == asked.sum()
        assert one.k == pytest.approx(pairs / asked.sum() * 400 / targets)


def test_planted_attraction_is_found_and_shuffled_classes_show_none():
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 500, (150, 2))
    near = np.clip(a + rng.normal(0, 4, a.shape), 0, 500)
    far = rng.uniform(0, 500, (150, 2))
    for b, attracts in ((near, True), (far, False)):
        xy = np.concatenate([a, b])
        of = np.arange(300) < 150
        (one,) = ripley(xy, of, ~of, border_of(xy, 500.0), 250_000.0, (10.0,), permutations=99)
        assert (one.p == 0.01) == attracts
        assert (one.k > one.high) == attracts
        if not attracts:
            assert one.k == pytest.approx(np.pi * 100, rel=0.5)


def test_the_table_has_l_and_its_test(tmp_path):
    rng = np.random.default_rng(1)
    at = rng.uniform((40, 40), (360, 560), (60, 2))
    places, kinds = np.concatenate([at, at + 4]), [0] * 60 + [1] * 60
    write_slide(tmp_path, *table_of(places, kinds, size=1.0))
    yaml = write_yaml(tmp_path / "m.yaml", "spatial: [{of: a, to: b, radii_um: [5]}]\n")
    rows = rows_of(tmp_path, pipeline=yaml)
    assert float(value(rows, "ripley_l_5_um.b", of="a")) > 5
    assert value(rows, "ripley_p_5_um.b", of="a") == "0.005000"
    assert value(rows, "ripley_p_5_um.b", of="a", key="n") == "60"


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(spatial, "MOST_PAIRS", 5)
    xy, all_of = np.zeros((4, 2)), np.ones(4, bool)
    with pytest.raises(ConfigError, match="12 pairs of objects lie within 3 of each other"):
        ripley(xy, all_of, all_of, np.ones(4), 1.0, (3.0,), permutations=1)
