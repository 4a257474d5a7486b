"""Tasks of the project."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group
from django.tasks import task

from reproq_listen import Discard, Retry, Snooze


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task(queue_name="mail", priority=7, reproq={"max_attempts": 2, "lock_key": "user:{user_id}", "backoff": 0})
def send(user_id: int) -> str:
    return f"sent to {user_id}"


@task(takes_context=True)
def remember(context: Any, name: str) -> dict[str, Any]:
    Group.objects.create(name=name)
    context.save_metadata({"name": name})
    return {"attempt": context.attempt, "id": context.task_result.id, "queue": context.queue_name}


@task(reproq={"max_attempts": 1})
def fail(text: str) -> None:
    raise LookupError(text)


@task
async def later(number: int) -> int:
    return number * 2


@task(reproq={"max_attempts": 1})
def unserializable() -> object:
    return object()


WISHES = {"retry": Retry(), "snooze": Snooze(after=1), "discard": Discard("no such user")}


@task
def wish(name: str) -> None:
    raise WISHES[name]
