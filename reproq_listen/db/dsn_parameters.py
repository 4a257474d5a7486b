"""Parameters of a DSN that libpq does not know and the Go program's driver (pgx) takes.

pgx passes what it does not know to the server (`search_path`); `pool_max_conns` and its like are for pgx itself.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from psycopg import pq

_OF_SERVER: Final = frozenset(
    [
        "search_path",
        "timezone",
        "datestyle",
        "intervalstyle",
        "statement_timeout",
        "lock_timeout",
        "transaction_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "synchronous_commit",
        "role",
        "work_mem",
        "jit",
        "log_statement",
        "extra_float_digits",
    ]
)
_OF_DRIVER: Final = frozenset(
    [
        "default_query_exec_mode",
        "statement_cache_capacity",
        "statement_cache_mode",
        "description_cache_capacity",
        "prefer_simple_protocol",
        "min_read_buffer_size",
    ]
)
_OF_LIBPQ: Final = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults()) | {"ssl"}
_START: Final = re.compile(r"postgres(?:ql)?://(?:[^@/]*@)?")  # libpq reads user and password up to the first @ or /
_PAIR: Final = re.compile(r"\s*([^\s=]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)", re.DOTALL)


class Parts(NamedTuple):
    """A DSN without the parameters that libpq does not know, and those, by name and value.

    `is_certain`: their names cannot be a piece of a password that was not encoded or quoted.
    """

    dsn: str
    foreign: list[tuple[str, str]]
    is_certain: bool = True


def is_of_server(name: str) -> bool:
    """Whether the server has a parameter of this name, which a session may set."""
    return name.lower() in _OF_SERVER or re.fullmatch(r"[A-Za-z_]\w*\.\w+", name, re.ASCII) is not None


def is_of_driver(name: str) -> bool:
    """Whether it tunes the Go program's driver."""
    return name.startswith("pool_") or name in _OF_DRIVER


def split(dsn: str) -> Parts:
    """Take the foreign parameters out. A DSN that cannot be read comes back as it is: libpq says what is wrong."""
    start = _START.match(dsn)
    return _split_pairs(dsn) if start is None else _split_url(dsn, start.end())


def _split_url(dsn: str, start: int) -> Parts:
    head, mark, query = dsn[start:].partition("?")
    items = query.split("&") if mark else []
    if not all("=" in item for item in items):
        return Parts(dsn, [])
    kept = [item for item in items if _name(item) in _OF_LIBPQ]
    foreign = [(_name(item), unquote(item.partition("=")[2])) for item in items if _name(item) not in _OF_LIBPQ]
    rest = f"{dsn[:start]}{head}?{'&'.join(kept)}" if kept else f"{dsn[:start]}{head}"
    return Parts(rest, foreign, "@" not in query)


def _name(item: str) -> str:
    return unquote(item.partition("=")[0])


def _split_pairs(dsn: str) -> Parts:
    pairs, end = [], 0
    while (pair := _PAIR.match(dsn, end)) is not None:
        pairs.append(pair)
        end = pair.end()
    if dsn[end:].strip():
        return Parts(dsn, [])
    kept = " ".join(pair[0].strip() for pair in pairs if pair[1] in _OF_LIBPQ)
    foreign = [(pair[1], _unquoted(pair[2])) for pair in pairs if pair[1] not in _OF_LIBPQ]
    has_bare_secret = any("password" in pair[1] and not pair[2].startswith("'") for pair in pairs)
    return Parts(kept, foreign, not has_bare_secret)


def _unquoted(value: str) -> str:
    bare = value[1:-1] if value.startswith("'") else value
    return re.sub(r"\\(.)", r"\1", bare, flags=re.DOTALL)
