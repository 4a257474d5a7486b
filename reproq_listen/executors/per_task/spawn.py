"""The executor mode `spawn`: a cold `python -m MODULE` for every attempt. Any module, any platform."""

from collections.abc import Callable, Sequence

from reproq_listen.executors.admission import check_module
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.per_task.executor import OnMetadata, OnRequest, PerTaskExecutor, no_answer
from reproq_listen.executors.process import child as children
from reproq_listen.executors.process.environment import environment_for_children
from reproq_listen.executors.process.limits import limit_memory, limit_open_files
from reproq_listen.executors.start_backoff import OnPause, StartBackoff
from reproq_listen.model import ExecutorSettings
from reproq_listen.protocol.executor import OUR_MODULE


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
    def ready_pids(self) -> set[int]:
        """None: a child starts with its task."""
        return set()

    @property
    def is_ready(self) -> bool:
        """Always."""
        return True

    async def open(self) -> None:
        """Check that Python finds the executor module. Raises SettingError. Blocks until that Python has ended."""
        check_module(self._settings, self._environment)

    async def wait_for_one(self, arguments: Sequence[str]) -> children.Child:
        return self.take(arguments)

    def take(self, arguments: Sequence[str]) -> children.Child:
        """Start a child."""
        settings, number = self._settings, self._cleanup.next_number()
        is_ours = settings.executor_module == OUR_MODULE
        child = children.start(
            number,
            [settings.python_bin, "-m", settings.executor_module, *arguments],
            {**self._environment, **self._cleanup.environment(number)},
            private_result=is_ours,
            keep_stdin=is_ours and settings.payload_mode == "stdin",  # another module need not read it
        )
        try:
            self._cleanup.enclose(child.pid)
            limit_open_files(child.pid, settings.open_files)
            limit_memory(child.pid, settings.memory_bytes)
        except (OSError, ValueError) as error:
            child.discard()
            raise OSError(f"its limits cannot be set: {error}") from None
        # The guard must know the child before the child is fed.
        self._cleanup.began(number, child.pid)
        return child

    def replace(self, child: children.Child) -> None:
        """Nothing to do: each child is started for its task."""

    async def reload(self) -> None:
        """Nothing to do: every child imports the current code."""

    async def close(self) -> None:
        """Nothing to do: there are no other processes than the children."""


def spawn_executor(
    settings: ExecutorSettings,
    warn: Callable[[str], None],
    on_metadata: OnMetadata = lambda task, body: None,
    on_pause: OnPause = lambda why, seconds: None,
    on_ready: Callable[[], None] = lambda: None,
    on_request: OnRequest = no_answer,
) -> PerTaskExecutor:
    """Make an executor. `warn` is called with what an operator should know and no task is to blame for.

    `on_pause` is called when no children can be started, `on_ready` when they can be again.
    """
    cleanup = ProcessCleanup(warn)
    backoff = StartBackoff(on_pause, on_ready)
    return PerTaskExecutor(settings, SpawnedChildren(settings, cleanup), cleanup, backoff, on_metadata, on_request)
