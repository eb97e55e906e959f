"""Who may import whom, read from the source by `ast`, so that a lazy import inside a function
counts as well.

The rules keep the slow libraries out of `quadrat --help`, dask behind one seam, the file formats at
the rim, and the training loop ignorant of the tasks it runs.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = Path(__file__).parents[2] / "src" / "quadrat"
FILES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))

# library -> the only files (or folders, ending in "/") that may import it
HOMES = {
    "dask": ("execution/dask.py",),
    "distributed": ("execution/dask.py",),
    "zarr": ("durable.py", "sharded.py", "moved_tiles.py", "slides/", "outputs/label_image.py"),
    "openslide": ("slides/",),
}
# files -> what they may not import
FORBIDDEN = {
    ("geometry.py", "grid.py", "predictions.py", "results.py"): ("torch", "torchvision", *HOMES),
    ("training.py", "inference.py"): ("quadrat.tasks",),
}
# files -> all that they may import of quadrat itself
ALLOWED = {
    ("cli.py",): (
        "annotation_commands",
        "commands",
        "school",
        "stages",
        "config",
        "manifest",
        "errors",
        "__version__",
    ),
    ("tasks/",): (
        *("task", "tasks", "models", "stitching", "metrics", "annotations"),
        *("predictions", "results", "geometry", "grid", "errors"),
    ),
}
# what cli.py may load before it knows the command
CLI_MODULE_LEVEL = (*sys.stdlib_module_names, "quadrat.errors", "quadrat.__version__")


class Import(NamedTuple):
    """One imported name: where it stands, what it is, and whether importing the file is enough to
    load it."""

    line: int
    target: str
    at_module_level: bool


def within(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def in_files(file: str, places: tuple[str, ...]) -> bool:
    return any(
        file == place or (place.endswith("/") and file.startswith(place)) for place in places
    )


def imports(file: str, source: str) -> Iterator[Import]:
    """Yield every import of `source`, relative ones made absolute and `from a import
    b` as `a.b`.
    """
    package = ["quadrat", *file.split("/")[:-1]]

    def walk(node: ast.AST, eager: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(child.lineno, alias.name, eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                start = package[: len(package) - child.level + 1] if child.level else []
                parts = [*start, *([child.module] if child.module else [])]
                yield from (
                    Import(child.lineno, ".".join([*parts, alias.name]), eager)
                    for alias in child.names
                )
            elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith(
                ("import_module", "__import__")
            ):
                name = child.args[0] if child.args else None
                if isinstance(
                    name, ast.JoinedStr
                ):  # f"quadrat.tasks.{name}": what is known of it comes first
                    name = name.values[0]
                if isinstance(name, ast.Constant):
                    yield Import(child.lineno, str(name.value).rstrip("."), eager)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith(
                "TYPE_CHECKING"
            )
            yield from walk(child, eager and not function and not types_only)

    yield from walk(ast.parse(source), True)


def breaches(file: str, source: str) -> list[str]:
    """Return one `file:line: what is wrong` for each import of `source` that breaks a rule."""
    found = []
    for line, target, at_module_level in imports(file, source):
        where = f"src/quadrat/{file}:{line}: imports {target}"
        for library, homes in HOMES.items():
            if within(target, (library,)) and not in_files(file, homes):
                found.append(f"{where}, but {library} belongs to {', '.join(homes)} only")
        for files, names in FORBIDDEN.items():
            if in_files(file, files) and within(target, names):
                found.append(f"{where}, which this file may not")
        for files, names in ALLOWED.items():
            own = tuple(f"quadrat.{name}" for name in names)
            if in_files(file, files) and within(target, ("quadrat",)) and not within(target, own):
                found.append(
                    f"{where}, but of quadrat this file may import {', '.join(names)} only"
                )
        if file == "cli.py" and at_module_level and not within(target, CLI_MODULE_LEVEL):
            found.append(f"{where} at module level: import it inside the function that needs it")
    return found


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_what_its_place_allows(file: str) -> None:
    found = breaches(file, (SRC / file).read_text(encoding="utf-8"))
    assert not found, "\n" + "\n".join(found)


def test_the_rules_look_at_the_package() -> None:
    assert {"__init__.py", "geometry.py", "grid.py"} <= set(FILES)


@pytest.mark.parametrize(
    ("file", "snippet"),
    [
        ("stages.py", "import dask.array as da"),
        ("execution/__init__.py", "def run():\n    from distributed import Client"),
        ("execution/__init__.py", "import importlib\nimportlib.import_module('dask')"),
        ("inference.py", "import zarr"),
        ("outputs/geojson.py", "from zarr.storage import LocalStore"),
        ("tiling.py", "from openslide import OpenSlide"),
        ("geometry.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("results.py", "import torch.nn"),
        ("training.py", "from quadrat.tasks import semantic"),
        ("training.py", "from quadrat import tasks"),
        ("inference.py", "from .tasks.semantic import Semantic"),
        ("inference.py", "def f(name):\n    return import_module(f'quadrat.tasks.{name}')"),
        ("tasks/semantic.py", "from quadrat.store import TileStore"),
        ("tasks/semantic.py", "from ..slides import open_slide"),
        ("tasks/semantic.py", "from quadrat import stages"),
        ("tasks/semantic.py", "import quadrat.execution"),
        ("cli.py", "def main():\n    from quadrat.store import TileStore"),
        ("cli.py", "import numpy as np"),
        ("cli.py", "from quadrat.stages import tile"),
        ("cli.py", "try:\n    import torch\nexcept ImportError:\n    torch = None"),
    ],
)
def test_a_forbidden_import_is_caught_with_its_line(file: str, snippet: str) -> None:
    found = breaches(file, snippet)
    last_line = snippet.count("\n") + 1 if "except" not in snippet else 2
    assert found
    assert all(breach.startswith(f"src/quadrat/{file}:{last_line}: ") for breach in found)


@pytest.mark.parametrize(
    ("file", "snippet"),
    [
        ("execution/dask.py", "import dask\nfrom distributed import Client"),
        ("slides/openslide.py", "from openslide import OpenSlide\nimport zarr"),
        ("slides/openslide.py", "from .protocol import Slide"),
        ("stages.py", "from quadrat.execution.dask import cluster\nfrom .execution import dask"),
        ("outputs/label_image.py", "import zarr"),
        ("sharded.py", "import zarr"),
        ("training.py", "from quadrat.task import Task\nimport torch"),
        (
            "tasks/instance.py",
            "from quadrat.task import Task\nfrom .instance_masks import Masks\nimport torch",
        ),
        (
            "cli.py",
            "import argparse\nfrom quadrat import __version__\ndef main():\n    from quadrat "
            "import stages",
        ),
        (
            "cli.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from quadrat.stages import "
            "Run",
        ),
    ],
)
def test_an_allowed_import_passes(file: str, snippet: str) -> None:
    assert breaches(file, snippet) == []
