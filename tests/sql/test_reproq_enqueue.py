"""reproq_enqueue, reproq_enqueue_many, reproq_spec_hash: what becomes a task, duplicates, and what cannot be a task."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.schema import django
from tests.sql.calls import PATH, call, claim, claimed_ids, complete, refused, rows, statuses, task, update, value
from tests.support.database import Clock


def enqueue(conn: psycopg.Connection, **arguments: Any) -> int:
    """Enqueue one task; its id, or its duplicate's."""
    ((result_id,),) = call(conn, "reproq_enqueue", **{"task_path": PATH, **arguments})
    return int(result_id)


def enqueue_many(conn: psycopg.Connection, *tasks: Any) -> list[tuple[int, int, bool]]:
    """Enqueue tasks; (ordinal, result_id, created) of each."""
    return [tuple(row) for row in call(conn, "reproq_enqueue_many", tasks=Jsonb(list(tasks)))]


def python_hash(spec: Any) -> str:
    """How Reproq Django hashes a spec."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_enqueue_defaults_of_a_task(conn: psycopg.Connection, clock: Clock) -> None:
    """A path is enough: READY, due now, in `default`, three attempts of 900 s."""
    row = task(conn, enqueue(conn))
    assert (row.status, row.queue_name, row.priority, row.run_after, row.enqueued_at) == (
        "READY",
        "default",
        0,
        None,
        clock.now,
    )
    assert (row.max_attempts, row.timeout_seconds, row.attempts, row.expires_at) == (3, 900, 0, None)
    assert (row.task_path, row.lock_key, row.concurrency_key, row.concurrency_limit) == (PATH, None, None, 0)
    assert row.spec_json == {
        "v": 1,
        "task_path": PATH,
        "args": [],
        "kwargs": {},
        "takes_context": False,
        "queue_name": "default",
        "priority": 0,
        "lock_key": None,
        "concurrency_key": None,
        "concurrency_limit": 0,
        "run_after": None,
        "exec": {"timeout_seconds": 900, "max_attempts": 3},
        "provenance": {"code_ref": None, "pip_lock_hash": None},
    }
    assert re.fullmatch("[0-9a-f]{32}", row.spec_hash)
    deduped = task(conn, enqueue(conn, dedupe=True))
    assert deduped.spec_json == row.spec_json
    assert deduped.spec_hash == python_hash(row.spec_json)


@pytest.mark.parametrize("backoff", [1.5, Decimal("1.5")])
def test_enqueue_every_argument_reaches_row_and_spec(conn: psycopg.Connection, backoff: float | Decimal) -> None:
    """All of reproq_enqueue's arguments; instants are kept to the microsecond, whatever their zone."""
    run_after = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=timezone(timedelta(hours=2)))
    expires_at = datetime(2032, 1, 1, tzinfo=UTC)
    row = task(
        conn,
        enqueue(
            conn,
            args=Jsonb([1, {"ü": None}]),
            kwargs=Jsonb({"to": "ä"}),
            queue_name="mail",
            priority=-7,
            run_after=run_after,
            lock_key="l",
            concurrency_key="c",
            concurrency_limit=4,
            max_attempts=9,
            timeout_seconds=5,
            expires_at=expires_at,
            takes_context=True,
            backoff_seconds=backoff,
        ),
    )
    spec = row.spec_json
    assert (row.queue_name, row.priority, row.run_after, row.expires_at) == ("mail", -7, run_after, expires_at)
    assert (row.lock_key, row.concurrency_key, row.concurrency_limit) == ("l", "c", 4)
    assert (row.max_attempts, row.timeout_seconds) == (9, 5)
    assert (spec["args"], spec["kwargs"], spec["takes_context"]) == ([1, {"ü": None}], {"to": "ä"}, True)
    assert (spec["queue_name"], spec["priority"], spec["lock_key"], spec["concurrency_key"]) == ("mail", -7, "l", "c")
    assert spec["run_after"] == "2031-05-06T05:08:09.123456+00:00"
    assert spec["exec"] == {"timeout_seconds": 5, "max_attempts": 9, "backoff_seconds": 1.5}
    assert "expires_at" not in spec


def test_enqueue_whole_second_is_spelt_as_python_does(conn: psycopg.Connection) -> None:
    """datetime.isoformat leaves out zero microseconds."""
    run_after = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert task(conn, enqueue(conn, run_after=run_after)).spec_json["run_after"] == run_after.isoformat()


