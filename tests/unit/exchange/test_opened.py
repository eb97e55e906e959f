"""A finished run in Python."""

import numpy as np
import pytest

import quadrat
from helpers.planted_runs import FRAME, random_boxes, write_slide
from helpers.runs import quadrat as command
from quadrat.core.errors import ConfigError, QuadratError
from quadrat.store.array import ShardedArray

BOXES = random_boxes(30, 4)


@pytest.fixture
def out(tmp_path):
    """A run of two slides, one of them with a label image."""
    folder = write_slide(tmp_path / "out", "a", BOXES, np.arange(30) % 2)
    write_slide(tmp_path / "out", "b", BOXES[:3])
    array = ShardedArray.create(
        folder / "slide.ome.zarr/labels/objects/0",
        shape=(FRAME.height, FRAME.width),
        chunk=64,
        shard=128,
        dtype=np.uint32,
    )
    for cell in ((0, 0), (1, 1)):
        array.write_shard(cell, np.full((128, 128), 1 + sum(cell), np.uint32))
    return tmp_path / "out"


def test_slides_have_their_tables_and_counts(out):
    run = quadrat.open_run(str(out))
    assert (len(run), list(run.slides)) == (2, ["a", "b"])
    assert [slide.name for slide in run] == ["a", "b"]
    slide = run["a"]
    assert (slide.count, slide.counts["a"].count, slide.counts["all"].count) == (30, 15, 30)
    assert slide.objects.num_rows == 30
    assert slide.objects["id"].to_pylist() == list(range(1, 31))
    assert slide.summary.frame == FRAME
    assert np.array_equal(slide.to_geopandas().geometry.bounds.to_numpy(), BOXES * 2)
    assert repr(run).splitlines()[1:] == [
        "slide  task      objects", "a      instance  30", "b      instance  3",
    ]  # fmt: skip


def test_a_label_image_is_read_by_parts_or_whole(out):
    image = quadrat.open_run(out)["a"].label_image
    assert (image.shape, image.dtype, image.name) == ((300, 400), np.uint32, "objects")
    part = image[120:140, 100:200]
    assert part.shape == (20, 100)
    assert (part[0, 0], part[-1, -1], part[0, -1]) == (1, 3, 0)
    whole = np.asarray(image)
    assert whole.shape == (300, 400)
    assert np.array_equal(whole[120:140, 100:200], part)
    assert np.array_equal(image[:5], whole[:5])
    assert image[5:5, :].size == 0
    with pytest.raises(ValueError, match="steps of 1"):
        image[::2, :]
    with pytest.raises(TypeError, match="by slices of rows and columns"):
        image[5]
    assert quadrat.open_run(out)["b"].label_image is None


def test_the_table_of_all_slides_is_that_of_the_run(out, tmp_path):
    with pytest.raises(QuadratError, match=r"summary\.csv cannot be read"):
        _ = quadrat.open_run(out).summary
    (out / "results" / "summary.csv").write_text("slide,status,count\na,done,30\nc,failed,\n")
    assert quadrat.open_run(out).summary["slide"].to_pylist() == ["a", "c"]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no results"):
        quadrat.open_run(tmp_path)
    assert command("export", tmp_path, "--to", "csv").code == 2
