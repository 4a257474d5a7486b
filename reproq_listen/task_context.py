"""What a task may know of its executor: the context it is given, and the exception that asks it to end."""


class Stopped(SystemExit):
    """Raised inside a task when its worker wants it to end: timeout, cancel or shutdown (SIGTERM).

    Some seconds later the process is killed. A task that catches it and returns in time has succeeded.
    """


class TaskContext:
    """First argument of a task that was enqueued with `takes_context`."""

    __slots__ = ("attempt", "queue_name", "result_id", "task_path")

    def __init__(self, result_id: int, attempt: int, queue_name: str, task_path: str) -> None:
        self.result_id = result_id
        self.attempt = attempt
        self.queue_name = queue_name
        self.task_path = task_path
