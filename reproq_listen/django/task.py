"""A task of `django.tasks` that the process of a worker can run, and its context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.tasks.base import Task, TaskContext, TaskResult, TaskResultStatus
from django.tasks.signals import task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json

from reproq_listen.child.context import TaskContext as WorkerContext
from reproq_listen.child.outcomes import Discard, Snooze, Throttled
from reproq_listen.child.payload import RefusedError
from reproq_listen.client.options import checked, merged


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproqContext(TaskContext):
    """First argument of a task with `takes_context`: what Django promises, and all that ours offers."""

    worker: WorkerContext

    def __getattr__(self, name: str) -> Any:
        """`context.save_metadata(...)`, `context.results()`, `context.step(...)`."""
        return getattr(self.worker, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproqTask(Task):
    """A task of the backend. `reproq`: options of `reproq_listen.task` that Django lacks, such as `max_attempts`.

    Raises InvalidTaskError, which names a wrong option.
    """

    reproq: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Task.__post_init__(self)
        merged({}, checked(self.reproq))

    def using(self, *, reproq: Mapping[str, Any] | None = None, **changes: Any) -> ReproqTask:
        """As Django's, and with options of `reproq` on top of those of the decorator."""
        task: ReproqTask = Task.using(self, **changes)
        return task if reproq is None else replace(task, reproq={**self.reproq, **reproq})

    # What the process of a task uses: see `reproq_listen.child.runner`.

    @property
    def __wrapped__(self) -> Any:
        return self.func

    @property
    def __reproq_task__(self) -> ReproqTask:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function here. With the context of a worker in front: as an attempt, with Django's signals."""
        if args and type(args[0]) is WorkerContext:
            return self._attempt(args[0], list(args[1:]), kwargs)
        return self.call(*args, **kwargs)

    def read_arguments(self, args: list[object], kwargs: dict[str, object]) -> tuple[list[object], dict[str, object]]:
        return args, kwargs

    def write_result(self, value: object) -> object:
        try:
            return normalize_json(value)
        except (TypeError, ValueError) as error:
            raise RefusedError("invalid_result", f"the return value cannot be stored as JSON: {error}") from error

    def discards(self, error: BaseException) -> bool:
        del error
        return False

    def _attempt(self, context: WorkerContext, args: list[Any], kwargs: dict[str, Any]) -> Any:
        now = timezone.now()
        result = TaskResult(
            task=self,
            id=str(context.result_id),
            status=TaskResultStatus.RUNNING,
            enqueued_at=None,
            started_at=now,
            finished_at=None,
            last_attempted_at=now,
            args=args,
            kwargs=kwargs,
            backend=self.backend,
            errors=[],
            worker_ids=["" for _ in range(context.attempt)],
        )
        backend = type(self.get_backend())
        task_started.send_robust(sender=backend, task_result=result)
        if self.takes_context:
            args = [ReproqContext(task_result=result, worker=context), *args]
        try:
            value = self.write_result(self.call(*args, **kwargs))
        except Exception as error:
            if _is_last(error, context):
                _set(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
                task_finished.send_robust(sender=backend, task_result=result)
            raise
        _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
        task_finished.send_robust(sender=backend, task_result=result)
        return value


def _is_last(error: Exception, context: WorkerContext) -> bool:
    """Whether the task ends with this error."""
    if isinstance(error, (Snooze, Throttled)):
        return False
    return isinstance(error, (Discard, RefusedError)) or context.is_last_attempt


def _set(result: TaskResult, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)
