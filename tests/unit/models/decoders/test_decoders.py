"""All decoders: what their entries say, and what every one of them refuses."""

import pytest
import torch

from helpers import foreign_maps as fm
from quadrat.core.errors import ConfigError, PackageError
from quadrat.models.decoders import DECODERS
from quadrat.models.inference import is_finite
from quadrat.tasks import get_task, task_names


@pytest.mark.parametrize("name", DECODERS)
def test_an_entry_fits_the_task_that_it_names(name):
    decoder = DECODERS[name]
    assert decoder.name == name
    assert decoder.task in task_names()
    assert decoder.thresholds.keys() <= get_task(decoder.task).default_thresholds.keys()
    head = fm.head_of(decoder, options={"box_um": 8} if name == "points" else {}, out_stride=4)
    assert decoder.reach(head) >= 0
    assert decoder.reach(head) % 4 == 0
    assert not set(decoder.outputs) & set(decoder.optional)


@pytest.mark.parametrize("name", DECODERS)
def test_a_network_that_gives_nothing_is_refused_with_the_output_that_is_missing(name):
    decoder = DECODERS[name]
    options = {"box_um": 8} if name == "points" else {}
    with pytest.raises(PackageError, match=f"'{decoder.outputs[0]}'"):
        decoder.adapt({}, fm.head_of(decoder, options=options))


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("hovernet", {"np": 2, "hv": 2}),
        ("cellpose", {"flows": 2, "probability": 1}),
        ("points", {"heat": 1}),
        ("stardist", {"probability": 1, "rays": 8}),
    ],
)
def test_nan_in_any_map_is_left_for_the_inference_to_find(name, outputs):
    decoder = DECODERS[name]
    head = fm.head_of(decoder, options={"box_um": 8} if name == "points" else {})
    for wrong in (None, *outputs):
        maps = {key: torch.full((1, channels, 32, 32), 0.25) for key, channels in outputs.items()}
        if wrong is not None:
            maps[wrong][0, -1, 9, 9] = torch.nan
        assert is_finite(decoder.adapt(maps, head)) == (wrong is None)


def test_points_need_the_size_of_a_box():
    with pytest.raises(ConfigError, match=r"option box_um is 0; box_um, the side of a box, must"):
        DECODERS["points"].adapt({"heat": torch.zeros(1, 1, 8, 8)}, fm.head_of(DECODERS["points"]))
    head = fm.head_of(DECODERS["points"], options={"box_um": 8, "radius_um": -1})
    with pytest.raises(ConfigError, match=r"option radius_um is -1; .* radius_um not below 0"):
        DECODERS["points"].adapt({"heat": torch.zeros(1, 1, 8, 8)}, head)


def test_filters_of_hovernet_have_an_odd_size():
    head = fm.head_of(DECODERS["hovernet"], options={"sobel": 8})
    with pytest.raises(ConfigError, match=r"decoder hovernet: option sobel is 8; it must be odd"):
        DECODERS["hovernet"].reach(head)
