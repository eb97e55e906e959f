import pytest
import torch
from torch import nn
from torch.nn import functional

from quadrat.models.probe import least_radius, probe
from quadrat.models.unet import TileClassifier, UNet


def radius_of(model, **options):
    """The receptive radius that :func:`probe` finds."""
    return probe(model, **options).radius


def conv(kernel, **options):
    return nn.Conv2d(3, 3, kernel, **options)


class Pooled(nn.Module):
    """Squeeze and excitation: every output depends on every pixel."""

    def __init__(self):
        super().__init__()
        self.conv = conv(3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        return x * torch.sigmoid(x.mean(dim=(2, 3), keepdim=True))


class Resized(nn.Module):
    """Bilinear steps down and up by two around a convolution."""

    def forward(self, x):
        x = functional.interpolate(x, scale_factor=0.5, mode="bilinear")
        return functional.interpolate(x, scale_factor=2.0, mode="bilinear")


class EverySecond(nn.Module):
    """Looks at one pixel of each block of 2 x 2 only."""

    def forward(self, x):
        return x[:, :, ::2, ::2]


class Gated(nn.Module):
    """A comparison opens or closes each pixel by its neighbours: it swallows a NaN, but not a high
    pixel."""

    def __init__(self):
        super().__init__()
        self.gate = nn.AvgPool2d(9, 1, 4)

    def forward(self, x):
        return torch.where(
            self.gate(x) > 1, torch.ones(()).to(x), torch.zeros(()).to(x)
        ) + functional.avg_pool2d(x, 3, 1, 1)


class Coarse(nn.Module):
    """Says it has stride 2, but answers in blocks of 4 px."""

    stride, out_stride = 2, 1

    def forward(self, x):
        return functional.interpolate(functional.max_pool2d(x, 4), scale_factor=4.0)


@pytest.mark.parametrize(
    ("layers", "radius"),
    [
        ([conv(1)], 0),
        ([conv(3, padding=1)], 1),
        ([conv(7, padding=3)], 3),
        ([conv(3, padding=4, dilation=4)], 4),
        ([conv(3, padding=1), nn.ReLU(), conv(3, padding=2, dilation=2)], 3),
        ([conv(3, padding=1), nn.BatchNorm2d(3), nn.Sigmoid(), nn.Dropout(0.9)], 1),
        ([nn.MaxPool2d(5, 1, 2)], 2),
        ([conv((1, 9), padding=(0, 4))], 4),
    ],
)
def test_the_radius_of_plain_networks_is_their_kernels(layers, radius):
    assert radius_of(nn.Sequential(*layers), stride=1, out_stride=1) == radius


@pytest.mark.parametrize(
    ("layers", "stride", "out_stride", "radius"),
    [
        # a cell of 2 px sees 3 px; the input pixel farthest from the cell's other end is 2 away
        ([conv(3, stride=2, padding=1)], 2, 2, 2),
        ([conv(2, stride=2)], 2, 2, 1),
        ([conv(4, stride=4)], 4, 4, 3),
        ([nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3, padding=1), nn.PixelShuffle(2)], 2, 1, 3),
        ([nn.AvgPool2d(2), conv(3, padding=1), nn.Upsample(scale_factor=2)], 2, 1, 3),
        ([nn.MaxPool2d(4), nn.Upsample(scale_factor=4)], 4, 1, 3),
    ],
)
def test_strided_networks_are_measured_at_every_phase(layers, stride, out_stride, radius):
    assert radius_of(nn.Sequential(*layers), stride=stride, out_stride=out_stride) == radius


def test_a_path_whose_weights_are_all_zero_still_counts():
    layer = conv(5, padding=2)
    nn.init.zeros_(layer.weight)
    assert radius_of(layer, stride=1, out_stride=1) == 2


def test_a_path_behind_a_dead_rectifier_still_counts():
    first = conv(5, padding=2)
    nn.init.constant_(first.bias, -1e6)
    assert (
        radius_of(nn.Sequential(first, nn.ReLU(), conv(3, padding=1)), stride=1, out_stride=1) == 3
    )


@pytest.mark.parametrize(
    "model",
    [
        Pooled(),
        nn.InstanceNorm2d(3),
        nn.Sequential(conv(3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=64)),
    ],
)
def test_a_network_that_sees_everything_has_no_radius(model):
    assert radius_of(model, stride=1, out_stride=1) is None


def test_bilinear_steps_reach_beyond_their_block():
    assert radius_of(Resized(), stride=2, out_stride=1) == 2


