"""One session counts for all."""

from __future__ import annotations

from tests.concurrency.sessions import Session
from tests.support.database import Database


def test_metrics_pairs_who_asks_while_another_counts_gets_the_numbers_before(database: Database) -> None:
    """Above 10,000 tasks, up to a minute old: a count that is slow does not run twice at a time."""
    deep = (
        "insert into task_runs (spec_json, spec_hash)"
        ' select \'{"task_path": "a.b"}\', %s || n from generate_series(1, 10001) n'
    )
    ready = "select value from reproq_metrics() where metric = 'ready'"
    with Session(database.dsn, "a") as counting, Session(database.dsn, "b") as other:
        counting.rows(deep, "a")
        assert counting.value(ready) == 10_001
        counting.commit()
        counting.rows("update reproq_metrics_cache set counted_at = counted_at - interval '20 s'")
        counting.commit()
        counting.rows(deep, "b")
        counting.commit()
        assert counting.value(ready) == 20_002
        assert other.value(ready) == 10_001
        counting.commit()
        assert other.value(ready) == 20_002
