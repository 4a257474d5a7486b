"""Turns the text of one setting into a value. Every function raises ValueError that says what is accepted."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple, TypeVar

W = TypeVar("W", bound=str)

MAX_INTEGER = 2**31 - 1  # PostgreSQL's integer
MAX_QUEUES = 1000
MAX_QUEUE_NAME_BYTES = 1024

_PLAIN_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.%\w]+)\]|(?P<host>[\w.-]*))(?::(?P<port>\d{1,5}))?", re.ASCII)
_DURATION = re.compile(
    r"(?:(?P<d>\d{1,6}(?:\.\d{1,9})?)d)?(?:(?P<h>\d{1,9}(?:\.\d{1,9})?)h)?(?:(?P<m>\d{1,9}(?:\.\d{1,9})?)m(?!s))?"
    r"(?:(?P<s>\d{1,9}(?:\.\d{1,9})?)s)?(?:(?P<ms>\d{1,9}(?:\.\d{1,9})?)ms)?",
    re.ASCII,
)

_NEVER = ("off", "false", "no", "none", "never", "disabled")
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        text = text.strip()
        if _WHOLE_NUMBER.fullmatch(text) and minimum <= int(text) <= maximum:
            return int(text)
        raise ValueError(f"needs a whole number from {minimum} to {maximum}, not {shown(text)}")

    return parse


def seconds(minimum: timedelta, maximum: timedelta) -> Callable[[str], timedelta]:
    """A plain number of seconds, as in `30` or `0.5`."""

    def parse(text: str) -> timedelta:
        text = text.strip()
        if not _PLAIN_NUMBER.fullmatch(text):
            raise ValueError(f"needs a plain number of seconds such as 30, not {shown(text)}")
        return _within(timedelta(seconds=float(text)), minimum, maximum)

    return parse


def seconds_or_default(minimum: timedelta, maximum: timedelta) -> Callable[[str], timedelta | None]:
    """A plain number of seconds; 0 is None: the default."""

    def parse(text: str) -> timedelta | None:
        value = seconds(timedelta(0), maximum)(text)
        if value and value < minimum:
            raise ValueError(
                f"must be 0 or from {minimum.total_seconds():.12g} to {maximum.total_seconds():.12g} seconds, "
                f"not {value.total_seconds():.12g}"
            )
        return value or None

    return parse


def duration(minimum: timedelta, maximum: timedelta) -> Callable[[str], timedelta]:
    """A number with its unit, as in `100ms`, `30s`, `1m`, `1h`, `1h30m` or `30d`."""

    def parse(text: str) -> timedelta:
        text = text.strip()
        match = _DURATION.fullmatch("0s" if text == "0" else text)
        if not text or match is None:
            raise ValueError(f"needs a duration with its unit, such as 100ms, 30s, 1m or 1h30m, not {shown(text)}")
        part = {unit: float(number or 0) for unit, number in match.groupdict().items()}
        minutes = (part["d"] * 24 + part["h"]) * 60 + part["m"]
        value = timedelta(minutes=minutes, seconds=part["s"], milliseconds=part["ms"])
        return _within(value, minimum, maximum)

    return parse


def interval_or_never(minimum: timedelta, maximum: timedelta) -> Callable[[str], timedelta | None]:
    """A duration, or a plain number of seconds as in `60`; 0 and `off` are None: never."""

    def parse(text: str) -> timedelta | None:
        text = text.strip()
        if text.lower() in _NEVER:
            return None
        is_plain = text.isascii() and text.isdigit() and len(text) <= 9
        value = duration(timedelta(0), maximum)(f"{text}s" if is_plain else text)
        return _within(value, minimum, maximum) if value else None

    return parse


def _within(value: timedelta, minimum: timedelta, maximum: timedelta) -> timedelta:
    if minimum <= value <= maximum:
        return value
    raise ValueError(
        f"must be from {minimum.total_seconds():.12g} to {maximum.total_seconds():.12g} seconds, "
        f"not {value.total_seconds():.12g}"
    )


def aging_factor(text: str) -> float:
    text = text.strip()
    if not _PLAIN_NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"needs a plain number of seconds, or 0 to switch aging off, not {shown(text)}")
    return float(text)


def name(max_bytes: int) -> Callable[[str], str]:
    """Any text that can be stored and shown on one line."""

    def parse(text: str) -> str:
        if not text.strip():
            raise ValueError("must not be empty")
        _check_text(text, max_bytes)
        return text

    return parse


def queue_names(text: str) -> tuple[str, ...]:
    """Names separated by commas. Spaces around a name are dropped, and so are empty names and a name given twice."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise ValueError("names no queue: give names separated by commas, such as a,b")
    for each in names:
        _check_text(each, MAX_QUEUE_NAME_BYTES)
    unique = tuple(dict.fromkeys(names))
    if len(unique) > MAX_QUEUES:
        raise ValueError(f"names {len(unique)} queues; at most {MAX_QUEUES} are possible")
    return unique