def test_hashes_equal_those_of_django(conn: psycopg.Connection) -> None:
    """Plain rows as its backend wrote them: our hash of their spec is their hash; so both dedupe against each other."""
    plain = [row for row in django.rows() if len(row["spec_hash"]) == 64]
    assert len(plain) >= 5
    for row in plain:
        assert value(conn, "select reproq_spec_hash(%s)", [Jsonb(row["spec_json"])]) == row["spec_hash"]


def test_enqueue_task_that_django_enqueued_is_our_duplicate(conn: psycopg.Connection) -> None:
    """The same task enqueued by SQL makes the same spec, so it is Django's row that answers."""
    for row in django.rows():
        spec = row["spec_json"]
        if len(row["spec_hash"]) != 64:
            continue
        theirs = django.insert(conn, row)
        ours = enqueue(
            conn,
            task_path=spec["task_path"],
            args=Jsonb(spec["args"]),
            kwargs=Jsonb(spec["kwargs"]),
            queue_name=spec["queue_name"],
            priority=spec["priority"],
            run_after=spec["run_after"],
            lock_key=spec["lock_key"],
            concurrency_key=spec["concurrency_key"],
            concurrency_limit=spec["concurrency_limit"],
            max_attempts=spec["exec"]["max_attempts"],
            timeout_seconds=spec["exec"]["timeout_seconds"],
            takes_context=spec["takes_context"],
            dedupe=True,
        )
        assert ours == theirs


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=5),
            children,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values)
def test_enqueue_hash_of_any_json_is_pythons(conn: psycopg.Connection, spec: Any) -> None:
    """Canonical JSON is Python's: sorted by code point, control characters, quotes, emoji, no spaces."""
    assert value(conn, "select reproq_spec_hash(%s)", [Jsonb(spec)]) == python_hash(spec)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(json_values, max_size=4),
    st.dictionaries(
        st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), json_values, max_size=4
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "queue_name": st.text(
                st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=9
            ),
            "priority": st.integers(-9, 9),
            "run_after": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
            "lock_key": st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1),
            "takes_context": st.booleans(),
            "backoff_seconds": st.integers(0, 9),
            "max_attempts": st.integers(1, 9),
        },
    ),
)
def test_enqueue_hash_of_a_deduplicated_task_is_pythons(
    conn: psycopg.Connection, args: Any, kwargs: Any, more: dict[str, Any]
) -> None:
    """The fast hash of a spec of ours is reproq_spec_hash of what is stored, and Python's."""
    given = {"args": Jsonb(args), "kwargs": Jsonb(kwargs), "dedupe": True, **more}
    row = task(conn, enqueue(conn, **given))
    assert row.spec_hash == python_hash(row.spec_json)
    assert row.spec_hash == value(
        conn, "select reproq_spec_hash(spec_json) from task_runs where result_id = %s", [row.result_id]
    )
    element = {"task_path": PATH, "args": args, "kwargs": kwargs, "dedupe": True, **more}
    assert enqueue_many(conn, element) == [(1, row.result_id, False)]


def test_keys_are_sorted_by_code_point(conn: psycopg.Connection) -> None:
    """Whatever the collation of the database, and jsonb's own order by length."""
    kwargs = dict.fromkeys(("b", "B", "aa", "a", "z", "ä", "\U0001f600", "\ue000", "a b", "_", ""), 0)
    row = task(conn, enqueue(conn, kwargs=Jsonb(kwargs), dedupe=True))
    assert row.spec_hash == python_hash(row.spec_json)


def test_enqueue_hash_of_nothing_is_nothing(conn: psycopg.Connection) -> None:
    """SQL null."""
    assert value(conn, "select reproq_spec_hash(null)") is None


@pytest.mark.parametrize("status", ["READY", "RUNNING"])
def test_enqueue_active_duplicate_is_returned(conn: psycopg.Connection, status: str) -> None:
    """With p_dedupe: one task while it is queued or runs; a new one afterwards."""
    first = enqueue(conn, args=Jsonb([1]), dedupe=True)
    if status == "RUNNING":
        (got,) = claim(conn)
    assert enqueue(conn, args=Jsonb([1]), dedupe=True) == first
    assert enqueue(conn, args=Jsonb([2]), dedupe=True) != first
    update(conn, first, status="SUCCESSFUL")
    second = enqueue(conn, args=Jsonb([1]), dedupe=True)
    assert second > first
    if status == "RUNNING":
        assert complete(conn, got) == ["lost"]


