"""Pages are text with every value escaped."""

import jinja2
import pytest

from quadrat.pages.rendering import STATIC, figure, page, static, whole


def test_a_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        page("methods.html", root="", title="t")


def test_values_are_escaped():
    model = {"name": "<script>", "text": ["a & b"]}
    text = page("methods.html", root="", title="t", models=[model])
    assert "&lt;script&gt;" in text
    assert "a &amp; b" in text


def test_every_file_of_a_page_is_there_and_the_vendored_one_has_its_licence():
    assert all(static(name) for name in STATIC)
    assert b"Redistribution and use" in static("openseadragon.LICENSE.txt")
    scripts = [static(name) for name in STATIC if name.endswith(".js")]
    assert sum(map(len, scripts)) < 600_000


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (1727.2, "1,727"), (0.012345, "0.0123"), (99.5, "99.5")],
)
def test_figures_have_three_digits(value, text):
    assert figure(value) == text


def test_whole_numbers_have_marks():
    assert (whole(1234567.0), whole(None)) == ("1,234,567", "")
