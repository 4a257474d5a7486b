"""Random sequences of everything that can happen to tasks, one session, checked after each step.

Safety: keys exclude, fences fence, dependents follow, counts are the rows'. Liveness: an empty claim means that
nothing could run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import psycopg
from hypothesis import given
from hypothesis import strategies as st

from tests.sql.calls import (
    FINAL,
    Row,
    add,
    cancel,
    chain,
    chord,
    claim,
    complete,
    fail,
    heartbeat,
    next_wake,
    reclaim,
    release,
    retry,
    rows,
    task,
    update,
)
from tests.sql.exploring import effort
from tests.support.database import Clock

SECOND = timedelta(seconds=1)
ENDS = ("ok", "failed", "retry", "released")
LIMITS = {"one": 1, "two": 2, "three": 3}


class Lives:
    """The table, driven: each step draws what it needs from its own `random`."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        self.clock = Clock(conn)
        self.ids: list[int] = []
        self.attempts: list[Row] = []

    def columns(self, random: Random) -> dict[str, Any]:
        key = random.choice([None, None, *LIMITS])
        return {
            "lock_key": random.choice([None, None, "x", "y"]),
            "concurrency_key": key,
            "concurrency_limit": LIMITS[key] if key else 0,
            "priority": random.randrange(3),
            "max_attempts": random.randint(1, 3),
            "queue_name": random.choice(["default", "default", "other"]),
            "enqueued_at": self.clock.now,
        }

    def an_attempt(self, random: Random) -> Row | None:
        """Mostly one of the latest; stale ones too."""
        if not self.attempts:
            return None
        return random.choice(self.attempts[-4:] if random.random() < 0.8 else self.attempts)

    # --- producers

    def enqueue(self, random: Random) -> None:
        columns = self.columns(random)
        columns["run_after"] = self.clock.now + 5 * SECOND if random.random() < 0.2 else None
        columns["expires_at"] = self.clock.now + 20 * SECOND if random.random() < 0.2 else None
        self.ids += [add(self.conn, **columns) for _ in range(random.choice([1, 2, 12]))]

    def enqueue_chain(self, random: Random) -> None:
        self.ids += chain(self.conn, random.randint(2, 4), **self.columns(random))

    def enqueue_chord(self, random: Random) -> None:
        _, members, callback = chord(self.conn, random.randint(1, 3), **self.columns(random))
        self.ids += [*members, callback]

    # --- workers

    def claim(self, random: Random) -> None:
        limit = random.choice([1, 2, 8])
        worker = f"w{len(self.attempts)}"  # one that holds nothing
        got = claim(self.conn, limit, queues=["default", "other"], lease=30 * SECOND, worker=worker)
        alone = any(one.lost_count >= 2 for one in got)
        assert len(got) <= (1 if alone else limit)
        assert not {one.lease_token for one in got} & {one.lease_token for one in self.attempts}
        self.attempts += got
        if len(got) < limit and not alone:
            self.nothing_could_run()

    def complete(self, random: Random) -> None:
        if attempt := self.an_attempt(random):
            expected = self.expected_end(attempt, "ok", only_after="ok")
            assert complete(self.conn, attempt) == [expected]

    def fail(self, random: Random) -> None:
        if attempt := self.an_attempt(random):
            retryable = random.choice([None, True, False])
            found = rows(self.conn, "select * from task_runs where result_id = %s", [attempt.result_id])
            final = any(t.attempts >= t.max_attempts or t.cancel_requested or retryable is False for t in found)
            expected = self.expected_end(attempt, "failed" if final else "retry")
            assert [row.answer for row in fail(self.conn, attempt, retryable=retryable)] == [expected]

    def release(self, random: Random) -> None:
        if attempt := self.an_attempt(random):
            expected = self.expected_end(attempt, "ok")
            assert release(self.conn, attempt) == [expected]

    def heartbeat(self, random: Random) -> None:
        if attempt := self.an_attempt(random):
            running = self.is_running(attempt)
            asked = running and task(self.conn, attempt.result_id).cancel_requested
            succeeded = self.expected_end(attempt, "ok", only_after="ok")
            wanted = "cancel" if asked else "ok" if running else succeeded
            assert heartbeat(self.conn, attempt, worker="else", lease=30 * SECOND) == {attempt.result_id: wanted}

    def reclaim(self, _: Random) -> None:
        reclaim(self.conn)
        overdue = "select from task_runs where leased_until < %s or finished_at is null and expires_at <= %s"
        assert rows(self.conn, overdue + " and status <> 'RUNNING'", [self.clock.now, self.clock.now]) == []

    # --- operators and others

    def cancel(self, random: Random) -> None:
        if self.ids:
            result_id = random.choice(self.ids)
            found = rows(self.conn, "select status from task_runs where result_id = %s", [result_id])
            status = found[0].status if found else None
            answers = {None: "missing", "READY": "cancelled", "WAITING": "cancelled", "RUNNING": "requested"}
            assert cancel(self.conn, result_id) == answers.get(status, "terminal")

    def retry(self, random: Random) -> None:
        failed = rows(self.conn, "select result_id from task_runs where status in ('FAILED', 'CANCELLED') order by 1")
        if failed:
            assert retry(self.conn, random.choice(failed).result_id) in ("retried", "not_failed")

    def pause_or_resume(self, random: Random) -> None:
        queue = random.choice(["default", "other"])
        function = "pause" if random.random() < 0.4 else "resume"
        self.conn.execute(
            "select case %s when 'pause' then reproq_pause(%s) else reproq_resume(%s) end", [function, queue, queue]
        )

    def write_by_hand(self, random: Random) -> None:
        active = rows(self.conn, "select result_id from task_runs where status in ('READY', 'RUNNING') order by 1")
        if active:
            status = random.choice(["READY", "SUCCESSFUL", "FAILED", "CANCELLED"])
            update(self.conn, random.choice(active).result_id, status=status)

    def ask_by_hand(self, random: Random) -> None:
        if self.ids:
            update(self.conn, random.choice(self.ids), cancel_requested=True)

    def delete(self, random: Random) -> None:
        if self.ids:
            query = "delete from task_runs where result_id = %s and workflow_id is null"
            self.conn.execute(query, [random.choice(self.ids)])

    def wait(self, random: Random) -> None:
        self.clock.advance(seconds=random.choice([1, 5, 29, 31, 3700]))

    # --- what must hold

    def is_running(self, attempt: Row) -> bool:
        query = "select from task_runs where result_id = %s and lease_token = %s and status = 'RUNNING'"
        return bool(rows(self.conn, query, [attempt.result_id, attempt.lease_token]))

    def expected_end(self, attempt: Row, answer: str, *, only_after: str | None = None) -> str:
        """`answer` while the attempt runs; `already` when it ended last and was not just lost; else lost.

        `succeeded`: it ended well, and the call (without `only_after`) says otherwise.
        """
        found = rows(self.conn, "select * from task_runs where result_id = %s", [attempt.result_id])
        if any(t.lease_token == attempt.lease_token for t in found):
            return answer
        ended_as = [t.last_answer for t in found if t.last_token == attempt.lease_token]
        if only_after is None and ended_as == ["ok"]:
            return "succeeded"
        return "already" if ended_as and ended_as[0] in (only_after, *([] if only_after else ENDS)) else "lost"

    def nothing_could_run(self) -> None:
        """After a claim that was not full: every due task in an open queue waits for a key that is taken."""
        left = rows(
            self.conn,
            "select * from task_runs t where status = 'READY' and greatest(enqueued_at, run_after) <= %s"
            " and lost_count < 2"  # a quarantined task waits for a worker without anything else
            " and not exists (select from reproq_queue_controls c where c.queue_name = t.queue_name and c.paused)",
            [self.clock.now],
        )
        running = rows(self.conn, "select * from task_runs where status = 'RUNNING'")
        for one in left:
            locked = one.lock_key and any(r.lock_key == one.lock_key for r in running)
            used = sum(r.concurrency_key == one.concurrency_key for r in running)
            full = one.concurrency_key and used >= LIMITS[one.concurrency_key]
            assert locked or full, f"could run: {one}"
        if not left:
            assert next_wake(self.conn, "default", "other") != 0 * SECOND

    def keys_exclude(self) -> None:
        running = rows(self.conn, "select * from task_runs where status = 'RUNNING'")
        locks = [r.lock_key for r in running if r.lock_key]
        assert len(locks) == len(set(locks))
        for key, limit in LIMITS.items():
            places = [r.concurrency_slot for r in running if r.concurrency_key == key]
            assert len(places) == len(set(places)) <= limit
        assert all(r.attempts <= r.max_attempts for r in running)

    def dependents_follow(self) -> None:
        """Nothing waits for a task that has ended."""
        early = rows(
            self.conn,
            "select c.status from task_runs c join task_runs p on p.result_id = c.parent_id"
            " where c.status = 'WAITING' and p.finished_at is not null",
        )
        assert early == []

    def workflows_are_their_rows(self) -> None:
        for row in rows(
            self.conn,
            "select w.*, c.status as callback, m.good, m.bad, m.active from workflow_runs w"
            " join task_runs c on c.result_id = w.callback_result_id"
            " cross join lateral (select count(*) filter (where t.status = 'SUCCESSFUL') as good,"
            " count(*) filter (where t.status in ('FAILED', 'CANCELLED')) as bad,"
            " count(*) filter (where t.finished_at is null) as active"
            " from task_runs t where t.workflow_id = w.workflow_id and t.result_id <> w.callback_result_id) m",
        ):
            assert (row.success_count, row.failure_count) == (row.good, row.bad)
            assert (row.status == "SUCCESSFUL") == (row.callback == "SUCCESSFUL")
            if row.callback == "WAITING":
                assert row.status == "RUNNING"
                assert row.active > 0
            if row.callback in ("READY", "RUNNING") and row.bad == 0:
                assert row.status == "WAITING_CALLBACK"
            if row.bad and row.callback not in FINAL:
                assert row.status == "FAILED"

    def check(self) -> None:
        self.keys_exclude()
        self.dependents_follow()
        self.workflows_are_their_rows()


STEPS: list[Callable[[Lives, Random], None]] = [
    *[Lives.enqueue] * 3,
    Lives.enqueue_chain,
    Lives.enqueue_chord,
    *[Lives.claim] * 6,
    *[Lives.complete] * 4,
    *[Lives.fail] * 3,
    Lives.release,
    Lives.heartbeat,
    Lives.reclaim,
    Lives.cancel,
    Lives.retry,
    Lives.pause_or_resume,
    Lives.write_by_hand,
    Lives.ask_by_hand,
    Lives.delete,
    *[Lives.wait] * 2,
]


@effort(examples=12, shrink=False)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2**32)), min_size=40, max_size=60))
def test_random_lives_of_tasks_keep_the_promises(
    conn: psycopg.Connection, steps: list[tuple[Callable[[Lives, Random], None], int]]
) -> None:
    """Whatever happens in whatever order."""
    with conn.transaction(force_rollback=True):
        lives = Lives(conn)
        for step, seed in steps:
            step(lives, Random(seed))
            lives.check()
