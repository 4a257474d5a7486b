"""Arguments and results by annotations: both ways the same, and what cannot be encoded is refused with its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from reproq_listen import InvalidArgumentsError, ReproqError
from reproq_listen.child.payload import RefusedError
from reproq_listen.client.annotations import is_plain
from reproq_listen.client.codec import Codec
from reproq_listen.protocol import plain
from tests.apps import client_tasks as app

ADDRESS = app.Address("Ring 1", date(2026, 1, 2))
ORDER = app.Order(UUID(int=7), Decimal("12.50"), ADDRESS)
AT = datetime(2026, 3, 29, 2, 30, tzinfo=UTC)


def test_codec_typed_arguments_come_back() -> None:
    """What the function gets equals what the producer gave, after JSON."""
    call = app.typed.call(ORDER, AT, timedelta(minutes=5), backup=ADDRESS)
    args, kwargs = json.loads(json.dumps([call.encoded_args, call.encoded_kwargs]))
    assert app.typed.read_arguments(args, kwargs) == ([ORDER, AT, timedelta(minutes=5)], {"backup": ADDRESS})
    result = json.loads(json.dumps(app.typed.write_result(ORDER)))
    assert app.typed.codec.decode_result(result) == ORDER


def test_codec_leaves_plain_json_alone() -> None:
    """Without annotations JSON passes as it is."""
    call = app.untyped.call([1, {"a": None}], 2.5, key="text")
    assert (call.encoded_args, call.encoded_kwargs) == ([[1, {"a": None}], 2.5], {"key": "text"})
    args: list[object] = [1]
    assert app.untyped.read_arguments(args, {})[0] is args


class Colour:
    pass


@dataclass
class Point:
    x: float


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (AT, "argument value is of type datetime.datetime"),
        ({"a": [1, Colour()]}, r"argument value\['a'\]\[1\] is of type tests.unit.test_client_codec.Colour"),
        (Point(1.0), "argument value is of type .*Point"),
        ({3: "a"}, "has the key 3 of type int"),
        (float("nan"), "argument value is nan"),
        ([float("inf")], r"argument value\[0\] is inf"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        ({"a\0": 1}, "argument value holds the character NUL"),
        (b"bytes", "of type bytes"),
        ({1, 2}, "of type set"),
    ],
)
def test_codec_refuses_what_is_not_json(value: object, reason: str) -> None:
    """With type and place, before any SQL: a database error would end the caller's transaction."""
    with pytest.raises(InvalidArgumentsError, match=reason):
        app.untyped.call(value)
    assert plain.problem(value, "argument value") is not None


def test_codec_refuses_a_deep_nesting() -> None:
    """And a circle, which is the deepest of all."""
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(InvalidArgumentsError, match="nested more than 500 levels deep"):
        app.untyped.call(circle)


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "reason"),
    [
        (app.send_welcome, ("x",), {}, "argument user_id: Expected `int`, got `str`"),
        (app.send_welcome, (), {}, "missing a required argument: 'user_id'"),
        (app.send_welcome, (1,), {"lout": True}, "unexpected keyword argument 'lout'"),
        (app.with_context, ([AT, "soon"],), {}, r"argument times: Invalid RFC3339 encoded datetime - at `\$\[1\]`"),
        (app.typed, (ORDER, AT, 5j), {}, "argument pause is of type complex"),
        (app.debounced, ("a",), {"value": float("nan")}, "argument value: Expected `int`, got `float`"),
        (app.loose, ({"a": AT},), {}, r"argument values\['a'\] is of type datetime"),
        (app.loose, ([],), {}, "argument values: Expected `object`, got `array`"),
        (app.send_welcome, (1,), {"loud": "\0"}, "argument loud: Expected `bool`, got `str`"),
    ],
)
def test_codec_refuses_what_the_function_could_not_take(task: Any, args: Any, kwargs: Any, reason: str) -> None:
    """The signature first, then the types."""
    with pytest.raises(InvalidArgumentsError, match=reason):
        task.call(*args, **kwargs)


def test_codec_context_is_not_an_argument() -> None:
    """Producers do not give it."""
    assert app.with_context.call([AT]).encoded_args == [["2026-03-29T02:30:00Z"]]
    with pytest.raises(InvalidArgumentsError):
        app.with_context.call("context", [AT])  # type: ignore[call-arg, arg-type]


def test_codec_decode_refuses_wrong_json() -> None:
    """Rows may come from psql: the task fails as invalid_spec, and is not tried again."""
    with pytest.raises(RefusedError, match="argument order: Object missing required field `number`") as refused:
        app.typed.read_arguments([{}], {})
    assert refused.value.kind == "invalid_spec"


def test_codec_refuses_results_with_type_and_place() -> None:
    """A value that msgspec cannot encode."""
    with pytest.raises(RefusedError, match="the return value is of type list and cannot be stored") as refused:
        app.wrong_typed_result.write_result(app.wrong_typed_result())
    assert refused.value.kind == "invalid_result"


def test_codec_says_when_a_stored_result_does_not_fit() -> None:
    """The annotation has changed since."""
    with pytest.raises(ReproqError, match="typed: the stored result: Expected `object`, got `int`"):
        app.typed.codec.decode_result(3)


def test_codec_survives_names_for_type_checkers_only() -> None:
    """An annotation that cannot be evaluated counts as missing; the others are read."""
    assert app.loose.call({"a": 1}, None).encoded_args == [{"a": 1}, None]


def path_like(path: Path) -> Path:
    return path


def test_codec_unknown_classes_must_be_json() -> None:
    """A Path would arrive as text."""
    codec = Codec(path_like, takes_context=False)
    assert codec.encode(("a",), {}) == (["a"], {})
    with pytest.raises(InvalidArgumentsError, match="argument path is of type pathlib"):
        codec.encode((Path("a"),), {})


def test_plain_annotations_need_no_conversion() -> None:
    """Then the process of a task imports neither inspect nor msgspec."""
    assert is_plain(app.send_welcome.func) == (True, True)
    assert is_plain(app.typed.func) == (False, False)
    assert is_plain(app.later.func) == (True, False)
    assert is_plain(app.loose.func) == (False, True)
    for text, expected in {
        "dict[str, list[int]] | None": True,
        "dict[int, str]": False,
        "dict": True,
        "tuple[int, int]": False,
        "Interval": False,
        "list[Integer]": False,
    }.items():
        function = lambda: None  # noqa: E731
        function.__annotations__ = {"value": text}
        assert is_plain(function) == (expected, True), text
    for annotation, expected in ((dict[str, list[int]] | None, True), (dict[int, str], False), (set[int], False)):
        function = lambda: None  # noqa: E731
        function.__annotations__ = {"value": annotation}
        assert is_plain(function) == (expected, True), annotation
