"""`Schedule`: a call that is repeated, declared in code and brought into the database by `schedule sync`."""

from __future__ import annotations

import json
from typing import Any, Literal

from reproq_listen.client.task import TaskCall
from reproq_listen.errors import InvalidTaskError

_OWN = ("queue_name", "priority", "max_attempts", "concurrency_key", "concurrency_limit")
_MORE = ("lock_key", "timeout_seconds", "backoff_seconds", "takes_context")


class Schedule:
    """A task that is enqueued at the times of a cron expression, with the options of the call.

    A module lists its schedules under the name `schedules`; `reproq-listen schedule sync MODULE` sets them.
    """

    def __init__(
        self,
        name: str,
        *,
        cron: str,
        call: TaskCall[Any],
        time_zone: str = "UTC",
        misfire: Literal["skip", "one", "all"] = "one",
        overlap: Literal["allow", "skip", "queue_one"] = "allow",
        enabled: bool = True,
    ) -> None:
        """Raises InvalidTaskError if the call has options that a run cannot have."""
        if not isinstance(call, TaskCall):
            raise InvalidTaskError(f"schedule {name}: call needs task.call(...), not {call!r:.80}")
        unusable = sorted(call.options.keys() - {*_OWN, *_MORE})
        if unusable:
            raise InvalidTaskError(
                f"schedule {name}: a run has its own time and is always a new task: leave {', '.join(unusable)} out"
            )
        self.name = name
        self.cron = cron
        self.call = call
        self.time_zone = time_zone
        self.misfire = misfire
        self.overlap = overlap
        self.enabled = enabled

    def __repr__(self) -> str:
        return f"<schedule {self.name}: {self.cron} {self.call.task.module_path}>"

    def parameters(self) -> dict[str, object]:
        """Give the schedule as parameters of `reproq_schedule_set`, without `p_`."""
        options = self.call.options
        return {
            "name": self.name,
            "cron_expr": self.cron,
            "task_path": self.call.task.module_path,
            "time_zone": self.time_zone,
            "args": json.dumps(self.call.encoded_args),
            "kwargs": json.dumps(self.call.encoded_kwargs),
            "queue_name": options.get("queue_name", "default"),
            "priority": options.get("priority", 0),
            "max_attempts": options.get("max_attempts", 3),
            "concurrency_key": options.get("concurrency_key"),
            "concurrency_limit": options.get("concurrency_limit", 0),
            "misfire": self.misfire,
            "overlap": self.overlap,
            "enabled": self.enabled,
            "options": json.dumps({name: options[name] for name in _MORE if name in options}),
        }
