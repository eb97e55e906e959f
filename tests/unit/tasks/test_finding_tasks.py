"""How a pipeline's ``task`` leads to the task."""

import pytest

from quadrat.core.errors import ConfigError
from quadrat.models.task import Task
from quadrat.tasks import get_task, task_names

OWN = """
from quadrat.tasks.semantic import SemanticTask

class Mine(SemanticTask):
    name = "mine"

TASK = Mine()
HALF = object()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that lies in a folder on Python's path."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(text, name):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return of


def test_quadrats_own_tasks_are_found_by_the_name_of_their_file():
    assert {"classification", "detection", "instance", "instance_masks", "semantic"} == {
        *task_names()
    }
    for name in task_names():
        assert get_task(name).name == name
        assert isinstance(get_task(name), Task)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no task 'semantics' .* did you mean 'semantic'\?"):
        get_task("semantics")


def test_a_task_of_another_module_is_found_by_module_and_name(module):
    own = module(OWN, "own_task")
    assert get_task(f"{own}:TASK").name == "mine"
    assert "own_task" not in task_names()


def test_what_is_wrong_with_another_modules_task_is_said_with_the_way_out(module):
    own = module(OWN, "other_task")
    with pytest.raises(ConfigError, match="finds no module 'nowhere'; put its folder into PYTHON"):
        get_task("nowhere:TASK")
    with pytest.raises(ConfigError, match=r"finds no module 'quadrat\.nowhere'"):
        get_task("quadrat.nowhere:TASK")
    with pytest.raises(ConfigError, match="the module has no 'TUSK'; write the task as module:N"):
        get_task(f"{own}:TUSK")
    with pytest.raises(
        ConfigError, match=r"what is there \(object\) is no task; make it a subclass"
    ):
        get_task(f"{own}:HALF")
    with pytest.raises(ConfigError, match="write the task as module:NAME"):
        get_task(":TASK")


def test_a_module_that_cannot_import_what_it_needs_says_so_itself(module):
    broken = module("import not_installed_anywhere\n", "broken_task")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        get_task(f"{broken}:TASK")
