"""A database with our schema: runs statements of the query modules, one transaction each, and knows its contract.

SQL text stands in this folder only: in `worker_queries`, `operator_queries`, `schedule_queries` and their like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed

from reproq_listen.db.connection import Connection
from reproq_listen.db.contract import SERVED, Served, qualifier
from reproq_listen.db.errors import CallRefused, DatabaseAway
from reproq_listen.db.remedies import NEW_DATABASE
from reproq_listen.errors import ContractError, SettingError

Record = dict[str, Any]
"""A row by the names of its columns."""

NEEDED_ENCODING = "UTF8"
_PREPARE_AFTER = 2  # calls with the same text
_UNDEFINED_FUNCTION = "42883"
_NO_SUCH_SCHEMA = "3F000"
_READ_ONLY = "25006"

_SESSION = SQL("""
    select current_setting('default_transaction_isolation'),
           pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean, pg_backend_pid(),
           current_setting('server_encoding')
""")
_ROLE = SQL("select quote_ident(current_user)")
_REASON = SQL("select set_config('reproq.reason', %s::text, true)")
_CALLED = re.compile(r"\{schema\}reproq_(\w+)\(")


class Database:
    """Our schema over one connection, which it owns. Every method raises CallError."""

    def __init__(self, connection: Connection, schema: str | None) -> None:
        self._connection = connection
        self._prefix = qualifier(schema)
        self._statements: dict[int, tuple[bytes, str]] = {}  # by identity: all are constants of modules

    async def close(self) -> None:
        await self._connection.close()

    async def contract(self) -> Served:
        """The numbers of the interface that the schema serves. Raises ContractError if there is no schema."""
        try:
            rows = await self.rows(SERVED)
        except CallRefused as error:
            if error.sqlstate in (_UNDEFINED_FUNCTION, _NO_SUCH_SCHEMA):
                raise ContractError("the database has no reproq schema") from None
            raise
        return Served(rows[0][0], rows[0][-1])

    async def role(self) -> str:
        """The role of this session, quoted for use in a statement."""
        return str((await self.rows(_ROLE))[0][0])

    async def rows(self, query: SQL, args: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; each row as a tuple, read as binary values. `query` is a constant: its text is cached."""
        text, operation = self._statement(query)

        async def work(connection: AsyncConnection) -> list[tuple[Any, ...]]:
            if connection.isolation_level is None:
                return await (await connection.execute(text, args, binary=True)).fetchall()
            async with connection.transaction():
                return await (await connection.execute(text, args, binary=True)).fetchall()

        return await self._connection.run(work, operation)

    async def records(
        self, query: SQL, args: Sequence[object] | Mapping[str, object] = (), *, reason: str | None = None
    ) -> list[Record]:
        """Run a statement; each row as a record. `reason` goes into the audit log."""
        text: Composed = query.format(schema=self._prefix)

        async def work(connection: AsyncConnection) -> list[Record]:
            cursor = connection.cursor(row_factory=dict_row)
            if reason is None and connection.isolation_level is None:
                return await (await cursor.execute(text, args)).fetchall()
            async with connection.transaction():
                if reason is not None:
                    await cursor.execute(_REASON, (reason,))
                return await (await cursor.execute(text, args)).fetchall()

        return await self._connection.run(work, _operation(query))

    def _statement(self, query: SQL) -> tuple[bytes, str]:
        """The text of a call in our schema, and its name. Cached: composing it costs as much as a call."""
        known = self._statements.get(id(query))
        if known is None:
            known = query.format(schema=self._prefix).as_bytes(), _operation(query)
            self._statements[id(query)] = known
        return known


async def prepare_session(connection: AsyncConnection) -> None:
    """Refuse a server that cannot write or a database that is not UTF8, and force READ COMMITTED where the default is
    another level. Raises CallError, SettingError.

    Nothing is SET: behind a transaction pooler that would leak to other clients. Statements are prepared where the
    backend that answers is the one that was connected to. A pooler hands out process ids of its own.
    """
    row = await (await connection.execute(_SESSION)).fetchone()
    isolation, read_only, backend, encoding = row if row is not None else ("", True, 0, NEEDED_ENCODING)
    if encoding != NEEDED_ENCODING:
        raise SettingError(wrong_encoding(encoding))
    if read_only:
        raise DatabaseAway("the server is read-only (a standby, or a demoted primary)", _READ_ONLY)
    if isolation != "read committed":
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    if backend == connection.info.backend_pid:
        connection.prepare_threshold = _PREPARE_AFTER


def wrong_encoding(encoding: str) -> str:
    """Why a database of this encoding is refused, and the remedy."""
    return (
        f"the database has the encoding {encoding}, and reproq-listen needs {NEEDED_ENCODING}: in another one a result "
        "may not be storable, and one row that cannot be sent stops every claim. Make another database, and restore a "
        f"dump into it: {NEW_DATABASE}"
    )


def _operation(query: SQL) -> str:
    """The name of the function that a statement calls, without `reproq_`; `look` for any other statement."""
    called = _CALLED.search(query.as_string())
    return called[1] if called else "look"
