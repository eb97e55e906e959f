"""Each decoder gives back the objects that its maps were made of: touching pairs, small and large,
alone and crowded."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from helpers import fields
from helpers import foreign_maps as fm
from quadrat.core.lattice import Lattice
from quadrat.models.decoders import DECODERS

SHAPE = (200, 210)
ELLIPSES = (
    ((30, 30), (10, 10), 0.0),  # it touches the next one
    ((30, 49), (10, 10), 0.0),
    ((64, 64), (11, 8), 0.5),  # on a corner of cores
    ((100, 64), (9, 14), 0.0),  # a large one touches a small one, on a seam
    ((100, 80), (7, 7), 0.0),
    ((128, 128), (12, 12), 0.0),  # they touch along a diagonal, on a corner of shards
    ((145, 145), (12, 12), 0.0),
    ((160, 60), (6, 6), 0.0),
    ((60, 150), (16, 9), 1.1),
    ((178, 190), (10, 13), 0.0),
    ((120, 190), (5, 5), 0.0),
    ((20, 190), (9, 9), 0.0),
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def labels():
    out = np.zeros(SHAPE, np.int32)
    for i, (centre, radii, angle) in enumerate(ELLIPSES, start=1):
        out[fields.ellipse(SHAPE, centre, radii, angle) & (out == 0)] = i
    return out


@pytest.fixture(scope="module")
def classes(labels):
    """A class, 0 or 1, of each object, and the logits (3, h, w) of background and both."""
    of = np.arange(labels.max()) % 2
    code = np.concatenate([[0], of + 1])[labels]
    return of, 6 * np.stack([code == k for k in range(3)]).astype(np.float32)


def answer_of(name, maps, *, beyond=None, **head):
    decoder = DECODERS[name]
    made = fm.head_of(decoder, **head)
    step = made.out_stride
    halo = -(-decoder.reach(made) // step) * step
    lattice = Lattice(core=64, halo=halo, stride=step, shard=128)
    return fm.tiled(decoder, fm.Raw(maps, beyond or {}), made, lattice, SHAPE)


def smudged(rng, values, *, blur, noise):
    """Maps as a network gives them: no sharp jumps, and some noise."""
    soft = ndimage.gaussian_filter(values, (0, blur, blur)) if blur else values
    return (soft + noise * rng.standard_normal(values.shape)).astype(np.float32)


def has_all(answer, labels, classes=None, *, iou=0.8):
    assert len(answer) == labels.max()
    assert fm.matched(answer, labels).min() > iou
    if classes is not None:
        at = answer.table.centroid.astype(int)
        assert answer.table.class_id.tolist() == [classes[labels[r, c] - 1] for r, c in at]


@pytest.mark.parametrize(("blur", "noise"), [(0, 0), (1, 0.05), (1.5, 0.05), (0, 0.1)])
@pytest.mark.parametrize("channels", [1, 2])
def test_hovernet_separates_what_touches(labels, classes, channels, blur, noise):
    rng = np.random.default_rng(1)
    p = smudged(rng, np.where(labels > 0, 0.95, 0.05)[None], blur=blur, noise=0)
    nuclear = fm.logits(p) if channels == 1 else np.concatenate([-fm.logits(p) / 2,
                                                                 fm.logits(p) / 2])  # fmt: skip
    hv = smudged(rng, fm.hover(labels), blur=blur, noise=noise)
    beyond = {"np": -5.0} if channels == 1 else {}
    maps = {"np": nuclear, "hv": hv, "type": classes[1]}
    has_all(answer_of("hovernet", maps, beyond=beyond, classes=2), labels, classes[0])


def test_hovernet_takes_probabilities_of_classes_as_well(labels, classes):
    p = np.where(labels > 0, 0.95, 0.05)[None].astype(np.float32)
    share = np.exp(classes[1]) / np.exp(classes[1]).sum(axis=0)
    maps = {"np": np.concatenate([1 - p, p]), "hv": fm.hover(labels), "type": share}
    answer = answer_of("hovernet", maps, classes=2, activation="probabilities")
    has_all(answer, labels, classes[0])


@pytest.mark.parametrize("noise", [0, 0.2])
def test_cellpose_separates_what_touches(labels, classes, noise):
    rng = np.random.default_rng(2)
    flow = 5 * smudged(rng, fm.flows(labels), blur=0, noise=noise)
    foreground = fm.logits(np.where(labels > 0, 0.95, 0.05))[None]
    maps = {"flows": flow, "probability": foreground, "type": classes[1]}
    has_all(
        answer_of("cellpose", maps, beyond={"probability": -5.0}, classes=2), labels, classes[0]
    )


def test_cellpose_keeps_a_crescent_whole_and_what_lies_in_it_apart():
    shape = (90, 90)
    labels = np.zeros(shape, np.int32)
    crescent = fields.ellipse(shape, (40, 40), (18, 18)) & ~fields.ellipse(
        shape, (40, 52), (14, 12)
    )
    labels[crescent] = 1
    labels[fields.ellipse(shape, (40, 54), (8, 8)) & (labels == 0)] = 2
    labels[fields.ellipse(shape, (73, 50), (6, 26), 1.2) & (labels == 0)] = 3
    labels = fields.connected(labels)
    assert labels.max() == 3
    noise = 0.3 * np.random.default_rng(0).standard_normal((2, *shape))
    maps = {
        "flows": (5 * (fm.diffused(labels) + noise)).astype(np.float32),
        "probability": fm.logits(np.where(labels > 0, 0.95, 0.05))[None],
    }
    decoder = DECODERS["cellpose"]
    head = fm.head_of(decoder)
    lattice = Lattice(core=30, halo=decoder.reach(head), stride=1, shard=30)
    raw = fm.Raw(maps, {"probability": -5.0})
    has_all(fm.tiled(decoder, raw, head, lattice, shape), labels, iou=0.97)


def test_cellpose_draws_the_border_where_flows_part_not_half_way_between_seeds(labels):
    """A large cell that touches a small one: half way between their middles lies inside the large
    one."""
    maps = {
        "flows": 5 * fm.flows(labels),
        "probability": fm.logits(np.where(labels > 0, 0.95, 0.05))[None],
    }
    answer = answer_of("cellpose", maps, beyond={"probability": -5.0})
    assert fm.matched(answer, labels)[3:5].min() > 0.97


@pytest.mark.parametrize("out_stride", [1, 2])
def test_stardist_gives_star_convex_objects_their_shape(labels, classes, out_stride):
    probability, rays = fm.stars(labels, rays=32, out_stride=out_stride)
    maps = {"probability": probability, "rays": rays, "type": classes[1][:, ::out_stride,
                                                                         ::out_stride]}  # fmt: skip
    share = np.exp(maps["type"]) / np.exp(maps["type"]).sum(axis=0)
    answer = answer_of("stardist", maps | {"type": share}, classes=2, out_stride=out_stride)
    has_all(answer, labels, classes[0])


def test_stardist_with_distances_in_cells_needs_to_be_told(labels):
    probability, rays = fm.stars(labels, rays=32, out_stride=2)
    maps = {"probability": probability, "rays": rays / 2}
    answer = answer_of("stardist", maps, out_stride=2, options={"ray_px": 2})
    has_all(answer, labels)


@pytest.mark.parametrize("out_stride", [1, 2, 4])
@pytest.mark.parametrize("activation", ["logits", "probabilities"])
def test_points_lie_at_the_peaks_with_boxes_of_the_size_asked_for(labels, out_stride, activation):
    heat = fm.heat(labels, spread=3, out_stride=out_stride)
    maps = {"heat": fm.logits(heat) if activation == "logits" else heat}
    answer = answer_of(
        "points",
        maps,
        beyond={"heat": -8.0 if activation == "logits" else 0.0},
        activation=activation,
        out_stride=out_stride,
        mpp=0.5,
        options={"box_um": 6.0},
    )
    table = answer.table
    assert len(table) == labels.max()
    away = np.linalg.norm(table.centroid[:, None] - fm.centres(labels)[None], axis=2)
    assert away.min(axis=0).max() <= 0.75 * out_stride + 0.25
    assert (table.bbox[:, 2:] - table.bbox[:, :2] == 12).all()


def test_of_two_classes_at_one_place_the_stronger_is_the_object(labels):
    heat = fm.heat(labels, spread=3)
    by_class = np.concatenate([0.6 * heat, heat])
    answer = answer_of("points", {"heat": by_class}, activation="probabilities", classes=2,
                       options={"box_um": 12.0})  # fmt: skip
    assert answer.table.class_id.tolist() == [1] * labels.max()


def test_labels_of_windows_are_the_objects_where_all_windows_agree(labels, classes):
    code = np.concatenate([[0], classes[0] + 1])[labels]
    maps = {"labels": labels[None].astype(np.int32), "classes": code[None].astype(np.int32)}
    decoder = DECODERS["labels"]
    lattice = Lattice(core=64, halo=40, stride=1, shard=128)
    answer = fm.tiled(decoder, fm.Raw(maps, {}), fm.head_of(decoder, classes=2), lattice, SHAPE)
    has_all(answer, labels, classes[0], iou=0.999)
    assert (answer.table.flags == 0).all()


def test_no_objects_are_found_where_there_are_none():
    one = np.zeros((1, *SHAPE), np.float32)
    given = {
        "hovernet": {"np": one - 5, "hv": np.repeat(one, 2, 0)},
        "cellpose": {"flows": np.repeat(one, 2, 0), "probability": one - 5},
        "stardist": {"probability": one, "rays": np.repeat(one, 8, 0)},
        "points": {"heat": one - 5},
        "labels": {"labels": one},
    }
    for name, maps in given.items():
        options = {"box_um": 6.0} if name == "points" else {}
        beyond = {key: float(value.min()) for key, value in maps.items()}
        answer = answer_of(name, maps, beyond=beyond, options=options)
        assert len(answer) == 0, name


@pytest.mark.parametrize("name", ["points", "stardist"])
def test_what_a_network_makes_of_the_fill_beyond_the_slide_is_no_object(name):
    one = np.zeros((1, 250, 250), np.float32)
    one[0, [150, 210, 150], [150, 150, 220]] = 0.9  # the last two lie below and beside the slide
    maps, options = {
        "points": ({"heat": one}, {"box_um": 6.0}),
        "stardist": ({"probability": one, "rays": np.repeat(one * 0 + 4, 8, 0)}, {}),
    }[name]
    answer = answer_of(name, maps, activation="probabilities", options=options)
    assert answer.table.anchor.tolist() == [[150, 150]]
