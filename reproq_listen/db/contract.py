"""The interface numbers: the one that this program speaks, and those that a schema serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from psycopg import AsyncConnection
from psycopg.sql import SQL, Composable, Identifier

from reproq_listen.db.connection import Prepare

CONTRACT = 1
SERVED = SQL("select c.* from {schema}reproq_contract() as c")


class Served(NamedTuple):
    """The numbers that a schema serves."""

    oldest: int
    newest: int

    def refusal(self) -> str | None:
        """Why this program cannot work on the schema; None if it can."""
        if self.oldest <= CONTRACT <= self.newest:
            return None
        numbers = f"contract {self.newest}"
        if self.oldest != self.newest:
            numbers = f"contracts {self.oldest} to {self.newest}"
        return f"the schema serves {numbers}, this program speaks {CONTRACT}"


def qualifier(schema: str | None) -> Composable:
    """What stands before the name of one of our functions."""
    return SQL("") if schema is None else Identifier(schema) + SQL(".")


def checking_contract(prepare: Prepare, schema: str | None, on_refusal: Callable[[str], None]) -> Prepare:
    """As `prepare`; then call `on_refusal` with the reason if the schema does not serve our number. The connection is
    used all the same: what is running may be stored if its functions are still there."""
    query = SERVED.format(schema=qualifier(schema))

    async def prepare_and_check(connection: AsyncConnection) -> None:
        await prepare(connection)
        row = await (await connection.execute(query)).fetchone()
        refusal = None if row is None else Served(row[0], row[-1]).refusal()
        if refusal is not None:
            on_refusal(refusal)

    return prepare_and_check