def test_nothing_is_deduplicated_unless_asked_for(conn: psycopg.Connection) -> None:
    """Without p_dedupe always a new task, and no duplicate for another producer; one by one and in bulk."""
    ids = {enqueue(conn), enqueue(conn), enqueue(conn, dedupe=False), enqueue(conn, dedupe=True)}
    assert len(ids) == 4
    assert enqueue(conn, dedupe=True) in ids
    answers = enqueue_many(conn, {"task_path": PATH}, {"task_path": PATH}, {"task_path": PATH, "dedupe": True})
    assert [created for _, _, created in answers] == [True, True, False]


def test_whatever_differs_in_the_spec_is_no_duplicate(conn: psycopg.Connection) -> None:
    """Queue, priority, keys, limits, time, attempts, context: another task. Expiry is not of the spec."""
    first = enqueue(conn, dedupe=True)
    others = [
        enqueue(conn, dedupe=True, **more)
        for more in (
            {"queue_name": "q"},
            {"priority": 1},
            {"lock_key": "l"},
            {"concurrency_key": "c"},
            {"concurrency_key": "c", "concurrency_limit": 1},
            {"run_after": datetime(2031, 1, 1, tzinfo=UTC)},
            {"max_attempts": 4},
            {"timeout_seconds": 1},
            {"takes_context": True},
            {"backoff_seconds": 30},
            {"args": Jsonb([None])},
            {"kwargs": Jsonb({"a": None})},
        )
    ]
    assert len({first, *others}) == 13
    assert enqueue(conn, expires_at=datetime(2031, 1, 1, tzinfo=UTC), dedupe=True) == first


def test_enqueue_many_at_once_in_order(conn: psycopg.Connection) -> None:
    """One row per task, in order; duplicates within the call are one task; they run in the order given."""
    old = enqueue(conn, args=Jsonb(["old"]), dedupe=True)
    tasks = [{"task_path": PATH, "args": [name], "dedupe": True} for name in ("c", "a", "old", "b", "a")]
    answers = enqueue_many(conn, *tasks, {"task_path": PATH})
    assert [ordinal for ordinal, _, _ in answers] == [1, 2, 3, 4, 5, 6]
    assert [created for _, _, created in answers] == [True, True, False, True, False, True]
    ids = [result_id for _, result_id, _ in answers]
    assert (ids[2], ids[4]) == (old, ids[1])
    assert claimed_ids(conn) == [old, ids[0], ids[1], ids[3], ids[5]]


@pytest.mark.parametrize(("key", "more"), [("lock_key", {}), ("concurrency_key", {"concurrency_limit": 1})])
def test_enqueue_many_with_a_key_of_its_own_for_each_task(
    conn: psycopg.Connection, key: str, more: dict[str, int]
) -> None:
    """10 thousand take half a second, not half a minute: tasks are not compared with each other."""
    conn.execute("set local statement_timeout = '8s'")
    tasks = [{"task_path": PATH, key: f"k{number}", **more} for number in range(10_000)]
    assert len(enqueue_many(conn, *tasks)) == 10_000
    assert value(conn, "select count(*) from task_runs where blocked_on <> ''") == 0


def test_enqueue_many_is_all_or_none(conn: psycopg.Connection) -> None:
    """One bad task, and nothing is enqueued; DETAIL has its place."""
    error = refused(conn, "reproq_enqueue_many", tasks=Jsonb([{"task_path": PATH}, {"task_path": PATH, "args": 5}]))
    assert error.sqlstate == "RQ002"
    assert "2" in (error.diag.message_detail or "")
    assert rows(conn, "select from task_runs") == []


def test_none_at_all(conn: psycopg.Connection) -> None:
    """An empty array is an empty answer."""
    assert enqueue_many(conn) == []


def test_enqueue_thousand_at_once(conn: psycopg.Connection) -> None:
    """In one call, in order, each with its own hash."""
    answers = enqueue_many(conn, *({"task_path": PATH, "args": [n], "lock_key": f"k{n % 7}"} for n in range(1000)))
    ids = [result_id for _, result_id, _ in answers]
    assert ids == sorted(set(ids))
    assert set(statuses(conn, ids[:20])) == {"READY"}


