from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from helpers import fields
from quadrat.core.errors import ConfigError, StoreError
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.objects import FLAG_CAPPED, FLAG_OCCLUDED, ClassInfo, Frame
from quadrat.core.predictions import Candidates, MaskCandidates
from quadrat.core.runs import paint
from quadrat.models.mask_rcnn import MaskRCNN
from quadrat.models.mismatch import kept_boxes
from quadrat.models.package import exactness
from quadrat.models.task import ModelSpec
from quadrat.stitching.masks import outlines, pack, paste
from quadrat.stitching.suppression import suppress
from quadrat.store.predictions import Layout, MaskStorage
from quadrat.tasks import get_task
from quadrat.tasks.instance_masks import decode_window, objects_in, propose

TASK = get_task("instance_masks")
LATTICE = Lattice(core=32, halo=16, stride=8, shard=64)
FRAME = Frame(height=170, width=150, mpp=0.5, scale_row=1.0, scale_col=1.0)
SPEC = ModelSpec(
    task="instance_masks",
    classes=(ClassInfo("a", (1, 2, 3)), ClassInfo("b", (4, 5, 6))),
    mpp=0.5,
    lattice=LATTICE,
    widths=(8, 12, 16),
    thresholds={"score": 0.3, "iou": 0.4, "class_aware": 0.0, "by_mask": 0.0, "min_area_um2": 4.0},
)
MASK_NAMES = (*MaskCandidates.COLUMNS, "starts", "bits")
NONE = np.zeros(0, np.int64)


