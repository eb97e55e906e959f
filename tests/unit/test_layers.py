"""A room of the package imports only rooms below its own; four libraries have their one place."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "quadrat"
FILES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))
FLOORS = (
    "core", "config slides outputs stitching", "annotations store", "metrics phantom", "models",
    "tasks", "engine", "training", "evaluation measure pages exchange", "cli",
    "__init__.py __main__.py",
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
DASK = tuple(
    f"engine/{name}.py"
    for name in ("dask", "crew", "workers", "certificates", "local", "remote", "srun", "slurm")
)
PLACES = {
    "dask": DASK,
    "distributed": DASK,
    "zarr": ("store/", "slides/ome_zarr", "slides/zarr_files.py"),
    "openslide": ("slides/",),
}


def imported(tree: ast.AST) -> set[str]:
    """Every module and every name of a module that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def breaches(file: str, source: str) -> list[str]:
    """What a file imports from its own floor or from above, or of a library that is not its own."""
    room = file.split("/")[0]
    wrong = []
    for name in sorted(imported(ast.parse(source))):
        library, other, *_ = *name.split("."), ""
        if (
            library == "quadrat"
            and other != room
            and other in FLOOR
            and FLOOR[other] >= FLOOR[room]
        ):
            wrong.append(name)
        if not file.startswith(PLACES.get(library, "")):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_rooms_below_its_own(file: str) -> None:
    assert breaches(file, (SRC / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/geometry.py", "from quadrat.config.pipeline import Pipeline"),
        ("models/package.py", "def load():\n    from quadrat.tasks import get_task"),
        ("stitching/masks.py", "from quadrat.slides.source import SlideSource"),
        ("engine/flow.py", "import distributed"),
        ("models/inference.py", "from zarr.storage import LocalStore"),
        ("store/tiling.py", "from openslide import OpenSlide"),
    ],
)
def test_an_import_from_above_and_a_library_out_of_place_are_found(file: str, source: str) -> None:
    assert breaches(file, source)


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {f"quadrat.{file[:-3].replace('/', '.')}" for file in FILES}
    needs = {}
    for file in FILES:
        names = imported(ast.parse((SRC / file).read_text(encoding="utf-8")))
        known = {name if name in modules else name.rpartition(".")[0] for name in names}
        needs[f"quadrat.{file[:-3].replace('/', '.')}"] = known & modules
    assert len(list(TopologicalSorter(needs).static_order())) == len(modules)


def test_every_room_has_a_floor() -> None:
    assert {file.split("/")[0] for file in FILES} == set(FLOOR)
