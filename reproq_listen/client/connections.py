"""What a client may be given, and how one statement runs on it.

A connection or session of the program is used as it is: in its transaction, never committed here. For a DSN, a pool or
an engine each statement is a transaction of its own, committed at its end.
Libraries are recognised by the module of their classes, so that none is imported that the program has not.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from reproq_listen.db import producer_queries as queries
from reproq_listen.db.dsn import conninfo
from reproq_listen.db.producer_queries import Style
from reproq_listen.errors import ReproqError, SettingError

Row = Sequence[Any]
APPLICATION = "reproq-listen client"
POOLER_LOOK = 0.5
"""Seconds between two looks where no notification can arrive."""


class Runner(Protocol):
    """Runs one statement and gives its rows."""

    style: Style

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]: ...

    def listening(self, schema: str | None) -> AbstractContextManager[Listening]:
        """Give a connection that is notified of ends. Raises ReproqError inside of a transaction of the program."""

    def close(self) -> None:
        """Close what the runner has opened itself."""


def runner(target: Any) -> Runner:  # noqa: ANN401 - any of the libraries below
    """Give what runs statements on `target`. Raises SettingError if it is none of what is known."""
    if isinstance(target, str):
        return _Dsn(target) if "=" in target or "://" in target else _Django(target)
    if isinstance(target, psycopg.Connection):
        return _Connection(target)
    match library(target):
        case "psycopg_pool" if hasattr(target, "getconn") and not _is_async(target):
            return _Pool(target)
        case "sqlalchemy" if hasattr(target, "exec_driver_sql") and not _is_async(target):
            return _SqlAlchemy(target)
        case "sqlalchemy" if hasattr(target, "connection") and not _is_async(target):
            return _SqlAlchemySession(target)
        case "sqlalchemy" if hasattr(target, "begin") and not _is_async(target):
            return _SqlAlchemyEngine(target)
    raise unknown("Client", target, "a psycopg Connection or pool, an SQLAlchemy Connection, Session or Engine")


def unknown(client: str, target: object, known: str) -> SettingError:
    """Give the error about a target that a client cannot use."""
    kind = f"{type(target).__module__}.{type(target).__qualname__}"
    return SettingError(f"{client} needs a DSN, {known}; not {kind}")


def library(target: object) -> str:
    """Give the library that the class of `target`, or one that it derives from, belongs to."""
    names = [kind.__module__.split(".")[0] for kind in type(target).__mro__]
    return next((name for name in names if name in ("psycopg_pool", "sqlalchemy")), "")


def _is_async(target: object) -> bool:
    return any(kind.__name__.startswith("Async") for kind in type(target).__mro__)


class Listening:
    """A connection in autocommit mode that listens for ends of tasks, used by one thread.

    Behind a transaction pooler it does not: the next user of the session would get our notifications.
    """

    style: Style = "format"

    def __init__(self, connection: psycopg.Connection[Any], schema: str | None) -> None:
        self._connection = connection
        ((channel, backend),) = self.rows(queries.channel(schema, self.style), ())
        self._is_direct = backend == connection.info.backend_pid
        if self._is_direct:
            connection.execute(queries.listen(channel).encode())

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(query.encode(), args).fetchall()

    def sleep_until(self, payload: str, seconds: float) -> None:
        """Return when this payload is notified, at the latest after `seconds`; behind a pooler earlier."""
        if not self._is_direct:
            time.sleep(min(seconds, POOLER_LOOK))
            return
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if any(notify.payload == payload for notify in self._connection.notifies(timeout=left, stop_after=1)):
                return

    def end(self) -> None:
        """Listen no more."""
        if self._is_direct:
            self._connection.execute(queries.UNLISTEN)


@contextmanager
def _listening(connection: psycopg.Connection[Any], schema: str | None) -> Iterator[Listening]:
    """Listen on a connection that is borrowed, and give it back as it was."""
    before = connection.autocommit
    connection.autocommit = True
    listening = None
    try:
        listening = Listening(connection, schema)
        yield listening
    finally:
        if not connection.closed:
            if listening is not None:
                listening.end()
            connection.autocommit = before


def in_transaction(client: str) -> ReproqError:
    """The error of a wait where the end could not be seen."""
    return ReproqError(
        "wait() needs a connection of its own: this client works inside of a transaction of the program, which would "
        f"not see the end of a task. Commit first, then wait through a client with a DSN or a pool: {client}(DSN)"
        ".get_result(result.id, task).wait()"
    )


class _Connection:
    """A connection of the program."""

    style: Style = "format"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(query.encode(), args).fetchall()

    def listening(self, schema: str | None) -> AbstractContextManager[Listening]:
        if not self._connection.autocommit or self._connection.info.transaction_status is TransactionStatus.INTRANS:
            raise in_transaction("Client")
        return _listening(self._connection, schema)

    def close(self) -> None:
        pass


class _Pool:
    """A pool of the program."""

    style: Style = "format"

    def __init__(self, pool: Any) -> None:  # noqa: ANN401
        self._pool = pool

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        with self._pool.connection() as connection:
            return _Connection(connection).rows(query, args)

    @contextmanager
    def listening(self, schema: str | None) -> Iterator[Listening]:
        with self._pool.connection() as connection, _listening(connection, schema) as listening:
            yield listening

    def close(self) -> None:
        pass


class _Dsn:
    """One connection of our own, opened on use and again after it broke. Threads take turns."""

    style: Style = "format"

    def __init__(self, dsn: str) -> None:
        self._conninfo = conninfo(dsn, "Client")
        self._lock = threading.Lock()
        self._open: psycopg.Connection[Any] | None = None
        self._owner = 0
        """The process that opened it: a forked copy opens its own."""

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        with self._lock:
            if self._open is None or self._open.closed or self._owner != os.getpid():
                self._open = self._connect()
                self._owner = os.getpid()
            return _Connection(self._open).rows(query, args)

    @contextmanager
    def listening(self, schema: str | None) -> Iterator[Listening]:
        with self._connect() as connection:
            yield Listening(connection, schema)

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._conninfo, autocommit=True, fallback_application_name=APPLICATION)

    def close(self) -> None:
        with self._lock:
            if self._open is not None and self._owner == os.getpid():
                self._open.close()


class _SqlAlchemy:
    """An SQLAlchemy connection of the program."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401
        self._connection = connection
        self.style: Style = style_of(connection)

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        found: Sequence[Row] = self._connection.exec_driver_sql(query, args).all()
        return found

    def listening(self, schema: str | None) -> AbstractContextManager[Listening]:
        raise in_transaction("Client")

    def close(self) -> None:
        pass


