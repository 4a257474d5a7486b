"""Decoding what executors send: strict, definite, and right about what PostgreSQL can store."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_listen.model import TaskError
from reproq_listen.protocol.envelope import (
    MAX_DEPTH,
    BadEnvelopeError,
    InvalidSpecError,
    clean_end,
    clean_text,
    decode_envelope,
    shorten,
    spec_path,
)


def ok(value: str) -> bytes:
    return f'{{"ok": true, "return": {value}}}'.encode()


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "value",
    [
        "null",
        "9007199254740993",
        "1.10",
        "-0",
        "1e131071",
        "1e-16383",
        "0.001e131074",
        "9" * 131_072,
        "0." + "1" * 16_383,
        '"\\ud83d\\ude00"',
        '"\\\\u0000"',
        '"\\\\\\\\u0000"',
        '"1e999999"',
        '"[[[["',
        '{"a": 1, "a": 2}',
        nested(MAX_DEPTH),
        "[" + ",".join(["[[]]"] * 1000) + "]",
    ],
)
def test_envelope_what_can_be_stored_passes_as_it_is_written(value: str) -> None:
    """The text of the result is the executor's own, untouched."""
    outcome = decode_envelope(ok(value))
    assert outcome.error is None
    assert outcome.result == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1e131072", "digits"),
        ("1e200000", "digits"),
        ("-1E+200000", "digits"),
        ("9" * 131_073, "digits"),
        ("12e131071", "digits"),
        ("1e99999999999999999999", "digits"),
        ("1e-16384", "decimal places"),
        ("1e-99999999999999999999", "decimal places"),
        ("0." + "1" * 16_384, "decimal places"),
        ('[{"a": 1e200000}]', "digits"),
        ('"\\u0000"', "NUL"),
        ('"\\\\\\u0000"', "NUL"),
        ('{"\\u0000": 1}', "NUL"),
        ('{"a": "\\u0000", "a": 1}', "NUL"),
        ('{"a": ' + nested(MAX_DEPTH) + ', "a": 1}', "nested"),
        ('"\\ud800"', "surrogate"),
        ('"\\udc00\\ud800"', "surrogate"),
        ('{"\\uDBFF": 1}', "surrogate"),
        (nested(MAX_DEPTH + 1), "nested"),
        (nested(MAX_DEPTH + 300), "nested"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested"),
    ],
)
def test_envelope_what_postgresql_cannot_keep_is_invalid_result(value: str, reason: str) -> None:
    """A good envelope with an unstorable value: a definite error that names the reason."""
    outcome = decode_envelope(ok(value))
    assert outcome.result is None
    assert outcome.error is not None
    assert outcome.error.kind == "invalid_result"
    assert reason in outcome.error.message
    assert len(outcome.error.message) < 200


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"hello", "not one JSON object"),
        (b"[]", "not a JSON object"),
        (b"true", "not a JSON object"),
        (b"{}", "ok"),
        (b'{"ok": null}', "ok"),
        (b'{"ok": 1}', "ok"),
        (b'{"ok": "true"}', "ok"),
        (b'{"ok": true} {"ok": true}', "more than one"),
        (b'{"ok": true}x', "more than one"),
        (b'{"ok": true, "return": NaN}', "NaN"),
        (b'{"ok": true, "return": Infinity}', "Infinity"),
        (b'{"ok": true, "return": 01}', "not one JSON object"),
        (b'{"ok": true, "return": "\xff"}', "UTF-8"),
        (b'{"ok": true, "return": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"ok": true, "return": "\x00"}', "not one JSON object"),
        (b'{"ok": true', "not one JSON object"),
        (b'\xef\xbb\xbf{"ok": true}', "not one JSON object"),
        (ok(nested(100_000)), "nested"),
        (b'{"ok": false, "message": ' + nested(100_000).encode() + b"}", "nested"),
    ],
)
def test_envelope_what_is_no_envelope_is_said_to_be_none(body: bytes, reason: str) -> None:
    """Nothing is guessed: two objects, text around one, NaN, bad UTF-8, an ok that is no boolean."""
    with pytest.raises(BadEnvelopeError, match=reason):
        decode_envelope(body)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({}, TaskError("app_error", "the task failed without a message")),
        ({"exception_class": "E"}, TaskError("app_error", "E", exception_class="E")),
        ({"message": 5, "traceback": ["x"]}, TaskError("app_error", "5", traceback='["x"]')),
        ({"message": "a\0b\ud800c"}, TaskError("app_error", "a\ufffdb\ufffdc")),
        ({"message": "m", "kind": "invalid_spec"}, TaskError("invalid_spec", "m")),
        ({"message": "m", "kind": "security_violation"}, TaskError("security_violation", "m")),
        ({"message": "m", "kind": "lease_expiry"}, TaskError("app_error", "m")),
        ({"message": "m", "kind": ["x"]}, TaskError("app_error", "m")),
        ({"message": "m", "return": float("1e300"), "unknown": {}}, TaskError("app_error", "m")),
    ],
)
def test_reported_error_is_taken_over_storable(members: dict[str, Any], error: TaskError) -> None:
    """Members of any type, any text; an executor may name only the kinds of refusals."""
    outcome = decode_envelope(json.dumps({"ok": False, **members}).encode())
    assert outcome.result is None
    assert outcome.error == error


