"""Whether a value is JSON that PostgreSQL can store, and if not, what is wrong and where.

Producers ask before they enqueue; the process of a task asks when a result could not be encoded.
"""

MAX_DEPTH = 500
"""Levels of nesting, as for results (envelope.py)."""


def problem(value: object, place: str) -> str | None:
    """Describe a part of `value` that is not JSON; None if all is. `place` names the value in the text."""
    waiting: list[tuple[object, _Place, int]] = [(value, (None, place), 0)]
    while waiting:
        value, where, depth = waiting.pop()
        if isinstance(value, dict):
            found = next(filter(None, (_key_problem(key, where) for key in value)), None)
            waiting += [(item, (where, key), depth + 1) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            found = None
            waiting += [(item, (where, index), depth + 1) for index, item in enumerate(value)]
        else:
            found = _scalar_problem(value, where)
            depth = 0
        if found is not None:
            return found
        if depth >= MAX_DEPTH:
            return f"{place} is nested more than {MAX_DEPTH} levels deep"
    return None


_Place = tuple[object, object]
"""The place of the container, None for none, and the key or index in it."""


def _scalar_problem(value: object, where: _Place) -> str | None:
    if isinstance(value, str):
        return _text_problem(value, where)
    if isinstance(value, float) and value - value != 0:
        return f"{_shown(where)} is {value!r}, which is not JSON"
    if value is None or isinstance(value, (int, float)):
        return None
    return f"{_shown(where)} is of type {type_name(value)}, which is not JSON"


def _key_problem(key: object, where: _Place) -> str | None:
    if isinstance(key, str):
        return _text_problem(key, where)
    return f"{_shown(where)} has the key {key!r:.40} of type {type_name(key)}; keys of JSON objects are text"


def _text_problem(text: str, where: _Place) -> str | None:
    if "\0" in text:
        return f"{_shown(where)} holds the character NUL, which PostgreSQL cannot store"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{_shown(where)} holds half of a surrogate pair, which PostgreSQL cannot store"
    return None


def _shown(where: object) -> str:
    """Give a place as Python would write it: `argument rows[3]['name']`."""
    text = ""
    while isinstance(where, tuple):
        where, step = where
        text = (f"[{step!r:.40}]" if where is not None else str(step)) + text
    return text


def type_name(value: object) -> str:
    """Give the name of the type of `value`, with its module."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
