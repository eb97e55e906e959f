"""Loading a network's file, so that all formats are called alike: a batch in, what the file gives
out, on the device of the batch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from quadrat.core.errors import ConfigError, PackageError, QuadratError
from quadrat.models.foreign.architectures import build
from quadrat.models.foreign.formats import Format, refuse_code

ONNX_MISSING = (
    "ONNX networks need onnxruntime, which is not installed here; pip install 'quadrat[onnx]'"
)


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a file fixes of its input; None: it takes any."""

    batch: int | None = None
    """Images at once."""
    height: int | None = None
    """Of an image in px."""
    width: int | None = None
    """Of an image in px."""

    @classmethod
    def of(cls, dims: tuple[int | None, ...], layout: str) -> Fixed:
        """From the four dimensions of an input."""
        rows, cols = (2, 3) if layout == "NCHW" else (1, 2)
        return cls(dims[0], dims[rows], dims[cols])


class Loaded(Protocol):
    """A network's file in memory."""

    dims: tuple[int | None, ...]
    """The dimensions of its input, each None where any will do."""

    def __call__(self, batch: Any) -> Any:
        """Answer a batch (or a list of images), on the device that it is on."""
        ...

    def doubled(self) -> Loaded | None:
        """The same in float64, to measure it without rounding; None: it has one precision."""
        ...


class Module:
    """A network of torch: TorchScript, or an architecture with weights."""

    dims: tuple[int | None, ...] = (None,) * 4

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self.device = torch.device("cpu")

    def __call__(self, batch: Any) -> Any:
        device = (batch[0] if isinstance(batch, list) else batch).device
        if device != self.device:
            self.module, self.device = self.module.to(device), device
        # the optimiser of TorchScript may compute later calls by other kernels than the first ones
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.module(batch)

    def doubled(self) -> Module:
        return Module(copy.deepcopy(self.module).double())


class Exported:
    """A graph of ``torch.export``."""

    def __init__(self, path: Path) -> None:
        self.path, self.device = path, torch.device("cpu")
        self.program = torch.export.load(path)
        self.module = self.program.module(check_guards=False)  # guards are code of the file
        self.dims = _exported_dims(self.program, path)

    def __call__(self, batch: Any) -> Any:
        if batch.device != self.device:
            from torch.export.passes import move_to_device_pass

            moved = move_to_device_pass(torch.export.load(self.path), str(batch.device))
            self.module, self.device = moved.module(check_guards=False), batch.device
        return self.module(batch)

    def doubled(self) -> Exported:
        other = Exported(self.path)
        other.module = other.module.double()
        return other


class Onnx:
    """A session of onnxruntime."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise PackageError(f"{path}: {ONNX_MISSING}") from error
        self.runtime, self.path = onnxruntime, path
        self.device, self.session = torch.device("cpu"), self._session("CPUExecutionProvider")
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise PackageError(f"{path} has the inputs {shapes}; it must have one of 4 dimensions")
        self.dims = tuple(n if isinstance(n, int) and n > 0 else None for n in inputs[0].shape)
        self.input, self.names = inputs[0].name, [o.name for o in self.session.get_outputs()]

    def _session(self, provider: str) -> Any:
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        try:
            content = self.path.read_bytes()  # from memory: its folder is not looked into
            return self.runtime.InferenceSession(content, options, providers=[provider])
        except Exception as error:  # onnxruntime raises types of its own
            first = str(error).partition("\n")[0]
            raise PackageError(
                f"{self.path} cannot be read by onnxruntime ({first}); a model whose weights lie "
                "in further files must be saved as one file"
            ) from error

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        if batch.device != self.device:
            self._move(batch.device)
        found = self.session.run(None, {self.input: batch.cpu().contiguous().numpy()})
        return {
            name: torch.from_numpy(value).to(batch.device)
            for name, value in zip(self.names, found, strict=True)
        }

    def doubled(self) -> None:
        return None

    def _move(self, device: torch.device) -> None:
        provider = "CUDAExecutionProvider" if device.type == "cuda" else ""
        if provider not in self.runtime.get_available_providers():
            raise QuadratError(
                f"onnxruntime as it is installed here cannot compute on {device}; use --device cpu"
            )
        self.session, self.device = self._session(provider), device


def joined(path: Path) -> bytes | None:
    """An ONNX network whose weights lie in further files of its folder, with them in it; None: they
    are in it already.

    Raises:
        PackageError: it cannot be read, or is too large for one file.
    """
    try:
        import onnx
        from onnx.external_data_helper import uses_external_data
    except ImportError as error:
        raise PackageError(f"{path}: {ONNX_MISSING}") from error
    try:
        alone = onnx.load(path, load_external_data=False)
        if not any(uses_external_data(weight) for weight in alone.graph.initializer):
            return None
        content: bytes = onnx.load(path).SerializeToString()
    except Exception as error:  # onnx and protobuf raise types of their own
        first = str(error).partition("\n")[0]
        raise PackageError(f"{path} cannot be read with its weights ({first})") from error
    return content


def load_file(
    path: Path,
    kind: Format,
    *,
    architecture: str = "",
    options: Mapping[str, Any] | None = None,
    classes: int = 0,
) -> Loaded:
    """Load a network's file. Nothing in it is run but the network itself (see
    :mod:`quadrat.models.foreign.formats`).

    Raises:
        PackageError: it cannot be loaded; or it could run code.
    """
    refuse_code(path, kind)
    if kind == "onnx":
        return Onnx(path)
    if kind == "safetensors":
        return Module(_with_weights(path, architecture, options or {}, classes=classes))
    try:
        if kind == "torchscript":
            with warnings.catch_warnings():  # torch deprecates a format that people will have long
                warnings.simplefilter("ignore", FutureWarning)
                script = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
                return Module(script)
        return Exported(path)
    except PackageError:
        raise
    except Exception as error:  # the readers of torch raise whatever they like
        first = str(error).strip().partition("\n")[0][:200]
        raise PackageError(
            f"{path} cannot be loaded by torch {torch.__version__} ({type(error).__name__}: "
            f"{first})"
        ) from error


def _exported_dims(program: Any, path: Path) -> tuple[int | None, ...]:
    """The dimensions of a graph's input."""
    names = set(program.graph_signature.user_inputs)
    shapes = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        given = ", ".join(str(tuple(shape)) for shape in shapes)
        raise PackageError(f"{path} has the inputs {given}; it must have one of 4 dimensions")
    return tuple(n if isinstance(n, int) else None for n in shapes[0])


def _with_weights(
    path: Path, architecture: str, options: Mapping[str, Any], *, classes: int
) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_weights

    def weights() -> Mapping[str, Tensor]:
        try:
            return load_weights(path)
        except SafetensorError as error:
            raise PackageError(f"{path} does not fit {architecture} ({error})") from error

    return weighted(weights, path, architecture, options, classes=classes)


def weighted(
    weights: Callable[[], Mapping[str, Tensor]],
    path: Path,
    architecture: str,
    options: Mapping[str, Any],
    *,
    classes: int,
) -> nn.Module:
    """An architecture by name, with the weights of a file; ``weights`` reads them, once the
    architecture is known.

    Raises:
        ConfigError: no architecture is named.
        PackageError: they do not fit it.
    """
    if not architecture:
        raise ConfigError(
            f"{path} holds weights alone; the card must name their architecture, such as "
            "architecture: timm/resnet18"
        )
    model = build(architecture, options, classes=classes)
    try:
        model.load_state_dict(weights())
    except RuntimeError as error:
        raise PackageError(f"{path} does not fit {architecture} ({error})") from error
    return model
