"""What became of a task: a snapshot, read when the task is enqueued, refreshed, or waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, cast

from reproq_listen.client.connections import Row, Runner
from reproq_listen.client.task import Task
from reproq_listen.db import producer_queries as queries
from reproq_listen.errors import NoSuchTaskError, TaskFailedError, TaskUnfinishedError

R_co = TypeVar("R_co", covariant=True)

Status = Literal["READY", "RUNNING", "WAITING", "SUCCESSFUL", "FAILED", "CANCELLED"]
_FINAL = ("SUCCESSFUL", "FAILED", "CANCELLED")

FIRST_LOOK = 1.0
MAX_LOOK = 10.0
"""Seconds between looks of a client that waits. Notifications wake it; the looks find what they missed."""
BUSY_LOOK = 0.01
"""Seconds until the next look while another session holds the row, so that the end could not be subscribed to."""


@dataclass(frozen=True)
class AttemptError:
    """Why an attempt failed. `kind`: see the page states-and-errors."""

    kind: str
    message: str
    exception_class: str | None
    traceback: str | None
    attempt: int | None
    at: str | None


class Snapshot(Generic[R_co]):
    """The fields of a result. They show the task as it was when it was last read. `R_co`: type of its return value."""

    def __init__(
        self,
        result_id: int,
        task: Task[..., R_co] | None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        self.id = result_id
        self.task_path = task.module_path if task is not None else ""
        self.status: Status = "READY"
        self.args: Sequence[object] = args
        self.kwargs: Mapping[str, object] = kwargs or {}
        self.attempts = 0
        self.errors: list[AttemptError] = []
        """The last ten, oldest first."""
        self.enqueued_at: datetime | None = None
        """None until the result is read again: to enqueue gives the id only."""
        self.started_at: datetime | None = None
        self.last_attempted_at: datetime | None = None
        self.finished_at: datetime | None = None
        self._task = task
        self._return_json: str | None = None

    def __repr__(self) -> str:
        return f"<result {self.id} of {self.task_path}: {self.status}>"

    @property
    def is_finished(self) -> bool:
        """Whether the task has ended, well or badly."""
        return self.status in _FINAL

    @property
    def return_value(self) -> R_co:
        """What the task returned, by the annotation of the function.

        Raises TaskUnfinishedError, or TaskFailedError with the last error.
        """
        if self.status == "SUCCESSFUL":
            value = json.loads(self._return_json or "null")
            return cast("R_co", value if self._task is None else self._task.codec.decode_result(value))
        if not self.is_finished:
            raise TaskUnfinishedError(f"task {self.id} of {self.task_path} has not ended: it is {self.status}")
        last = self.errors[-1] if self.errors else None
        reason = "" if last is None else f": {last.kind}: {last.exception_class or ''} {last.message}"
        raise TaskFailedError(f"task {self.id} of {self.task_path} has failed{reason}")

    def read(self, rows: Sequence[Row]) -> bool:
        """Take over what `queries.result` gave. Whether the end will be notified. Raises NoSuchTaskError."""
        if not rows:
            raise NoSuchTaskError(
                f"there is no task {self.id}: the transaction that enqueued it is not committed, or it was pruned"
            )
        (row,) = rows
        self.task_path, self.status = row[0], row[1]
        if not self.args and not self.kwargs:
            self.args, self.kwargs = tuple(json.loads(row[2] or "[]")), json.loads(row[3] or "{}")
        self._return_json = row[4]
        self.errors = [_error(error) for error in json.loads(row[5] or "[]")]
        self.attempts = row[6]
        self.enqueued_at, self.started_at, self.last_attempted_at, self.finished_at = row[7:11]
        return bool(row[11])

    def unfinished(self, timeout: float | None) -> TaskUnfinishedError:
        """The error of a client that has waited for long enough."""
        waited = f"did not end within {timeout or 0:g} s: it is {self.status}"
        return TaskUnfinishedError(f"task {self.id} of {self.task_path} {waited}")


def _error(error: Mapping[str, Any]) -> AttemptError:
    names = ("exception_class", "traceback", "attempt", "at")
    return AttemptError(error.get("kind", "app_error"), error.get("message", ""), *(error.get(name) for name in names))


class TaskResult(Snapshot[R_co]):
    """A task that was enqueued."""

    def __init__(
        self,
        runner: Runner,
        schema: str | None,
        result_id: int,
        task: Task[..., R_co] | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(result_id, task, args, kwargs)
        self._runner = runner
        self._schema = schema

    def refresh(self) -> None:
        """Read the task again. Raises NoSuchTaskError."""
        self.read(self._runner.rows(queries.result(self._schema, self._runner.style), (self.id, False)))

    def wait(self, timeout: float | None = None) -> R_co:
        """Wait for the end of the task and give what it returned. `timeout` in seconds; None: as long as it takes.

        The database notifies the client. That needs a client with a DSN, a pool or an engine: it waits on a
        connection of its own, for a task that is committed.
        Raises TaskFailedError with the last error, TaskUnfinishedError after `timeout`, NoSuchTaskError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        look = FIRST_LOOK
        with self._runner.listening(self._schema) as listener:
            while True:
                watched = self.read(listener.rows(queries.result(self._schema, listener.style), (self.id, True)))
                if self.is_finished:
                    return self.return_value
                left = MAX_LOOK if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise self.unfinished(timeout)
                listener.sleep_until(str(self.id), min(left, look if watched else BUSY_LOOK))
                look = min(look * 2, MAX_LOOK)

    def cancel(self) -> str:
        """Cancel the task: cancelled, requested (it runs, and is stopped), terminal (it had ended) or missing.

        For roles that may operate (`reproq_operator`).
        """
        return self._change("cancel")

    def retry(self) -> str:
        """Run a failed task again: retried, already_active, not_failed or missing. For roles that may operate."""
        return self._change("retry")

    def _change(self, verb: Literal["cancel", "retry"]) -> str:
        ((answer,),) = self._runner.rows(queries.change(self._schema, self._runner.style, verb), (self.id,))
        return str(answer)
