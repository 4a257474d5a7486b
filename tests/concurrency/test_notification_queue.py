"""A notification queue that no session empties: producers and operators go on, workers poll."""

from __future__ import annotations

import psycopg

from reproq_listen.embedded.server import EmbeddedServer
from tests.conftest import TEST_SETTINGS
from tests.support.database import build, create_database

PAGES = 64  # of 8 KiB; the least that PostgreSQL takes


def test_full_notification_queue_fails_no_producer() -> None:
    """A listener inside a transaction keeps the queue. It is never more than a little over half full through us."""
    settings = {**TEST_SETTINGS, "max_connections": "20", "max_notify_queue_pages": str(PAGES)}
    with EmbeddedServer(settings=settings) as server:
        database = create_database(server.dsn(), "reproq")
        build(database)
        with database.connect() as producer, psycopg.connect(database.dsn) as listener:
            listener.execute("listen reproq_ready")
            listener.commit()
            listener.execute("select 1")  # its transaction stays open: nothing it has not read can be dropped
            producer.execute("set reproq.notify = always")
            usage = 0.0
            for number in range(6000):
                producer.execute(
                    "select reproq_enqueue('app.tasks.run', p_queue_name => %s)", [f"{number:05}" + "q" * 150]
                )
                if number % 100 == 0:
                    row = producer.execute("select pg_notification_queue_usage()").fetchone()
                    usage = max(usage, row[0] if row else 0.0)
            producer.execute("select reproq_pause('default')")
            assert 0.4 < usage < 0.7
            row = producer.execute("select count(*) from task_runs").fetchone()
            assert row == (6000,)
