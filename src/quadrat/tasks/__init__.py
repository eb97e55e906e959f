"""The kinds of model, one file each; :func:`get_task` finds them by the file's name."""

import difflib
import importlib
import pkgutil

from torch import nn

from quadrat.core.errors import ConfigError
from quadrat.models.task import ModelSpec, Task


def task_names() -> list[str]:
    """The names of all tasks: the modules of ``quadrat.tasks``."""
    package = importlib.import_module("quadrat.tasks")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__))


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    names = task_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"there is no task '{name}' (known: {', '.join(names)}){hint}")
    task: Task = importlib.import_module(f"quadrat.tasks.{name}").TASK
    return task


def build_network(spec: ModelSpec) -> nn.Module:
    """The network of a specification, with random weights."""
    return get_task(spec.task).build(spec)
