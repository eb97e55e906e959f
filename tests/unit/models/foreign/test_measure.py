"""What is measured of a network that says nothing of itself."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers import foreign
from quadrat.config.import_card import InputSection
from quadrat.core.errors import PackageError
from quadrat.models.decoders import DECODERS
from quadrat.models.foreign.files import Module
from quadrat.models.foreign.head import ForeignHead
from quadrat.models.foreign.measure import measure, picture, windows_disagree
from quadrat.models.foreign.network import ForeignNetwork
from quadrat.models.foreign.traits import traits_of
from quadrat.models.unet import UNet


def conv(inputs, outputs, side, **options):
    return nn.Conv2d(inputs, outputs, side, **options)


class Placed(nn.Module):
    """Adds where it is in the window."""

    def forward(self, x):
        return x + torch.linspace(0, 1, x.shape[-1])


class Alone(Module):
    """As a file that has one precision."""

    def doubled(self):
        return None


def network(module, *, loaded=Module, out_stride=1, **section):
    torch.manual_seed(0)
    head = ForeignHead(classes=2, out_stride=out_stride)
    section = InputSection(**section)
    return ForeignNetwork(loaded(module), DECODERS["argmax"], head, input=section, outputs={})


def measured(module, *, loaded=Module, side=None, **section):
    one = network(module, loaded=loaded, **section)
    return measure(one, side=side, out_stride=None, dilation=traits_of(one.loaded).dilation)


@pytest.mark.parametrize("loaded", [Module, Alone])
@pytest.mark.parametrize(
    ("module", "out_stride", "stride", "radius"),
    [
        (conv(3, 3, 7, padding=3), 1, 1, 3),
        (nn.Sequential(conv(3, 8, 7), nn.ReLU(), conv(8, 3, 5)), 1, 1, 5),  # no padding
        (nn.Sequential(conv(3, 8, 3, padding=8, dilation=8), nn.ReLU(), conv(8, 3, 1)), 1, 1, 8),
        (nn.Sequential(conv(3, 8, 4, stride=4), nn.ReLU(), conv(8, 3, 3, padding=1)), 4, 4, 7),
        (nn.Sequential(nn.AvgPool2d(2), conv(3, 3, 1), nn.Upsample(scale_factor=2)), 1, 2, 1),
    ],
)
def test_cells_stride_and_radius_are_found_in_either_precision(
    module, out_stride, stride, radius, loaded
):
    found = measured(module, loaded=loaded)
    assert (found.out_stride, found.stride, found.radius) == (out_stride, stride, radius)
    assert found.any_size


def test_a_small_unet_is_measured_as_quadrat_measures_its_own():
    torch.manual_seed(0)
    found = measured(UNet((4, 6), outputs=3, out_stride=1).eval())
    assert (found.stride, found.radius) == (4, 19)


@pytest.mark.parametrize(
    ("module", "section", "said"),
    [
        (nn.Sequential(conv(3, 4, 3), nn.InstanceNorm2d(4)), {}, ("instance normalisation",)),
        (foreign.Normalised(), {}, ()),
        (conv(3, 3, 3), {"by_window": "mean_std"}, ()),
        (conv(3, 3, 3), {"by_window": "percentiles"}, ()),
    ],
)
def test_what_normalises_by_window_has_no_radius(module, section, said):
    one = network(module, **section)
    assert measure(one, side=128, out_stride=None).radius is None
    assert traits_of(one.loaded).whole == said


def test_a_script_names_what_sees_the_whole_window(tmp_path):
    script = torch.jit.load(foreign.traced(foreign.Normalised(), tmp_path / "net.pt"))
    assert set(traits_of(Module(script)).whole) == {
        "a maximum of the window",
        "a minimum of the window",
    }


def test_a_network_that_knows_its_place_in_the_window_has_no_stride():
    found = measured(Placed(), side=128)
    assert found.stride is None


def test_an_answer_that_never_changes_is_promised_nothing():
    module = conv(3, 3, 1)
    nn.init.zeros_(module.weight)
    assert measured(module, side=128).stride is None


def test_windows_agree_where_both_see_enough_and_only_there():
    one = network(conv(3, 3, 9, padding=4))
    assert windows_disagree(one, side=64, halo=4, shift=16) < 1e-6
    assert windows_disagree(one, side=64, halo=3, shift=16) > 1e-3
    normalised = network(foreign.Normalised())
    assert windows_disagree(normalised, side=64, halo=8, shift=16) > 1e-3


def test_a_network_that_cannot_answer_is_refused_with_what_it_says():
    class Strict(nn.Module):
        def forward(self, x):
            if x.shape[-1] != 96:
                raise ValueError("96 px only")
            return functional.avg_pool2d(x, 1)

    with pytest.raises(PackageError, match=r"256 x 256 px \(ValueError: 96 px only\)"):
        measured(Strict())
    assert not measured(Strict(), side=96).any_size


def test_a_network_without_an_answer_of_its_own_is_refused_like_any_other():
    class Unfinished(nn.Module):
        def forward(self, x):
            raise NotImplementedError("no such kernel")

    with pytest.raises(PackageError, match=r"256 x 256 px \(NotImplementedError: no such kernel\)"):
        measured(Unfinished())


def test_the_test_picture_is_the_same_each_time_and_lies_in_0_to_1():
    image = picture(40, 50)
    assert torch.equal(image, picture(40, 50))
    assert image.shape == (1, 3, 40, 50)
    assert 0 <= float(image.min()) < 0.3 < 0.7 < float(image.max()) <= 1
