"""The constraints of `make oldest` follow the lower bounds of pyproject.toml."""

import tomllib
from pathlib import Path

import pytest

from oldest import constraints

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_every_dependency_of_the_project_is_held_at_its_lower_bound():
    text = PYPROJECT.read_text(encoding="utf-8")
    dependencies = tomllib.loads(text)["project"]["dependencies"]
    found = constraints(text)
    assert len(found) == len(dependencies)
    for line, dependency in zip(found, dependencies, strict=True):
        assert dependency.split(",")[0] == line.replace("==", ">=")


def test_an_upper_bound_and_an_extra_are_left_out():
    assert constraints('[project]\ndependencies = ["a[b]>=1.2.post1,<2"]') == ["a==1.2.post1"]


@pytest.mark.parametrize("dependency", ["torchvision", "torch<3", "torch==2.11"])
def test_a_dependency_without_a_lower_bound_is_an_error(dependency):
    with pytest.raises(ValueError, match="has no lower bound"):
        constraints(f'[project]\ndependencies = ["{dependency}"]')
