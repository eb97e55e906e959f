"""A network that finds what is dark, and takes as long as it is told: for timing all that is around
a network. Imported by benchmarks/engine.py, and by the workers that it starts (see ``put_in``).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from quadrat.engine import steps
from quadrat.models.card import read_card
from quadrat.models.package import Package
from quadrat.models.spec import spec_from_dict

SECONDS, GPU = "STANDIN_SECONDS", "STANDIN_GPU"
"""Environment: what a window takes; "" leaves the real network. Whether one worker is to believe
that it has a GPU."""
DARK, SLOPE = 0.0, 6.0


class StandIn(nn.Module):
    """Foreground and distance from the darkness of a blurred picture; ``seconds`` a window are
    slept away, as a driver of a GPU waits."""

    stride, out_stride = 16, 1

    def __init__(self, outputs: int, seconds: float) -> None:
        super().__init__()
        self.outputs, self.seconds = outputs, seconds

    def forward(self, image: Tensor) -> Tensor:
        start = time.perf_counter()
        dark = SLOPE * (DARK - functional.avg_pool2d(image[:, :1], 5, stride=1, padding=2) - 1)
        answer = dark.expand(-1, self.outputs, -1, -1)
        left = self.seconds * len(image) - (time.perf_counter() - start)
        if left > 0:
            time.sleep(left)
        return answer


def package(folder: str, card: str) -> Package:
    """The package of a folder with the stand-in for its network."""
    about = read_card(Path(folder))
    spec = spec_from_dict(about["spec"])
    return Package(StandIn(2 + len(spec.classes), float(os.environ[SECONDS])), spec, about)


def put_in() -> None:
    """Put the stand-in in the place of the network, in this process."""
    if os.environ.get(SECONDS):
        steps._package = package
    if os.environ.get(GPU):
        from quadrat.core.numerics import Numerics, device_numerics
        from quadrat.engine import crew

        real = device_numerics
        crew.visible_devices = lambda: ("stand-in",)
        crew.device_numerics = lambda device, threads: (  # type: ignore[attr-defined]
            Numerics("cuda", "stand-in") if device.startswith("cuda") else real(device, threads)
        )
        steps.pick_device = lambda name: torch.device("cpu")  # type: ignore[attr-defined]


SITE = "import standin\nstandin.put_in()\n"
"""What ``sitecustomize.py`` says in a folder of PYTHONPATH: so every worker begins with it."""
