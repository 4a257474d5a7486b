"""`@task`: what it refuses, what it keeps, what its options become."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from reproq_listen import InvalidArgumentsError, InvalidTaskError, Task, task
from tests.apps import client_tasks as app


def top_level() -> None: ...


def test_task_stays_a_function() -> None:
    """A plain call runs the function; its name and doc are its own."""
    assert app.send_welcome(3, loud=True) == "welcome 3!"
    assert app.send_welcome.name == app.send_welcome.__name__ == "send_welcome"
    assert app.send_welcome.module_path == "tests.apps.client_tasks.send_welcome"
    assert (app.send_welcome.queue_name, app.send_welcome.priority) == ("mail", 0)
    assert isinstance(app.send_welcome, Task)


def nested() -> Callable[[], None]:
    def inside() -> None: ...

    return inside


def in_main() -> Callable[[], None]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def started(): ...", namespace)
    return namespace["started"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda: None, "a lambda cannot be a task"),
        (nested(), "defined inside a function"),
        (in_main(), "__main__"),
        (app.send_welcome, "is a task already"),
        (int, "a task is a function"),
        (3, "a task is a function"),
    ],
)
def test_task_refuses_what_workers_cannot_import(function: Any, reason: str) -> None:
    """At decoration, with the reason."""
    with pytest.raises(InvalidTaskError, match=reason):
        task(function)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"queue": "mail"}, "no option 'queue'; there are queue_name"),
        ({"queue_name": ""}, "queue_name needs text"),
        ({"priority": 1.5}, "priority needs an integer"),
        ({"max_attempts": 0}, "max_attempts needs an integer from 1"),
        ({"timeout": 0.5}, "timeout needs whole seconds"),
        ({"backoff": -1}, "backoff needs seconds"),
        ({"run_after": datetime(2026, 1, 1)}, "run_after needs a time zone"),  # noqa: DTZ001 - that is the mistake
        ({"run_after": 5}, "run_after needs a datetime with a time zone, or a timedelta, not 5"),
        ({"retry_on": ("OSError",)}, "retry_on needs exception classes"),
        ({"unique_while": "always", "unique_key": "a"}, "unique_while needs 'queued' or 'active'"),
        ({"unique_for": 60}, "need a unique_key"),
        ({"concurrency_limit": 2}, "needs a concurrency_key"),
        ({"unique_key": "a", "dedupe": True}, "leave one out"),
    ],
)
def test_task_refuses_wrong_options(options: dict[str, Any], reason: str) -> None:
    """At decoration, and when they are given to a single call; the option is named."""
    with pytest.raises(InvalidTaskError, match=reason):
        task(**options)(top_level)
    if "retry_on" not in options:
        with pytest.raises(InvalidTaskError, match=reason):
            task(top_level).using(**options)


def test_task_options_speak_as_reproq_enqueue() -> None:
    """Durations become seconds or intervals, what is not said is left to the database."""
    assert app.send_welcome.parameters == {
        "queue_name": "mail",
        "max_attempts": 5,
        "timeout_seconds": 30,
        "backoff_seconds": 2.0,
        "lock_key": "user:{user_id}",
    }
    assert task(top_level).parameters == {}
    assert app.with_context.parameters == {"takes_context": True}


def test_using_changes_a_copy() -> None:
    """The task itself keeps its options; a time from now and an instant replace each other."""
    soon = app.send_welcome.using(priority=9, run_after=timedelta(minutes=5))
    assert soon.parameters["delay"] == timedelta(minutes=5)
    assert (soon.priority, app.send_welcome.priority) == (9, 0)
    at = datetime(2026, 12, 24, 18, tzinfo=UTC)
    dated = soon.using(run_after=at)
    assert dated.parameters["run_after"] == at
    assert "delay" not in dated.parameters
    assert soon(3) == "welcome 3"


def test_call_fills_in_keys() -> None:
    """From arguments, defaults among them, wherever they were given."""
    assert app.send_welcome.call(3).options["lock_key"] == "user:3"
    assert app.send_welcome.call(user_id=4).options["lock_key"] == "user:4"
    host = app.Address("Ring", date(2026, 1, 1))
    assert app.crawl.call(host).options["concurrency_key"] == "host:Ring"
    wrong = app.send_welcome.using(lock_key="user:{user}")
    with pytest.raises(InvalidTaskError, match="it may name these arguments: user_id, loud"):
        wrong.call(3)
    with pytest.raises(InvalidArgumentsError, match=r"unique_key=.* is empty"):
        app.debounced.call("", 1)


def test_discards_what_is_listed_or_not_retried() -> None:
    """`discard_on` wins; with `retry_on` every other exception ends the task, but no stop does."""
    assert app.look_up.discards(KeyError("a"))
    assert not app.look_up.discards(ValueError())
    assert app.connect.discards(ValueError())
    assert not app.connect.discards(ConnectionResetError())
    assert not app.connect.discards(SystemExit())
    assert not app.send_welcome.discards(ValueError())