EVERYTHING: dict[str, Any] = {
    "args": [1, {"ü": None}], "kwargs": {"to": "ä"}, "queue_name": "mail", "priority": -7,
    "run_after": "2031-05-06T07:08:09.123456+02:00", "lock_key": "l", "concurrency_key": "c", "concurrency_limit": 4,
    "max_attempts": 9, "timeout_seconds": 5, "expires_at": "2032-01-01T00:00:00Z", "takes_context": True,
    "backoff_seconds": 1.5,
}  # fmt: skip


@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["nothing", "everything"])
def test_enqueue_one_by_one_and_in_bulk_make_the_same_row(
    conn: psycopg.Connection, clock: Clock, given: dict[str, Any]
) -> None:
    """reproq_enqueue, with and without dedupe and unique_key, and reproq_enqueue_many: all columns but the ids."""
    conn.execute("select reproq_limit_set(%s, 5, 5)", [f"task:{PATH}"])
    named = {name: Jsonb(cell) if name in ("args", "kwargs") else cell for name, cell in given.items()}
    ids = [enqueue(conn, **named), enqueue(conn, dedupe=True, **named), enqueue(conn, unique_key="k", **named)]
    ids += [result_id for _, result_id, _ in enqueue_many(conn, {"task_path": PATH, **given})]
    made = [task(conn, result_id)._asdict() for result_id in ids]
    for row in made:
        assert row.pop("spec_hash")
        assert row.pop("result_id")
        assert row["limit_key"] == f"task:{PATH}"
        assert row["enqueued_at"] == row["updated_at"] == clock.now
    assert all(row == made[0] for row in made)


@pytest.mark.parametrize("keys", [{"lock_key": "k"}, {"concurrency_key": "k", "concurrency_limit": 2}])
def test_enqueue_backlog_of_one_key_is_blocked_in_bulk_as_one_by_one(
    conn: psycopg.Connection, clock: Clock, keys: dict[str, Any]
) -> None:
    """Those after the first eight, and the limit, of each stream; later ones and other streams are not."""
    mixed = [
        {**keys},
        {**keys, "priority": 1},
        {**keys, "priority": 2, "run_after": "2031-01-01T00:00:00Z"},
        {"lock_key": "other"},
    ]
    tasks = [mixed[n % 4] for n in range(60)]
    one_by_one = [task(conn, enqueue(conn, queue_name="one", **each)).blocked_on for each in tasks]
    answers = enqueue_many(conn, *({"task_path": PATH, "queue_name": "many", **each} for each in tasks[:30]))
    answers += enqueue_many(conn, *({"task_path": PATH, "queue_name": "many", **each} for each in tasks[30:]))
    assert [task(conn, result_id).blocked_on for _, result_id, _ in answers] == one_by_one
    assert len(set(one_by_one)) > 1


@pytest.mark.parametrize("delay", [timedelta(minutes=5), "5 minutes", "PT5M", "300 s"])
def test_enqueue_delay_counts_from_the_databases_now(conn: psycopg.Connection, clock: Clock, delay: Any) -> None:
    """p_delay, and delay in bulk: text of an interval or a number of seconds; workflows take it, too."""
    found = task(conn, enqueue(conn, delay=delay))
    assert found.run_after == clock.now + timedelta(minutes=5)
    assert datetime.fromisoformat(found.spec_json["run_after"]) == found.run_after
    text = "300" if isinstance(delay, timedelta) else json.dumps(delay)
    element = f'[{{"task_path": "{PATH}", "delay": {text}}}]'
    ids = [
        call(conn, name, tasks=element)[0].result_id for name in ("reproq_enqueue_many", "reproq_chain", "reproq_group")
    ]
    assert {task(conn, result_id).run_after for result_id in ids} == {clock.now + timedelta(minutes=5)}


