"""Whether a function's annotations are such that its arguments and its result pass as JSON has them.

Most are. Then the process of a task converts nothing, and imports neither `inspect` nor msgspec.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import GenericAlias, UnionType

_SCALARS = (int, float, str, bool, None, type(None), object)
_TEXT = re.compile(
    r"(?:\b(?:int|float|str|bool|None|object|list|Any|typing\.Any)\b|\bdict\[str\b|\bdict\b(?!\[)|[\[\], |])+"
)


def is_plain(function: Callable[..., object]) -> tuple[bool, bool]:
    """Whether arguments, and whether the result, need no conversion. False when in doubt."""
    try:
        annotations = dict(getattr(function, "__annotations__", {}))
    except NameError:  # Python 3.14 evaluates late; a name may exist for type checkers only
        return False, False
    result = annotations.pop("return", None)
    return all(map(_is_plain, annotations.values())), _is_plain(result)


def _is_plain(annotation: object) -> bool:
    if isinstance(annotation, str):
        return _TEXT.fullmatch(annotation) is not None
    if any(annotation is scalar for scalar in (*_SCALARS, list, dict)):
        return True
    if isinstance(annotation, GenericAlias):
        if annotation.__origin__ is dict:
            return annotation.__args__[0] is str and _is_plain(annotation.__args__[1])
        return annotation.__origin__ is list and all(map(_is_plain, annotation.__args__))
    return isinstance(annotation, UnionType) and all(map(_is_plain, annotation.__args__))
