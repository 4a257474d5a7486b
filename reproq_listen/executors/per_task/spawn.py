"""The executor mode `spawn`: a cold `python -m MODULE` for every attempt. Any module, any platform."""

from collections.abc import Callable, Mapping, Sequence

from reproq_listen.executors.admission import check_module
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.per_task.executor import OnMetadata, PerTaskExecutor
from reproq_listen.executors.process import child as children
from reproq_listen.executors.process.environment import environment_for_children
from reproq_listen.executors.process.limits import limit_open_files
from reproq_listen.model import ExecutorSettings


class SpawnedChildren:
    """Starts each child cold."""

    def __init__(self, settings: ExecutorSettings, cleanup: ProcessCleanup) -> None:
        self._settings = settings
        self._cleanup = cleanup
        self._environment = environment_for_children(settings)

    @property
    def pids(self) -> set[int]:
        """None: there are no other processes than the children."""
        return set()

    @property
    def is_ready(self) -> bool:
        """Always."""
        return True

    async def open(self) -> None:
        """Check that Python finds the executor module. Raises SettingError. Blocks until that Python has ended."""
        check_module(self._settings, self._environment)

    async def start_child(
        self, arguments: Sequence[str], tag: Mapping[str, str], *, private_result: bool
    ) -> children.Child:
        child = children.start(
            [self._settings.python_bin, "-m", self._settings.executor_module, *arguments],
            {**self._environment, **tag},
            private_result=private_result,
        )
        self._cleanup.enclose(child.pid)
        limit_open_files(child.pid, self._settings.open_files)
        return child

    async def reload(self) -> None:
        """Nothing to do: every child imports the current code."""

    async def close(self) -> None:
        """Nothing to do: there are no other processes than the children."""


def spawn_executor(
    settings: ExecutorSettings, warn: Callable[[str], None], on_metadata: OnMetadata = lambda task, body: None
) -> PerTaskExecutor:
    """Make an executor. `warn` is called with what an operator should know and no task is to blame for."""
    cleanup = ProcessCleanup(warn)
    return PerTaskExecutor(settings, SpawnedChildren(settings, cleanup), cleanup, on_metadata)