class _SqlAlchemySession:
    """An SQLAlchemy session of the program: its transaction, which begins if there is none."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        self._session = session
        self.style: Style = style_of(session.get_bind())

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        return _SqlAlchemy(self._session.connection()).rows(query, args)

    def listening(self, schema: str | None) -> AbstractContextManager[Listening]:
        raise in_transaction("Client")

    def close(self) -> None:
        pass


class _SqlAlchemyEngine:
    """An SQLAlchemy engine of the program."""

    def __init__(self, engine: Any) -> None:  # noqa: ANN401
        self._engine = engine
        self.style: Style = style_of(engine)

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        with self._engine.begin() as connection:
            return _SqlAlchemy(connection).rows(query, args)

    @contextmanager
    def listening(self, schema: str | None) -> Iterator[Listening]:
        with self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            if not isinstance(driver, psycopg.Connection):
                raise in_transaction("Client")
            with _listening(driver, schema) as listening:
                yield listening

    def close(self) -> None:
        pass


def style_of(bind: Any) -> Style:  # noqa: ANN401
    """Give the placeholders of an SQLAlchemy connection or engine. Raises SettingError if it is not PostgreSQL."""
    dialect = bind.dialect
    if dialect.name != "postgresql":
        raise SettingError(f"reproq-listen is in PostgreSQL; this SQLAlchemy connection speaks {dialect.name}")
    return "numeric" if dialect.driver == "asyncpg" else "format"


class _Django:
    """A database alias of Django's settings: the connection of this thread, and its transaction if there is one."""

    style: Style = "format"

    def __init__(self, alias: str) -> None:
        try:
            self._connections = import_module("django.db").connections
        except ImportError:
            self._connections = {}
        self._alias = alias
        if alias not in self._connections:
            raise SettingError(
                f"Client({alias!r}) is neither a DSN nor a database in Django's DATABASES; "
                "a DSN is for example postgresql://user@host:5432/dbname"
            )

    def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        with self._connections[self._alias].cursor() as cursor:
            cursor.execute(query, args)
            found: Sequence[Row] = cursor.fetchall()
            return found

    def listening(self, schema: str | None) -> AbstractContextManager[Listening]:
        raise in_transaction("Client")

    def close(self) -> None:
        pass
