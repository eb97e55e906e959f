"""Processes that train together: batch statistics, gradients and gathering of a group, here of one
process."""

import copy
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from quadrat.core.errors import ConfigError
from quadrat.models.unet import UNet
from quadrat.training.distributed import (
    PATIENCE,
    SOLO,
    Group,
    GroupBatchNorm,
    joined,
    over_the_group,
)


@pytest.fixture
def environment(monkeypatch):
    """What torchrun tells the only rank of a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    for name, value in (about | {"RANK": "0", "WORLD_SIZE": "1"}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def group(environment):
    """A gloo group of this process alone."""
    with joined(torch.device("cpu")) as own:
        yield own


def norms(channels, seed=0, kind=nn.BatchNorm2d, **options):
    """A batch norm with weights that are not the first ones, and the same one over the group."""
    torch.manual_seed(seed)
    plain = kind(channels, **options)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    grouped = copy.deepcopy(plain)
    grouped.__class__ = over_the_group(kind)
    return plain, grouped


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (1, 5, 3, 7), (2, 2, 1, 2)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.3, "eps": 1e-2},
        {"kind": BatchNormAct2d, "act_layer": nn.ReLU6},
        {"kind": BatchNormAct2d, "apply_act": False},
    ],
    ids=["plain", "its own momentum", "with an activation", "without its activation"],
)
@pytest.mark.usefixtures("group")
def test_the_groups_norm_is_batchnorm_in_values_gradients_and_statistics(shape, options):
    plain, grouped = norms(shape[1], **options)
    for seed in range(3):
        torch.manual_seed(seed)
        x = 3 * torch.randn(shape) + 5
        pushed = torch.randn(shape)
        answers = []
        for norm in (plain, grouped):
            own = x.clone().requires_grad_()
            norm.zero_grad()
            out = norm(own)
            out.backward(pushed)
            answers.append((out.detach(), own.grad, norm.weight.grad, norm.bias.grad))
        for one, other in zip(*answers, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(grouped.running_mean, plain.running_mean)
        torch.testing.assert_close(grouped.running_var, plain.running_var)
        assert int(grouped.num_batches_tracked) == int(plain.num_batches_tracked) == seed + 1
    for norm in (plain, grouped):
        norm.eval()
    torch.testing.assert_close(grouped(x), plain(x))
    grouped.load_state_dict(plain.state_dict())
    assert torch.equal(grouped(x), plain(x))


@pytest.mark.usefixtures("group")
def test_the_groups_norm_takes_half_precision_and_gives_it_back():
    _, grouped = norms(4)
    x = torch.randn(2, 4, 6, 6)
    out = grouped(x.to(torch.bfloat16))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), grouped(x), rtol=0.05, atol=0.1)
    assert grouped.running_mean.dtype == torch.float32


@pytest.mark.parametrize("encoder", ["small", "efficientnet_lite0", "resnet18"])
def test_a_shared_network_is_the_same_network_and_becomes_plain_again(group, encoder):
    model = UNet((4, 6, 8), outputs=2, out_stride=1, encoder=encoder)
    parameters, names = list(map(id, model.parameters())), list(model.state_dict())
    kinds = [type(m) for m in model.modules()]
    own = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    shared = group.share(model)
    assert shared is model
    assert sum(isinstance(m, GroupBatchNorm) for m in model.modules()) == own > 0
    assert (list(map(id, model.parameters())), list(model.state_dict())) == (parameters, names)
    plain = group.plain(model)
    assert [type(m) for m in plain.modules()] == kinds


def test_a_norm_of_another_kind_is_refused_with_the_way_out(group):
    with pytest.raises(ConfigError, match=r"share the statistics of BatchNorm1d; set it to 1"):
        group.share(nn.Sequential(nn.BatchNorm1d(3)))


def test_what_is_gathered_keeps_the_gradient_of_its_own_part(group):
    for layout in (torch.contiguous_format, torch.channels_last):
        value = torch.randn(2, 3, 4, 5).to(memory_format=layout).requires_grad_()
        whole = group.gather(value)
        assert torch.equal(whole, value)
        (whole * 3).sum().backward()
        assert torch.equal(value.grad, torch.full_like(value, 3.0))


def test_gradients_are_summed_each_at_its_own_place(group):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 1), nn.Linear(2, 2))
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(i))
    model[2].weight.grad = None  # not part of this step
    group.add_gradients(model)
    for i, parameter in enumerate(model.parameters()):
        assert (
            parameter.grad is None
            if parameter is model[2].weight
            else bool((parameter.grad == i).all())
        )


def test_the_first_process_writes_and_what_it_computes_is_known_to_all(group):
    assert group.first
    assert group.shared(lambda: {"score": 0.5}) == {"score": 0.5}
    assert group.part(6) == slice(0, 6)


def test_parts_of_a_batch_are_apart_and_make_up_the_batch(group):
    group.size = 3
    found = []
    for rank in range(3):
        group.rank = rank
        found += list(range(12))[group.part(12)]
        assert group.first == (rank == 0)
    assert found == list(range(12))
    with pytest.raises(
        ConfigError, match=r"train\.batch is 8; it must be a multiple of train\.processes \(3\)"
    ):
        group.part(8)


def test_an_answer_that_is_no_tensor_is_refused_with_the_way_out(group):
    with pytest.raises(ConfigError, match=r"set it to 1 for instance_masks"):
        group.gather({"features": torch.zeros(2)})


def test_alone_everything_is_as_it_is():
    model, value = nn.BatchNorm2d(3), torch.zeros(2)
    assert SOLO.share(model) is SOLO.plain(model) is model
    assert type(model) is nn.BatchNorm2d
    assert SOLO.gather(value) is value
    assert SOLO.part(5) == slice(0, 5)
    assert SOLO.first
    assert SOLO.shared(lambda: 7) == 7


@pytest.mark.usefixtures("environment")
def test_a_group_is_left_however_training_ends():
    def fail():
        with joined(torch.device("cpu")) as ranks:
            assert isinstance(ranks, Group)
            assert (ranks.rank, ranks.size) == (0, 1)
            assert dist.is_initialized()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not dist.is_initialized()
    assert timedelta(hours=24) < PATIENCE, "the first process alone evaluates many slides"
