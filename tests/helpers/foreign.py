"""Networks as other people have them, small and with known answers: each finds the dark discs of a
picture, and gives what one decoder reads. Slides that they find something on."""

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

RADIUS = 8
"""Of the discs in px."""


def mean(x: Tensor, side: int) -> Tensor:
    """Box filter of an odd side."""
    return functional.avg_pool2d(x, side, 1, side // 2)


def inside(image: Tensor) -> Tensor:
    """(b, 1, h, w) about 1 in discs and 0 elsewhere, of RGB in 0-1."""
    return torch.sigmoid((0.6 - mean(image.mean(dim=1, keepdim=True), 3)) * 30)


def kinds(image: Tensor) -> Tensor:
    """Logits (b, 2, h, w): more red, more blue."""
    red = mean(image[:, :1] - image[:, 2:], 5) * 20
    return torch.cat([red, -red], dim=1)


class Tiles(nn.Module):
    """Scores of a tile for red and blue."""

    def forward(self, image: Tensor) -> Tensor:
        return (kinds(image) * inside(image)).mean(dim=(2, 3)) * 20


class Areas(nn.Module):
    """Background, red, blue."""

    def __init__(self, stride: int = 1):
        super().__init__()
        self.step = stride

    def forward(self, image: Tensor) -> Tensor:
        fg = inside(image)
        maps = torch.cat([(0.5 - fg) * 20, kinds(image) + (fg - 0.5) * 20], dim=1)
        return functional.avg_pool2d(maps, self.step) if self.step > 1 else maps


class Normalised(nn.Module):
    """The same after each window is stretched to its own range."""

    def __init__(self):
        super().__init__()
        self.areas = Areas()

    def forward(self, image: Tensor) -> Tensor:
        low = image.amin(dim=(2, 3), keepdim=True)
        high = image.amax(dim=(2, 3), keepdim=True)
        return self.areas((image - low) / (high - low + 1e-3))


class Distances(nn.Module):
    """Logits of foreground, inner distance, red, blue."""

    def forward(self, image: Tensor) -> Tensor:
        fg = inside(image)
        deep = mean(fg, 9) * 2 - 1.2
        return torch.cat([(fg - 0.5) * 20, deep * 10, kinds(image)], dim=1)


class Hover(nn.Module):
    """np, hv and type, by MONAI's names; half a window's border is not answered (no padding)."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        fg = inside(image)
        soft = mean(fg, 17)
        across = functional.pad(soft[..., 2:] - soft[..., :-2], (1, 1)) * -16
        down = functional.pad(soft[:, :, 2:] - soft[:, :, :-2], (0, 0, 1, 1)) * -16
        crop = 16
        maps = {
            "nucleus_prediction": torch.cat([(0.5 - fg) * 10, (fg - 0.5) * 10], dim=1),
            "horizontal_vertical": torch.cat([across, down], dim=1).clamp(-1, 1),
            "type_prediction": torch.cat([(0.5 - fg) * 20, kinds(image)], dim=1),
        }
        return {name: m[:, :, crop:-crop, crop:-crop] for name, m in maps.items()}


class Stars(nn.Module):
    """Probability and 16 rays in one tensor, a cell for each 2 x 2 px."""

    def forward(self, image: Tensor) -> Tensor:
        fg = inside(image)
        probability = functional.avg_pool2d(mean(fg, 13), 2)
        rays = torch.full_like(probability, float(RADIUS)).expand(-1, 16, -1, -1)
        return torch.cat([probability, rays], dim=1)


class Flows(nn.Module):
    """Flows down and across, and logits of a cell."""

    def forward(self, image: Tensor) -> Tensor:
        fg = inside(image)
        soft = mean(fg, 17)
        across = functional.pad(soft[..., 2:] - soft[..., :-2], (1, 1)) * 40
        down = functional.pad(soft[:, :, 2:] - soft[:, :, :-2], (0, 0, 1, 1)) * 40
        return torch.cat([down, across, (fg - 0.5) * 20], dim=1)


class Heat(nn.Module):
    """Heat of red and blue centres, probabilities."""

    def forward(self, image: Tensor) -> Tensor:
        return mean(inside(image), 13) * torch.softmax(kinds(image), dim=1)


class Listed(nn.Module):
    """Boxes like torchvision's detection models, a list of pictures to a list of dictionaries."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = []
        for image in images:
            red = image[:1] - image[2:]
            fg = torch.sigmoid((0.6 - image.mean(dim=0, keepdim=True)) * 30)
            heat = functional.avg_pool2d(fg[None], 13, 1, 6)[0, 0]
            best = functional.max_pool2d(heat[None, None], 9, 1, 4)[0, 0]
            at = torch.nonzero((heat == best) & (heat > 0.6))
            y, x = at[:, 0].float() + 0.5, at[:, 1].float() + 0.5
            boxes = torch.stack([x - 8, y - 8, x + 8, y + 8], dim=1)
            labels = (red[0][at[:, 0], at[:, 1]] < 0).long() + 1
            scores = heat[at[:, 0], at[:, 1]]
            found.append({"boxes": boxes, "labels": labels, "scores": scores})
        return found


class Numbers(nn.Module):
    """A label image: each square of 32 px has a number, on discs."""

    def forward(self, image: Tensor) -> Tensor:
        rows = torch.arange(image.shape[2])[:, None] // 32
        cols = torch.arange(image.shape[3])[None, :] // 32
        return (inside(image)[:, 0] > 0.5).to(torch.int32) * (1 + rows * 64 + cols).to(torch.int32)


def traced(module, path, *, side=64):
    """A TorchScript file."""
    torch.jit.save(torch.jit.trace(module.eval(), torch.rand(2, 3, side, side), strict=False), path)
    return path


def exported(module, path, *, side=64, batch=2, fixed=False):
    """A file of ``torch.export``."""
    auto = None if fixed else ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO,
                                3: torch.export.Dim.AUTO},)  # fmt: skip
    program = torch.export.export(
        module.eval(), (torch.rand(batch, 3, side, side),), dynamic_shapes=auto
    )
    torch.export.save(program, path)
    return path


TWO = [{"name": "red", "color": [200, 40, 40]}, {"name": "blue", "color": [40, 40, 200]}]


def card(decoder, **keys):
    """Keys of an import card."""
    return {"decoder": decoder, "classes": TWO, "mpp": 0.5, "license": "CC0-1.0", **keys}


def write_card(path, decoder, **keys):
    """An import card."""
    path.write_text(yaml.safe_dump(card(decoder, **keys)))
    return path


def discs(height=420, width=460, *, seed=0, count=170):
    """RGB of a slide with red and blue discs that may touch, anywhere, its border too."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 235, np.float64) + rng.normal(0, 4, (height, width, 3))
    rows, cols = np.mgrid[:height, :width]
    for _ in range(count):
        y, x = rng.integers(0, height), rng.integers(0, width)
        disc = (rows - y) ** 2 + (cols - x) ** 2 < RADIUS**2
        image[disc] = (150, 60, 60) if rng.random() < 0.5 else (60, 60, 150)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_slide(path, **options):
    """A slide file."""
    Image.fromarray(discs(**options)).save(path)
    return path
