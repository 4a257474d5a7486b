"""The bytes between worker and executor: payloads out, envelopes in.

Every answer here is definite. A result that passes can be stored as jsonb. One that cannot be stored ends its attempt
as `invalid_result`, with the reason, and does not become a database error that repeats. The limits are PostgreSQL's
own: no NUL, no lone surrogates, numbers within `numeric`, and a nesting that the stack of its parser holds.
"""

import contextlib
import json
import re
from collections.abc import Iterable

import msgspec

from reproq_listen.model import Outcome, TaskError
from reproq_listen.protocol.executor import ASKED_KINDS, REFUSAL_KINDS

MAX_DEPTH = 500
"""Levels of nesting. PostgreSQL's default stack (2 MB) holds several thousand."""
MAX_NUMERIC_WHOLE_DIGITS = 131_072
MAX_NUMERIC_FRACTION_DIGITS = 16_383

MAX_TEXT_BYTES = 8 << 10
MAX_NAME_BYTES = 255
STDERR_TAIL_BYTES = 4 << 10

_PLAIN_BYTES = 4 << 10
_NOTHING = Outcome(result="null", error=None)

# Only a number with an exponent of four digits, or with thousands of digits, can be out of range.
_LARGE_NUMBER = re.compile(rb"[eE][+-]?[0-9]{4}|[0-9]{4000}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NUL = b"\\u0000"
_NUMBER = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


class InvalidSpecError(Exception):
    """The spec does not name the task to run."""


class BadEnvelopeError(Exception):
    """The bytes are not one envelope of the contract. The text is the reason."""


class UnusableMetadataError(Exception):
    """A task's metadata is no JSON object that PostgreSQL can store. The text is the reason."""


class UnstorableError(Exception):
    """A JSON value that PostgreSQL cannot store as jsonb. The text is the reason."""


class _Spec(msgspec.Struct):
    task_path: object = None


class _Return(msgspec.Struct):
    """Takes the return value out of an envelope as it is written, digit by digit."""

    text: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="return")
    enqueue: msgspec.Raw = msgspec.Raw(b"")


def spec_path(spec: str) -> str:
    """Give the path of the task that this spec would run. Raises InvalidSpecError."""
    try:
        path = msgspec.json.decode(spec, type=_Spec).task_path
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidSpecError(f"the spec is not a JSON object: {error}") from error
    if not isinstance(path, str) or not path:
        raise InvalidSpecError("task_path is missing from the spec, or is not a text")
    return path


def decode_envelope(body: bytes) -> Outcome:
    """Read an executor's one JSON object. Unknown members are ignored, a missing `return` is null.

    A good result that cannot be stored gives an outcome with the error `invalid_result`.
    Raises BadEnvelopeError if this is not an envelope.
    """
    members = _decode(body)
    if not isinstance(members, tuple):
        raise BadEnvelopeError("it is not a JSON object")
    envelope = dict(members)
    ok = envelope.get("ok")
    if not isinstance(ok, bool):
        raise BadEnvelopeError("its member ok is missing or neither true nor false")
    if not ok:
        return Outcome(result=None, error=_reported_error(envelope))
    try:
        for name in ("return", "enqueue"):
            _check_storable(body, envelope.get(name))
        returned = msgspec.json.decode(body, type=_Return)
    except UnstorableError as reason:
        message = clean_text(f"the return value cannot be stored: {reason}")
        return Outcome(result=None, error=TaskError(kind="invalid_result", message=message))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadEnvelopeError(f"it is not JSON: {error}") from error
    follow_ups = bytes(returned.enqueue).decode() if isinstance(envelope.get("enqueue"), list) else None
    return Outcome(result=bytes(returned.text).decode(), error=None, follow_ups=follow_ups)


def result_outcome(body: bytes) -> Outcome:
    """As `decode_envelope` does for a good result whose JSON text is `body`, and gives an outcome in any case.

    Most results are small and plain: one look shows that they can be stored.
    """
    if body == b"null":
        return _NOTHING
    plain = len(body) <= _PLAIN_BYTES and b"\\" not in body and body.count(b"[") + body.count(b"{") <= MAX_DEPTH
    if plain and not _LARGE_NUMBER.search(body):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            msgspec.json.decode(body)
            return Outcome(result=body.decode(), error=None)
    try:
        return decode_envelope(b'{"ok": true, "return": ' + body + b"}")
    except BadEnvelopeError as error:
        message = f"the executor's result cannot be used: {error}"
        return Outcome(result=None, error=TaskError(kind="invalid_result", message=clean_text(message)))


def decode_metadata(body: bytes) -> dict[str, msgspec.Raw]:
    """Decode the metadata of a task: a JSON object, its values left as written. Raises UnusableMetadataError."""
    try:
        members = _decode(body)
        if not isinstance(members, tuple):
            raise UnusableMetadataError("it is not a JSON object")
        _check_storable(body, members)
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (BadEnvelopeError, UnstorableError) as error:
        raise UnusableMetadataError(str(error)) from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnusableMetadataError(f"it is not JSON: {error}") from error