def module_prefixes(text: str) -> tuple[str, ...]:
    """Module names separated by commas; `*` allows every module; empty allows none."""
    prefixes = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for prefix in prefixes:
        if prefix != "*":
            module_name(prefix.removesuffix("."))
    return prefixes


def module_name(text: str) -> str:
    text = text.strip()
    if not text or not all(part.isidentifier() for part in text.split(".")):
        raise ValueError(f"needs a module name such as myapp.tasks, not {shown(text)}")
    return text


def one_of(*words: W) -> Callable[[str], W]:
    """One of a few words."""

    def parse(text: str) -> W:
        found = next((word for word in words if word == text.strip()), None)
        if found is None:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}, not {shown(text)}")
        return found

    return parse


def module_names(text: str) -> tuple[str, ...]:
    """Full names of modules separated by commas; empty entries are dropped."""
    return tuple(module_name(entry) for entry in text.split(",") if entry.strip())


def variable_names(text: str) -> tuple[str, ...]:
    """Names of environment variables separated by commas; `AWS_*` stands for all that begin with `AWS_`."""
    names = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    for each in names:
        if not (each.removesuffix("*").replace("_", "a").isalnum() and each.isascii()):
            raise ValueError(f"needs names of variables such as AWS_*,DJANGO_SETTINGS_MODULE, not {shown(each)}")
    return names


def size(text: str) -> int:
    """A number of bytes, or of KiB, MiB or GiB with K, M or G at its end. 0 means no limit."""
    text = text.strip()
    unit = _UNITS.get(text[-1:].upper(), 1)
    number = text if unit == 1 else text[:-1]
    if not (number.isascii() and number.isdigit() and len(number) <= 15):
        raise ValueError(f"needs a size such as 512M, 2G or a number of bytes, not {shown(text)}")
    return int(number) * unit


def dsn(text: str) -> str:
    """Any DSN; `db/dsn.py` checks its parts. Errors never repeat its text: it may hold a password."""
    if not text.strip():
        raise ValueError("is empty: give postgresql://user@host/database, or host=... dbname=...")
    if not text.isprintable():
        raise ValueError("has a control character in it: check for a stray newline")
    return text.strip()


class HostPort(NamedTuple):
    """Where to listen. `host` None: on all interfaces. `port` None: not given; 0: any free one."""

    host: str | None
    port: int | None


def host_port(text: str) -> HostPort:
    """`host:port`, `[ipv6]:port`, `:port`, or a host alone."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or not text.strip():
        raise ValueError(f"needs host:port such as 127.0.0.1:9090, [::1]:9090 or :9090, not {shown(text)}")
    port = None if match["port"] is None else whole_number(0, 65535)(match["port"])
    return HostPort(match["six"] or match["host"] or None, port)


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses and networks separated by commas, such as `10.0.0.0/8,::1`. `localhost`: all loopback addresses."""
    found: list[IPv4Network | IPv6Network] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        if part.lower() == "localhost":
            found += _LOOPBACK
            continue
        try:
            found.append(ip_network(part, strict=False))
        except ValueError:
            raise ValueError(
                f"needs addresses and networks such as 10.0.0.0/8, ::1 or localhost, not {shown(part)}"
            ) from None
    if not found:
        raise ValueError("is empty: give addresses and networks such as 10.0.0.0/8, or leave it out")
    return tuple(found)


def token(text: str) -> str:
    """A token for an Authorization header. Errors never repeat its text."""
    if not text or not all(33 <= ord(char) <= 126 for char in text):
        raise ValueError("must be printable ASCII without spaces")
    return text


def switch(text: str) -> bool:
    """1 or 0, in the usual words."""
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ValueError(f"must be 1 or 0, not {shown(text)}")


def shown(text: str) -> str:
    """Quote what the user wrote, cut, on one line."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _check_text(text: str, max_bytes: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8") from None
    if size > max_bytes:
        raise ValueError(f"is {size} bytes long; at most {max_bytes} are possible")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError("has a control character in it, such as a newline")
