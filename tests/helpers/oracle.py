"""An oracle network: a fixed convolution that reads planted truth back from a slide's pixels, in
integers and exactly.

The slide carries the wanted answer as bytes, one pixel less than ``blocks * stride`` away from
where it belongs (each colour in a direction of its own), and the first two phases of every stride
exchanged. So the outermost tap decides, the receptive radius is R = ``blocks * stride``, the last
pixel of a core needs more than R - stride px of halo, and a window whose origin is not a multiple
of the stride reads nonsense. Bytes are planted as 255 - v: the white outside of a slide says
"nothing".
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from helpers import fields
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.models.task import ModelSpec
from quadrat.tasks import get_task
from quadrat.tasks.detection import CELL, SIZE_UNIT

CLASSES = 3
TASKS = ("semantic", "detection", "instance", "classification")
DIRECTIONS = (1, 1), (-1, -1), (1, -1)
"""Where each colour's answer lies: down, right."""
LEVELS = (0.55, 0.65, 0.8, 0.95)
SIDE_UNIT = 4
"""The planted distances of the detection head are in 1 / 4 px."""


class OracleNetwork(nn.Module):
    """(b, 3, h, w) in 0-1 -> what the head of ``task`` would say, by look-up of the planted bytes.

    ``normed`` puts an instance norm over the window before the look-up: a network without a finite
    receptive field.
    """

    def __init__(self, task, *, stride, blocks, normed=False):
        super().__init__()
        self.task, self.stride, self.blocks, self.normed = task, stride, blocks, normed
        self.out_stride = {"detection": CELL, "classification": 0}.get(task, 1)
        reach = blocks * stride - 1
        self.taps = nn.Conv2d(3, 3, 3, padding=reach, dilation=reach, groups=3, bias=False)
        with torch.no_grad():
            self.taps.weight.zero_()
            for channel, (down, right) in enumerate(DIRECTIONS):
                self.taps.weight[channel, 0, 1 + down, 1 + right] = 1
        self.register_buffer(
            "table",
            {"semantic": semantic_table, "detection": detection_table}.get(task, byte_table)(),
        )

    @property
    def radius(self):
        return self.blocks * self.stride

    def forward(self, image):
        s = self.stride
        phases = functional.pixel_unshuffle(self.taps(image), s).unflatten(1, (3, s, s))
        order = [1, 0, *range(2, s)]
        read = (
            1 - functional.pixel_shuffle(phases[:, :, order][:, :, :, order].flatten(1, 3), s)
        ) * 255
        if self.normed:
            read = 100 * functional.instance_norm(read) + 100
        code = read.nan_to_num(0).round().clamp(0, 255).long()
        return getattr(self, f"_{self.task}")(code) + self._not_a_number(read)

    def _not_a_number(self, read):
        """0, or NaN where a pixel that was read is NaN: what probes for the receptive field look
        for."""
        nothing = (read * 0).sum(dim=1, keepdim=True)
        if self.out_stride == 0:
            return nothing.sum(dim=(2, 3))
        return functional.avg_pool2d(nothing, self.out_stride)

    def _instance(self, code):
        classes = functional.one_hot(code[:, 2].clamp(max=CLASSES), CLASSES + 1).movedim(-1, 1)[
            :, 1:
        ]
        return torch.cat([self.table[code[:, :2]], 12 * classes.to(self.table.dtype)], dim=1)

    def _semantic(self, code):
        index = code[:, 0].clamp(max=CLASSES) * (len(LEVELS) + 1) + code[:, 1].clamp(
            max=len(LEVELS)
        )
        return self.table[index].movedim(-1, 1)

    def _detection(self, code):
        head = (
            functional.pixel_unshuffle(code.to(self.table.dtype), CELL)
            .long()
            .unflatten(1, (3, CELL * CELL))
        )
        scores = functional.one_hot(head[:, 0, 1].clamp(max=CLASSES - 1), CLASSES).movedim(-1, 1)
        best = self.table[0][head[:, 0, 0]][:, None]
        sides = self.table[1][head[:, 1, :4]]
        return torch.cat(
            [torch.where(scores > 0, best, torch.full_like(best, -30.0)), sides], dim=1
        )

    def _classification(self, code):
        counts = torch.stack([(code[:, 0] == k + 1).sum(dim=(1, 2)) for k in range(CLASSES)], dim=1)
        return torch.cat([counts, counts % 7], dim=1).to(self.table.dtype) / 16


def logit(p):
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return np.log(p / (1 - p))


def byte_table():
    """(256,) logits whose sigmoid is quantised to the very byte."""
    return torch.tensor(logit(np.arange(256) / 255), dtype=torch.float32)


def semantic_table():
    """Rows (class code, level code) of log probabilities (1 + classes,); the last level is a tie
    with the next class."""
    rows = []
    for code in range(CLASSES + 1):
        for level in LEVELS:
            p = np.full(CLASSES + 1, (1 - level) / CLASSES)
            p[code] = level
            rows.append(p)
        p = np.full(CLASSES + 1, 0.1 / (CLASSES - 1))
        p[[code, (code + 1) % (CLASSES + 1)]] = 0.45
        rows.append(p)
    return torch.tensor(np.log(rows), dtype=torch.float32)


def detection_table():
    """(2, 256): logits of the scores, and logarithms of the sides."""
    score = np.where(np.arange(256) > 0, logit(np.arange(256) / 255), -30)
    side = np.log(np.maximum(np.arange(256), 1) / SIDE_UNIT / SIZE_UNIT)
    return torch.tensor(np.stack([score, side]), dtype=torch.float32)