def _decode(body: bytes) -> object:
    """Decode strictly: UTF-8, JSON without NaN, nothing before or after.

    Numbers stay text, and an object becomes a tuple of pairs: PostgreSQL reads every value of a repeated name, so
    every one must be checked here too.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadEnvelopeError(f"it is not UTF-8 (byte {error.start})") from error
    if not text.strip():
        raise BadEnvelopeError("it is empty")
    try:
        return json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
            object_pairs_hook=tuple,
        )
    except json.JSONDecodeError as error:
        more = "there is more than one JSON value" if error.msg == "Extra data" else error.msg
        raise BadEnvelopeError(f"it is not one JSON object: {more} (character {error.pos})") from error
    except RecursionError as error:
        raise BadEnvelopeError("it is nested too deeply") from error


def _refuse_constant(name: str) -> object:
    raise BadEnvelopeError(f"it holds {name}, which is not JSON")


def _check_storable(raw: bytes, value: object) -> None:
    """Raise UnstorableError, with the reason, unless `value` can be stored. `_decode` has made it from `raw`."""
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
        raise UnstorableError(f"it is nested more than {MAX_DEPTH} levels deep")
    if _LARGE_NUMBER.search(raw):
        json.loads(raw, parse_int=_check_number, parse_float=_check_number)
    if _NUL in raw or _SURROGATE.search(raw):
        text = json.dumps(value, ensure_ascii=False)
        # In this text only a NUL is still escaped; an escaped backslash before it is no escape of it.
        if re.search(r"(?<!\\)(?:\\\\)*\\u0000", text):
            raise UnstorableError("it holds the character NUL (\\u0000)")
        if not _is_unicode(text):
            raise UnstorableError("it holds half of a surrogate pair (\\ud800 to \\udfff)")


def _is_deeper(value: object, levels: int) -> bool:
    """Walk breadth first, so that no nesting can exhaust the stack."""
    level = [value]
    for _ in range(levels):
        level = [child for parent in level for child in _inside(parent)]
        if not level:
            return False
    return any(isinstance(value, (list, tuple)) for value in level)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, tuple):
        return [child for _, child in value]
    return value if isinstance(value, list) else ()


def _check_number(text: str) -> None:
    """Raise UnstorableError unless `numeric` holds this number (zeros with absurd exponents are refused too)."""
    match = _NUMBER.fullmatch(text)
    assert match is not None, "the JSON parser hands over numbers only"
    whole, fraction, exponent_text = match[1], match[2] or "", match[3] or "0"
    exponent = int(exponent_text[:9])  # with nine digits it is far out of range already
    leading_zeros = len(whole + fraction) - len((whole + fraction).lstrip("0"))
    if len(whole) - leading_zeros + exponent > MAX_NUMERIC_WHOLE_DIGITS:
        raise UnstorableError(f"the number {text:.40} has more digits than PostgreSQL can store")
    if len(fraction) - exponent > MAX_NUMERIC_FRACTION_DIGITS:
        raise UnstorableError(f"the number {text:.40} has more decimal places than PostgreSQL can store")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reported_error(envelope: dict[str, object]) -> TaskError:
    kind = _as_text(envelope.get("kind"))
    until = envelope.get("until")
    name = _as_text(envelope.get("exception_class"))
    message = clean_text(_as_text(envelope.get("message")))
    return TaskError(
        kind=kind if kind in REFUSAL_KINDS | ASKED_KINDS else "app_error",
        message=message or clean_text(name) or "the task failed without a message",
        exception_class=clean_text(name, MAX_NAME_BYTES) or None,
        traceback=shorten(_as_text(envelope.get("traceback"))) or None,
        after_seconds=_as_seconds(envelope.get("after_seconds")) if kind in ASKED_KINDS else None,
        until=clean_text(until, MAX_NAME_BYTES) if kind in ASKED_KINDS and isinstance(until, str) else None,
    )


def _as_seconds(value: object) -> float | None:
    """Give a number of seconds, which is text yet; None if it is none."""
    try:
        seconds = float(value) if isinstance(value, str) else -1.0
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < float("inf") else None


def _as_text(value: object) -> str:
    """Give a member that should be text as text, whatever its type is."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)


def shorten(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """As `clean_text`, but cut in the middle: both ends of a traceback matter."""
    if len(text) <= limit // 2 or len(text.encode(errors="replace")) <= limit:
        return clean_text(text, limit)
    gap = "\n[...]\n"
    head, tail = limit // 4, limit - limit // 4 - len(gap)
    return clean_text(text, head) + gap + clean_end(text, tail)


def clean_end(text: str, limit: int) -> str:
    """As `clean_text`, but keep the end of the text."""
    return clean_text(text[-limit:], 4 * limit).encode()[-limit:].decode(errors="ignore")


def clean_text(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Make text storable: no NUL, no lone surrogates, at most `limit` bytes of UTF-8, cut at a character."""
    text = text[:limit].replace("\x00", "\ufffd")
    if not _is_unicode(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.encode()[:limit].decode(errors="ignore")
