"""What a faultless foreign network would answer for a field of objects, and a slide of such answers
cut into windows: the shipped decoders, tasks and stitching between both."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from helpers.fields import ndimage
from helpers.schedules import Answer, MemoryView, renumbered, stitched
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo, Frame
from quadrat.core.predictions import MaskCandidates
from quadrat.models.foreign.head import ForeignHead
from quadrat.models.task import ModelSpec
from quadrat.tasks import get_task


@dataclass(frozen=True)
class Raw:
    """The outputs of a network for a whole slide (c, rows, cols), by name, and the value of each
    beyond the slide."""

    maps: dict
    beyond: dict

    def window(self, box, out_stride):
        """The outputs (1, c, h, w) for a box in grid px, which may reach outside."""
        cells = [side // out_stride for side in (box.row0, box.col0, box.row1, box.col1)]
        out = {}
        for name, whole in self.maps.items():
            rows, cols = (np.arange(cells[i], cells[i + 2]) for i in (0, 1))
            inside = ((rows >= 0) & (rows < whole.shape[1]))[:, None] & (
                (cols >= 0) & (cols < whole.shape[2])
            )
            cut = whole[:, rows.clip(0, whole.shape[1] - 1)][:, :, cols.clip(0, whole.shape[2] - 1)]
            cut = np.where(inside, cut, self.beyond.get(name, 0)).astype(whole.dtype)
            out[name] = torch.from_numpy(cut[None])
        return out


@dataclass
class View(MemoryView):
    """A slide in memory, with the selection of the tasks that have one."""

    @cached_property
    def predictions(self):
        if self.spec.task != "instance_masks":
            return MemoryView.predictions.func(self)
        return self

    def read(self, shard, *, pixels=True):
        found = [self.stored[shard][cell] for cell in sorted(self.stored[shard])]
        masks = MaskCandidates.concatenate(found)
        bare = {"starts": np.zeros(len(masks) + 1, np.int64), "bits": np.zeros(0, np.uint8)}
        return masks if pixels else replace(masks, **bare)

    @cached_property
    def chosen(self):
        return get_task(self.spec.task).parts.select(self)

    def selection(self):
        return self.chosen


def spec_of(decoder, head, lattice, **thresholds):
    """A specification in which only the decoder's own thresholds and those given differ from the
    task's."""
    own = dict(get_task(decoder.task).default_thresholds) | dict(decoder.thresholds)
    return ModelSpec(
        task=decoder.task,
        classes=tuple(ClassInfo(f"class {i}", (40 * i, 0, 200)) for i in range(head.classes)),
        mpp=head.mpp,
        lattice=lattice,
        widths=(8,),
        thresholds=own | thresholds,
    )


def decoded(decoder, raw, head, spec, shape):
    """The slide as stitching sees it, each core from its own window."""
    frame = Frame(height=shape[0], width=shape[1], mpp=head.mpp, scale_row=1.0, scale_col=1.0)
    lattice, task, stored = spec.lattice, get_task(spec.task), {}
    for cell in lattice.cores(frame.box):
        outputs = raw.window(lattice.window_box(cell), head.out_stride)
        with torch.inference_mode():
            found = decoder.adapt(outputs, head)
            if isinstance(found, torch.Tensor):
                for dim in (2, 3):
                    found = found.repeat_interleave(head.out_stride, dim=dim)
            stored.setdefault(lattice.shard_of(cell), {})[cell] = task.decode(
                task.answer(found, spec), [cell], spec
            )[0]
    return View(spec, frame, stored)


def tiled(decoder, raw, head, lattice, shape, **thresholds):
    """The slide's answer from the lattice's windows."""
    spec = spec_of(decoder, head, lattice, **thresholds)
    return stitched(decoded(decoder, raw, head, spec, shape))


