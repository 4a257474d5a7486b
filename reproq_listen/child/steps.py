# ruff: noqa: ANN401 - connections of any library, values of any function
"""Durable steps: what a step returned is stored, and a later attempt gets it. Imported by the first step.

Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any

from reproq_listen.child.requests import LeaseLostError, RequestError, Requests
from reproq_listen.child.results import dumps
from reproq_listen.child.transaction import begin, begin_async
from reproq_listen.protocol.executor import MAX_VALUE_BYTES

Statement = Callable[[str, Sequence[object]], tuple[str, Sequence[object]]]


class Steps:
    """The steps of one attempt, and what earlier ones stored."""

    def __init__(self, requests: Requests, statement: Statement) -> None:
        """`statement` makes the statement for a function of ours. Raises RequestError."""
        self._requests = requests
        self._statement = statement
        self._used: set[str] = set()
        self._stored: dict[str, Any] = {}
        after: str | None = ""
        while after is not None:
            page: Any = requests.ask("steps", {"after_name": after})
            self._stored |= page["steps"]
            after = page["last_name"]

    def run(
        self, name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], connection: Any
    ) -> Any:
        """Give what the step returned, awaitable if `function` is async. See TaskContext.step."""
        if not 0 < len(name.encode()) <= 255:
            raise ValueError(f"the name of a step is text of 1 to 255 bytes, not {name!r:.80}")
        if name in self._used:
            raise ValueError(f"this attempt has run a step {name!r} already: give each step a name of its own")
        self._used.add(name)
        if iscoroutinefunction(getattr(function, "func", function)):  # of a task: the function that it decorates
            return self._run_async(name, function, args, kwargs, connection)
        if name in self._stored:
            return self._stored.pop(name)
        if connection is None:
            text = _dumps(name, function(*args, **kwargs))
            self._save(name, text)
        else:
            with begin(connection, is_outermost=False) as execute:
                text = _dumps(name, function(*args, **kwargs))
                _check(name, execute(*self._saving(name, text)))
        return json.loads(text)

    async def _run_async(
        self, name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], connection: Any
    ) -> Any:
        if name in self._stored:
            return self._stored.pop(name)
        if connection is None:
            text = _dumps(name, await function(*args, **kwargs))
            self._save(name, text)
        elif hasattr(connection, "__aenter__"):
            async with begin_async(connection, is_outermost=False) as execute:
                text = _dumps(name, await function(*args, **kwargs))
                _check(name, await execute(*self._saving(name, text)))
        else:
            with begin(connection, is_outermost=False) as run:
                text = _dumps(name, await function(*args, **kwargs))
                _check(name, run(*self._saving(name, text)))
        return json.loads(text)

    def _save(self, name: str, text: str) -> None:
        """Raises RequestError."""
        self._requests.ask("step", {"name": name}, ("value", text))

    def _saving(self, name: str, text: str) -> tuple[str, Sequence[object]]:
        return self._statement("reproq_step_save({fence}, %s, %s::jsonb)", (name, text))


def _dumps(name: str, value: object) -> str:
    return dumps(value, f"the value of step {name!r}", MAX_VALUE_BYTES)


def _check(name: str, answer: object) -> None:
    """Raises LeaseLostError or RequestError: then the transaction of the step is rolled back."""
    if answer == "lost":
        raise LeaseLostError(f"the lease of this attempt is lost: step {name!r} is rolled back")
    if answer != "ok":
        raise RequestError(f"step {name!r} is stored already; this one is rolled back")
