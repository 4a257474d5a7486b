"""A Go worker that still runs during a swap: its statements, restated, in the order in which it sends them.

It knows tasks by worker id only, and none of the columns we add. Each method is one transaction of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.sql.calls import MINUTE, Row, rows
from tests.support.database import Clock


class GoWorker:
    """On one session."""

    def __init__(self, conn: psycopg.Connection, clock: Clock | None = None, name: str = "go-1") -> None:
        self.conn = conn
        self.clock = clock
        self.name = name

    @property
    def now(self) -> datetime:
        """It computes instants by itself."""
        return datetime.now(UTC) if self.clock is None else self.clock.now

    def claim(self, queue: str = "default") -> Row | None:
        """One task by priority and age; keys are looked at in the same statement."""
        found = rows(
            self.conn,
            """
            update task_runs set status = 'RUNNING', leased_by = %(me)s, leased_until = %(until)s,
                attempts = attempts + 1, started_at = coalesce(started_at, %(now)s), last_attempted_at = %(now)s,
                worker_ids = worker_ids || to_jsonb(%(me)s::text), updated_at = %(now)s
            where result_id = (
                select t.result_id from task_runs t
                where t.status = 'READY' and t.queue_name = %(queue)s
                  and (t.run_after is null or t.run_after <= %(now)s)
                  and (t.lock_key is null or not exists (
                      select 1 from task_runs r where r.status = 'RUNNING' and r.lock_key = t.lock_key))
                  and (t.concurrency_key is null or t.concurrency_limit <= 0 or t.concurrency_limit > (
                      select count(*) from task_runs r
                      where r.status = 'RUNNING' and r.concurrency_key = t.concurrency_key))
                order by t.priority desc, t.enqueued_at, t.result_id
                for update skip locked limit 1)
            returning *
            """,
            {"me": self.name, "until": self.now + MINUTE, "now": self.now, "queue": queue},
        )
        return found[0] if found else None

    def _mine(self, assignments: LiteralString, result_id: int, **values: Any) -> bool:
        query = sql.SQL(
            "update task_runs set {} where result_id = %(id)s and leased_by = %(me)s and status = 'RUNNING'"
        ).format(sql.SQL(assignments))
        values = {"id": result_id, "me": self.name, "now": self.now, **values}
        return self.conn.execute(query, values).rowcount == 1

    def renew(self, result_id: int) -> bool:
        """Whether the task was still its own."""
        return self._mine("leased_until = %(until)s", result_id, until=self.now + MINUTE)

    def succeed(self, result_id: int) -> bool:
        """SUCCESSFUL; it clears its own columns and leaves ours alone. Then what waits for the task."""
        if not self._mine(
            "status = 'SUCCESSFUL', return_json = '1', finished_at = %(now)s, leased_until = null, leased_by = null,"
            " updated_at = %(now)s",
            result_id,
        ):
            return False
        self.conn.execute(
            """
            update task_runs
            set wait_count = wait_count - 1, status = case when wait_count > 1 then 'WAITING' else 'READY' end
            where status = 'WAITING' and parent_id = %s
            """,
            [result_id],
        )
        for counted in self.count_success(result_id):
            self.start_callback(counted)
        return True

    def count_success(self, result_id: int) -> list[Row]:
        """Add one to the successes of a member's chord, or end the chord of a callback; what it reads back."""
        return rows(
            self.conn,
            """
            with ended as (
                update workflow_runs set status = 'SUCCESSFUL', updated_at = %(now)s
                where workflow_id = %(workflow)s and callback_result_id = %(id)s
            ), counted as (
                update workflow_runs
                set success_count = success_count + 1, updated_at = %(now)s,
                    status = case when success_count + 1 >= expected_count and failure_count = 0 and status <> 'FAILED'
                                  then 'WAITING_CALLBACK' else status end
                where workflow_id = %(workflow)s and callback_result_id <> %(id)s and status <> 'FAILED'
                returning *)
            select * from counted
            """,
            {"now": self.now, "id": result_id, "workflow": self._workflow_of(result_id)},
        )

    def start_callback(self, counted: Row) -> None:
        """READY, when the counts that it read back say so."""
        if (
            counted.status == "WAITING_CALLBACK"
            and not counted.failure_count
            and counted.success_count >= counted.expected_count
        ):
            self.conn.execute(
                "update task_runs set status = 'READY', wait_count = 0, updated_at = %s"
                " where status = 'WAITING' and result_id = %s",
                [self.now, counted.callback_result_id],
            )

    def fail(self, result_id: int) -> bool:
        """FAILED for good, and with it the chord and its callback."""
        if not self._mine(
            "status = 'FAILED', finished_at = %(now)s, failed_at = %(now)s, last_error = 'boom',"
            " errors_json = errors_json || %(error)s, leased_until = null, leased_by = null",
            result_id,
            error=Jsonb({"kind": "app_error", "message": "boom"}),
        ):
            return False
        failed = rows(
            self.conn,
            """
            with ended as (
                update workflow_runs set status = 'FAILED', updated_at = %(now)s
                where workflow_id = %(workflow)s and callback_result_id = %(id)s
            ), counted as (
                update workflow_runs
                set failure_count = failure_count + 1, status = 'FAILED', updated_at = %(now)s
                where workflow_id = %(workflow)s and callback_result_id <> %(id)s and status <> 'FAILED'
                returning callback_result_id)
            select * from counted
            """,
            {"now": self.now, "id": result_id, "workflow": self._workflow_of(result_id)},
        )
        for chord in failed:
            self.conn.execute(
                "update task_runs set status = 'FAILED', finished_at = %s, wait_count = 0, run_after = null,"
                " errors_json = errors_json || %s where status in ('WAITING', 'READY') and result_id = %s",
                [self.now, Jsonb({"kind": "workflow_failed"}), chord.callback_result_id],
            )
        return True

    def _workflow_of(self, result_id: int) -> UUID | None:
        ((found,),) = rows(self.conn, "select workflow_id from task_runs where result_id = %s", [result_id])
        workflow_id: UUID | None = found
        return workflow_id

    def retry_later(self, result_id: int) -> bool:
        """Back to READY with a backoff of its own."""
        return self._mine(
            "status = 'READY', run_after = %(due)s, leased_until = null, leased_by = null",
            result_id,
            due=self.now + MINUTE,
        )

    def reclaim(self) -> int:
        """Expired leases of all workers go back to READY; how many."""
        return self.conn.execute(
            "update task_runs set status = 'READY', leased_until = null, leased_by = null, updated_at = %s"
            " where status = 'RUNNING' and leased_until < %s",
            [self.now, self.now],
        ).rowcount
