"""Folders of small flat images, no two alike."""

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64


def picture(path, seed=0):
    """A flat image that differs from every other seed's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    ).save(path)


def slides(folder, names):
    for seed, name in enumerate(names):
        picture(folder / name, seed)
