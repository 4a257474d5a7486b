"""The backend of `django.tasks`: rows of task_runs, written in the current transaction of a database of the project."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from django.core import checks
from django.db import connections
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import TaskError, TaskResult, TaskResultStatus
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.utils import timezone
from django.utils.module_loading import import_string

from reproq_listen.client.codec import Codec
from reproq_listen.client.options import checked
from reproq_listen.db import producer_queries as queries
from reproq_listen.django.database import DEFAULT_ALIAS
from reproq_listen.django.task import ReproqTask

_STATUS = {"WAITING": "READY", "CANCELLED": "FAILED"}
_MAX_ID = 2**63 - 1
_NO_CLASS = "reproq_listen.errors.TaskFailedError"


class ReproqBackend(BaseTaskBackend):
    """OPTIONS: `DATABASE` (an alias of DATABASES; default: "default") and `SCHEMA` (if not on the search path)."""

    task_class = ReproqTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._database = str(self.options.get("DATABASE", DEFAULT_ALIAS))
        self._schema: str | None = self.options.get("SCHEMA")

    def enqueue(self, task: ReproqTask, args: Any, kwargs: Any) -> TaskResult:
        """Enqueue in the current transaction; without one, at once. One statement.

        Raises InvalidArgumentsError if the arguments do not fit the function, TypeError if they are not JSON.
        """
        self.validate_task(task)
        codec = Codec(task.func, takes_context=task.takes_context)
        bound = codec.bind(tuple(args), kwargs)
        result = TaskResult(
            task=task,
            id="",
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        parameters: dict[str, object] = {
            "task_path": task.module_path,
            "args": json.dumps(result.args),
            "kwargs": json.dumps(result.kwargs),
            "queue_name": task.queue_name,
            "priority": task.priority,
            "takes_context": True,  # for Django's signals; the function gets one only if it wants to
            **codec.filled(checked(task.reproq), bound),
        }
        if task.run_after is not None:
            parameters["run_after"] = task.run_after
        ((result_id,),) = self._rows(*queries.enqueue(self._schema, "format", parameters))
        object.__setattr__(result, "id", str(result_id))
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Raises TaskResultDoesNotExist."""
        rows = []
        if str(result_id).isdecimal() and int(result_id) <= _MAX_ID:
            rows = self._rows(queries.result_for_django(self._schema), (int(result_id),))
        if not rows:
            raise TaskResultDoesNotExist(result_id)
        ((path, status, args, kwargs, value, errors, worker_ids, queue_name, priority, run_after, *times),) = rows
        enqueued_at, started_at, last_attempted_at, finished_at = times
        result = TaskResult(
            task=self._task(path, queue_name, priority, run_after),
            id=str(result_id),
            status=TaskResultStatus(_STATUS.get(status, status)),
            enqueued_at=enqueued_at,
            started_at=started_at,
            finished_at=finished_at,
            last_attempted_at=last_attempted_at,
            args=json.loads(args or "[]"),
            kwargs=json.loads(kwargs or "{}"),
            backend=self.alias,
            errors=[_error(error) for error in json.loads(errors or "[]")],
            worker_ids=json.loads(worker_ids or "[]"),
        )
        object.__setattr__(result, "_return_value", json.loads(value or "null"))
        return result

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """The database must be there, and PostgreSQL."""
        found = list(super().check(**kwargs))
        setting = f"TASKS[{self.alias!r}]['OPTIONS']['DATABASE']"
        if self._database not in connections:
            hint = f"DATABASES has: {', '.join(connections)}"
            found.append(checks.Error(f"{setting} is {self._database!r}, which is no database", hint, id="reproq.E001"))
        elif connections[self._database].vendor != "postgresql":
            hint = "Name the alias of a PostgreSQL database there"
            message = f"{setting} is {self._database!r}, which is {connections[self._database].vendor}"
            found.append(checks.Error(message, hint, id="reproq.E002"))
        return found

    def _rows(self, query: str, args: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with connections[self._database].cursor() as cursor:
            cursor.execute(query, args)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

    def _task(self, path: str, queue_name: str, priority: int, run_after: Any) -> ReproqTask:
        """The task of a row, with the row's options where Django allows them."""
        try:
            task: Any = import_string(path)
            found: ReproqTask = replace(task, queue_name=queue_name, priority=priority, run_after=run_after)
        except InvalidTask:
            found = task
        except (ImportError, TypeError) as error:
            raise TaskResultDoesNotExist(f"{path} is no task of this project: {error}") from error
        return found


def _error(error: dict[str, Any]) -> TaskError:
    name = error.get("exception_class") or _NO_CLASS
    text = error.get("traceback") or f"{error.get('kind', 'app_error')}: {error.get('message', '')}"
    return TaskError(exception_class_path=name if "." in name else f"builtins.{name}", traceback=text)
