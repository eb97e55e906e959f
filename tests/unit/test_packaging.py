"""The wheel carries the ready-made pipelines, and importing the command line or a pure module loads
nothing slow."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "timm", "zarr", "dask", "distributed", "openslide"}
SCIENTIFIC = {"numpy", "scipy", "skimage", "numba", "pyarrow", "shapely"}


def imported_by(statement: str) -> set[str]:
    """Return the top-level names of all modules that a fresh interpreter loads to run
    `statement`.
    """
    command = [sys.executable, "-X", "importtime", "-c", statement]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the paths inside a wheel built from the working tree, with the hatchling that is
    installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        str(folder),
    ]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_carries_every_pipeline_beside_the_code(wheel_names: set[str]) -> None:
    folder = REPOSITORY / "pipelines"
    expected = {
        f"quadrat/pipelines/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*.yaml")
    }
    assert expected, f"no pipeline in {folder}"
    assert expected <= wheel_names


def test_the_wheel_carries_the_package_and_its_licence_and_nothing_else(
    wheel_names: set[str],
) -> None:
    assert "quadrat/__init__.py" in wheel_names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)
    assert {name.partition("/")[0].partition("-")[0] for name in wheel_names} == {"quadrat"}


def test_the_wheel_carries_what_pages_are_made_of_and_the_licence_of_what_is_not_ours(
    wheel_names: set[str],
) -> None:
    folder = REPOSITORY / "src" / "quadrat" / "pages"
    parts = [*folder.glob("templates/*"), *folder.glob("static/*"), *folder.glob("vendor/*")]
    expected = {f"quadrat/pages/{path.relative_to(folder).as_posix()}" for path in parts}
    assert len(expected) > 10
    assert expected <= wheel_names
    assert any(
        name.endswith("licenses/src/quadrat/pages/vendor/openseadragon.LICENSE.txt")
        for name in wheel_names
    )


def test_importing_the_command_line_loads_nothing_slow() -> None:
    assert not imported_by("import quadrat.cli.main") & (HEAVY | SCIENTIFIC)


def test_importing_the_package_loads_nothing_slow_although_it_counts() -> None:
    assert not imported_by("import quadrat; quadrat.count, quadrat.open_run") & (HEAVY | SCIENTIFIC)


def test_reading_a_pipeline_or_a_manifest_loads_no_engine_and_no_numpy() -> None:
    modules = "quadrat.config.pipeline, quadrat.config.manifest"
    assert not imported_by(f"import {modules}") & (HEAVY | SCIENTIFIC)


@pytest.mark.parametrize("name", ["geometry", "lattice", "predictions", "objects"])
def test_a_pure_module_loads_no_engine_even_by_way_of_others(name: str) -> None:
    assert not imported_by(f"import quadrat.core.{name}") & HEAVY


def test_a_worker_that_starts_again_does_not_wait_for_torch() -> None:
    assert not imported_by("import quadrat.engine.dask") & (HEAVY - {"dask", "distributed"})


def test_a_slow_import_would_be_seen() -> None:
    assert {"numpy", "json"} <= imported_by("import json.decoder; import numpy.linalg")
