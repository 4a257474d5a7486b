"""What one can say about a task in Python, checked, in the terms of `reproq_enqueue`.

Few imports: the process of a task imports it with the decorator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Literal, TypedDict

from reproq_listen.errors import InvalidTaskError

Exceptions = tuple[type[BaseException], ...]

MAX_INTEGER = 2**31 - 1
_MAX_DURATION = timedelta(days=36500)


class CallOptions(TypedDict, total=False):
    """Options that may differ from call to call: those of `Task.using`. Keys may name arguments: "user:{user_id}"."""

    queue_name: str
    priority: int
    run_after: datetime | timedelta
    expires_at: datetime
    max_attempts: int
    timeout: float | timedelta
    backoff: float | timedelta
    lock_key: str
    concurrency_key: str
    concurrency_limit: int
    unique_key: str
    unique_for: float | timedelta
    unique_while: Literal["queued", "active"]
    on_duplicate: Literal["keep", "replace"]
    dedupe: bool


class TaskOptions(CallOptions, total=False):
    """Options of the decorator."""

    retry_on: type[BaseException] | Exceptions
    discard_on: type[BaseException] | Exceptions


KEYS = ("lock_key", "concurrency_key", "unique_key")
"""Options whose text is filled in from the arguments of a call."""


def checked(options: Mapping[str, object]) -> dict[str, object]:
    """Give the options as parameters of `reproq_enqueue`, without `p_`. Raises InvalidTaskError, which names one."""
    found: dict[str, object] = {}
    for name, value in options.items():
        check = _CHECKS.get(name)
        if check is None:
            known = ", ".join(CallOptions.__annotations__)
            raise InvalidTaskError(f"there is no option {name!r}; there are {known}")
        parameter, stored = check(name, value)
        found[parameter] = stored
    return found


def merged(before: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Give the options with changes on top. Raises InvalidTaskError if they contradict each other."""
    found = {**before, **changes}
    if "run_after" in changes:
        found.pop("delay", None)
    if "delay" in changes:
        found.pop("run_after", None)
    if found.get("concurrency_limit") and "concurrency_key" not in found:
        raise InvalidTaskError("concurrency_limit needs a concurrency_key")
    if "unique_key" not in found and found.keys() & {"unique_for", "unique_while", "on_duplicate"}:
        raise InvalidTaskError("unique_for, unique_while and on_duplicate need a unique_key")
    if "unique_key" in found and found.get("dedupe"):
        raise InvalidTaskError("unique_key and dedupe both say what a duplicate is: leave one out")
    return found


def exceptions(name: str, value: object) -> Exceptions:
    """Check `retry_on` or `discard_on`: a tuple of exception classes. Raises InvalidTaskError."""
    classes = value if isinstance(value, tuple) else (value,)
    for kind in classes:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise InvalidTaskError(f"{name} needs exception classes, such as (OSError,), not {kind!r:.60}")
    return classes


def _integer(least: int) -> Callable[[str, object], tuple[str, object]]:
    def check(name: str, value: object) -> tuple[str, object]:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_INTEGER:
            raise InvalidTaskError(f"{name} needs an integer from {least} to {MAX_INTEGER}, not {value!r:.60}")
        return name, int(value)

    return check


def _text(name: str, value: object) -> tuple[str, object]:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidTaskError(f"{name} needs text that is not empty, not {value!r:.60}")
    return name, value


def _boolean(name: str, value: object) -> tuple[str, object]:
    if not isinstance(value, bool):
        raise InvalidTaskError(f"{name} needs True or False, not {value!r:.60}")
    return name, value


def _one_of(*choices: str) -> Callable[[str, object], tuple[str, object]]:
    def check(name: str, value: object) -> tuple[str, object]:
        if value not in choices:
            raise InvalidTaskError(f"{name} needs {' or '.join(map(repr, choices))}, not {value!r:.60}")
        return name, value

    return check


def _duration(name: str, value: object) -> timedelta:
    """Read seconds or a timedelta."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e10:
        value = timedelta(seconds=value)
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= _MAX_DURATION:
        raise InvalidTaskError(f"{name} needs seconds or a timedelta, from 0 to 100 years, not {value!r:.60}")
    return value


def _timeout(name: str, value: object) -> tuple[str, object]:
    seconds = _duration(name, value).total_seconds()
    if seconds < 1 or seconds != int(seconds) or seconds > MAX_INTEGER:
        raise InvalidTaskError(f"{name} needs whole seconds, from 1 on, not {value!r:.60}")
    return "timeout_seconds", int(seconds)


def _backoff(name: str, value: object) -> tuple[str, object]:
    return "backoff_seconds", _duration(name, value).total_seconds()


def _interval(name: str, value: object) -> tuple[str, object]:
    return name, _duration(name, value)


def _instant(name: str, value: object) -> tuple[str, object]:
    if not isinstance(value, datetime):
        kinds = "a datetime with a time zone" + (", or a timedelta" if name == "run_after" else "")
        raise InvalidTaskError(f"{name} needs {kinds}, not {value!r:.60}")
    if value.utcoffset() is None:
        raise InvalidTaskError(
            f"{name} needs a time zone: {value!r:.60} has none. "
            "Write datetime.now(UTC), or give run_after a timedelta for a time from now"
        )
    return name, value


def _run_after(name: str, value: object) -> tuple[str, object]:
    return ("delay", _duration(name, value)) if isinstance(value, timedelta) else _instant(name, value)


_CHECKS: dict[str, Callable[[str, object], tuple[str, object]]] = {
    "queue_name": _text,
    "priority": _integer(-(2**31)),
    "run_after": _run_after,
    "expires_at": _instant,
    "max_attempts": _integer(1),
    "timeout": _timeout,
    "backoff": _backoff,
    "lock_key": _text,
    "concurrency_key": _text,
    "concurrency_limit": _integer(0),
    "unique_key": _text,
    "unique_for": _interval,
    "unique_while": _one_of("queued", "active"),
    "on_duplicate": _one_of("keep", "replace"),
    "dedupe": _boolean,
}


def checked_decorator(options: TaskOptions) -> tuple[dict[str, object], Exceptions | None, Exceptions]:
    """Split the decorator's options: parameters, `retry_on` (None: everything), `discard_on`."""
    rest = dict(options)
    retry_on = exceptions("retry_on", rest.pop("retry_on")) if "retry_on" in rest else None
    discard_on = exceptions("discard_on", rest.pop("discard_on", ()))
    return merged({}, checked(rest)), retry_on, discard_on
