"""Specs that are too large: refused when they are written, and never more than a bounded number of bytes in a claim."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import add, claim, claimed, claimed_ids, kind, last_error, statuses, task, update
from tests.support.database import Clock

MIB = 1 << 20
AT_MOST = 8 * MIB  # in one claim


def add_unchecked(conn: psycopg.Connection, *mebibytes: float, **columns: object) -> list[int]:
    """Tasks with arguments of so many MiB, from before there was a limit: written past the triggers."""
    conn.execute("set local session_replication_role = replica")
    spec = {"v": 1, "task_path": "app.tasks.run", "kwargs": {}}
    ids = [
        add(conn, task_path="app.tasks.run", spec_json={**spec, "args": ["x" * int(size * MIB)]}, **columns)
        for size in mebibytes
    ]
    conn.execute("set local session_replication_role = origin")
    return ids


def test_spec_limit_holds_for_direct_writes(conn: psycopg.Connection) -> None:
    """A row of another program has the same limit as an enqueued one, when it is inserted and when its spec changes."""
    large = {"task_path": "app.tasks.run", "args": ["x" * MIB]}
    small = add(conn)
    for write in (lambda: add(conn, spec_json=large), lambda: update(conn, small, spec_json=Jsonb(large))):
        said = r"1048\d{3} bytes, the limit is 1048576.*max_spec_bytes"
        with pytest.raises(psycopg.Error, match=said) as refusal, conn.transaction():
            write()
        assert refusal.value.sqlstate == "RQ002"
    conn.execute("set local reproq.max_spec_bytes = '2MB'")
    assert task(conn, add(conn, spec_json=large)).status == "READY"


def test_spec_from_before_the_limit_stays_writable(conn: psycopg.Connection) -> None:
    """What is checked is a spec that is new: an update of another column of a large row goes on."""
    (old,) = add_unchecked(conn, 2)
    update(conn, old, priority=3)
    assert task(conn, old).priority == 3


@pytest.mark.parametrize("way", ["one stream", "merged", "keys"])
def test_claim_ships_a_bounded_number_of_bytes(conn: psycopg.Connection, clock: Clock, way: str) -> None:
    """A claim ends before its specs exceed the bound; the rest stays claimable, in its order, uncharged."""
    columns = {"concurrency_key": "c", "concurrency_limit": 9} if way == "keys" else {}
    ids = add_unchecked(conn, 3, 3, 3, 0.1, **columns)
    queues = ["default", "other"] if way == "merged" else ["default"]
    first = claim(conn, queues=queues)
    assert [found.result_id for found in first] == ids[:2]
    assert [task(conn, result_id).attempts for result_id in ids] == [1, 1, 0, 0]
    assert claimed_ids(conn, queues=queues) == ids[2:]


def test_claim_counts_what_is_sent_and_not_what_is_stored(conn: psycopg.Connection) -> None:
    """Eighty specs of 100 kB fit, however well or badly they are compressed."""
    ids = add_unchecked(conn, *[0.095] * 80)
    assert claimed_ids(conn, 100) == ids
    stored = conn.execute("select sum(pg_column_size(spec_json)) from task_runs").fetchone()
    assert stored is not None
    assert stored[0] < AT_MOST / 50


@pytest.mark.parametrize("queues", [["default"], ["default", "other"]])
def test_claim_ends_a_task_that_no_claim_can_ship(conn: psycopg.Connection, queues: list[str]) -> None:
    """It ends as payload_too_large, unshipped and uncharged, and the tasks behind it are claimed by the same call."""
    first, huge, last = add_unchecked(conn, 0.1, 9, 0.1)
    assert claimed_ids(conn, queues=queues) == [first, last]
    assert (kind(conn, huge), task(conn, huge).attempts) == ("payload_too_large", 0)
    assert "9437" in last_error(conn, huge)["message"]


def test_claim_ships_a_large_spec_alone_where_the_limit_allows_it(conn: psycopg.Connection) -> None:
    """Where specs may be larger than the bound of a claim, the bound is one of them."""
    conn.execute("set local reproq.max_spec_bytes = '10MB'")
    ids = add_unchecked(conn, 9, 9)
    assert [claimed_ids(conn), claimed_ids(conn)] == [ids[:1], ids[1:]]


def test_keys_and_tokens_of_a_task_left_for_the_next_claim_stay_free(conn: psycopg.Connection) -> None:
    """It takes no place under its concurrency key and no token of its bucket."""
    conn.execute("select reproq_limit_set('queue:default', 0.001, 3)")
    ids = add_unchecked(conn, 5, 5, concurrency_key="c", concurrency_limit=2)
    claim(conn)
    assert statuses(conn, ids) == ["RUNNING", "READY"]
    other = claimed(conn, concurrency_key="c", concurrency_limit=2)
    assert other.lease_token is not None
    conn.execute("update task_runs set status = 'SUCCESSFUL' where result_id = %s", [other.result_id])
    assert claimed_ids(conn) == ids[1:]
    assert conn.execute("select current_tokens::int from rate_limits where key = 'queue:default'").fetchone() == (1,)


def test_claim_measures_each_spec_twice_at_most(conn: psycopg.Connection) -> None:
    """Specs that may be large by what is stored of them are measured: a number of reads in proportion to theirs."""
    customers = [{"name": f"customer number {place} of many", "amount": place * 7919} for place in range(400)]
    spec = {"v": 1, "task_path": "app.tasks.run", "args": customers, "kwargs": {}}
    ids = [add(conn, spec_json=spec) for _ in range(200)]
    read = "select pg_stat_get_xact_tuples_returned('task_runs_pkey'::regclass)"
    before = conn.execute(read).fetchone()
    assert claimed_ids(conn, 200) == ids
    after = conn.execute(read).fetchone()
    assert before is not None
    assert after is not None
    assert after[0] - before[0] < 8 * len(ids)
