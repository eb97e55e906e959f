"""A package as other programs run it: TorchScript, ONNX, or a model description of bioimage.io.

The network is written with its normalisation and the last activation inside: RGB in 0-255 goes in,
and probabilities come out. An import card lies beside it, so that it can be imported again.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from quadrat.core.errors import PackageError
from quadrat.core.files import new_folder, write_file
from quadrat.core.text import utc_now
from quadrat.core.unit import PX, renamed
from quadrat.models.foreign.files import ONNX_MISSING, Onnx
from quadrat.models.foreign.measure import picture
from quadrat.models.foreign.network import WHITE, ForeignNetwork
from quadrat.models.package import Package
from quadrat.models.task import ModelSpec

Kind = Literal["torchscript", "onnx", "bioimage.io"]
BIOIMAGE = "0.5.4"
"""Version of the model description."""
SPDX = frozenset((
    "0BSD", "AGPL-3.0-only", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0",
    "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", "CC0-1.0",
    "GPL-2.0-only", "GPL-3.0-only", "ISC", "LGPL-3.0-only", "MIT", "MPL-2.0",
))  # fmt: skip
"""Licences by their SPDX names. Any other is written as a file, since a description takes no other
names."""
OPSET = 18
"""Of ONNX."""


def semantic(output: Tensor, classes: int) -> Tensor:
    """Probabilities of background and each class."""
    return torch.softmax(output, dim=1)


def instance(output: Tensor, classes: int) -> Tensor:
    """Foreground, inner distance, and probabilities of the classes."""
    return torch.cat([torch.sigmoid(output[:, :2]), torch.softmax(output[:, 2:], dim=1)], dim=1)


def classification(output: Tensor, classes: int) -> Tensor:
    """Probabilities of the classes."""
    return torch.softmax(output[:, :classes], dim=1)


ANSWERS: Mapping[str, tuple[Callable[[Tensor, int], Tensor], str]] = {
    "semantic": (semantic, "argmax"),
    "instance": (instance, "distance"),
    "classification": (classification, "classes"),
}
"""What is written of the networks of a task, and the decoder that reads it again."""


class Standalone(nn.Module):
    """(b, 3, h, w) RGB in 0-255 to probabilities: a network of quadrat with its normalisation."""

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.model, self.classes = model, len(spec.classes)
        self.answer = ANSWERS[spec.task][0]
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.answer(self.model((image / WHITE - self.mean) / self.std), self.classes)


def export_package(package: Package, folder: Path, *, to: Kind, name: str) -> list[str]:
    """Write a package into a new folder for other programs; the names of its files.

    Raises:
        PackageError: its network cannot be written so.
        WriteError: the folder cannot be written.
    """
    spec, card = package.spec, package.card
    module = _standalone(package)
    side = spec.lattice.window
    image = (picture(side, side).float() * WHITE).round()
    with torch.inference_mode():
        wanted = module(image)
    kind = "onnx" if to == "onnx" else "torchscript"
    content = _onnx(module, image) if kind == "onnx" else _torchscript(module, image)
    file = "network.onnx" if kind == "onnx" else "network.pt"
    keys = _keys(spec, card, name)
    files: dict[str, bytes | str] = {
        file: content,
        "card.yaml": yaml.safe_dump(keys, sort_keys=False, allow_unicode=True),
    }
    if to == "bioimage.io":
        files |= {"test_input.npy": _npy(image), "test_output.npy": _npy(wanted)}
        files["LICENSE.md"] = f"{keys['license']}\n".encode()
        files["README.md"] = _readme(spec, card, name)
        digests = {
            n: hashlib.sha256(c).hexdigest() for n, c in files.items() if isinstance(c, bytes)
        }
        about = _description(spec, card, keys, wanted, digests, name)
        files["rdf.yaml"] = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    with new_folder(folder) as staging:
        for one, text in files.items():
            write_file(staging / one, text)
    return sorted(files)


def _standalone(package: Package) -> nn.Module:
    """The network with everything around it inside.

    Raises:
        PackageError: it is more than one network, or a file that is no module of torch.
    """
    model, spec = package.model, package.spec
    if isinstance(model, ForeignNetwork):
        if isinstance(model.loaded, Onnx):
            raise PackageError(
                "an imported ONNX network is not written anew; use the file network.onnx of its "
                "package"
            )
        if spec.task not in ANSWERS or model.decoder.name not in ("argmax", "distance", "classes"):
            raise PackageError(
                f"an imported network with the decoder {model.decoder.name} is not written anew; "
                "use the file that it was imported from"
            )
    elif spec.task not in ANSWERS:
        raise PackageError(
            f"networks of the task {spec.task} are not one graph from a picture to an answer, so "
            f"they cannot be exported; those of {', '.join(ANSWERS)} can"
        )
    return Standalone(model, spec).eval()


def _torchscript(module: nn.Module, image: Tensor) -> bytes:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # its deprecation; the shapes are compared below
        script = torch.jit.trace(module, image, check_trace=False)  # type: ignore[no-untyped-call]
    _need_equal(script(image), module(image), "TorchScript")
    content: bytes = script.save_to_buffer()
    return content


def _onnx(module: nn.Module, image: Tensor) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise PackageError(ONNX_MISSING) from error
    buffer = io.BytesIO()
    rank = module(image).ndim
    axes = {0: "batch", 2: "rows", 3: "columns"}
    named = {"image": axes, "answer": axes if rank == 4 else {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (image,),
            cast(Any, buffer),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["answer"],
            dynamic_axes=named,
        )
    content = buffer.getvalue()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image.numpy()})[0]
    _need_equal(torch.from_numpy(found), module(image), "ONNX")
    return content


def _need_equal(found: Tensor, wanted: Tensor, what: str) -> None:
    """Refuse an export that answers otherwise than the package."""
    gap = float((found - wanted).abs().max()) if found.shape == wanted.shape else 1.0
    if gap > 1e-3:
        raise PackageError(
            f"the network as {what} answers otherwise than the package (by {gap:.2g} of 1); it is "
            "not written"
        )


def _keys(spec: ModelSpec, card: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The import card of what is written."""
    lattice = spec.lattice
    return {
        "decoder": ANSWERS[spec.task][1],
        "classes": [{"name": c.name, "color": list(c.color)} for c in spec.classes],
        "mpp": PX if spec.unit == PX else spec.mpp,
        "license": str(card.get("license", "unknown")),
        "window": lattice.window,
        "core": lattice.core,
        "input": {"range": "0-255"},
        "activation": "probabilities",
        "thresholds": renamed(spec.thresholds, spec.unit),
        "name": name,
        "source": f"quadrat package {card['weights_sha256'][:12]}",
    }


