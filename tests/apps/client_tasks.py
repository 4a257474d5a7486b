"""Functions with the decorator, as an application writes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import Struct

from reproq_listen import TaskContext, task

if TYPE_CHECKING:
    from tests.nowhere import Unknown  # type: ignore[import-untyped]


MINUTE = timedelta(minutes=1)


@dataclass
class Address:
    street: str
    since: date


class Order(Struct):
    number: UUID
    total: Decimal
    ship_to: Address


@task(queue_name="mail", max_attempts=5, timeout=30, backoff=2, lock_key="user:{user_id}")
def send_welcome(user_id: int, *, loud: bool = False) -> str:
    return f"welcome {user_id}{'!' if loud else ''}"


@task(queue_name="mail")
def add(a: int, b: int, *, loud: bool = False) -> int:
    return a + b


@task
def typed(order: Order, at: datetime, pause: timedelta, *, backup: Address | None = None) -> Order:
    assert isinstance(order, Order)
    assert isinstance(order.total, Decimal)
    assert at.tzinfo is not None
    assert isinstance(pause, timedelta)
    assert backup is None or isinstance(backup, Address)
    return Order(number=order.number, total=order.total * 2, ship_to=order.ship_to)


@task
def untyped(value, *more, **named):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN201
    return [value, more, named]


@task
def loose(values: dict[str, Any], unknown: Unknown = None) -> Any:
    return values


@task
async def later(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


@task(takes_context=True)
def with_context(context: TaskContext, times: list[datetime]) -> dict[str, int]:
    assert all(isinstance(time, datetime) for time in times)
    return {"attempt": context.attempt, "times": len(times)}


@task
def wrong_result() -> Any:
    return {"rows": [1, {2, 3}]}


@task
def wrong_typed_result() -> Address:
    return [object()]  # type: ignore[return-value]


@task(discard_on=LookupError)
def look_up(key: str) -> str:
    return {"a": "b"}[key]


@task(retry_on=(ConnectionError,), backoff=0, max_attempts=2)
def connect(kind: str) -> None:
    raise ConnectionError("away") if kind == "away" else ValueError("wrong")


@task(unique_key="{key}", on_duplicate="replace", unique_while="queued")
def debounced(key: str, value: int) -> int:
    return value


@task(concurrency_key="host:{host.street}", concurrency_limit=2)
def crawl(host: Address, path: str = "/") -> None: ...
