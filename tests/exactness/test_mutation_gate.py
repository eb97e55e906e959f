"""A test of the tests: each known way to get stitching wrong is put into the shipped code, and the
suite must notice.

The very functions of the suite are run on a few fixed examples. They pass, then fail by assertion
with the mutation, and pass again without it. A suite that lets a mutation through proves nothing
about what it lets through unmutated.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from exactness import test_merging, test_one_pass, test_schedules
from helpers import planted
from helpers.schedules import Schedule
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.predictions import Candidates
from quadrat.engine import steps
from quadrat.engine.view import WorkView
from quadrat.models import inference
from quadrat.stitching import components
from quadrat.tasks import detection, instance

SQUARE, BLOCKS = planted.LAYOUTS[0], planted.LAYOUTS[2]
SHUFFLED = Schedule(per_unit=2, workers=3, seed=5)


@dataclass(frozen=True)
class Gated:
    """A test function of the suite and the arguments to call it with."""

    test: object
    arguments: tuple

    def __call__(self):
        self.test.hypothesis.inner_test(*self.arguments)


def one_pass(task, kind, *, layout=SQUARE, plateaus=True, margin=5):
    return Gated(test_one_pass.test_a_slide_of_16_shards_gives_what_one_pass_gives,
                 (task, layout, kind, 7, (1, -1), plateaus, margin))  # fmt: skip


def schedules(task, kind, *, normed):
    return Gated(test_schedules.test_any_schedule_gives_the_bytes_of_all_work_done_at_once,
                 (task, SQUARE, kind, 7, (0, 1), SHUFFLED, normed))  # fmt: skip


def on_disk(task, kind):
    return Gated(
        test_schedules.test_two_schedules_write_the_same_files,
        (task, SQUARE, kind, 7, (1, 0), SHUFFLED, True),
    )


def labels_of_chunks(seed):
    return Gated(
        test_merging.test_components_of_objects_on_seams_are_those_of_scipy,
        ("crowded ellipses", seed, 16),
    )


def suppression(seed):
    return Gated(
        test_merging.test_one_suppression_over_all_shards_is_the_sequential_one,
        (seed, 25, 16, False, True),
    )


def less_halo(known):
    """Windows whose halo is white but for ``known(spec)`` px: what a smaller halo would leave to
    know."""

    def mutate(patch):
        read = inference.read_windows

        def blinkered(source, cells, spec, *, into=None):
            batch = read(source, cells, spec, into=into)
            ring = spec.lattice.halo - known(spec)
            inner = batch[:, ring:-ring, ring:-ring].copy()
            batch[:] = 255
            batch[:, ring:-ring, ring:-ring] = inner
            return batch

        patch.setattr(inference, "read_windows", blinkered)

    return mutate


def origin_off_by_one(patch):
    window_box = Lattice.window_box
    patch.setattr(Lattice, "window_box", lambda self, cell: window_box(self, cell).shift(1, 1))


def one_window_a_work_unit(patch):
    """The window is as large as the work: what a network that looks at all of its window then says
    depends on it."""

    def predict(model, task, spec, source, cells, *, device):
        lattice = spec.lattice
        whole = lattice.core_box(cells[0])
        for cell in cells:
            whole = whole.union(lattice.core_box(cell))
        window = whole.pad(lattice.halo)
        with torch.inference_mode():
            output = model(inference.normalise(torch.from_numpy(source.read(window)[None]), spec))
        for cell in cells:
            part = output[(..., *lattice.window_box(cell).slices_in(window))]
            yield cell, task.decode(task.answer(part, spec), [cell], spec)[0]

    patch.setattr(inference, "predict_cells", predict)


def min_max_of_each_window(patch):
    def stretched(rgb, spec):
        values = rgb.to(torch.float32).permute(0, 3, 1, 2)
        low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
        return (values - low) / (high - low).clamp(min=1)

    patch.setattr(inference, "normalise", stretched)


def closed_shards(patch):
    """Objects whose anchor lies on the first row or column of the next shard belong to this one
    too."""
    decode = instance.decode_shard

    def closed(read, core, **options):
        return decode(read, Box(core.row0, core.col0, core.row1 + 1, core.col1 + 1), **options)

    patch.setattr(instance, "decode_shard", closed)


def closed_cores(patch):
    """Candidates of the head cells on the first row or column of the next core are emitted here
    too."""
    emit = detection.candidates_of

    def closed(score, class_id, sides, cell, spec):
        if spec.lattice.core > SQUARE.shard:  # the reference's one pass, which has no cores
            return emit(score, class_id, sides, cell, spec)
        box, core = spec.lattice.window_box(cell), spec.lattice.core_box(cell)
        side = box.height
        everything = replace(
            spec, lattice=Lattice(core=side, halo=0, stride=spec.lattice.stride, shard=side)
        )
        found = emit(score, class_id, sides, (0, 0), everything)
        anchor = found.cell + np.array([box.row0, box.col0], np.int32)
        keep = ((anchor >= [core.row0, core.col0]) & (anchor <= [core.row1, core.col1])).all(axis=1)
        move = 16 * np.array([box.col0, box.row0] * 2, np.int32)
        return Candidates(
            found.box[keep] + move, found.score[keep], found.class_id[keep], anchor[keep]
        )

    patch.setattr(detection, "candidates_of", closed)


def merging_in_completion_order(patch):
    infer, finished = steps.infer_shards, {}

    def recorded(work, model, shards, source, at_hand, **options):
        receipts = infer(work, model, shards, source, at_hand, **options)
        order = finished.setdefault(work.folder, {})
        for shard in shards:
            order.pop(shard, None)
            order[shard] = True
        return receipts

    patch.setattr(steps, "infer_shards", recorded)
    patch.setattr(WorkView, "shards", property(lambda self: list(finished[self.work.folder])))


def suppression_without_an_order_of_ties(patch):
    """Equal scores are decided by the place in the input."""
    suppress = detection.suppress

    def tied(candidates, **options):
        place = np.zeros((len(candidates), 2), np.int32)
        place[:, 0] = np.arange(len(candidates))
        return suppress(replace(candidates, cell=place), **options)

    patch.setattr(detection, "suppress", tied)


def suppression_in_each_shard(patch):
    """The best of each shard alone, then of what is left: what tools do that suppress inside a
    window."""
    select, suppress = detection.select, detection.suppress

    def alone(candidates, score):
        found = select(candidates, score)
        kept = suppress(found, iou=0.3)
        return found.take(kept)

    patch.setattr(detection, "select", alone)


def objects_cut_at_their_first_block(patch):
    decode = instance.decode_shard
    patch.setattr(instance, "decode_shard", lambda read, core, *, rule, slide: decode(
        read, core, slide=core.pad(5).intersect(slide), rule=rule))  # fmt: skip


def regions_not_joined_over_faces(patch):
    patch.setattr(components, "face_pairs", lambda strips, first: np.zeros((0, 2), np.int64))


def regions_joined_where_they_touch(patch):
    """Touching taken for being one: classes are not looked at."""
    join = components.face_pairs

    def any_class(strips, first):
        blind = {
            s: {side: np.where(a > 0, [1, 0] * a + [0, 1], a) for side, a in of.items()}
            for s, of in strips.items()
        }
        return join(blind, first)

    patch.setattr(components, "face_pairs", any_class)


MUTATIONS = {
    "disjoint tiles, semantic": (
        less_halo(lambda spec: 0),
        one_pass("semantic", "crowded ellipses"),
    ),
    "disjoint tiles, instance": (
        less_halo(lambda spec: 0),
        one_pass("instance", "discs of the halo"),
    ),
    "disjoint tiles, detection": (
        less_halo(lambda spec: 0),
        one_pass("detection", "crowded ellipses"),
    ),
    "a halo one stride short, stride 4": (
        less_halo(lambda spec: spec.lattice.halo - spec.lattice.stride),
        one_pass("instance", "noise"),
    ),
    "a halo one stride short, stride 8": (
        less_halo(lambda spec: spec.lattice.halo - spec.lattice.stride),
        one_pass("semantic", "noise", layout=BLOCKS),
    ),
    "origin + 1, semantic": (origin_off_by_one, one_pass("semantic", "crowded ellipses")),
    "origin + 1, detection": (origin_off_by_one, one_pass("detection", "crowded ellipses")),
    "instance norm without canonical windows": (
        one_window_a_work_unit,
        schedules("instance", "crowded ellipses", normed=True),
    ),
    "min-max of each window": (
        min_max_of_each_window,
        one_pass("instance", "disjoint ellipses", plateaus=False),
    ),
    "closed shards": (closed_shards, one_pass("instance", "checkerboard")),
    "closed cores": (closed_cores, one_pass("detection", "coarse checkerboard")),
    "merging in completion order, instance": (
        merging_in_completion_order,
        on_disk("instance", "crowded ellipses"),
    ),
    "suppression without an order of ties": (
        suppression_without_an_order_of_ties,
        one_pass("detection", "crowded ellipses"),
    ),
    "suppression without an order of ties, merger alone": (
        suppression_without_an_order_of_ties,
        suppression(3),
    ),
    "suppression in each shard": (
        suppression_in_each_shard,
        one_pass("detection", "disjoint ellipses"),
    ),
    "suppression in each shard, merger alone": (suppression_in_each_shard, suppression(3)),
    "objects cut at their first block": (
        objects_cut_at_their_first_block,
        one_pass("instance", "serpentine"),
    ),
    "regions not joined over faces": (regions_not_joined_over_faces, labels_of_chunks(3)),
    "regions joined where they touch": (regions_joined_where_they_touch, labels_of_chunks(3)),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_suite_notices(name, monkeypatch):
    mutate, gated = MUTATIONS[name]
    torch.set_num_threads(1)
    gated()
    with monkeypatch.context() as patch:
        mutate(patch)
        with pytest.raises(AssertionError) as noticed:
            gated()
    print(f"{name}: {str(noticed.value).splitlines()[0][:150]}")  # noqa: T201
    gated()


def test_a_window_as_large_as_the_work_does_no_harm_to_a_network_that_sees_no_further_than_its_halo(
    monkeypatch,
):
    one_window_a_work_unit(monkeypatch)
    schedules("instance", "crowded ellipses", normed=False)()


def test_a_halo_that_still_holds_all_that_the_oracle_reads_does_no_harm(monkeypatch):
    """White beyond R is allowed: the gate turns on the halo, not on the mere change of pixels."""
    less_halo(lambda spec: spec.lattice.halo - 1)(monkeypatch)  # R = halo - 1
    one_pass("instance", "noise")()
