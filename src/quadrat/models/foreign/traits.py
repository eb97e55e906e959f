"""What a network's graph says of how far it sees: dilations, operations over the whole window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from quadrat.models.foreign.files import Exported, Loaded, Module, Onnx

WHOLE = {
    "instance_norm": "instance normalisation",
    "InstanceNormalization": "instance normalisation",
    "InstanceNorm2d": "instance normalisation",
    "group_norm": "group normalisation",
    "GroupNormalization": "group normalisation",
    "GroupNorm": "group normalisation",
    "adaptive_avg_pool2d": "global pooling",
    "AdaptiveAvgPool2d": "global pooling",
    "GlobalAveragePool": "global pooling",
    "adaptive_max_pool2d": "global pooling",
    "GlobalMaxPool": "global pooling",
    "mean": "a mean over the window",
    "ReduceMean": "a mean over the window",
    "amax": "a maximum of the window",
    "ReduceMax": "a maximum of the window",
    "max": "a maximum of the window",
    "amin": "a minimum of the window",
    "ReduceMin": "a minimum of the window",
    "min": "a minimum of the window",
    "quantile": "percentiles of the window",
    "sort": "a ranking of the window's values",
    "TopK": "a ranking of the window's values",
    "std": "the standard deviation of the window",
    "var": "the variance of the window",
    "var_mean": "the variance of the window",
    "scaled_dot_product_attention": "attention",
    "softmax": "a softmax, of attention perhaps",
    "Softmax": "a softmax, of attention perhaps",
}
"""Operations that may make each place depend on the whole window, in words."""
REDUCE = frozenset(("mean", "amax", "amin", "std", "var", "var_mean"))
"""Those that may be over channels alone."""
LAST = frozenset(("softmax", "Softmax"))
"""Those that are as often harmless."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What was read in a graph."""

    dilation: int = 1
    """The widest of its convolutions."""
    whole: tuple[str, ...] = ()
    """Operations that may see the whole window, in words, each once."""


def traits_of(loaded: Loaded) -> Traits:
    """What a loaded network's graph says of how far it sees."""
    found = list(_operations(loaded))
    names = dict.fromkeys(WHOLE[name] for name, _ in found if name in WHOLE and name not in LAST)
    if not names:
        names = dict.fromkeys(WHOLE[name] for name, _ in found if name in WHOLE)
    return Traits(max((dilation for _, dilation in found), default=1), tuple(names))


def _operations(loaded: Loaded) -> Iterator[tuple[str, int]]:
    """The name and the dilation of each operation."""
    if isinstance(loaded, Exported):
        for node in loaded.program.graph.nodes:
            if node.op == "call_function":
                name = str(node.target).split(".")[1 if "." in str(node.target) else 0]
                name = name.removesuffix("_")
                if name not in REDUCE or _over_places(node.args[1] if node.args[1:] else None):
                    yield name, _fx_dilation(name, node)
    elif isinstance(loaded, Onnx):
        yield from _onnx_operations(loaded)
    elif isinstance(loaded, Module) and isinstance(loaded.module, torch.jit.ScriptModule):
        yield from _script_operations(loaded.module)
    elif isinstance(loaded, Module):
        for module in loaded.module.modules():
            yield type(module).__name__, _widest(getattr(module, "dilation", 1))


def _script_operations(module: torch.jit.ScriptModule) -> Iterator[tuple[str, int]]:
    nodes = module.inlined_graph.findAllNodes  # type: ignore[attr-defined]
    for kind in WHOLE:
        for node in nodes(f"aten::{kind}"):
            inputs = list(node.inputs())
            if kind not in REDUCE or _over_places(_constants(inputs[1]) if inputs[1:] else None):
                yield kind, 1
    for kind in ("aten::_convolution", "aten::conv2d", "aten::max_pool2d"):
        for node in nodes(kind):
            yield kind, max(_integers(list(node.inputs())[5]), default=1)


def _integers(value: Any) -> list[int]:
    """The numbers of a list in a graph of TorchScript; 1 for one that is no constant."""
    return [one if isinstance(one, int) else 1 for one in _constants(value) or []]


def _constants(value: Any) -> list[Any] | None:
    """The constants that make up a list in a graph of TorchScript; None: it is no list."""
    constant = value.toIValue()
    if constant is None and value.node().kind() == "prim::ListConstruct":
        return [one.toIValue() for one in value.node().inputs()]
    return constant if isinstance(constant, list) else None


def _over_places(dims: object) -> bool:
    """Whether a reduction over some of (batch, channels, rows, columns) is one over places."""
    if not isinstance(dims, list | tuple):
        return True
    return not all(one in (0, 1, -3, -4) for one in dims)


def _fx_dilation(name: str, node: Any) -> int:
    place = {"conv2d": 5, "convolution": 5, "max_pool2d": 4}.get(name)
    if place is None or len(node.args) <= place:
        return 1
    return _widest(node.args[place])


def _onnx_operations(loaded: Onnx) -> Iterator[tuple[str, int]]:
    import onnx

    def walk(graph: Any) -> Iterator[tuple[str, int]]:
        for node in graph.node:
            dilation = 1
            for attribute in node.attribute:
                if attribute.name == "dilations":
                    dilation = max(attribute.ints, default=1)
                if attribute.HasField("g"):
                    yield from walk(attribute.g)
            yield node.op_type, dilation

    yield from walk(onnx.load(loaded.path, load_external_data=False).graph)


def _widest(dilation: object) -> int:
    if isinstance(dilation, int):
        return dilation
    return (
        max((one for one in dilation if isinstance(one, int)), default=1)
        if isinstance(dilation, tuple | list)
        else 1
    )
