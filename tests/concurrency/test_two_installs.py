"""Two installs in one database know nothing of each other."""

from __future__ import annotations

import psycopg
import pytest

from reproq_listen.db.migrations import migrate
from tests.support.database import Database

CLAIM = "select result_id from reproq_claim('w', '{default}', 1, '1 min')"
ENQUEUE = (
    "select reproq_enqueue('app.tasks.run', p_lock_key => 'k', p_concurrency_key => 'k', p_concurrency_limit => 1)"
)


@pytest.mark.parametrize("schema", ["other", "ü" * 31, 'a "b'])
def test_keys_and_notifications_stay_inside_a_schema(database: Database, schema: str) -> None:
    """A key that one install is deciding about is free in the other; what one announces is not heard by the other."""
    migrate(database.dsn, schema=schema, report=lambda _: None)
    with (
        psycopg.connect(database.dsn) as here,
        psycopg.connect(database.dsn) as there,
        psycopg.connect(database.dsn, autocommit=True) as listening,
    ):
        there.execute("select set_config('search_path', quote_ident(%s), false)", [schema])
        channels = {}
        for session in (here, there):
            row = session.execute("select ready, control from reproq_channels()").fetchone()
            assert row is not None
            channels[session] = row
            for channel in row:
                listening.execute(psycopg.sql.SQL("listen {}").format(psycopg.sql.Identifier(channel)))
            listening.execute(
                psycopg.sql.SQL("select {}.reproq_notify_on('{{default}}')").format(
                    psycopg.sql.Identifier("public" if session is here else schema)
                )
            )
            session.execute(ENQUEUE.encode())
            session.commit()
        assert channels[here] == ("reproq_ready", "reproq_control")
        assert not set(channels[here]) & set(channels[there])
        heard = [notify.channel for notify in listening.notifies(timeout=5, stop_after=2)]
        assert heard == [channels[here][0], channels[there][0]]
        for session in (here, there):  # neither has committed when the other decides
            assert len(session.execute(CLAIM.encode()).fetchall()) == 1
        there.execute("select reproq_pause('q')")
        there.commit()
        assert {notify.channel for notify in listening.notifies(timeout=5, stop_after=1)} == {channels[there][1]}
