"""reproq_results: what a running task waited for, for the attempt that shows its fence."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg

from tests.sql.calls import add, call, chain, chord, claim, claimed, complete


def results(conn: psycopg.Connection, got: Any, **more: Any) -> Any:
    (found,) = call(conn, "reproq_results", result_id=got.result_id, lease_token=got.lease_token, **more)
    return found


def test_results_of_a_chord_through_sql_alone(conn: psycopg.Connection) -> None:
    """A thousand members, in the order of their ids whatever the order of their ends; page by page, each once."""
    _, members, callback = chord(conn, 1000, queue_name="q")
    done = claim(conn, 1000, queues=["q"])
    values = {got.result_id: {"number": members.index(got.result_id)} for got in done}
    complete(conn, *reversed(done), returns=[values[got.result_id] for got in reversed(done)])
    (got,) = claim(conn, 1, queues=["q"])
    assert got.result_id == callback
    found: list[Any] = []
    pages, after = 0, 0
    while after is not None:
        page = results(conn, got, after=after, max_bytes=4000)
        assert (page.answer, page.expected) == ("ok", 1000)
        found += page.results
        after = page.last_id
        pages += 1
    assert found == [{"number": number} for number in range(1000)]
    assert pages > 3


def test_results_that_are_null_or_larger_than_a_page(conn: psycopg.Connection) -> None:
    """At least one a page."""
    _, _, _ = chord(conn, 3, queue_name="q")
    complete(conn, *claim(conn, 3, queues=["q"]), returns=["x" * 100, None, "y" * 100])
    (got,) = claim(conn, 1, queues=["q"])
    first = results(conn, got, max_bytes=10)
    assert (len(first.results), first.last_id is not None) == (1, True)
    assert results(conn, got).results == ["x" * 100, None, "y" * 100]


def test_results_of_a_chain(conn: psycopg.Connection) -> None:
    """The step before it only; the first step has none."""
    chain(conn, 3, queue_name="q")
    for number in range(3):
        (got,) = claim(conn, 1, queues=["q"])
        page = results(conn, got)
        assert (page.expected, page.results, page.last_id) == ((1, [number - 1], None) if number else (0, [], None))
        complete(conn, got, returns=[number])


def test_results_need_the_fence(conn: psycopg.Connection) -> None:
    """Another token, none, an attempt that has ended, no such task."""
    got, over = claimed(conn), claimed(conn)
    complete(conn, over)
    waiting = add(conn)
    for result_id, token in (
        (got.result_id, uuid.uuid4()),
        (got.result_id, None),
        (over.result_id, over.lease_token),
        (waiting, None),
        (-1, uuid.uuid4()),
    ):
        (page,) = call(conn, "reproq_results", result_id=result_id, lease_token=token)
        assert (page.answer, page.results) == ("lost", [])


def test_results_of_deleted_members_are_missing(conn: psycopg.Connection) -> None:
    """Expected says how many there were."""
    _, members, _ = chord(conn, 3, queue_name="q")
    complete(conn, *claim(conn, 3, queues=["q"]), returns=[1, 2, 3])
    (got,) = claim(conn, 1, queues=["q"])
    conn.execute("delete from task_runs where result_id = %s", [members[1]])
    page = results(conn, got)
    assert (page.expected, page.results) == (3, [1, 3])
