"""Tasks of the tests of the fixtures in `reproq_listen.testing`."""

from __future__ import annotations

from reproq_listen import Client, Discard, Retry, Snooze, TaskContext, task

sent: list[int] = []


@task(queue_name="mail")
def send_welcome(user_id: int, *, loud: bool = False) -> str:
    sent.append(user_id)
    return f"welcome {user_id}{'!' if loud else ''}"


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task(takes_context=True)
def total(context: TaskContext) -> int:
    return sum(context.results())


@task(max_attempts=3)
def fail(text: str) -> None:
    raise LookupError(text)


@task(max_attempts=3)
def ask_again(how: str) -> None:
    if how == "retry":
        raise Retry(after=3600, reason="later")
    if how == "snooze":
        raise Snooze(after=60)
    raise Discard("never")


@task(takes_context=True)
def report(context: TaskContext) -> None:
    context.save_metadata({"pages": 3})


@task
def endless(dsn: str) -> None:
    with Client(dsn) as client:
        client.enqueue(endless, dsn)


@task
async def later(number: int) -> int:
    return number * 2
