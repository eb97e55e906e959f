import numpy as np
import pytest
import torch

from helpers import foreign_maps as fm
from quadrat.core.errors import ConfigError, PackageError
from quadrat.core.lattice import Lattice
from quadrat.models.decoders import DECODERS
from quadrat.models.decoders import stardist as module
from quadrat.models.inference import is_finite

STARDIST = DECODERS["stardist"]
LATTICE = Lattice(core=32, halo=8, stride=1, shard=32)


def maps(n=8, *, ray=3.0):
    """One peak in the middle of the window."""
    probability = torch.zeros(1, 1, 48, 48)
    probability[0, 0, 20, 24] = 0.8
    return {"probability": probability, "rays": torch.full((1, n, 48, 48), ray)}


def found_in(outputs, **head):
    return STARDIST.adapt(outputs, fm.head_of(STARDIST, **head)).of_cores([(0, 0)], LATTICE)[0]


def test_the_first_ray_points_along_the_row_and_the_next_towards_later_rows():
    outputs = maps(4, ray=0.0)
    outputs["rays"][0, :, 20, 24] = torch.tensor([9.0, 1.0, 3.0, 5.0])
    corners = module.vertices(outputs["rays"][:, :, 20, 24].double().numpy(), np.array([[12, 16]]))
    centre = np.array([16 * 16 + 8, 12 * 16 + 8])
    assert ((corners[0] - centre) / 16).tolist() == [[9, 0], [0, 1], [-3, 0], [0, -5]]


def test_a_polygon_may_reach_beyond_its_window():
    outputs = maps(32, ray=30.0)
    found = found_in(outputs)
    assert found.cell.tolist() == [[12, 16]]
    assert found.area[0] == pytest.approx(np.pi * 30**2, rel=0.02)
    assert found.flags.tolist() == [0]


def test_a_polygon_without_a_pixel_is_no_candidate():
    assert len(found_in(maps(ray=0.0))) == 0
    assert len(found_in(maps(ray=-4.0))) == 0


def test_more_maxima_than_memory_is_for_are_refused_not_cut(monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    outputs = maps()
    outputs["probability"][0, 0, 10:40:6, 10:40:6] = 0.5
    with pytest.raises(PackageError, match=r"core \(0, 0\) has \d+ local maxima .* more than 3: r"):
        found_in(outputs)
    assert len(found_in(outputs, options={"least_score": 0.7})) == 1


def test_a_ray_longer_than_the_window_is_refused():
    with pytest.raises(PackageError, match=r"a ray of 99 px, longer than the window of 48 px: set"):
        found_in(maps(ray=99.0))


def test_wrong_options_and_too_few_rays_are_refused():
    with pytest.raises(ConfigError, match=r"option ray_px is 0; it must be above 0"):
        found_in(maps(), options={"ray_px": 0})
    with pytest.raises(PackageError, match=r"'rays' has 2 channels; a polygon needs 3 rays"):
        found_in(maps(2))
    with pytest.raises(ConfigError, match=r"option radius is 0; it must be a whole number of at"):
        found_in(maps(), options={"radius": 0})


def test_nan_is_still_there_to_be_found():
    outputs = maps()
    outputs["rays"][0, 3, 1, 1] = torch.nan
    assert not is_finite(STARDIST.adapt(outputs, fm.head_of(STARDIST)))
