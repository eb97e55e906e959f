"""Stain of objects: against scikit-image's deconvolution, pixel by pixel, and scores by hand."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import color

from helpers.measured import rows_of, table_of, value, write_asked, write_slide, write_yaml
from quadrat.core.errors import ConfigError, SlideError
from quadrat.core.objects import Frame, Polygons
from quadrat.measure.stain import DAB, HEMATOXYLIN, Stains, allred, estimated

FRAME = Frame(height=1200, width=1100, mpp=0.5, scale_row=1.0, scale_col=1.0)
STAINS = Stains(HEMATOXYLIN, DAB)


def picture(hematoxylin, dab):
    """uint8 (h, w, 3) of a mixture of both stains."""
    directions = np.array([HEMATOXYLIN, DAB]) / np.linalg.norm([HEMATOXYLIN, DAB], axis=1)[:, None]
    od = np.stack([hematoxylin, dab], axis=-1) @ directions
    return np.rint(255 * 10**-od).clip(1, 255).astype(np.uint8)


def test_densities_are_those_of_scikit_image_in_powers_of_ten():
    rng = np.random.default_rng(0)
    rgb = picture(*rng.uniform(0.1, 0.6, (2, 40, 50)))
    directions = np.array([HEMATOXYLIN, DAB])
    directions = directions / np.linalg.norm(directions, axis=1)[:, None]
    rest = np.cross(*directions)
    mixing = np.concatenate([directions, rest[None] / np.linalg.norm(rest)])
    theirs = color.separate_stains(rgb, np.linalg.inv(mixing))[..., :2] * -np.log10(1e-6)
    np.testing.assert_allclose(STAINS.densities(rgb), theirs, atol=1e-6)


def test_densities_that_were_mixed_come_back():
    rng = np.random.default_rng(1)
    wanted = rng.uniform(0.05, 0.8, (2, 30, 30))
    found = STAINS.densities(picture(*wanted))
    np.testing.assert_allclose(np.moveaxis(found, -1, 0), wanted, atol=0.02)


def test_stains_are_estimated_from_pixels_that_hold_either():
    rng = np.random.default_rng(2)
    amount, which = rng.uniform(0.3, 1.0, 20_000), rng.uniform(size=20_000) < 0.5
    flat = picture(np.where(which, amount, 0.0), np.where(which, 0.0, amount))
    found = estimated(flat, slide="s")
    for mine, true in ((found.hematoxylin, HEMATOXYLIN), (found.dab, DAB)):
        assert np.dot(mine, true) / np.linalg.norm(true) > 0.998
    with pytest.raises(SlideError, match="s: its stains cannot be estimated from 0 stained pixels"):
        estimated(np.full((500, 3), 250, np.uint8), slide="s")


@pytest.mark.parametrize(
    ("counts", "score"),
    [
        ((10, 0, 0, 0), (0, 0)),
        ((99, 1, 0, 0), (1, 1)),
        ((98, 0, 2, 0), (2, 2)),
        ((2, 1, 0, 0), (3, 1)),
        ((1, 0, 1, 1), (4, 3)),
        ((1, 1, 1, 2), (5, 2)),
    ],
)
def test_allred_scores_are_those_of_the_published_table(counts, score):
    assert allred(counts) == score


@pytest.fixture
def out(tmp_path):
    """Four squares of different density, of which one lies across the corner of four windows."""
    rng = np.random.default_rng(3)
    dab = rng.uniform(0.0, 0.02, (1200, 1100))
    corners = [(100, 100), (300, 300), (500, 500), (1014, 1014)]
    for (row, col), level in zip(corners, (0.1, 0.3, 0.5, 0.7), strict=True):
        dab[row : row + 20, col : col + 20] += level
    Image.fromarray(picture(np.full_like(dab, 0.2), dab)).save(tmp_path / "s.png")
    bbox = np.array([(r, c, r + 20, c + 20) for r, c in corners], float)
    table, _ = table_of(bbox[:, :2] + 10, [0, 0, 1, 1])
    write_slide(tmp_path / "out", table, Polygons.boxes(bbox), frame=FRAME)
    write_asked(tmp_path / "out", {"name": "s", "path": str(tmp_path / "s.png"), "mpp": 0.5})
    return tmp_path / "out"


def test_each_object_has_the_mean_and_deviation_of_its_own_pixels(out, tmp_path):
    rows = rows_of(out, pipeline=write_yaml(tmp_path / "m.yaml", "stain: {}\n"))
    densities = STAINS.densities(np.asarray(Image.open(tmp_path / "s.png")))
    table = pq.read_table(out / "stain" / "s.parquet").to_pydict()
    assert table["id"] == [1, 2, 3, 4]
    for k, (row, col) in enumerate([(100, 100), (300, 300), (500, 500), (1014, 1014)]):
        own = densities[row : row + 20, col : col + 20].reshape(-1, 2)
        for j, name in enumerate(("hematoxylin", "dab")):
            assert table[f"od_{name}_mean"][k] == pytest.approx(own[:, j].mean(), rel=1e-6)
            assert table[f"od_{name}_std"][k] == pytest.approx(own[:, j].std(), rel=1e-5)
    assert [value(rows, f"count_dab_{band}") for band in ("0", "1+", "2+", "3+")] == ["1"] * 4
    assert value(rows, "h_score") == "150.000"
    assert value(rows, "h_score", of="b") == "250.000"
    assert value(rows, "positive_percent") == "75.000"
    assert [value(rows, f"allred_{n}") for n in ("proportion", "intensity", "score")] == list("527")
    assert float(value(rows, "od_dab_mean_mean", of="b")) == pytest.approx(0.61, abs=0.005)
    assert value(rows, "od_dab_mean_mean", of="b", key="unit") == "od"


def test_a_slide_that_is_not_that_of_the_results_is_refused(out, tmp_path):
    yaml = write_yaml(tmp_path / "m.yaml", "stain: {}\n")
    Image.fromarray(np.full((1200, 1000, 3), 200, np.uint8)).save(tmp_path / "s.png")
    with pytest.raises(SlideError, match=r"1000 x 1200 px at 0\.5 um/px, but the results of s are"):
        rows_of(out, pipeline=yaml)
    (tmp_path / "s.png").unlink()
    with pytest.raises(SlideError, match=r"s\.png"):
        rows_of(out, pipeline=yaml)
    (out / "run" / "asked" / "a.json").unlink()
    with pytest.raises(ConfigError, match="nothing in the run says where its file is"):
        rows_of(out, pipeline=yaml)


def test_wrong_stains_are_refused(out, tmp_path):
    for text, says in (
        ("stain: {bands: [0.4, 0.2, 0.6]}", "each must be above the one before"),
        ("stain: {dab: [0, 0, 0]}", "must not be all zero"),
        ("stain: {vector: given}", "unknown key 'vector'; did you mean 'vectors'"),
    ):
        with pytest.raises(ConfigError, match=says):
            rows_of(out, pipeline=write_yaml(tmp_path / "m.yaml", text))
