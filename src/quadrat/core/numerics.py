"""What a machine computes with, as far as the last bits of a network's answer depend on it. torch
is not imported for it: a driver and a worker that starts again are not to wait for that."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
Inference = Literal["fp32", "bf16"]
"""Precision of a forward pass."""
BF16: Inference = "bf16"
_COMPUTES_BF16 = {"avx512_bf16", "amx_bf16"}
"""Processors with neither of these extensions compute in bf16 slower than in fp32."""
_EXTENSIONS = re.compile(r"avx\w*|fma|amx\w*|sve\w*|asimd\w*|bf16|i8mm")


@dataclass(frozen=True, slots=True)
class Numerics:
    """What the forward passes of a process are computed with."""

    device: str
    """Type of the torch device: "cpu", "cuda", "mps"."""
    text: str
    """Versions and hardware. Equal texts give equal bits."""
    bf16: bool = False
    """Whether the device computes in bf16."""
    inference: Inference = "fp32"
    """The precision of the network."""

    def of(self, inference: Inference, *, batch: int) -> Numerics:
        """Those of a run that asks for a precision, with so many windows in a pass."""
        got: Inference = BF16 if inference == BF16 and self.bf16 else "fp32"
        words = [self.text, *([got] if got == BF16 else [])]
        words += [f"{batch} windows"] if batch > 1 else []
        return replace(self, text=", ".join(words), inference=got)


def cpu_numerics(threads: int) -> Numerics:
    """That of torch on this machine's processor, with so many threads."""
    parts = (
        f"torch {torch_version()}",
        f"{platform.machine()} {cpu_extensions()}".rstrip(),
        f"{threads} thread{'s' if threads > 1 else ''}",
    )
    return Numerics("cpu", ", ".join(parts), bf16=computes_bf16("cpu"))


def device_numerics(device: str, threads: int) -> Numerics:
    """That of a torch device by name; for one that is not the processor torch is imported."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return cpu_numerics(threads)
    parts = [f"torch {torch_version()}", kind]
    if kind == "cuda":
        import torch

        about = torch.cuda.get_device_properties(device)
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        parts.append(f"cuda {torch.version.cuda}, cudnn {cudnn}")
        parts.append(f"{about.name} {about.major}.{about.minor}")
    return Numerics(kind, ", ".join(parts), bf16=computes_bf16(device))


@cache
def computes_bf16(device: str) -> bool:
    """Whether a torch device by name computes in bf16, and does not only imitate it."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    return kind == "cpu" and not _COMPUTES_BF16.isdisjoint(cpu_extensions().split("+"))


def torch_version() -> str:
    """As the installed package states it."""
    return importlib.metadata.version("torch")


def cpu_extensions() -> str:
    """The vector instructions that libraries choose their kernels by, sorted; "" if the system does
    not say."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    words = set(flags.group(1).split()) if flags else set()
    return "+".join(sorted(word for word in words if _EXTENSIONS.fullmatch(word)))
