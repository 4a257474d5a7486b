"""Arguments and results by a function's annotations: checked and encoded before SQL, decoded in the task's process.

msgspec converts both ways: datetime, date, timedelta, UUID, Decimal, dataclasses, msgspec Structs and what else it
knows. Where an annotation is missing or says nothing (`object`, `Any`, a class that msgspec does not know), only JSON
passes: a value that would arrive as another type is refused.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import UnionType
from typing import Any

import msgspec
from msgspec import inspect as types

from reproq_listen.child.payload import RefusedError
from reproq_listen.client.options import KEYS
from reproq_listen.errors import InvalidArgumentsError, InvalidTaskError, ReproqError
from reproq_listen.protocol import plain

_EXACT = (int, str, bool)


class _Kind:
    """How values of one annotation are converted."""

    __slots__ = ("is_loose", "type")

    def __init__(self, annotation: object) -> None:
        self.type: Any = None
        """What msgspec converts to; None: it cannot."""
        self.is_loose = True
        try:
            info = types.type_info(annotation)
        except (TypeError, NotImplementedError, RuntimeError, AttributeError, NameError):
            return
        if not isinstance(info, types.AnyType) and not _contains(info, types.CustomType):
            self.type = annotation
            self.is_loose = _contains(info, types.AnyType | types.RawType)

    def encode(self, value: object, place: str) -> object:
        """Give the value as JSON has it. Raises ValueError with type and place."""
        if type(value) is self.type and self.type in _EXACT:
            encoded = value
        elif self.is_loose:
            _refuse_unless_plain(value, place)
            self.decode(value, place)
            return value
        else:
            try:
                encoded = msgspec.to_builtins(value, str_keys=True)
            except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
                raise ValueError(f"{place} is of type {plain.type_name(value)}: {error}") from None
            self.decode(encoded, place)
        _refuse_unless_plain(encoded, place)
        return encoded

    def decode(self, value: object, place: str) -> object:
        """Give the value as the annotation has it. Raises ValueError with type and place."""
        if self.type is None or (type(value) is self.type and self.type in _EXACT):
            return value
        try:
            return msgspec.convert(value, self.type, str_keys=True)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ValueError(f"{place}: {error}") from None


class Codec:
    """The signature of one function, and how its arguments and result are converted."""

    def __init__(self, function: Callable[..., object], *, takes_context: bool) -> None:
        """Raises InvalidTaskError if the function takes no context though it should."""
        self.path = f"{function.__module__}.{function.__qualname__}"
        signature = _signature(function)
        parameters = list(signature.parameters.values())
        if takes_context:
            if not parameters or parameters[0].kind not in _POSITIONAL:
                raise InvalidTaskError(f"{self.path} has no first parameter for the context (takes_context=True)")
            del parameters[0]
        self._signature = signature.replace(parameters=parameters)
        hints = dict(_hints(function))
        self._kinds = {p.name: _Kind(hints.get(p.name, Any)) for p in parameters}
        self._positional = [p.name for p in parameters if p.kind in _POSITIONAL]
        self._more_args = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
        self._more_kwargs = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), "")
        self._result = _Kind(hints.get("return", Any))

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
        """Raises InvalidArgumentsError if the arguments do not fit the signature."""
        try:
            return self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArgumentsError(f"{self.path}: {error}; its signature is {self._signature}") from None

    def filled(self, options: Mapping[str, object], bound: inspect.BoundArguments) -> Mapping[str, object]:
        """Give the options with the names in their keys replaced by arguments. Raises InvalidTaskError."""
        templates = {name: text for name in KEYS if "{" in (text := str(options.get(name, ""))) or "}" in text}
        if not templates:
            return options
        bound.apply_defaults()
        found = dict(options)
        for name, text in templates.items():
            try:
                found[name] = text.format_map(bound.arguments)
            except (LookupError, ValueError, AttributeError, TypeError) as error:
                known = ", ".join(bound.arguments)
                raise InvalidTaskError(
                    f"{self.path}: {name}={text!r} cannot be filled in ({type(error).__name__}: {error}); "
                    f"it may name these arguments: {known}"
                ) from None
            if not found[name]:
                raise InvalidArgumentsError(f"{self.path}: {name}={text!r} is empty for these arguments")
        return found

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
        """Give bound arguments as JSON has them. Raises InvalidArgumentsError with type and place."""
        try:
            return (
                [kind.encode(value, place) for kind, value, place in self._with_args(args)],
                {name: kind.encode(value, place) for name, kind, value, place in self._with_kwargs(kwargs)},
            )
        except ValueError as error:
            raise InvalidArgumentsError(f"{self.path}: {error}") from None

    def decode(self, args: list[object], kwargs: dict[str, object]) -> tuple[list[object], dict[str, object]]:
        """Give arguments as the annotations have them. Raises RefusedError (`invalid_spec`)."""
        try:
            return (
                [kind.decode(value, place) for kind, value, place in self._with_args(args)],
                {name: kind.decode(value, place) for name, kind, value, place in self._with_kwargs(kwargs)},
            )
        except ValueError as error:
            raise RefusedError("invalid_spec", f"{self.path}: {error}") from None

    def encode_result(self, value: object) -> object:
        """Give a result as JSON has it. Raises RefusedError (`invalid_result`) with type and place."""
        if self._result.is_loose:
            return value  # the encoder that comes next refuses what is not JSON
        try:
            return msgspec.to_builtins(value, str_keys=True)
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            text = f"the return value is of type {plain.type_name(value)} and cannot be stored as JSON: {error}"
            raise RefusedError("invalid_result", text) from None

    def decode_result(self, value: object) -> object:
        """Give a stored result as the annotation has it. Raises ReproqError."""
        try:
            return self._result.decode(value, "the stored result")
        except ValueError as error:
            raise ReproqError(f"{self.path}: {error}") from None

    def _with_args(self, args: tuple[object, ...] | list[object]) -> Iterator[tuple[_Kind, object, str]]:
        for place, value in enumerate(args):
            if place < len(self._positional):
                name = self._positional[place]
                yield self._kinds[name], value, f"argument {name}"
            else:
                yield self._kinds.get(self._more_args, _ANY), value, f"argument {place + 1}"

    def _with_kwargs(self, kwargs: Mapping[str, object]) -> Iterator[tuple[str, _Kind, object, str]]:
        for name, value in kwargs.items():
            kind = self._kinds.get(name) or self._kinds.get(self._more_kwargs, _ANY)
            yield name, kind, value, f"argument {name}"


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY = _Kind(Any)


def _refuse_unless_plain(value: object, place: str) -> None:
    found = plain.problem(value, place)
    if found is not None:
        raise ValueError(found)


def _contains(info: object, kind: UnionType | type) -> bool:
    """Whether a type, or the items of a container, are of this kind. The fields of classes are not looked at."""
    if isinstance(info, kind):
        return True
    parts = [getattr(info, name, None) for name in ("item_type", "key_type", "value_type", "type")]
    return any(_contains(part, kind) for part in (*parts, *_inside(info)) if part is not None)


def _inside(info: object) -> tuple[object, ...]:
    if isinstance(info, types.UnionType):
        return info.types
    return info.item_types if isinstance(info, types.TupleType) else ()


def _signature(function: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except NameError:  # Python 3.14 evaluates annotations here; a name may exist for type checkers only
        how: dict[str, Any] = {"annotation_format": import_module("annotationlib").Format.FORWARDREF}
        return inspect.signature(function, **how)


def _annotations(function: Callable[..., object]) -> dict[str, Any]:
    try:
        return dict(getattr(function, "__annotations__", {}))
    except NameError:  # as above
        module = import_module("annotationlib")
        return dict(module.get_annotations(function, format=module.Format.FORWARDREF))


def _hints(function: Callable[..., object]) -> Iterator[tuple[str, object]]:
    """Give the annotations that can be evaluated, by name."""
    inner = inspect.unwrap(function)
    for name, annotation in _annotations(inner).items():

        def probe() -> None: ...

        probe.__annotations__ = {name: annotation}
        try:
            yield name, typing.get_type_hints(probe, getattr(inner, "__globals__", {}), include_extras=True)[name]
        except (NameError, AttributeError, TypeError, SyntaxError):
            continue
