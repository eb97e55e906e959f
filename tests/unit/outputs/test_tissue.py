"""tissue.png: codes and place as they were written."""

import numpy as np
import pytest
from PIL import Image

from quadrat.core.errors import QuadratError
from quadrat.core.objects import Frame
from quadrat.outputs.tissue import TISSUE, read_tissue, write_tissue

CODES = np.arange(256, dtype=np.uint8).reshape(8, 32)


@pytest.mark.parametrize("unit", ["um", "px"])
def test_codes_and_place_are_read_as_they_were_written(tmp_path, unit):
    frame = Frame(8, 32, 16.1 if unit == "px" else 8.03, 16.1, 15.9, unit)
    write_tissue(tmp_path, CODES, frame)
    codes, place = read_tissue(tmp_path)
    assert np.array_equal(codes, CODES)
    assert codes.dtype == np.uint8
    assert place == frame


def test_a_viewer_shows_tissue_and_glass_in_their_colours(tmp_path):
    write_tissue(tmp_path, CODES, Frame(8, 32, 8.0, 16.0, 16.0))
    shown = np.asarray(Image.open(tmp_path / TISSUE).convert("RGB"))
    assert shown[0, 1].tolist() == [255, 255, 255]
    assert shown[0, 0].tolist() != shown[0, 6].tolist()
    assert shown[7, 31].tolist() == shown[2, 0].tolist()


def test_results_without_the_file_have_no_tissue(tmp_path):
    assert read_tissue(tmp_path) is None


def test_a_damaged_file_is_named(tmp_path):
    write_tissue(tmp_path, CODES, Frame(8, 32, 8.0, 16.0, 16.0))
    whole = (tmp_path / TISSUE).read_bytes()
    (tmp_path / TISSUE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(QuadratError, match=r"tissue\.png cannot be read"):
        read_tissue(tmp_path)
