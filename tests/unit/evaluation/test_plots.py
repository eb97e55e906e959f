"""What the pictures of an evaluation show, looked up in the figure before it is saved."""

import numpy as np
import pytest

from quadrat.evaluation import plots
from quadrat.metrics.protocol import Confusion, Curve


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the figures that were saved."""
    saved = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path, dpi: saved.append(figure))
    return lambda: saved[-1].axes


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_scatter_has_a_panel_per_class_and_the_line_of_identity(tmp_path, drawn):
    counts = {
        "all": (np.array([10, 40]), np.array([12, 30])),
        "a": (np.array([4, 9]), np.array([4, 9])),
    }
    plots.count_scatter(tmp_path / "x.png", counts, unit="case", icc={"all": 0.5})
    whole, a = drawn()
    assert whole.get_title() == "all   ICC 0.500"
    assert a.get_title() == "a"
    assert whole.collections[0].get_offsets().tolist() == [[10, 12], [40, 30]]
    np.testing.assert_array_equal(whole.lines[0].get_xdata(), whole.lines[0].get_ydata())
    assert whole.get_xlabel() == "annotated, per case"


def test_the_bland_altman_plot_shows_bias_and_limits(tmp_path, drawn):
    counts = {"all": (np.array([100, 50, 0]), np.array([90, 52, 2]))}
    plots.bland_altman(tmp_path / "x.png", counts, unit="slide")
    (axes,) = drawn()
    spread = 1.96 * np.std([-10, 2, 2], ddof=1)
    assert texts(axes) == [
        "bias  -2.0",
        f"+1.96 SD  {-2 + spread:+.1f}",
        f"-1.96 SD  {-2 - spread:+.1f}",
    ]


def test_a_confusion_of_objects_has_no_number_where_nothing_can_be_counted(tmp_path, drawn):
    matrix = np.array([[3, 1], [2, 0]])
    confusion = Confusion(matrix, ("a", "(nothing)"), ("a", "(missed)"), "objects")
    plots.confusion_plot(tmp_path / "x.png", confusion, title="t")
    axes = drawn()[0]
    assert texts(axes) == ["3\n75%", "1\n25%", "2\n100%"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "(nothing)"]


def test_a_long_curve_is_thinned_to_its_ends_and_the_working_threshold_is_marked(tmp_path, drawn):
    n = 10_000
    score = np.linspace(1, 0, n)
    curve = Curve("a", score, np.linspace(1, 0.5, n), np.linspace(0, 1, n))
    plots.precision_recall_plot(
        tmp_path / "x.png", [curve], area={"a": 0.75}, thresholds={"a": 0.5}, title="t"
    )
    (axes,) = drawn()
    line, dot = axes.lines[:2]
    assert len(line.get_xdata()) <= plots.CURVE_POINTS
    assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0, 1)
    assert dot.get_xdata()[0] == pytest.approx(0.5, abs=1e-3)
    assert axes.get_legend().get_texts()[0].get_text() == "a   AP 0.750"


def test_pictures_are_written_as_png(tmp_path):
    counts = {"all": (np.array([1, 2]), np.array([1, 3]))}
    plots.count_scatter(tmp_path / "a.png", counts, unit="slide", icc={})
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