@pytest.mark.parametrize(
    "instant",
    [
        "2026-01-01 10:00", "2026-01-01T10:00:00", "2026-01-01", "tomorrow", "now", "2026-01-01 10:00 PM", "epoch",
        "20260101T100000", "Jan 1 2026 10:00",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["run_after", "expires_at"])
def test_enqueue_time_without_a_zone_is_refused(conn: psycopg.Connection, key: str, instant: str) -> None:
    """RQ002 with the remedy: the zone of some session would be guessed."""
    error = refused(conn, "reproq_enqueue_many", tasks=Jsonb([{"task_path": PATH, key: instant}]))
    assert error.sqlstate == "RQ002"
    assert f"{key} must be an instant with its time zone" in str(error)
    assert "2026-12-24T18:00:00+01:00" in str(error)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-31T10:00:00Z", "10:00"), ("2026-01-01 10:00+01", "09:00"), ("2026-01-31 10:00:00.5-0130", "11:30"),
        ("2026-07-29 10:00 Europe/Vienna", "08:00"), ("2026-01-01 10:00 CET", "09:00"),
        ("2026-01-01T10:00:00+05:53:28", "04:06"),
    ],
)  # fmt: skip
def test_enqueue_time_with_a_zone_is_taken(conn: psycopg.Connection, text: str, utc: str) -> None:
    """Offsets, abbreviations and names, with and without seconds."""
    ((_, result_id, _),) = enqueue_many(conn, {"task_path": PATH, "run_after": text})
    assert task(conn, result_id).run_after.astimezone(UTC).strftime("%H:%M") == utc


def test_enqueue_spec_has_at_most_a_mebibyte(conn: psycopg.Connection) -> None:
    """RQ002 that names size, limit and remedy; a setting changes the limit; what is stored is what is measured."""
    fixed = len(
        value(conn, "select spec_json::text from task_runs where result_id = %s", [enqueue(conn, args=Jsonb([""]))])
    )
    fits, large = "x" * (2**20 - fixed), "x" * (2**20 - fixed + 1)
    enqueue(conn, args=Jsonb([fits]))
    enqueue_many(conn, {"task_path": PATH, "args": [fits]})
    for error in (
        refused(conn, "reproq_enqueue", task_path=PATH, args=Jsonb([large])),
        refused(conn, "reproq_enqueue", task_path=PATH, args=Jsonb([large]), unique_key="k"),
        refused(conn, "reproq_enqueue_many", tasks=Jsonb([{"task_path": PATH}, {"task_path": PATH, "args": [large]}])),
        refused(conn, "reproq_group", tasks=Jsonb([{"task_path": PATH, "args": [large]}])),
    ):
        assert error.sqlstate == "RQ002"
        assert "1048577 bytes, the limit is 1048576" in str(error)
        assert "elsewhere" in str(error)
    conn.execute("set local reproq.max_spec_bytes = '2MB'")
    enqueue(conn, args=Jsonb([large]))
    conn.execute("set local reproq.max_spec_bytes = 1000")
    assert "the limit is 1000" in str(refused(conn, "reproq_enqueue", task_path=PATH, args=Jsonb(["x" * 1000])))
    enqueue(conn)


@pytest.mark.parametrize("tasks", [None, Jsonb(None), Jsonb({}), Jsonb("x"), Jsonb(5)])
def test_enqueue_what_is_no_array_is_refused(conn: psycopg.Connection, tasks: Any) -> None:
    """RQ001."""
    assert refused(conn, "reproq_enqueue_many", tasks=tasks).sqlstate == "RQ001"


