"""Small annotated pictures, and folders with a manifest and a pipeline that trains on them."""

import json
from contextlib import suppress
from functools import partial

import numpy as np
from PIL import Image

from helpers import fields
from helpers.runs import quadrat, write_pipeline
from quadrat.config.pipeline import load_pipeline
from quadrat.core.errors import StoreError
from quadrat.training.job import train_package
from quadrat.training.plan import train_all, training_of

SIDE = 96
MODEL = {"core": 64, "halo": 32, "shard": 128, "mpp": 0.5, "widths": [4, 6, 8]}
TRAIN = {
    "steps": 4,
    "batch": 2,
    "patch": 64,
    "warmup": 1,
    "validate_every": 2,
    "calibrate": "f1",
    "checkpoint_every_s": -1.0,
}
COLUMNS = "slide,annotation,mpp,annotated,split,case,fold"
THREE = ((0, "train", "a", ""), (1, "train", "b", ""), (2, "val", "c", ""))
"""Rows of a manifest: two pictures to learn from, one to validate on."""


def refuse(reason):
    raise StoreError(reason)


def write_pictures(folder, *, count=6):
    """Pictures 0.png, 1.png, ... with label images 0.labels.png, ..."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        labels = fields.ellipses(np.random.default_rng(seed), (SIDE, SIDE), n=12)
        grey = np.where(labels > 0, 90, 220) + rng.integers(0, 20, labels.shape)
        rgb = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(rgb).save(folder / f"{seed}.png")
        Image.fromarray(labels.astype(np.uint16)).save(folder / f"{seed}.labels.png")
    return folder


class Place:
    """A folder with a manifest and a pipeline of its own."""

    def __init__(self, folder, pictures):
        self.folder, self.pictures = folder, pictures
        self.pipeline = folder / "p.yaml"

    def manifest(self, *rows):
        """Rows of (number, split, case, fold)."""
        here = self.pictures
        lines = [
            f"{here}/{n}.png,{here}/{n}.labels.png,0.5,all,{split},{case},{fold}"
            for n, split, case, fold in rows
        ]
        (self.folder / "train.csv").write_text("\n".join([COLUMNS, *lines]) + "\n")
        return self

    def write(self, *, train=None, model=None, **sections):
        """The pipeline file."""
        write_pipeline(
            self.pipeline,
            "instance",
            package=self.folder / "package",
            manifest=self.folder / "train.csv",
            classes=[{"name": "nucleus"}],
            model=MODEL | {"package": str(self.folder / "package")} | (model or {}),
            data={
                "annotations": "labels",
                "tissue": "all",
                "manifest": str(self.folder / "train.csv"),
            },
            train=TRAIN | (train or {}),
            **sections,
        )
        return self

    def train(self, *words):
        """As a user does it."""
        return quadrat("train", self.pipeline, *words)

    def load(self, *settings):
        return load_pipeline(str(self.pipeline), settings)

    def train_here(self, *settings, overwrite=False, callback=None):
        """As the command does it, with a callback of the training loop."""
        return train_all(
            [training_of(self.load(*settings))],
            overwrite=overwrite,
            train_one=partial(train_package, callback=callback),
        )

    def job(self, *settings):
        """The job of the training, its slides planned."""
        jobs = []
        with suppress(StoreError):
            train_all(
                [training_of(self.load(*settings))],
                train_one=lambda job: jobs.append(job) or refuse("it is only planned"),
            )
        return jobs[0]

    def card(self, name="package"):
        return json.loads((self.folder / name / "card.json").read_text())

    def checkpoint(self, name="package"):
        return json.loads(
            (self.folder / f"{name}.training" / "checkpoints" / "checkpoint.json").read_text()
        )

    def written(self):
        """What a training has written."""
        return sorted(
            p.name for p in self.folder.iterdir() if p.name not in ("p.yaml", "train.csv")
        )