def planted(seed, n, *, size=(4, 60)):
    """Candidates on different pixels of the slide, in raster order: boxes about their pixel, masks
    of any shape."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.choice(FRAME.height * FRAME.width, n, replace=False))
    cell = np.stack([at // FRAME.width, at % FRAME.width], axis=1).astype(np.int32)
    half = rng.integers(size[0] * 8, size[1] * 8, (n, 2))
    centre = cell[:, ::-1] * 16 + rng.integers(-40, 40, (n, 2))
    box = np.concatenate([centre - half, centre + half], axis=1).astype(np.int32)
    noise = ndimage.gaussian_filter(rng.standard_normal((n, 28, 28)), (0, 5, 5))
    probability = np.clip(150 + 1500 * noise, 0, 255).astype(np.uint8)
    area, starts, bits = paste(probability, box)
    found = MaskCandidates(
        box=box,
        score=rng.choice([15000, 30000, 45000, 60000], n).astype(np.uint16),
        class_id=rng.integers(0, 2, n).astype(np.uint8),
        cell=cell,
        area=area,
        flags=rng.integers(0, 2, n).astype(np.uint8),
        starts=starts,
        bits=bits,
    )
    return found.take(np.flatnonzero(area))


class Slide:
    """A slide whose predictions and parts lie in memory."""

    def __init__(self, found, spec=SPEC):
        self.spec, self.frame, self.parts = spec, FRAME, {}
        shard = found.cell // spec.lattice.shard
        self.shards = FRAME.box.cells(spec.lattice.shard)
        self.found = {s: found.take(np.flatnonzero((shard == s).all(axis=1))) for s in self.shards}

    @property
    def predictions(self):
        return self

    def read(self, shard, *, pixels=True):
        found = self.found[shard]
        bare = {"starts": np.zeros(len(found) + 1, np.int64), "bits": np.zeros(0, np.uint8)}
        return found if pixels else replace(found, **bare)

    def allows(self, rows, cols):
        return np.ones(np.broadcast_shapes(rows.shape, cols.shape), bool)

    def selection(self):
        return self.chosen

    def part(self, shard):
        return self.parts[shard]

    def stitch(self, order):
        """(table, label image, ids of each shard's first object) with shards worked on in the given
        order."""
        self.chosen = TASK.parts.select(self)
        self.parts = {shard: TASK.parts.stitch(self, shard) for shard in order}
        counts = [len(self.parts[s]["class_id"]) for s in self.shards]
        first = dict(zip(self.shards, (1 + np.cumsum([0, *counts])).tolist(), strict=False))
        labels = np.zeros(FRAME.box.shape, np.uint32)
        for shard in order:
            box = self.spec.lattice.shard_box(shard).intersect(FRAME.box)
            labels[box.row0 : box.row1, box.col0 : box.col1] = TASK.label_image.paint(
                self, shard, first
            )
        tables = [part()[0] for part in TASK.merge(self).objects]
        return type(tables[0]).concatenate(tables), labels


SOME = settings(deadline=None, derandomize=True, max_examples=60)


class LeftHalf(Slide):
    """A slide of which the user drew the left half."""

    def allows(self, rows, cols):
        return np.broadcast_to(cols < FRAME.width // 2, np.broadcast_shapes(rows.shape, cols.shape))


def test_the_users_regions_decide_at_the_anchor():
    found = planted(3, 60)
    table, labels = LeftHalf(found).stitch(FRAME.box.cells(LATTICE.shard))
    allowed = found.take(np.flatnonzero(found.cell[:, 1] < FRAME.width // 2))
    want, _ = Slide(allowed).stitch(FRAME.box.cells(LATTICE.shard))
    assert 0 < len(table) < 60
    assert np.array_equal(table.anchor, want.anchor)
    assert labels[:, FRAME.width // 2 :].any()  # an object that begins inside is in as a whole


@SOME
@given(st.integers(0, 2**32 - 1), st.integers(0, 80))
def test_the_objects_are_those_of_one_suppression_and_ids_and_flags_those_of_one_painting(seed, n):
    found = planted(seed, n)
    slide = Slide(found)
    order = list(np.random.default_rng(seed).permutation(len(slide.shards)))
    table, labels = slide.stitch([slide.shards[i] for i in order])

    centre = (found.box[:, :2] + found.box[:, 2:]) / 32
    on_slide = ((centre >= 0) & (centre < (FRAME.width, FRAME.height))).all(axis=1)
    whole = found.take(np.flatnonzero((found.score >= 19661) & (found.area >= 16) & on_slide))
    kept = suppress(whole.boxes, iou=0.4)
    row, col = whole.cell[kept].T
    kept = kept[np.lexsort((col, row, col // 64, row // 64))]
    assert np.array_equal(table.anchor, whole.cell[kept])
    want, _, runs = outlines(whole.take(kept))
    for name in ("bbox", "area_px", "centroid", "perimeter_px", "score", "class_id"):
        assert np.array_equal(getattr(table, name), getattr(want, name))
    assert np.array_equal(labels, paint(runs, np.arange(1, len(kept) + 1), FRAME.box))

    painted = paint(
        runs, np.arange(1, len(kept) + 1), Box(-200, -200, 400, 400)
    )  # what lies beyond the slide counts as seen
    hidden = ~np.isin(np.arange(1, len(kept) + 1), painted)
    assert np.array_equal(table.flags & FLAG_OCCLUDED > 0, hidden)
    assert np.array_equal(table.flags & FLAG_CAPPED, want.flags & FLAG_CAPPED)


def test_an_object_that_later_ones_cover_is_counted_and_flagged():
    small, large = planted(1, 200, size=(8, 9)), planted(2, 300, size=(50, 60))
    inner = small.take(np.array([len(small) // 3]))
    area, starts, bits = paste(
        np.full((1, 28, 28), 255, np.uint8), np.array([[0, 0, 1600, 1600]], np.int32)
    )
    outer = replace(
        large.take(np.array([0])),
        box=np.array([[0, 0, 1600, 1600]], np.int32),
        area=area,
        starts=starts,
        bits=bits,
    )
    box = np.array([[480, 480, 640, 640]], np.int32)
    area, starts, bits = paste(np.full((1, 28, 28), 255, np.uint8), box)
    inner = replace(inner, box=box, area=area, starts=starts, bits=bits)
    first, later = np.array([[35, 35]], np.int32), np.array([[50, 50]], np.int32)
    high = np.array([60000], np.uint16)
    both = MaskCandidates.concatenate(
        [replace(inner, cell=first, score=high), replace(outer, cell=later, score=high)]
    )
    slide = Slide(both)
    table, labels = slide.stitch(slide.shards)
    assert (table.flags & FLAG_OCCLUDED > 0).tolist() == [True, False]
    assert set(np.unique(labels)) == {0, 2}


def test_boxes_that_overlap_exclude_each_other_and_masks_only_where_pixels_do():
    """Two slanted rods next to each other: their boxes cover each other almost, their masks not at
    all."""
    row, col = np.indices((30, 30))
    rod = ((row - col >= -1) & (row - col <= 1)).astype(np.uint8)
    bounds = np.array([[40, 40, 70, 70], [40, 45, 70, 75], [41, 40, 71, 70]])
    box, area, starts, bits = pack(np.tile(rod.ravel(), 3), bounds)
    found = MaskCandidates(
        box=box,
        score=np.array([60000, 50000, 40000], np.uint16),
        class_id=np.zeros(3, np.uint8),
        cell=np.array([[40, 40], [40, 45], [41, 40]], np.int32),
        area=area,
        flags=np.zeros(3, np.uint8),
        starts=starts,
        bits=bits,
    )
    by_mask = replace(SPEC, thresholds={**SPEC.thresholds, "by_mask": 1.0})
    before_there_was_a_choice = {k: v for k, v in SPEC.thresholds.items() if k != "by_mask"}
    for spec, anchors in (
        (SPEC, [[40, 40]]),
        (replace(SPEC, thresholds=before_there_was_a_choice), [[40, 40]]),
        (by_mask, [[40, 40], [40, 45]]),  # the third shares two thirds of its pixels with the first
    ):
        slide = Slide(found, spec)
        table, _ = slide.stitch(slide.shards)
        assert table.anchor.tolist() == anchors
        assert len(kept_boxes(found, spec)) == len(anchors)


def network(seed=0):
    torch.manual_seed(seed)
    return MaskRCNN(SPEC.widths, classes=2).eval()


def output_of(model, shape=(64, 64)):
    with torch.no_grad():
        return model(torch.randn(1, 3, *shape))


def test_every_anchor_has_a_pixel_of_its_own_within_its_cell():
    model = network()
    sizes = [(16, 12), (8, 6)]
    pixels, anchors = model.anchor_pixels(sizes), model.anchors(sizes, torch.device("cpu"))
    assert len(torch.unique(pixels, dim=0)) == len(pixels) == len(anchors)
    centre = (anchors[:, [1, 0]] + anchors[:, [3, 2]]) / 2
    assert (centre - pixels).abs().max() <= 1.5


def test_proposals_come_from_the_core_alone_and_only_its_own_suppress_them():
    model, cell = network(), (0, 0)
    output = output_of(model)
    pixels = model.anchor_pixels([(16, 16), (8, 8)])
    inside = ((pixels >= 16) & (pixels < 48)).all(dim=1)
    flat = torch.full((len(pixels),), -9.0)
    flat[~inside] = 9.0  # the halo is certain, the core is not
    flat[inside] = 1.0
    levels = [flat[: 16 * 16 * 2].reshape(16, 16, 2), flat[16 * 16 * 2 :].reshape(8, 8, 2)]
    objectness = tuple(level.permute(2, 0, 1)[None] for level in levels)
    still = tuple(torch.zeros_like(d) for d in output.deltas)
    boxes, found = propose(replace(output, objectness=objectness, deltas=still), cell, SPEC)
    assert len(found) > 0
    assert ((found >= 0) & (found < 32)).all()  # grid px: the window begins at -16
    core_only = tuple(torch.where(o > 5, -9.0, o) for o in objectness)
    again, same = propose(replace(output, objectness=core_only, deltas=still), cell, SPEC)
    assert torch.equal(boxes, again)
    assert np.array_equal(found, same)


@pytest.mark.parametrize(
    ("box", "cut"), [((10, 10, 50, 50), False), ((2, 10, 50, 50), True), ((10, 10, 50, 62), True)]
)
def test_an_object_that_reaches_its_windows_border_is_flagged_and_kept(box, cut):
    model = network()
    output = output_of(model)
    corners = torch.tensor([box], dtype=torch.float32)

    def classify(_, boxes):
        return torch.tensor([[0.0, 9.0, 0.0]]).expand(len(boxes), 3), corners[:, None].expand(
            len(boxes), 3, 4
        )

    fake = SimpleNamespace(
        classify=classify,
        masks=lambda _, boxes, class_id: torch.ones(len(boxes), 28, 28),
        anchors=model.anchors,
        anchor_pixels=model.anchor_pixels,
        rpn=model.rpn,
    )
    found = decode_window(replace(output, network=fake), (1, 2), SPEC)
    assert len(found) > 0
    assert ((found.flags & FLAG_CAPPED > 0) == cut).all()
    shift = np.array([64 - 16, 32 - 16] * 2) * 16
    assert (found.box == np.array(box) * 16 + shift).all()
    assert (found.area == (box[2] - box[0]) * (box[3] - box[1])).all()


def test_a_window_without_any_region_emits_nothing():
    output = output_of(network())
    nothing = replace(
        output, objectness=tuple(torch.full_like(o, -20.0) for o in output.objectness)
    )
    assert len(decode_window(nothing, (0, 0), SPEC)) == 0


@SOME
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_boxes_classes_and_masks_of_a_patch_are_those_of_its_label_map(seed, n):
    labels = fields.ellipses(np.random.default_rng(seed), (40, 50), n=n)
    class_id = fields.random_classes(labels, 3, seed)
    classes = np.concatenate([[0], class_id + 1]).astype(np.int32)[labels]
    found = objects_in(torch.from_numpy(labels), torch.from_numpy(classes))
    ids = [i for i in range(1, labels.max() + 1) if (labels == i).sum() >= 9]
    where = ndimage.find_objects(labels)
    want = [
        [where[i - 1][1].start, where[i - 1][0].start, where[i - 1][1].stop, where[i - 1][0].stop]
        for i in ids
    ]
    assert found["boxes"].tolist() == want
    assert found["labels"].tolist() == [int(class_id[i - 1]) + 1 for i in ids]
    assert np.array_equal(
        found["masks"].numpy(),
        np.stack([labels == i for i in ids]) if ids else np.zeros((0, 40, 50), bool),
    )


def test_the_card_of_a_mask_model_says_schedule_exact():
    said = exactness(network(), SPEC)
    assert said["promise"] == "schedule-exact"
    assert said["receptive_radius_px"] is None


def test_a_mask_model_of_one_width_is_refused():
    with pytest.raises(
        ConfigError, match=r"model\.widths is \[8\]; a mask model needs two or more"
    ):
        MaskRCNN((8,), classes=1)


def test_the_store_gives_back_candidates_with_their_masks_or_without(tmp_path):
    found = planted(5, 60)
    groups = {s: np.flatnonzero((found.cell // 64 == s).all(axis=1)) for s in ((0, 0), (0, 1))}
    store = MaskStorage().create(tmp_path / "p", Layout(FRAME, LATTICE, (*groups, (1, 1))))
    for shard, index in groups.items():
        core = found.cell[index] // 32
        parts = {
            (int(r), int(c)): found.take(index[(core == (r, c)).all(axis=1)])
            for r, c in np.unique(core, axis=0)
        }
        receipt = store.write(shard, parts)
        assert receipt == store.write(
            shard, dict(reversed(parts.items()))
        )  # twice, and in another order
        want = MaskCandidates.concatenate([parts[c] for c in sorted(parts)])
        read = MaskStorage().open(tmp_path / "p").read(shard)
        bare = store.read(shard, pixels=False)
        for name in MASK_NAMES:
            assert np.array_equal(getattr(read, name), getattr(want, name)), name
        assert all(
            np.array_equal(getattr(bare, n), getattr(want, n))
            for n in MASK_NAMES
            if n not in ("starts", "bits")
        )
        assert len(bare.bits) == 0
    store.write((1, 1), {(2, 2): found.take(NONE)})
    assert len(store.read((1, 1))) == 0
    with pytest.raises(StoreError, match="cannot be read"):
        store.read((0, 2))
    assert isinstance(store.read((0, 0)).boxes, Candidates)