@pytest.mark.parametrize(
    "bad",
    [
        {"task_path": None},
        {"task_path": ""},
        {"task_path": "nodots"},
        {"task_path": ".a"},
        {"task_path": "a."},
        {"task_path": "a..b"},
        {"task_path": "a. b"},
        {"task_path": "a.b\n"},
        {"task_path": "a.\tb"},
        {"task_path": "a.\x7fb"},
        {"task_path": "a." + "b" * 1100},
        {"args": Jsonb({})},
        {"args": Jsonb("x")},
        {"kwargs": Jsonb([])},
        {"kwargs": Jsonb(1)},
        {"queue_name": ""},
        {"queue_name": "q" * 513},
        {"queue_name": "ä" * 257},
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"timeout_seconds": 0},
        {"timeout_seconds": -1},
        {"concurrency_limit": -1, "concurrency_key": "c"},
        {"concurrency_limit": 1},  # of what?
        {"lock_key": ""},
        {"concurrency_key": ""},
        {"run_after": "infinity"},
        {"run_after": "-infinity"},
        {"run_after": "294276-01-01 00:00+00"},
        {"run_after": "0044-03-15 00:00+00 BC"},
        {"expires_at": "infinity"},
        {"expires_at": "-infinity"},
        {"expires_at": "10000-01-01 00:00+00"},
        {"backoff_seconds": -1},
        {"backoff_seconds": "NaN"},
        {"backoff_seconds": "Infinity"},
        {"delay": "-1 s"},
        {"delay": "101 years"},
        {"delay": "1 s", "run_after": "2031-01-01 00:00+00"},
        {"unique_key": ""},
        {"unique_key": "k" * 8193},
        {"unique_for": "1 h"},
        {"unique_while": "active"},
        {"on_duplicate": "replace"},
        {"unique_for": "-1 h", "unique_key": "k"},
        {"unique_while": "always", "unique_key": "k"},
        {"on_duplicate": "raise", "unique_key": "k"},
        {"dedupe": True, "unique_key": "k"},
    ],
)
def test_enqueue_what_cannot_be_a_task_is_refused(conn: psycopg.Connection, bad: dict[str, Any]) -> None:
    """RQ002, one line that names the key; nothing is inserted."""
    error = refused(conn, "reproq_enqueue", **{"task_path": PATH, **bad})
    assert error.sqlstate == "RQ002"
    assert next(iter(bad)) in str(error)
    assert rows(conn, "select from task_runs") == []


@pytest.mark.parametrize(
    "bad",
    [
        5,
        None,
        [],
        {},
        {"task_path": 1.5},
        {"task_path": {"a": "b"}},
        {"task_path": PATH, "queue_name": 5},
        {"task_path": PATH, "queue_name": {"a": 1}},
        {"task_path": PATH, "lock_key": 5},
        {"task_path": PATH, "lock_key": ["a"]},
        {"task_path": PATH, "concurrency_key": True},
        {"task_path": PATH, "priority": "5"},
        {"task_path": PATH, "priority": 1.5},
        {"task_path": PATH, "priority": 2**31},
        {"task_path": PATH, "priority": -(2**31) - 1},
        {"task_path": PATH, "priority": 1e300},
        {"task_path": PATH, "max_attempts": True},
        {"task_path": PATH, "timeout_seconds": "1"},
        {"task_path": PATH, "takes_context": "yes"},
        {"task_path": PATH, "dedupe": 1},
        {"task_path": PATH, "backoff_seconds": "1"},
        {"task_path": PATH, "run_after": 5},
        {"task_path": PATH, "run_after": "soon"},
        {"task_path": PATH, "run_after": "2031-13-01"},
        {"task_path": PATH, "run_after": "2031-01-01 00:00 Nowhere/City"},
        {"task_path": PATH, "run_after": "2031-01-01 00:00+99"},
        {"task_path": PATH, "run_after": "\x01"},
        {"task_path": PATH, "expires_at": []},
        {"task_path": PATH, "surprise": 1},
        {"task_path": PATH, "delay": True},
        {"task_path": PATH, "delay": -1},
        {"task_path": PATH, "delay": 1e300},
        {"task_path": PATH, "delay": "soon"},
        {"task_path": PATH, "unique_key": 5},
        {"task_path": PATH, "unique_key": "k", "unique_for": "a while"},
        {"task_path": PATH, "unique_key": "k", "unique_while": 5},
        {"task_path": PATH, "p_args": []},
    ],
)
def test_elements_that_cannot_be_tasks_are_refused(conn: psycopg.Connection, bad: Any) -> None:
    """RQ002 for wrong types too: nothing is guessed."""
    assert refused(conn, "reproq_enqueue_many", tasks=Jsonb([bad])).sqlstate == "RQ002"


def test_json_null_is_as_absent(conn: psycopg.Connection) -> None:
    """Every key but task_path may be null; so may every argument of reproq_enqueue."""
    names = [
        "args",
        "kwargs",
        "queue_name",
        "priority",
        "run_after",
        "lock_key",
        "concurrency_key",
        "concurrency_limit",
        "max_attempts",
        "timeout_seconds",
        "expires_at",
        "takes_context",
        "dedupe",
        "backoff_seconds",
        "delay",
        "unique_key",
        "unique_for",
        "unique_while",
        "on_duplicate",
    ]
    first = task(conn, enqueue(conn))
    ((_, result_id, created),) = enqueue_many(conn, {"task_path": PATH, **dict.fromkeys(names)})
    assert created
    assert task(conn, result_id).spec_json == first.spec_json
    assert task(conn, enqueue(conn, **dict.fromkeys(names))).spec_json == first.spec_json


