"""A network that answers with objects runs like one that answers with maps."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers import foreign_maps as fm
from quadrat.core.errors import QuadratError
from quadrat.core.lattice import Lattice
from quadrat.models.decoders import DECODERS
from quadrat.models.inference import predict_cells, predict_groups
from quadrat.models.mismatch import seam_mismatch
from quadrat.slides.array import ArraySlide
from quadrat.slides.source import source_of
from quadrat.tasks import get_task

STARDIST, BOXES = DECODERS["stardist"], DECODERS["boxes"]
CPU = torch.device("cpu")
LATTICE = Lattice(core=32, halo=8, stride=1, shard=64)
SHAPE = (90, 100)


class Stars(nn.Module):
    """Red is the probability, green the length of all rays."""

    stride = out_stride = 1

    def forward(self, image):
        rays = (image[:, 1:2] * 10).expand(-1, 12, -1, -1)
        maps = {"probability": image[:, :1], "rays": rays}
        return STARDIST.adapt(maps, fm.head_of(STARDIST))


class Corners(nn.Module):
    """One box in the middle of each window: what no other window sees there."""

    stride = out_stride = 1

    def forward(self, image):
        boxes = torch.tensor([[[20.0, 20.0, 28.0, 28.0]]]).expand(len(image), -1, -1)
        one = torch.ones(len(image), 1)
        return BOXES.adapt({"boxes": boxes, "scores": one, "labels": one}, fm.head_of(BOXES))


@pytest.fixture(scope="module")
def slide():
    """uint8 (h, w, 3) with 30 peaks in red, and the spec to read it unchanged."""
    rng = np.random.default_rng(0)
    rgb = np.zeros((*SHAPE, 3), np.uint8)
    at = rng.permutation(SHAPE[0] * SHAPE[1])[:30]
    rgb[at // SHAPE[1], at % SHAPE[1], 0] = rng.integers(128, 256, 30)
    rgb[..., 1] = rng.integers(60, 140, SHAPE)
    return rgb


def spec_of(decoder, **given):
    made = fm.spec_of(decoder, fm.head_of(decoder), LATTICE)
    values = {name: getattr(made, name) for name in type(made).__slots__}
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return type(made)(**values | plain | given)


def test_batches_with_padding_give_each_core_its_own_objects(slide):
    spec, task = spec_of(STARDIST), get_task("instance_masks")
    source = source_of(ArraySlide(slide, mpp=1.0), mpp=1.0)
    cells = LATTICE.cores(source.frame.box)
    batches = predict_groups(Stars(), task, spec, source, [cells], device=CPU, batch=5)
    assert len(cells) % 5, "the last batch is filled up"
    (found,) = batches
    white = np.pad(slide, ((8, 38), (8, 38), (0, 0)), constant_values=255)
    for cell in cells:
        box = LATTICE.window_box(cell).shift(8, 8)
        window = white[box.row0 : box.row1, box.col0 : box.col1]
        image = torch.from_numpy(window.copy()).permute(2, 0, 1)[None] / 255
        alone = Stars()(image).of_cores([cell], LATTICE)[0]
        assert np.array_equal(found[cell].box, alone.box)
        assert np.array_equal(found[cell].bits, alone.bits)
    assert sum(len(one) for one in found.values()) >= 20


def test_what_is_not_a_number_is_refused_where_all_networks_are(slide):
    class Broken(Stars):
        def forward(self, image):
            return super().forward(image * torch.nan)

    source = source_of(ArraySlide(slide, mpp=1.0), mpp=1.0)
    with pytest.raises(QuadratError, match="the network gave NaN or infinity near core"):
        dict(predict_cells(Broken(), get_task("instance_masks"), spec_of(STARDIST), source,
                           [(0, 0)], device=CPU))  # fmt: skip


@pytest.mark.parametrize(("decoder", "model"), [(STARDIST, Stars), (BOXES, Corners)])
def test_the_seam_mismatch_of_objects_is_measured(slide, decoder, model):
    source = source_of(ArraySlide(slide, mpp=1.0), mpp=1.0)
    cells = LATTICE.cores(source.frame.box)
    spec = spec_of(decoder, lattice=Lattice(core=32, halo=16, stride=1, shard=64))
    found = seam_mismatch(model(), get_task(decoder.task), spec, [(source, cells)], device=CPU)
    assert found["at_seam"]["flipped"] == 0  # a local network
    if decoder is BOXES:  # each window's box is seen by no other window
        assert found["in_overlap"]["decisions"] == found["in_overlap"]["flipped"]
