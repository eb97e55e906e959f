"""The kinds of model, one file each; :func:`get_task` finds them by the file's name, and others by
``module:NAME``."""

import importlib
import pkgutil

from torch import nn

from quadrat.core.errors import ConfigError
from quadrat.core.text import did_you_mean
from quadrat.models.task import ModelSpec, Task


def task_names() -> list[str]:
    """The names of quadrat's own tasks: the modules of ``quadrat.tasks``."""
    package = importlib.import_module("quadrat.tasks")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__))


def get_task(name: str) -> Task:
    """The task called ``name``: one of quadrat's own, or ``module:NAME`` for the object NAME of any
    module that Python can import.

    Raises:
        ConfigError: there is none of that name.
    """
    if ":" in name:
        return _task_of(name)
    names = task_names()
    if name not in names:
        hint = did_you_mean(name, names)
        raise ConfigError(f"there is no task '{name}' (known: {', '.join(names)}){hint}")
    task: Task = importlib.import_module(f"quadrat.tasks.{name}").TASK
    return task


def _task_of(name: str) -> Task:
    """The task of somebody else's module."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0] and error.name != module:
            raise  # the module is there, but not what it imports
        raise ConfigError(
            f"task '{name}': Python finds no module '{module}'; put its folder into PYTHONPATH, or "
            "install it"
        ) from error
    except (AttributeError, ValueError) as error:
        raise ConfigError(
            f"task '{name}': the module has no '{attribute}'; write the task as module:NAME"
        ) from error
    if not isinstance(found, Task):
        raise ConfigError(
            f"task '{name}': what is there ({type(found).__name__}) is no task; make it a subclass "
            "of quadrat.models.task.Task"
        )
    return found


def build_network(spec: ModelSpec) -> nn.Module:
    """The network of a specification, with random weights."""
    return get_task(spec.task).build(spec)
