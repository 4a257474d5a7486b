"""Travel in the time of one database: retries, schedules and expiries come due without a wait."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg

from reproq_listen.db import testing_queries as queries


class Clock:
    """The clock that the SQL functions of one test database read. It runs; `travel` moves it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._offset = timedelta()

    @property
    def now(self) -> datetime:
        """The time that the functions see."""
        with psycopg.connect(self._dsn) as connection:
            ((now,),) = connection.execute(queries.NOW).fetchall()
        return now  # type: ignore[no-any-return]

    def travel(
        self, by: timedelta | None = None, *, weeks: float = 0, days: float = 0, hours: float = 0, minutes: float = 0,
        seconds: float = 0,
    ) -> None:  # fmt: skip
        """Move the clock forwards, or backwards: `travel(hours=1)`, `travel(timedelta(days=-1))`."""
        part = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        self._offset += part if by is None else by + part
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(queries.set_clock(self._offset))