def _npy(value: Tensor) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value.numpy().astype(np.float32))
    return stream.getvalue()


def _readme(spec: ModelSpec, card: Mapping[str, Any], name: str) -> str:
    return (
        f"# {name}\n\nWritten by quadrat. RGB in 0-255 at "
        f"{'the pixels of the picture' if spec.unit == PX else f'{spec.mpp:g} um/px'}; the answer "
        f"is {(ANSWERS[spec.task][0].__doc__ or '').rstrip('.').lower()} "
        f"({', '.join(spec.class_names)}).\n\n{card.get('intended_use', '')}\n"
    )


def _description(
    spec: ModelSpec,
    card: Mapping[str, Any],
    keys: Mapping[str, Any],
    answer: Tensor,
    digests: Mapping[str, str],
    name: str,
) -> dict[str, Any]:
    """``rdf.yaml``: a model description of bioimage.io."""
    side, scale = spec.lattice.window, {}
    if spec.unit != PX:
        scale = {"unit": "micrometer", "scale": spec.mpp}
    places = [{"type": "space", "id": axis, "size": side, **scale} for axis in "yx"]
    batch = {"type": "batch"}
    kept = ("decoder", "classes", "core", "activation", "thresholds", "license")
    own = {key: keys[key] for key in kept}
    licence: Any = keys["license"]
    if licence not in SPDX:
        licence = {"source": "LICENSE.md", "sha256": digests["LICENSE.md"]}
    if spec.unit == PX:
        own["mpp"] = PX
    names = [f"channel{i}" for i in range(answer.shape[1])]
    halo = spec.lattice.halo
    out_places = [
        {"type": "space", "id": axis, **scale, "halo": halo,
         "size": {"tensor_id": "image", "axis_id": axis, "offset": 0}}
        if halo else {"type": "space", "id": axis, **scale, "size": side}
        for axis in "yx"
    ]  # fmt: skip
    return {
        "format_version": BIOIMAGE,
        "type": "model",
        "name": "".join(c if c.isalnum() or c in " _+-." else " " for c in name),
        "description": str(
            card.get("description") or f"{spec.task}: {', '.join(spec.class_names)}"
        ),
        "authors": [{"name": "see license and source"}],
        "cite": [{"text": str(card.get("citation") or "quadrat"), "url": "https://bioimage.io"}],
        "license": licence,
        "documentation": "README.md",
        "timestamp": utc_now(),
        "tags": ["quadrat", spec.task, "histopathology"],
        "inputs": [
            {
                "id": "image",
                "axes": [batch, {"type": "channel", "channel_names": ["r", "g", "b"]}, *places],
                "data": {"type": "float32", "range": [0.0, 255.0]},
                "test_tensor": {"source": "test_input.npy", "sha256": digests["test_input.npy"]},
            }
        ],
        "outputs": [
            {
                "id": "answer",
                "axes": [
                    batch,
                    {"type": "channel", "channel_names": names},
                    *(out_places if answer.ndim == 4 else ()),
                ],
                "data": {"type": "float32", "range": [0.0, 1.0]},
                "test_tensor": {"source": "test_output.npy", "sha256": digests["test_output.npy"]},
            }
        ],
        "weights": {
            "torchscript": {
                "source": "network.pt",
                "sha256": digests["network.pt"],
                "pytorch_version": torch.__version__.partition("+")[0],
            }
        },
        "config": {"quadrat": own},
    }