def untiled(decoder, raw, head, lattice, shape, **thresholds) -> Answer:
    """The slide's answer from one window over all of it, with the ids that ``lattice`` gives."""
    side = -(-max(shape) // lattice.core) * lattice.core
    one = Lattice(core=side, halo=lattice.halo, stride=lattice.stride, shard=side)
    spec = spec_of(decoder, head, one, **thresholds)
    view = decoded(decoder, raw, head, spec, shape)
    if spec.task == "instance_masks":  # masks overlap, so ids are needed before they are painted
        found, shards = view.read((0, 0)), lattice.shards(view.frame.box)
        own = found.cell // lattice.shard
        stored = {s: {(0, 0): found.take((own == s).all(axis=1))} for s in shards}
        return stitched(View(replace(spec, lattice=lattice), view.frame, stored))
    return renumbered(stitched(view), side=lattice.shard)


def matched(answer, labels):
    """For each object of the field the IoU with the found object that covers most of it, from the
    label image."""
    image = answer.image.astype(np.int64)
    out = []
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        mine = labels[where] == label
        ids = image[where][mine]
        ids = ids[ids > 0]
        if not len(ids):
            out.append(0.0)
            continue
        best = np.bincount(ids).argmax()
        shared = (ids == best).sum()
        out.append(shared / (mine.sum() + (image == best).sum() - shared))
    return np.array(out)


def centres(labels):
    """(n, 2) means of the pixel centres of each label, corner-based."""
    return (
        np.array(ndimage.center_of_mass(labels > 0, labels, np.arange(1, labels.max() + 1))) + 0.5
    )


def hover(labels):
    """Distances (2, h, w) across and down from each object's centre, scaled to -1..1 on either
    side; 0 outside."""
    out = np.zeros((2, *labels.shape), np.float32)
    for (row, col), where in zip(centres(labels) - 0.5, ndimage.find_objects(labels), strict=True):
        mine = labels[where] == labels[round(row), round(col)]
        r, c = np.mgrid[where]
        for channel, away in enumerate((c - col, r - row)):
            scaled = away.astype(np.float32)
            for side in (away < 0, away > 0):
                part = side & mine
                if part.any():
                    scaled[part] /= np.abs(away[part]).max()
            out[channel][where][mine] = scaled[mine]
    return out


def flows(labels):
    """Unit flows (2, h, w), down and right, towards each object's centre; 0 outside."""
    middle = np.concatenate([[[0, 0]], centres(labels) - 0.5])
    toward = middle[labels].transpose(2, 0, 1) - np.indices(labels.shape)
    length = np.maximum(np.hypot(*toward), 1)
    return np.where(labels > 0, toward / length, 0).astype(np.float32)


def diffused(labels):
    """Unit flows (2, h, w) up the heat that spreads within each object from its middle, as Cellpose
    is trained with: they lead around corners."""
    out = np.zeros((2, *labels.shape), np.float32)
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        mine = np.pad(labels[where] == label, 1)
        row, col = np.nonzero(mine)
        middle = np.argmin((row - np.median(row)) ** 2 + (col - np.median(col)) ** 2)
        heat = np.zeros(mine.shape)
        for _ in range(4 * max(mine.shape)):
            heat[row[middle], col[middle]] += 1
            heat = ndimage.uniform_filter(heat, 3) * mine
        slope = np.stack(np.gradient(np.log1p(heat)))
        slope /= np.hypot(*slope) + 1e-20
        inner = mine[1:-1, 1:-1]
        for channel in (0, 1):
            out[channel][where][inner] = slope[channel, 1:-1, 1:-1][inner]
    return out


def stars(labels, *, rays, out_stride=1):
    """Probability (1, h, w), 1 in the middle of an object and 0 at its border, and distances (n, h,
    w) in px to where a ray leaves the object; at every ``out_stride``-th pixel."""
    rows, cols = (np.arange(0, side, out_stride) for side in labels.shape)
    own = labels[np.ix_(rows, cols)]
    r, c = np.meshgrid(rows, cols, indexing="ij")
    distance = np.zeros((rays, *own.shape), np.float32)
    for k in range(rays):
        angle = 2 * np.pi * k / rays
        going = own > 0
        for step in range(1, 4 * max(labels.shape)):
            if not going.any():
                break
            at = [np.round(a + step / 4 * b).astype(int) for a, b in
                  ((r, np.sin(angle)), (c, np.cos(angle)))]  # fmt: skip
            on = (at[0] >= 0) & (at[1] >= 0) & (at[0] < labels.shape[0]) & (at[1] < labels.shape[1])
            same = labels[at[0].clip(0, labels.shape[0] - 1), at[1].clip(0, labels.shape[1] - 1)]
            going = going & on & (same == own)
            distance[k][going] = step / 4
        distance[k][own > 0] += 0.25
    inner = np.zeros(labels.shape, np.float32)
    for label, where in enumerate(ndimage.find_objects(labels), start=1):
        mine = np.pad(labels[where] == label, 1)
        depth = ndimage.distance_transform_edt(mine)
        inner[where] += (depth / depth.max())[1:-1, 1:-1].astype(np.float32)
    return inner[np.ix_(rows, cols)][None], distance


def heat(labels, *, spread, out_stride=1):
    """Gaussian peaks (1, h, w) of height 1 at the objects' centres."""
    rows, cols = ((np.arange(side // out_stride) + 0.5) * out_stride for side in labels.shape)
    out = np.zeros((len(rows), len(cols)))
    for row, col in centres(labels):
        far = (rows[:, None] - row) ** 2 + (cols[None] - col) ** 2
        out = np.maximum(out, np.exp(-far / (2 * spread**2)))
    return out[None].astype(np.float32)


def logits(probability, *, most=8.0):
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.clip(np.log(p / (1 - p)), -most, most).astype(np.float32)


def head_of(decoder, **given):
    """A head as a card makes it: the decoder's activation where none is stated."""
    return ForeignHead(**{"classes": 1, "activation": decoder.activation} | given)
