"""Pictures of glass with tissue, pen and shadows painted on it."""

import numpy as np

MPP = 8.0
PINK, PURPLE, PALE, GLASS = (220, 150, 190), (130, 80, 150), (236, 214, 232), (242, 241, 243)
WEAK_BLUE, WEAK_BROWN = (222, 224, 236), (233, 224, 206)
PENS = {"blue": (40, 70, 170), "green": (40, 140, 70), "red": (205, 35, 45), "black": (35, 33, 38)}


def glass(height: int = 400, width: int = 600) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1.5, (height, width, 3))
    return np.clip(np.array(GLASS) + noise, 0, 255).astype(np.uint8)


def paint(
    image: np.ndarray, centre: tuple[int, int], radius: float, colour: tuple[int, int, int]
) -> np.ndarray:
    rows, cols = np.ogrid[: image.shape[0], : image.shape[1]]
    disc = (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 <= radius**2
    noise = np.random.default_rng(1).normal(0, 12, (*image.shape[:2], 1))
    image[disc] = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)[disc]
    return disc
