"""Which format a network's file has, and whether it could run code when it is loaded.

A file of weights alone (safetensors) and an ONNX graph hold no code. A TorchScript archive is a
program of torch's own operators, which torch loads without unpickling Python objects; one that
opens files is refused. A ``torch.export`` archive is a graph of operators, but its reader unpickles
what the archive says is pickled, evaluates its expressions and looks its operators up by name: so
an archive that has anything but plain tensors, sizes and tensor operators is refused here, before
torch sees it. A pickle is code.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from quadrat.core.errors import PackageError

Format = Literal["torchscript", "exported", "onnx", "safetensors", "pickle"]
SUFFIX: dict[Format, str] = {
    "torchscript": ".pt",
    "exported": ".pt2",
    "onnx": ".onnx",
    "safetensors": ".safetensors",
}
"""Of the file in a package."""
ABOUT: dict[Format, str] = {
    "torchscript": "TorchScript: a program of torch's own operators; nothing is unpickled",
    "exported": "torch.export: a graph of operators; no pickles in it",
    "onnx": "ONNX: a graph of operators",
    "safetensors": "safetensors: weights alone",
    "pickle": "a pickle: loading it runs whatever code it holds",
}
"""What a user is told of a file."""
OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|higher_order)\.[\w.]+|_operator\.\w+|torch\.sym_\w+"
    r"|torch\._sym_\w+|math\.\w+"
)
"""Targets of a graph's nodes that compute with tensors and sizes."""
NAMES = re.compile(
    r"[su]\d+|zuf?\d+|Symbol|Integer|Float|Rational|Add|Mul|Pow|Min|Max|Abs|Mod|PythonMod|FloorDiv"
    r"|CleanDiv|CeilDiv|CeilToInt|FloorToInt|RoundToInt|TruncToInt|ToFloat|IntTrueDiv|FloatTrueDiv"
    r"|ModularIndexing|Where|Identity|Equality|Unequality|Eq|Ne|Lt|Le|Gt|Ge|LessThan|StrictLessThan"
    r"|GreaterThan|StrictGreaterThan|And|Or|Not|BooleanTrue|BooleanFalse|true|false|oo|Infinity"
    r"|positive|negative|integer|real|nonnegative|nonzero|zero|True|False|evaluate|e\d*"
)
"""Words in expressions of sizes."""


def recognise(path: Path) -> Format:
    """The format of a network's file, by its content.

    Raises:
        PackageError: there is no such file, or it is of no known format.
    """
    if not path.is_file():
        raise PackageError(f"there is no network file {path}")
    with path.open("rb") as file:
        head = file.read(9)
    if zipfile.is_zipfile(path):
        return _in_archive(path)
    if head[:1] == b"\x80":
        return "pickle"
    if len(head) == 9 and head[8:] == b"{":
        return "safetensors"
    if head[:1] == b"\x08" and path.suffix == ".onnx":
        return "onnx"
    raise PackageError(
        f"{path} is no network that can be read: it must be TorchScript (.pt), torch.export "
        "(.pt2), ONNX (.onnx), or safetensors with an architecture in the card"
    )


def refuse_code(path: Path, kind: Format, *, trust: bool = False) -> None:
    """Refuse a file that could run code when it is loaded.

    Raises:
        PackageError: it could; the message says by what, and how it can be had otherwise.
    """
    if kind == "pickle" and not trust:
        raise PackageError(
            f"{path} is {ABOUT[kind]}; ask for TorchScript, ONNX, torch.export or safetensors, or "
            "import it with --trust if you know who made it"
        )
    if kind == "torchscript":
        _check_script(path)
    if kind == "exported":
        _check_exported(path)


def _in_archive(path: Path) -> Format:
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] or name for name in archive.namelist()]
    if "archive_format" in names:
        return "exported"
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        return "pickle"
    raise PackageError(
        f"{path} is an archive, but no TorchScript, and no torch.export of torch 2.8 or newer; "
        "save it again with torch.jit.save or torch.export.save"
    )


def _check_script(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".py") and b"from_file" in archive.read(name):
                raise PackageError(f"{path} is a TorchScript program that opens files ({name})")


def _check_exported(path: Path) -> None:
    again = "export it again with plain tensors (torch.export.save)"
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            inside = name.partition("/")[2]
            if inside.startswith("data/constants/") and not inside.endswith(".json"):
                kept = Path(inside).name.startswith("tensor_")
            else:
                kept = not inside.startswith(("data/aotinductor", "extra", "xl_model"))
            if not kept:
                raise PackageError(f"{path} holds {name}, which is no tensor; {again}")
            if inside.startswith("data/sample_inputs/") and not _is_plain(archive.read(name)):
                raise PackageError(f"{path} has a sample input that runs code; {again}")
            if inside.endswith(".json"):
                wrong = next(_suspicious(json.loads(archive.read(name))), None)
                if wrong is not None:
                    raise PackageError(f"{path} has {wrong} in {name}; {again}")


def _is_plain(pickled: bytes) -> bool:
    """Whether torch can read it without running code. Its own reader would try otherwise then."""
    import torch

    try:
        torch.load(io.BytesIO(pickled), weights_only=True)
    except Exception:  # decoders raise whatever they like
        return False
    return True


def _suspicious(value: Any) -> Iterator[str]:
    """What in a graph or a list of tensors is more than tensors, sizes and operators."""
    if isinstance(value, list):
        for one in value:
            yield from _suspicious(one)
    if not isinstance(value, dict):
        return
    for key, one in value.items():
        if key == "use_pickle" and one is not False:
            yield "a pickled value"
        elif key == "target" and isinstance(one, str) and not _is_operator(one):
            yield f"the operator {one!r}"
        elif key == "expr_str" and not _is_expression(one):
            yield f"the expression {str(one)[:80]!r}"
        else:
            yield from _suspicious(one)


def _is_operator(name: str) -> bool:
    return OPERATORS.fullmatch(name) is not None and "from_file" not in name


def _is_expression(text: object) -> bool:
    if not isinstance(text, str) or re.search(r"[^\w\s(),.'+*/<>=&|~-]|__|\.\D|[A-Za-z_)]\.", text):
        return False
    return all(NAMES.fullmatch(word) for word in re.findall(r"[A-Za-z_]\w*", text))