def spec_for(task, *, core, shard, stride, blocks, thresholds=None):
    """A package's specification whose halo is just what the oracle needs: ceil(R / s) * s."""
    return ModelSpec(
        task=task,
        classes=tuple(ClassInfo(f"class {i}", (40 * i, 0, 200)) for i in range(CLASSES)),
        mpp=0.5,
        lattice=Lattice(core=core, halo=blocks * stride, stride=stride, shard=shard),
        widths=(8,),
        thresholds=dict(get_task(task).default_thresholds)
        | DECISIONS.get(task, {})
        | (thresholds or {}),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


DECISIONS = {
    "instance": {"foreground": 128 / 255, "seed": 128 / 255, "min_area_um2": 0.0, "cap_um": 1000.0},
    "semantic": {"min_area_um2": 0.0},
    "detection": {"score": 0.3, "iou": 0.3},
}


def picture(planted, *, stride, blocks):
    """uint8 (h, w, 3) slide that carries ``planted`` (3, h, w); what would lie outside the slide is
    lost."""
    h, w = planted.shape[1:]
    reach, order = blocks * stride - 1, [1, 0, *range(2, stride)]
    whole = np.pad(planted, ((0, 0), (0, -h % stride), (0, -w % stride)))
    phases = whole.reshape(3, whole.shape[1] // stride, stride, whole.shape[2] // stride, stride)
    swapped = np.pad(
        phases[:, :, order][..., order].reshape(whole.shape),
        ((0, 0), (reach, reach), (reach, reach)),
    )
    out = np.empty((h, w, 3), np.uint8)
    for channel, (down, right) in enumerate(DIRECTIONS):
        row, col = reach * (1 - down), reach * (1 - right)
        out[..., channel] = 255 - swapped[channel, row : row + h, col : col + w]
    return out


def planted_for(task, labels, rng, *, plateaus=False):
    """Bytes (3, h, w) that the oracle turns into an answer for a field of objects.

    ``plateaus``: few values, so that scores tie and heights are level.
    """
    classes = fields.random_classes(labels, CLASSES, int(rng.integers(2**31)))
    code = np.concatenate([[0], classes + 1]).astype(np.uint8)[labels]
    return {
        "semantic": _semantic_bytes,
        "detection": _detection_bytes,
        "instance": _instance_bytes,
    }.get(task, _semantic_bytes)(labels, code, rng, plateaus)


def _semantic_bytes(labels, code, rng, plateaus):
    level = rng.integers(0, len(LEVELS) + 1, labels.max(initial=0) + 1).astype(np.uint8)[labels]
    return np.stack([code, np.zeros_like(level) if plateaus else level, np.zeros_like(level)])


def _instance_bytes(labels, code, rng, plateaus):
    distance = fields.inner_distance(labels)
    if plateaus:
        distance = np.where(labels > 0, distance // 64 * 64 + 40, 0).astype(np.uint8)
    foreground = np.where(
        labels > 0, rng.integers(128, 256, labels.max(initial=0) + 1)[labels], 0
    ).astype(np.uint8)
    return np.stack([foreground, distance, code])


def _detection_bytes(labels, code, rng, plateaus):
    """Every cell that an object touches emits its box, off by a little or by a lot: work for the
    suppression."""
    h, w = labels.shape
    out = np.zeros((3, -(-h // CELL) * CELL, -(-w // CELL) * CELL), np.uint8)
    scores = (160, 200) if plateaus else tuple(range(20, 256))
    off = int(rng.choice([2, 16]))
    for label, where in enumerate(fields.ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        rows, cols = np.nonzero(labels[where] == label)
        cells = np.unique(
            np.stack([rows + where[0].start, cols + where[1].start], axis=1) // CELL * CELL, axis=0
        )
        for row, col in cells.tolist():
            y, x = row + CELL / 2, col + CELL / 2
            sides = np.array(
                [y - where[0].start, x - where[1].start, where[0].stop - y, where[1].stop - x]
            )
            out[0, row, col], out[0, row, col + 1] = (
                rng.choice(scores),
                code[min(row, h - 1), min(col, w - 1)] % CLASSES,
            )
            out[1, row, col : col + 4] = np.clip(
                sides * SIDE_UNIT + rng.integers(-off, off + 1, 4), 1, 255
            )
    return out[:, :h, :w]


def one_pass(model, spec, rgb):
    """One forward pass over the whole slide, by the network alone: the slide with a halo of white,
    no lattice, no windows.

    Returns the task's decoded prediction of everything, and the specification (a lattice of one
    core) it was decoded with.
    """
    halo, core = spec.lattice.halo, spec.lattice.core
    side = -(-max(rgb.shape[:2]) // core) * core
    padded = np.full((side + 2 * halo, side + 2 * halo, 3), 255, np.uint8)
    padded[halo : halo + rgb.shape[0], halo : halo + rgb.shape[1]] = rgb
    one = Lattice(core=side, halo=halo, stride=spec.lattice.stride, shard=side)
    with torch.inference_mode():
        image = torch.from_numpy(padded)[None].permute(0, 3, 1, 2).to(torch.float32) / 255
        output = model(image)
    whole = ModelSpec(
        **{name: getattr(spec, name) for name in ModelSpec.__slots__} | {"lattice": one}
    )
    task = get_task(spec.task)
    return task.decode(task.answer(output, whole), [(0, 0)], whole)[0], whole
