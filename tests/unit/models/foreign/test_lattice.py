"""Which core and halo follow from what was measured."""

import pytest

from quadrat.config.import_card import import_card
from quadrat.core.errors import ConfigError
from quadrat.models.foreign.lattice import RATIO, lattice_of
from quadrat.models.foreign.measure import Measured


def card(decoder="argmax", **keys):
    least = {"decoder": decoder, "classes": [{"name": "a"}], "mpp": 0.5, "license": "MIT"}
    return import_card(least | keys, where="x")


def chosen(reach, *, stride=8, fixed=None, out_stride=1, **keys):
    measured = Measured(any_size=fixed is None, out_stride=out_stride, stride=stride)
    found = lattice_of(card(**keys), measured, fixed=fixed, reach=reach)
    return found.core, found.halo, found.stride


@pytest.mark.parametrize("reach", [0, 3, 47, 100])
def test_a_free_core_costs_at_most_half_again_and_its_halo_covers_the_reach(reach):
    core, halo, stride = chosen(reach)
    assert halo >= reach
    assert halo - reach < stride
    assert core % stride == 0
    assert ((core + 2 * halo) / core) ** 2 <= RATIO


def test_a_window_that_the_file_or_the_card_fixes_is_kept():
    assert chosen(47, fixed=256) == (160, 48, 8)
    assert chosen(47, window=256) == (160, 48, 8)
    assert chosen(47, core=128, window=256) == (128, 64, 8)
    assert chosen(47, core=128) == (128, 48, 8)
    with pytest.raises(ConfigError, match="window is 128, but the file takes 256"):
        chosen(47, fixed=256, window=128)
    with pytest.raises(ConfigError, match="multiples of the network's stride 8"):
        chosen(47, core=100)


def test_a_window_out_of_step_with_the_stride_or_without_room_gets_what_fits():
    assert chosen(47, fixed=250) == (188, 31, 1)
    assert chosen(None, fixed=256) == (192, 32, 1)
    core, halo, _ = chosen(200, fixed=256)
    assert core + 2 * halo == 256


def test_tiles_of_a_classifier_have_no_halo_and_must_be_stated():
    assert chosen(None, decoder="classes", out_stride=0, window=224, stride=None)[:2] == (224, 0)
    with pytest.raises(ConfigError, match="window is not stated"):
        chosen(None, decoder="classes", out_stride=0, stride=None)