def test_pixels_that_nothing_looks_at_add_no_radius():
    assert radius_of(EverySecond(), stride=2, out_stride=2) == 1
    assert radius_of(conv(1, stride=2), stride=2, out_stride=2) == 1


def test_a_radius_beyond_the_first_probe_is_found_by_a_larger_one():
    assert (
        radius_of(nn.Sequential(*[conv(3, padding=32, dilation=32)] * 2), stride=1, out_stride=1)
        == 64
    )


@pytest.mark.parametrize(
    ("widths", "radius"), [((24, 48, 96), 47), ((8, 12, 16), 47), ((4, 4), 19)]
)
def test_the_shipped_network_is_measured_whatever_its_widths(widths, radius):
    model = UNet(widths, outputs=3, out_stride=1)
    assert radius_of(model, stride=model.stride, out_stride=1) == radius


def test_a_head_at_a_quarter_sees_less_than_one_at_full_resolution():
    full, quarter = (
        UNet((4, 6, 8), outputs=3, out_stride=1),
        UNet((4, 6, 8), outputs=3, out_stride=4),
    )
    assert radius_of(quarter, stride=8, out_stride=4) < radius_of(full, stride=8, out_stride=1)


def test_a_network_that_pools_everything_needs_no_probe():
    model = TileClassifier((4, 6), classes=2)
    assert radius_of(model, stride=model.stride, out_stride=model.out_stride) is None


def test_the_probe_leaves_the_network_as_it_was():
    model = UNet((4, 6, 8), outputs=3, out_stride=1).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    radius_of(model, stride=8, out_stride=1)
    assert model.training
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_an_impulse_never_reaches_farther_than_the_radius():
    torch.manual_seed(0)
    model = UNet((4, 6, 8), outputs=2, out_stride=1).double().eval()
    radius = radius_of(model, stride=8, out_stride=1)
    image = torch.randn(1, 3, 160, 160, dtype=torch.float64)
    for at in (80, 83, 87):
        touched = image.clone()
        touched[0, :, at, at] += 100
        with torch.inference_mode():
            rows, cols = torch.nonzero(
                (model(touched) != model(image))[0].any(dim=0), as_tuple=True
            )
        assert (
            max(
                at - int(rows.min()),
                int(rows.max()) - at,
                at - int(cols.min()),
                int(cols.max()) - at,
            )
            <= radius
        )


def test_an_impulse_finds_what_a_comparison_hides_from_a_nan():
    reach = probe(Gated(), stride=1, out_stride=1)
    assert (reach.structural, reach.impulse, reach.radius) == (1, 4, 4)


def test_a_nan_finds_what_zero_weights_hide_from_an_impulse():
    layer = conv(5, padding=2)
    nn.init.zeros_(layer.weight)
    reach = probe(layer, stride=1, out_stride=1)
    assert (reach.structural, reach.impulse, reach.radius) == (2, 0, 2)


@pytest.mark.parametrize(
    ("model", "stated", "out_stride", "stride"),
    [
        (conv(3, padding=1), 1, 1, 1),
        (nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2)), 2, 1, 2),
        (conv(4, stride=4), 4, 4, 4),
        (Coarse(), 2, 1, 4),
        (nn.Conv2d(3, 2, 3, padding=1), 4, 1, 1),
    ],
)
def test_the_stride_is_the_least_shift_that_only_shifts_the_output(
    model, stated, out_stride, stride
):
    torch.manual_seed(0)
    assert probe(model, stride=stated, out_stride=out_stride).stride == stride


def test_the_shipped_network_has_the_stride_it_states():
    model = UNet((4, 6, 8), outputs=3, out_stride=1)
    assert probe(model, stride=model.stride, out_stride=1).stride == model.stride == 8


@pytest.mark.parametrize("out_stride", [1, 4])
def test_the_quick_bound_is_the_radius_of_a_network_without_surprises(out_stride):
    model = UNet((4, 6, 8), outputs=3, out_stride=out_stride)
    radius = radius_of(model, stride=8, out_stride=out_stride)
    assert least_radius(model, stride=8, out_stride=out_stride, stated=radius) == radius


def test_the_quick_bound_sees_that_a_radius_was_stated_too_small_or_that_there_is_none():
    found = least_radius(
        UNet((4, 6, 8), outputs=3, out_stride=1), stride=8, out_stride=1, stated=20
    )
    assert found is None or found > 20
    assert least_radius(Pooled(), stride=1, out_stride=1, stated=40) is None
