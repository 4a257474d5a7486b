"""What a module of the application declares: its tasks and its schedules."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from reproq_listen.client.schedules import Schedule
from reproq_listen.client.task import Task
from reproq_listen.errors import ReproqError, SettingError


def load(name: str) -> ModuleType:
    """Import a module as a worker that is started in this folder would. Raises ReproqError."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise SettingError(f"MODULE: give the name of a module, such as shop.tasks, not {name!r:.80}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ReproqError(f"{name} cannot be imported: {error}") from error
        raise SettingError(f"there is no module {name}; start in the folder that contains it") from error
    except Exception as error:
        raise ReproqError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def tasks(module: ModuleType) -> list[Task[..., object]]:
    """The tasks that the module defines itself, by name."""
    found = [value for value in vars(module).values() if isinstance(value, Task)]
    return sorted((task for task in found if task.func.__module__ == module.__name__), key=lambda task: task.name)


def schedules(module: ModuleType) -> list[Schedule]:
    """The list `schedules` of a module. Raises SettingError."""
    found = getattr(module, "schedules", None)
    if not isinstance(found, list | tuple) or not all(isinstance(entry, Schedule) for entry in found):
        raise SettingError(f"{module.__name__} has no list of Schedule(...) named schedules")
    return [*found]
