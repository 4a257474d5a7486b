"""What became of a task: a snapshot, refreshed on request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from reproq_listen.client.connections import Runner
from reproq_listen.client.task import TaskCall

R_co = TypeVar("R_co", covariant=True)


class TaskResult(Generic[R_co]):
    """A task that was enqueued. `R_co` is the type of what it returns."""

    def __init__(self, runner: Runner, schema: str | None, result_id: int, call: TaskCall[R_co]) -> None:
        self._runner = runner
        self._schema = schema
        self.id = result_id
        self.args: tuple[object, ...] = call.args
        self.kwargs: Mapping[str, object] = call.kwargs

    def __repr__(self) -> str:
        return f"<result {self.id}>"