def test_enqueue_whole_number_may_have_a_fraction_of_zero(conn: psycopg.Connection) -> None:
    """JSON knows one kind of number: 2.0 is 2, and makes the same task."""
    numbers = {"priority": 2, "max_attempts": 3, "timeout_seconds": 4, "concurrency_limit": 5}
    first = enqueue(conn, concurrency_key="c", dedupe=True, **numbers)
    task = {
        "task_path": PATH,
        "concurrency_key": "c",
        "dedupe": True,
        **{name: float(number) for name, number in numbers.items()},
    }
    ((_, result_id, created),) = enqueue_many(conn, task)
    assert (result_id, created) == (first, False)


@pytest.mark.parametrize(
    "fine",
    [
        {"task_path": "a.b"},
        {"task_path": "ä.ü"},
        {"task_path": "a." + "b" * 1000},
        {"priority": -(2**31)},
        {"priority": 2**31 - 1},
        {"max_attempts": 2**31 - 1},
        {"timeout_seconds": 2**31 - 1},
        {"concurrency_key": "c", "concurrency_limit": 2**31 - 1},
        {"concurrency_key": "c", "concurrency_limit": 0},
        {"lock_key": "k" * 2**19},
        {"lock_key": "".join(chr(33 + n * 7919 % 90) for n in range(6000))},
        {"queue_name": "q" * 512},
        {"queue_name": "\U0001f600'\"\n*../x\u202e"},
        {"run_after": "0001-01-02 00:00+00"},
        {"run_after": "9999-12-30 00:00+00"},
        {"expires_at": "9999-12-30 00:00+00"},
        {"backoff_seconds": 0},
        {"args": Jsonb(["x" * (2**20 - 1000)])},
        {"args": Jsonb([2**53 + 1, -0.0, 1e200, "\\u0041", '"'])},
        {"kwargs": Jsonb({"": "", "a b": {"__reproq_type__": "timedelta"}})},
    ],
)
def test_enqueue_what_is_unusual_but_a_task_is_enqueued_and_claimed(
    conn: psycopg.Connection, fine: dict[str, Any]
) -> None:
    """At the ends of every range; the spec comes back from the claim as it is stored."""
    result_id = enqueue(conn, **fine)
    row = task(conn, result_id)
    if row.run_after is None or row.run_after.year < 2000:
        (got,) = claim(conn, queues=[row.queue_name])
        assert (got.result_id, got.spec_json) == (result_id, row.spec_json)


def test_deep_nesting_is_hashed(conn: psycopg.Connection) -> None:
    """Two hundred levels; what no session could parse is PostgreSQL's 54001, before anything is inserted."""
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    assert enqueue(conn, args=Jsonb([deep]), dedupe=True) == enqueue(conn, args=Jsonb([deep]), dedupe=True)
    assert refused(conn, "reproq_enqueue", task_path=PATH, args="[" * 20000 + "]" * 20000).sqlstate == "54001"


@pytest.mark.parametrize(
    ("args", "sqlstate"), [('["\\u0000"]', "22P05"), ('["\\ud800"]', "22P02"), ("[1e200000]", "22003"), ("[", "22P02")]
)
def test_enqueue_what_jsonb_cannot_hold_is_refused_by_the_cast(
    conn: psycopg.Connection, args: str, sqlstate: str
) -> None:
    """PostgreSQL's own errors."""
    assert refused(conn, "reproq_enqueue", task_path=PATH, args=args).sqlstate == sqlstate


def test_duplicate_keys_are_one(conn: psycopg.Connection) -> None:
    """jsonb keeps the last one, in what is stored and in what is hashed."""
    first = enqueue(conn, kwargs='{"a": 1, "a": 2}', dedupe=True)
    assert task(conn, first).spec_json["kwargs"] == {"a": 2}
    assert enqueue(conn, kwargs=Jsonb({"a": 2}), dedupe=True) == first


def test_enqueue_rolled_back_enqueue_never_was(conn: psycopg.Connection) -> None:
    """It belongs to the caller's transaction."""
    with conn.transaction(force_rollback=True):
        enqueue(conn)
        assert len(rows(conn, "select from task_runs")) == 1
    assert rows(conn, "select from task_runs") == []
