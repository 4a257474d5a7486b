"""The executor's command line, and the spec of the task. Few imports, all of the standard library."""

import json
import os

PAYLOAD_FLAGS = ("--payload-stdin", "--payload-file", "--payload-json")


class ArgumentsError(Exception):
    """The command line does not follow the contract."""


class RefusedError(Exception):
    """The task cannot or must not run, or its result cannot be stored; `kind` is the failure kind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Options:
    """The parsed command line. Accepts `--flag value` and `--flag=value`."""

    __slots__ = ("attempt", "payload", "result_id", "source")

    def __init__(self, arguments: list[str]) -> None:
        """Raises ArgumentsError."""
        values = _read_flags(arguments)
        sources = [flag for flag in PAYLOAD_FLAGS if flag in values]
        if len(sources) != 1:
            raise ArgumentsError("give exactly one of " + ", ".join(PAYLOAD_FLAGS))
        self.source = sources[0]
        self.payload = values[self.source]
        self.result_id = _whole_number(values, "--result-id")
        self.attempt = _whole_number(values, "--attempt")

    def read_payload(self) -> str:
        """Give the payload's text. Raises RefusedError if it cannot be read or is not UTF-8."""
        try:
            if self.source == "--payload-json":
                return self.payload
            if self.source == "--payload-stdin":
                return _decode(_read_all(0))
            with open(self.payload, "rb") as file:
                return _decode(file.read())
        except OSError as error:
            raise RefusedError("invalid_spec", f"the payload cannot be read: {error}") from error


class ReceivedTask:
    """As Options, in a child that has read its payload."""

    __slots__ = ("attempt", "payload", "result_id")

    def __init__(self, result_id: int, attempt: int, payload: bytes) -> None:
        self.result_id = result_id
        self.attempt = attempt
        self.payload = payload

    def read_payload(self) -> str:
        """Give the payload's text. Raises RefusedError if it is not UTF-8."""
        return _decode(self.payload)


def _decode(payload: bytes) -> str:
    """Give the payload's text. Raises RefusedError if it is not UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise RefusedError("invalid_spec", f"the payload cannot be read: {error}") from error


def _read_all(fd: int) -> bytes:
    """As sys.stdin.buffer.read(), which costs a forked child much more."""
    data = b""
    while more := os.read(fd, 1 << 16):
        data += more
    return data


def _read_flags(arguments: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in ("--result-id", "--attempt", *PAYLOAD_FLAGS) or flag in values:
            raise ArgumentsError(f"unknown or repeated argument {flag}")
        if not equals and flag != "--payload-stdin":
            value = next(rest, "")
        values[flag] = value
    return values


def _whole_number(values: dict[str, str], flag: str) -> int:
    text = values.get(flag, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ArgumentsError(f"{flag} must be a whole number")
    return int(text)


class Spec:
    """The decoded payload: which function to call, with which arguments."""

    __slots__ = ("args", "kwargs", "limits", "path", "queue_name", "takes_context")

    path: str
    args: list[object]
    kwargs: dict[str, object]
    takes_context: bool
    queue_name: str
    limits: dict[str, object]
    """`max_attempts` and `timeout_seconds`, as it was enqueued; empty where it does not say."""

    def __init__(self, text: str) -> None:
        """Raises RefusedError (`invalid_spec`) with the reason."""
        try:
            decoder = _REVIVING if '"__reproq_type__"' in text else _PLAIN
            spec = decoder.decode(text)
        except (ValueError, RecursionError) as error:
            raise RefusedError("invalid_spec", f"the payload is not JSON: {error}") from error
        if not isinstance(spec, dict):
            raise RefusedError("invalid_spec", "the payload is not a JSON object")
        if spec.get("v", 1) != 1:
            raise RefusedError("invalid_spec", f"v is {spec['v']!r:.40}; this executor knows version 1 of the spec")
        for name, kind, default in _FIELDS:
            value = spec.get(name, default)
            if not isinstance(value, kind):
                raise RefusedError("invalid_spec", f"{name} is missing or wrong: it must be a JSON {_JSON_NAMES[kind]}")
            setattr(self, "path" if name == "task_path" else name, value)
        limits = spec.get("exec")
        self.limits = limits if isinstance(limits, dict) else {}


_FIELDS: tuple[tuple[str, type, object], ...] = (
    ("task_path", str, None),
    ("args", list, []),
    ("kwargs", dict, {}),
    ("takes_context", bool, False),
    ("queue_name", str, "default"),
)
_JSON_NAMES = {str: "string", list: "array", dict: "object", bool: "boolean"}


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _revive(value: dict[str, object]) -> object:
    """Turn a marked object into the Python value it stands for."""
    marker = value.get("__reproq_type__")
    if marker is None:
        return value
    if marker == "timedelta":
        from datetime import timedelta  # late: few payloads have one

        try:
            parts = {name: value.get(name, 0) for name in ("days", "seconds", "microseconds")}
            return timedelta(**parts)  # type: ignore[arg-type]
        except (TypeError, OverflowError) as error:
            raise RefusedError("invalid_spec", f"a timedelta in the payload is wrong: {error}") from error
    if marker == "model":
        raise RefusedError("invalid_spec", "the payload holds a Django model; run it with reproq_django.executor")
    raise RefusedError("invalid_spec", f"the payload holds a marked value of unknown type {marker!r:.40}")


_PLAIN = json.JSONDecoder(parse_constant=_no_constant)
_REVIVING = json.JSONDecoder(parse_constant=_no_constant, object_hook=_revive)
