"""A small training in memory: a slide with planted objects, a specification, and ways to stop it
half way."""

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from helpers import fields
from quadrat.annotations.types import SlideTruth
from quadrat.config.pipeline import TrainSection
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.models.task import ModelSpec
from quadrat.slides.array import ArraySlide
from quadrat.slides.source import source_of
from quadrat.tasks import get_task
from quadrat.training.batches import Samples, collated
from quadrat.training.loop import Validation, train
from quadrat.training.samples import WindowSet
from quadrat.training.truth import TrainingSlide

CFG = TrainSection(
    steps=24, batch=2, patch=32, warmup=3, seed=5, precision="fp32", checkpoint_every_s=1e9
)
CPU = torch.device("cpu")
SLIDE = (70, 90)


class Stop(Exception):
    """Raised in the middle of a training, as an interrupt would be."""


class Planted:
    """A truth held in memory at a scale of 1."""

    classes = ("a", "b")

    def __init__(self, labels):
        self.labels = np.pad(labels, 100)
        self.class_id = fields.random_classes(labels, 2, 0).astype(np.int64)

    def instances(self, box, scale):
        part = self.labels[box.row0 + 100 : box.row1 + 100, box.col0 + 100 : box.col1 + 100]
        present = np.unique(part[part > 0])
        rename = np.zeros(len(self.class_id) + 1, np.int32)
        rename[present] = np.arange(1, len(present) + 1)
        return rename[part], self.class_id[present - 1]

    def regions(self, box, scale):
        labels, class_id = self.instances(box, scale)
        return np.concatenate([[0], class_id + 1]).astype(np.uint8)[labels]

    def boxes(self, box, scale):
        labels, class_id = self.instances(box, scale)
        rows = [
            (w[1].start, w[0].start, w[1].stop, w[0].stop) for w in ndimage.find_objects(labels)
        ]
        return np.array(rows, np.float64).reshape(-1, 4) + [box.col0, box.row0] * 2, class_id

    def points(self, box, scale):
        raise NotImplementedError


def spec_for(task):
    return ModelSpec(
        task=task,
        classes=(ClassInfo("a", (1, 2, 3)), ClassInfo("b", (4, 5, 6))),
        mpp=0.5,
        lattice=Lattice(core=32, halo=8, stride=8, shard=32),
        widths=(4, 6, 8),
        thresholds={},
    )


def data_for(task, spec, patch=32):
    labels = fields.ellipses(np.random.default_rng(0), SLIDE, n=30)
    rgb = np.random.default_rng(1).integers(0, 60, (*SLIDE, 3)).astype(np.uint8)
    rgb[labels == 0] += 150
    truth = Planted(labels)
    source = source_of(ArraySlide(rgb, mpp=0.5), mpp=0.5)
    slide = TrainingSlide("s", source, [(0, 0), (0, 1), (1, 0), (1, 1)], SlideTruth(truth, truth))
    return WindowSet([slide], task, spec, patch=patch)


def trained(folder, cfg=CFG, *, task="instance", data=None, **options):
    kind, spec = get_task(task), spec_for(task)
    return train(
        kind, spec, data or data_for(kind, spec), cfg, device=CPU, folder=folder, **options
    )


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a)


def stop_at(kind, done):
    """A callback that ends the training at the event of this kind after so many steps."""

    def callback(event):
        if (event.kind, event.done) == (kind, done):
            raise Stop

    return callback


def no_step(event):
    """A callback of a training that must do nothing."""
    raise AssertionError(f"a step was taken: {event}")


def batch_of(data, step, *, size, seed, augment, balance=False):
    """(pixels, targets) of one step as arrays."""
    cfg = TrainSection(steps=step + 1, batch=size, seed=seed, augment=augment, balance=balance)
    samples = Samples(data, cfg)
    rgb, targets = collated([samples[number] for number in samples.at(step)])
    return rgb.numpy(), {name: target.numpy() for name, target in targets.items()}


class Planned:
    """A validation that gives planned figures in turn by the step that the weights have seen, and
    keeps those weights.

    ``figures``: by how many-th validation it is. The step is told by the batch norms, which count
    their batches.
    """

    def __init__(self, figures, *, every):
        self.figures, self.every = figures, every
        self.weights, self.asked = {}, Counter()

    def measure(self, model):
        assert not model.training
        counts = {
            int(v) for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")
        }
        (step,) = counts
        self.asked[step] += 1
        self.weights[step] = {k: v.clone() for k, v in model.state_dict().items()}
        return {"other": -1.0, "score": self.figures[-(-step // self.every) - 1]}


def validated(
    folder, figures, *, every, steps=None, cfg=CFG, validate=..., disturb=None, **options
):
    """(result, plan) of a training that is validated after ``every`` steps, with a figure planned
    for each time.

    ``validate``: train.validate_every, where it is another; ``disturb``: called at each validation.
    """
    plan = Planned(figures, every=every)

    def measure(model):
        if disturb is not None:
            disturb(model)
        return plan.measure(model)

    cfg = replace(
        cfg,
        steps=steps or every * len(figures),
        validate_every=every if validate is ... else validate,
    )
    return trained(folder, cfg, validation=Validation(measure, "score"), **options), plan
