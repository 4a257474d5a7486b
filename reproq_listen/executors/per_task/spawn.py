"""The executor mode `spawn`: a cold `python -m MODULE` for every attempt. Any module, any platform."""

from collections.abc import Callable, Mapping, Sequence

from reproq_listen.executors.admission import check_module
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.per_task.executor import Noted, PerTaskExecutor
from reproq_listen.executors.process import child as children
from reproq_listen.executors.process.environment import environment
from reproq_listen.executors.process.limits import limit_open_files
from reproq_listen.model import ExecutorSettings


class SpawnedChildren:
    """Children that start from nothing."""

    def __init__(self, settings: ExecutorSettings, cleanup: ProcessCleanup) -> None:
        self._settings = settings
        self._cleanup = cleanup
        self._environment = environment(settings)

    @property
    def pids(self) -> set[int]:
        """None: there is nothing but the children."""
        return set()

    @property
    def is_ready(self) -> bool:
        """Always."""
        return True

    async def open(self) -> None:
        """See that Python finds the executor module. Raises SettingError. Waits for that Python: nothing runs yet."""
        check_module(self._settings, self._environment)

    async def start_child(
        self, arguments: Sequence[str], mark: Mapping[str, str], *, private_result: bool
    ) -> children.Child:
        child = children.start(
            [self._settings.python_bin, "-m", self._settings.executor_module, *arguments],
            {**self._environment, **mark},
            private_result=private_result,
        )
        self._cleanup.enclose(child.pid)
        limit_open_files(child.pid, self._settings.open_files)
        return child

    async def reload(self) -> None:
        """Nothing to do: every child reads the code anew."""

    async def close(self) -> None:
        """Nothing to do: there is nothing but the children."""


def spawn_executor(
    settings: ExecutorSettings, warn: Callable[[str], None], noted: Noted = lambda task, note: None
) -> PerTaskExecutor:
    """`warn` is told what an operator should know and no task is to blame for."""
    cleanup = ProcessCleanup(warn)
    return PerTaskExecutor(settings, SpawnedChildren(settings, cleanup), cleanup, noted)
