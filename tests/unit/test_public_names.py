"""The public names are imported on use, and the decorator brings little with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import reproq_listen
from tests.support.database import ROOT

HEAVY = ("psycopg", "msgspec", "django", "sqlalchemy", "asyncio", "inspect", "dataclasses", "starlette", "yoyo")


def imported_by(program: str) -> set[str]:
    """The modules that a new Python has imported after this program."""
    program = f"{program}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_decorator_imports_no_driver() -> None:
    """A module of plain tasks costs the process of a task little: standard library, and none of its slow parts."""
    program = """
from reproq_listen import task
import types, sys
module = types.ModuleType("shop"); sys.modules["shop"] = module
exec('''
@task(queue_name="mail", retry_on=(OSError,), lock_key="user:{user_id}")
def greet(user_id: int, *, names: list[str] | None = None) -> str:
    return "hello"
''', {"__name__": "shop", "task": task}, vars(module))
assert module.greet.read_arguments([1], {}) == ([1], {})
assert module.greet.write_result("a") == "a"
"""
    assert imported_by(program) & {*HEAVY} == set()


def test_package_imports_nothing_of_the_client() -> None:
    """The process of a task imports the package first of all."""
    assert not [
        name for name in imported_by("import reproq_listen.executor") if name.startswith("reproq_listen.client")
    ]


@pytest.mark.parametrize("first", ["import reproq_listen.child.runner", "import reproq_listen.client.task", ""])
def test_task_is_the_decorator(first: str) -> None:
    """In any order of imports: the module `client.task` has the same name."""
    imported_by(f"{first}\nfrom reproq_listen import task; assert task.__module__ == 'reproq_listen.client.task'")


def test_public_names_exist() -> None:
    """Each name in `__all__` can be imported; any other is an AttributeError."""
    for name in reproq_listen.__all__:
        assert getattr(reproq_listen, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        reproq_listen.Nothing  # noqa: B018