@given(st.text(), st.integers(min_value=32, max_value=64))
def test_cut_text_is_clean_and_as_long_as_it_may_be(text: str, limit: int) -> None:
    """At most `limit` bytes, no NUL, valid UTF-8, and not a whole character less than fits."""
    for cut in (clean_text(text, limit), clean_end(text, limit), shorten(text, limit)):
        assert len(cut.encode()) <= limit
        assert "\0" not in cut
    plain = text.replace("\0", "\ufffd")
    assert plain.startswith(clean_text(text, limit))
    assert plain.endswith(clean_end(text, limit))
    if len(plain.encode()) <= limit:
        assert clean_text(text, limit) == clean_end(text, limit) == shorten(text, limit) == plain
    else:
        assert len(clean_text(text, limit).encode()) > limit - 4


@given(st.text(alphabet=st.characters(categories=["Cs", "Lu", "Cc"])))
def test_any_text_becomes_storable(text: str) -> None:
    """Half surrogates and NULs are replaced, one for one; everything else stays."""
    clean = clean_text(text, 1000)
    clean.encode()
    assert "\0" not in clean


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(json_values, st.sampled_from([True, False]))
def test_envelope_every_json_value_comes_through_or_is_refused_for_its_nul(value: object, is_ascii: bool) -> None:
    """No false alarms: only a NUL (hypothesis makes no surrogates here) stops an ordinary value."""
    body = json.dumps({"ok": True, "return": value}, ensure_ascii=is_ascii)
    outcome = decode_envelope(body.encode())
    if "\0" in repr_all(value):
        assert outcome.error is not None
    else:
        assert outcome.result is not None
        assert json.loads(outcome.result) == value


def repr_all(value: object) -> str:
    """All texts in a value, keys included, joined."""
    if isinstance(value, dict):
        return "".join(str(key) + repr_all(child) for key, child in value.items())
    if isinstance(value, list):
        return "".join(map(repr_all, value))
    return value if isinstance(value, str) else ""


PIECES = b'{"ok": true false ,"return": { } [ ] " \\ u0000 \\ud800 1e9999 , : NaN \xff \0 "message": null - 1'
pieces = st.sampled_from([*PIECES.split(b" "), b" "])


@given(st.lists(pieces, max_size=30).map(b"".join) | st.binary(max_size=100))
def test_garbage_never_raises_anything_else(body: bytes) -> None:
    """Whatever the bytes: an outcome, or BadEnvelopeError."""
    try:
        outcome = decode_envelope(body)
    except BadEnvelopeError:
        return
    assert (outcome.result is None) != (outcome.error is None)


def test_path_of_a_spec() -> None:
    """It is read without decoding the rest, so numbers and nesting in the arguments do not matter."""
    assert spec_path('{"args": [1e400, "\\u00e4"], "task_path": "a.b"}') == "a.b"


@pytest.mark.parametrize("spec", ["", "[]", "{}", '{"task_path": 1}', '{"task_path": ""}', "nonsense", "\ud800"])
def test_spec_without_a_path_is_invalid(spec: str) -> None:
    """Not an object, no path, or a path that is no text."""
    with pytest.raises(InvalidSpecError):
        spec_path(spec)
