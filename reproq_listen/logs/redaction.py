"""Removes secrets and payloads from log lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

REDACTED = "[REDACTED]"
MAX_TEXT = 2048  # characters

_MAX_DEPTH = 6
_MIN_SECRET = 4  # characters; a shorter one would tear ordinary words apart
_PAYLOAD_KEYS = frozenset(
    {"args", "kwargs", "payload", "payload_json", "spec_json", "return_json", "errors_json", "headers", "body"}
    | {"stdout", "stderr", "traceback", "authorization"}
)
_SECRET_PARTS = ("secret", "token", "password", "api_key")


class Redactor:
    """Replaces secrets: fields by their name, and known secret values in any text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first, so that a secret which contains another one is replaced as a whole.
        self._secrets = sorted({s for s in secrets if len(s) >= _MIN_SECRET}, key=len, reverse=True)

    def clean(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {
            self.text(str(key)): REDACTED if _is_private(str(key)) else self._value(value, 1)
            for key, value in fields.items()
        }

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."

    def _value(self, value: object, depth: int) -> object:
        if depth > _MAX_DEPTH:
            return "..."
        match value:
            case None | bool() | int() | float():
                return value
            case timedelta():
                return round(value.total_seconds(), 6)
            case datetime():
                return value.isoformat()
            case UUID():
                return str(value)
            case Mapping():
                return {
                    self.text(str(key)): REDACTED if _is_private(str(key)) else self._value(item, depth + 1)
                    for key, item in value.items()
                }
            case list() | tuple() | set() | frozenset():
                return [self._value(item, depth + 1) for item in value]
            case _:
                return self.text(str(value))


def _is_private(key: str) -> bool:
    key = key.lower()
    return key in _PAYLOAD_KEYS or any(part in key for part in _SECRET_PARTS)
