"""What a machine computes with, as far as the last bits of a network's answer depend on it. torch
is not imported for it: a driver and a worker that starts again are not to wait for that."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_EXTENSIONS = re.compile(r"avx\w*|fma|amx\w*|sve\w*|asimd\w*|bf16|i8mm")


@dataclass(frozen=True, slots=True)
class Numerics:
    """What the forward passes of a process are computed with."""

    device: str
    """Type of the torch device: "cpu", "cuda", "mps"."""
    text: str
    """Versions and hardware. Equal texts give equal bits."""


def cpu_numerics(threads: int) -> Numerics:
    """That of torch on this machine's processor, with so many threads."""
    parts = (
        f"torch {torch_version()}",
        f"{platform.machine()} {cpu_extensions()}".rstrip(),
        f"{threads} thread{'s' if threads > 1 else ''}",
    )
    return Numerics("cpu", ", ".join(parts))


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
    return Numerics(kind, ", ".join(parts))


def torch_version() -> str:
    """As the installed package states it."""
    return importlib.metadata.version("torch")


def cpu_extensions(path: Path = CPUINFO) -> str:
    """The vector instructions that libraries choose their kernels by, sorted; "" if the system does
    not say."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    words = set(flags.group(1).split()) if flags else set()
    return "+".join(sorted(word for word in words if _EXTENSIONS.fullmatch(word)))
