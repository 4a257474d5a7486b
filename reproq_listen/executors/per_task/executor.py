"""What `spawn` and `fork` share: a child for every attempt, payload in, one JSON envelope out.

Our own module answers over a private pipe, any other one on stdout. How a child comes into being is the one
thing that differs: see `ChildFactory`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from reproq_listen.errors import SettingError
from reproq_listen.executors.admission import RefusedError, admit, check_settings, time_limit
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.client import ForkserverGoneError
from reproq_listen.executors.forkserver.forkserver import NoForkserverError
from reproq_listen.executors.per_task.attempt import Attempt, AttemptHooks, Limits
from reproq_listen.executors.process.child import Child
from reproq_listen.executors.process.limits import limit_memory
from reproq_listen.executors.process.oom import OomCounter
from reproq_listen.executors.process.payload_files import PayloadFiles
from reproq_listen.model import ClaimedTask, ExecutorSettings, StopReason, TaskError
from reproq_listen.protocol.envelope import clean_text
from reproq_listen.protocol.executor import OUR_MODULE

_TRIES = 3

Noted = Callable[[ClaimedTask, bytes], None]


class ChildFactory(Protocol):
    """Where children come from."""

    @property
    def pids(self) -> set[int]:
        """Processes of its own that live as long as it is open."""

    @property
    def is_ready(self) -> bool:
        """Whether children can be had at once."""

    async def open(self) -> None:
        """Make sure that children can be had. Raises ReproqError that names the cure."""

    async def start_child(self, arguments: Sequence[str], mark: Mapping[str, str], *, private_result: bool) -> Child:
        """Give a child that runs the executor module with these arguments. Raises OSError, with nothing left open:
        NoForkserverError if the task has nothing to do with it."""

    async def reload(self) -> None:
        """Children born from now on run the code as it is now."""

    async def close(self) -> None:
        """All children have been reaped."""


class PerTaskExecutor:
    """Starts children and owns them all. One a process; bound to one event loop."""

    def __init__(
        self,
        settings: ExecutorSettings,
        births: ChildFactory,
        cleanup: ProcessCleanup,
        noted: Noted = lambda task, note: None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`noted` is told what a task says of itself while it runs: a JSON object, not looked at yet. `on_ready` is
        called when the executor is ready again after it was not."""
        self._settings = settings
        self._births = births
        self._cleanup = cleanup
        self._noted = noted
        self._running: dict[str, Attempt] = {}
        self._launches: dict[asyncio.Task[None], Attempt] = {}
        self._oom = OomCounter()
        self._files: PayloadFiles | None = None
        self.on_room: Callable[[], None] = on_ready

    @property
    def is_ready(self) -> bool:
        """Whether a task should be claimed at all. What is started nevertheless waits, or is given back."""
        return self._births.is_ready

    @property
    def guard_pid(self) -> int | None:
        """The guard's process, or None before `open`."""
        return self._cleanup.guard_pid

    @property
    def control_group(self) -> str:
        """Where all that tasks start is held together, or `none` and why; see ProcessCleanup."""
        return self._cleanup.control_group

    @property
    def own_pids(self) -> set[int]:
        """Processes that are nobody's attempt: the guard, the template."""
        guard = self._cleanup.guard_pid
        return self._births.pids | ({guard} if guard is not None else set())

    @property
    def sweeps(self) -> int:
        """How often orphans have been looked for."""
        return self._cleanup.sweeps

    async def open(self) -> None:
        """Look at everything that would make every task fail. Raises SettingError or ForkserverError."""
        check_settings(self._settings)
        self._ready_files()
        try:
            self._cleanup.ready()
        except OSError as error:
            raise SettingError(f"the process that guards the tasks cannot be started: {error}") from None
        await self._births.open()

    async def reload(self) -> None:
        """Run the application's code as it is now. Attempts that run already end with the code they have."""
        await self._births.reload()

    def _ready_files(self) -> None:
        if self._settings.payload_mode == "file" and self._files is None:
            try:
                self._files = PayloadFiles()
            except OSError as error:
                raise SettingError(f"--payload-mode file: no private place for payloads: {error}") from None

    async def start(self, task: ClaimedTask) -> Attempt:
        """Start an attempt. Never raises for a fault of the task or a lack of resources: the attempt that
        could not be started has an outcome that says so: of kind `shutdown` if it may well start elsewhere, or here
        another time. Its child may not be there yet."""
        attempt = Attempt()
        try:
            payload = admit(task, self._settings)
        except RefusedError as refusal:
            attempt.refuse(refusal.error)
            return attempt
        launch = asyncio.get_running_loop().create_task(self._launch_or_refuse(task, payload, attempt))
        attempt.starting(launch.cancel)
        self._launches[launch] = attempt
        launch.add_done_callback(self._launched)
        return attempt

    def _launched(self, launch: asyncio.Task[None]) -> None:
        attempt = self._launches.pop(launch)
        if launch.cancelled():
            attempt.called_off()

    async def _launch_or_refuse(self, task: ClaimedTask, payload: bytes, attempt: Attempt) -> None:
        try:
            await self._launch(task, payload, attempt)
        except OSError as error:
            message = clean_text(f"no process could be started for the task: {error}")
            kind = StopReason.SHUTDOWN.value if isinstance(error, NoForkserverError) else "crashed"
            attempt.refuse(TaskError(kind=kind, message=message))
        except Exception as error:  # noqa: BLE001 - not swallowed: whoever waits for the attempt gets it
            attempt.break_off(error)

    async def _launch(self, task: ClaimedTask, payload: bytes, attempt: Attempt) -> None:
        """Raises OSError, with nothing left behind, if there is no process or descriptor to be had."""
        settings = self._settings
        self._cleanup.ready()
        number = self._cleanup.next_number()
        where, file, stdin = self._payload_road(number, payload)
        try:
            number, child = await self._bear(number, [*_identity(task), *where])
        except BaseException:
            _remove(file)
            raise
        # Registered before it is fed: no task runs that the guard does not know of.
        self._cleanup.began(number, child.pid)
        limit_memory(child.pid, settings.memory_bytes)
        self._running[number] = attempt

        def after_reaping() -> None:
            del self._running[number]
            self._cleanup.ended(number)
            _remove(file)

        attempt.begin(
            child,
            stdin,
            Limits(
                time=time_limit(task, settings),
                grace=settings.grace,
                result_bytes=settings.max_stdout_bytes,
                stdout_bytes=settings.kept_stdout_bytes,
                stderr_bytes=settings.kept_stderr_bytes,
            ),
            AttemptHooks(
                noted=lambda note: self._noted(task, note),
                saw_oom_kill=self._oom.explains_a_kill,
                before_reaping=lambda: self._cleanup.before_reaping(child.pid),
                after_reaping=after_reaping,
            ),
        )

    async def _bear(self, number: str, arguments: Sequence[str]) -> tuple[str, Child]:
        """Give a child and its number. A template that dies just now is no reason to fail a task."""
        is_ours = self._settings.executor_module == OUR_MODULE
        for _ in range(_TRIES):
            try:
                mark = self._cleanup.environment(number)
                return number, await self._births.start_child(arguments, mark, private_result=is_ours)
            except ForkserverGoneError as error:
                gone = error
                number = self._cleanup.next_number()
        raise gone

    def _payload_road(self, number: str, payload: bytes) -> tuple[list[str], Path | None, bytes]:
        """Give the arguments that say where the payload is, its file if it has one, and what goes to stdin."""
        match self._settings.payload_mode:
            case "file":
                self._ready_files()
                assert self._files is not None
                file = self._files.write(f"payload-{number}.json", payload)
                return ["--payload-file", str(file)], file, b""
            case "inline":
                return ["--payload-json", payload.decode()], None, b""
            case _:
                return ["--payload-stdin"], None, payload

    async def close(self) -> None:
        """Kill what still runs, wait for its end, and let go of births, files and cleanup."""
        attempts = [*self._running.values(), *self._launches.values()]
        for attempt in attempts:
            attempt.kill()
        await asyncio.gather(*(attempt.wait() for attempt in attempts))
        await self._births.close()
        await self._cleanup.close()
        if self._files is not None:
            self._files.close()
            self._files = None


def _identity(task: ClaimedTask) -> list[str]:
    return ["--result-id", str(task.result_id), "--attempt", str(task.attempts)]


def _remove(file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)
