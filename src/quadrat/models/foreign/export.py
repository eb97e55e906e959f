"""Writing a module of torch as a file that can be imported."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn
from torch.export import save

from quadrat.core.errors import PackageError
from quadrat.core.files import new_file, write_file


def save_module(
    module: nn.Module, folder: Path, *, side: int, layout: str = "NCHW"
) -> tuple[Path, str]:
    """Write a module as ``torch.export``, or traced as TorchScript where that cannot be done; the
    file, and a note if it is the latter. ``side``: of a window in px.

    Raises:
        PackageError: neither can be done.
    """
    module = module.to("cpu").eval()
    image = torch.zeros((2, 3, side, side) if layout == "NCHW" else (2, side, side, 3))
    path, why = folder / "network.pt2", ""
    try:
        rows, cols = (2, 3) if layout == "NCHW" else (1, 2)
        auto = torch.export.Dim.AUTO
        program = torch.export.export(
            module, (image,), dynamic_shapes=({0: auto, rows: auto, cols: auto},)
        )
        with new_file(path) as stream:
            save(program, stream)
        return path, ""
    except Exception as error:  # what cannot be exported says so in many ways
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # its deprecation, and every shape that becomes fixed
            script = torch.jit.trace(module, image, strict=False)  # type: ignore[no-untyped-call]
        path = folder / "network.pt"
        write_file(path, script.save_to_buffer())
    except Exception as error:
        raise PackageError(
            f"the network can neither be exported by torch.export ({why}) nor traced "
            f"({type(error).__name__}: {error})"
        ) from error
    return path, f"traced as TorchScript, because torch.export cannot take it ({why})"
