"""Pages of pictures: scale bars and PNG files."""

import numpy as np
import pytest
from PIL import Image

from quadrat.outputs import figures


@pytest.mark.parametrize(
    ("longest", "length"), [(130, 100), (99, 50), (1, 1), (0.3, 0.2), (2500, 2000)]
)
def test_scale_bars_have_round_lengths(longest, length):
    assert figures.nice_length_um(longest) == pytest.approx(length)


def test_pages_are_written_as_the_same_png_each_time(tmp_path):
    overview, detail = np.full((90, 60, 3), 230, np.uint8), np.full((72, 72, 3), 200, np.uint8)
    legend = [
        figures.LegendEntry(f"class {i} with a long name", (i * 20, 90, 120), "1,234")
        for i in range(12)
    ]
    for name in ("a.png", "b.png"):
        page = figures.compose_overlay(
            overview,
            detail,
            legend=legend,
            overview_mpp=32.0,
            detail_mpp=0.5,
            detail_box=(20, 20, 22, 22),
            title="Größe",
            subtitle="5 µm, 2 per mm²",
        )
        figures.save_png(page, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == page.shape[1::-1]
        assert picture.info == {}
        assert np.array_equal(np.asarray(picture), page), "nothing is lost"
    page = figures.compose_map(
        overview,
        np.ones((3, 2)),
        low=0,
        high=2,
        label="per mm²",
        cell_um=1000,
        overview_mpp=32.0,
        title="t",
    )
    assert page.shape[1] > 2 * 480
