"""What `spawn` and `fork` share: a child for every attempt, payload in, one JSON envelope out.

Our own module sends the envelope over a private pipe, any other one over stdout. The modes differ only in how a child
is started: see `ChildFactory`.
"""

import asyncio
import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from reproq_listen.errors import SettingError
from reproq_listen.executors.admission import NotAdmittedError, admit, check_settings, time_limit
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.forkserver import NoForkserverError
from reproq_listen.executors.per_task.attempt import Attempt, AttemptHooks, AttemptLimits
from reproq_listen.executors.process.child import Child
from reproq_listen.executors.process.oom import OomCounter
from reproq_listen.executors.process.payload_files import PayloadFiles
from reproq_listen.executors.start_backoff import StartBackoff
from reproq_listen.model import ClaimedTask, ExecutorSettings, StopReason, TaskError
from reproq_listen.protocol.envelope import clean_text

OnMetadata = Callable[[ClaimedTask, bytes], None]
"""Called with metadata that a task saves while it runs: a JSON object, not checked yet."""
OnRequest = Callable[[ClaimedTask, bytes, Callable[[bytes], None]], None]
"""Called with a request of a running task (protocol/executor.py), and with what sends the reply, to be called once."""


def no_answer(_task: ClaimedTask, _body: bytes, _reply: Callable[[bytes], None]) -> None:
    """For executors without tasks that ask."""


class ChildFactory(Protocol):
    """Starts children."""

    @property
    def pids(self) -> set[int]:
        """Processes of its own that live as long as it is open."""

    @property
    def ready_pids(self) -> set[int]:
        """Children that wait for a task."""

    @property
    def is_ready(self) -> bool:
        """Whether there is what children are started from."""

    async def open(self) -> None:
        """Make sure that children can be started. Raises ReproqError that names the remedy."""

    def take(self, arguments: Sequence[str]) -> Child | None:
        """Give a child that runs the executor module with these arguments, or None if there is none at once.

        The cleanup knows it, and its limits are set. Raises OSError, with nothing left open.
        """

    async def wait_for_one(self, arguments: Sequence[str]) -> Child:
        """As `take`, when there is one. Raises OSError: NoForkserverError if there may be none for long."""

    def replace(self, child: Child) -> None:
        """A child that was given has died before it had begun with its task."""

    async def reload(self) -> None:
        """Children that are started from now on run the current code."""

    async def close(self) -> None:
        """Call when all children have been reaped."""


class _Launch(NamedTuple):
    """A task on its way to a child."""

    task: ClaimedTask
    attempt: Attempt
    arguments: list[str]
    file: Path | None
    stdin: bytes


class PerTaskExecutor:
    """Starts children and owns them all. One per process; bound to one event loop."""

    def __init__(
        self,
        settings: ExecutorSettings,
        children: ChildFactory,
        cleanup: ProcessCleanup,
        backoff: StartBackoff,
        on_metadata: OnMetadata = lambda task, body: None,
        on_request: OnRequest = no_answer,
    ) -> None:
        self._settings = settings
        self._children = children
        self._cleanup = cleanup
        self._backoff = backoff
        self._on_metadata = on_metadata
        self._on_request = on_request
        self._running: dict[str, Attempt] = {}
        self._launches: dict[asyncio.Task[None], Attempt] = {}
        self._oom = OomCounter()
        self._files: PayloadFiles | None = None

    @property
    def is_ready(self) -> bool:
        """Whether tasks should be claimed. A task that is started nevertheless waits, or is given back."""
        return self._children.is_ready and not self._backoff.is_pausing

    @property
    def guard_pid(self) -> int | None:
        """The guard's process, or None before `open`."""
        return self._cleanup.guard_pid

    @property
    def control_group(self) -> str:
        """The folder of the control group around all that tasks start, or `none` and the reason."""
        return self._cleanup.control_group

    @property
    def own_pids(self) -> set[int]:
        """Processes that belong to no attempt: the guard, the forkserver."""
        guard = self._cleanup.guard_pid
        return self._children.pids | ({guard} if guard is not None else set())

    @property
    def ready_pids(self) -> set[int]:
        """Processes that wait for a task."""
        return self._children.ready_pids

    @property
    def guarded_groups(self) -> frozenset[int]:
        """The process groups that die with this process."""
        return self._cleanup.guarded_groups

    @property
    def sweeps(self) -> int:
        """The number of sweeps for orphans so far."""
        return self._cleanup.sweeps

    def run_if_killed(self, module: str, data: bytes) -> None:
        """If this process dies before `close`, the guard runs this module when it has killed all tasks."""
        self._cleanup.run_at_the_end(module, data)

    async def open(self) -> None:
        """Check everything that would make every task fail. Raises SettingError or ForkserverError."""
        check_settings(self._settings)
        self._make_files()
        try:
            self._cleanup.ready()
        except OSError as error:
            raise SettingError(f"the process that guards the tasks cannot be started: {error}") from None
        await self._children.open()

    async def reload(self) -> None:
        """Run the application's current code from now on. Running attempts end with the code they have."""
        await self._children.reload()

    def _make_files(self) -> None:
        if self._settings.payload_mode == "file" and self._files is None:
            try:
                self._files = PayloadFiles()
            except OSError as error:
                raise SettingError(f"--payload-mode file: no private directory for payloads: {error}") from None

    async def start(self, task: ClaimedTask) -> Attempt:
        """Start an attempt. Its child may not be there yet.

        Never raises for a fault of the task or a lack of resources: then the attempt has an outcome with the reason.
        Its kind is `shutdown` if the task can start elsewhere, or here at another time.
        """
        attempt = Attempt()
        try:
            payload = admit(task, self._settings)
        except NotAdmittedError as refusal:
            attempt.refuse(refusal.error)
            return attempt
        try:
            self._cleanup.ready()
            launch = _Launch(task, attempt, *self._hand_over(task, payload))
        except OSError as error:
            attempt.refuse(self._start_error(task, error))
            return attempt
        try:
            child = self._children.take(launch.arguments)
        except OSError as error:
            self._refuse(launch, error)
            return attempt
        if child is not None:
            self._run(launch, child)
        else:
            waiting = asyncio.get_running_loop().create_task(self._run_when_ready(launch))
            attempt.launched_by(waiting)
            self._launches[waiting] = attempt
            waiting.add_done_callback(self._launched)
        return attempt

    def _launched(self, launch: asyncio.Task[None]) -> None:
        attempt = self._launches.pop(launch)
        if launch.cancelled():
            attempt.stopped_before_start()

    async def _run_when_ready(self, launch: _Launch) -> None:
        try:
            child = await self._children.wait_for_one(launch.arguments)
            self._run(launch, child)
        except OSError as error:
            self._refuse(launch, error)
        except asyncio.CancelledError:
            _remove(launch.file)
            raise
        except Exception as error:  # noqa: BLE001 - the attempt's wait() raises it
            _remove(launch.file)
            launch.attempt.fail(error)

    def _refuse(self, launch: _Launch, error: OSError) -> None:
        _remove(launch.file)
        launch.attempt.refuse(self._start_error(launch.task, error))

    def _start_error(self, task: ClaimedTask, error: OSError) -> TaskError:
        """Give the error of a task without a process. What fails before the task's own code is not the task's failure,
        unless it fails again and again while other tasks start."""
        message = clean_text(f"no process could be started for the task: {error}")
        if error.errno == errno.E2BIG and self._settings.payload_mode == "inline":
            return TaskError(kind="payload_too_large", message=f"{message}; use --payload-mode stdin")
        if not isinstance(error, NoForkserverError):
            self._backoff.failed(message)
            if self._backoff.blames(task.result_id):
                return TaskError(kind="crashed", message=f"{message}; other tasks could be started")
        return TaskError(kind=StopReason.SHUTDOWN.value, message=message)

    def _run(self, launch: _Launch, child: Child) -> None:
        settings, task, attempt = self._settings, launch.task, launch.attempt
        self._running[child.number] = attempt

        def after_reaping() -> None:
            del self._running[child.number]
            self._cleanup.ended(child.number)
            _remove(launch.file)
            if child.has_begun:
                self._backoff.succeeded()
            elif not attempt.is_stopped:
                self._backoff.failed("a process died before it had begun with its task")
                self._children.replace(child)

        attempt.run(
            child,
            launch.stdin,
            AttemptLimits(
                time=time_limit(task, settings.exec_timeout),
                grace=settings.grace,
                result_bytes=settings.max_stdout_bytes,
                stdout_bytes=settings.kept_stdout_bytes,
                stderr_bytes=settings.kept_stderr_bytes,
            ),
            AttemptHooks(
                on_metadata=lambda body: self._on_metadata(task, body),
                on_request=lambda body, reply: self._on_request(task, body, reply),
                saw_oom_kill=self._oom.explains_a_kill,
                before_reaping=lambda: self._cleanup.before_reaping(child.pid),
                after_reaping=after_reaping,
            ),
        )

    def _hand_over(self, task: ClaimedTask, payload: bytes) -> tuple[list[str], Path | None, bytes]:
        """Give the arguments, the payload's file if it has one, and what goes to stdin. Raises OSError."""
        arguments = ["--result-id", str(task.result_id), "--attempt", str(task.attempts)]
        match self._settings.payload_mode:
            case "file":
                self._make_files()
                assert self._files is not None
                file = self._files.write(payload)
                return [*arguments, "--payload-file", str(file)], file, b""
            case "inline":
                return [*arguments, "--payload-json", payload.decode()], None, b""
            case "stdin":
                return [*arguments, "--payload-stdin"], None, payload

    async def close(self) -> None:
        """Kill what still runs, wait for its end, and close everything."""
        attempts = [*self._running.values(), *self._launches.values()]
        for attempt in attempts:
            attempt.kill()
        await asyncio.gather(*(attempt.wait() for attempt in attempts))
        self._backoff.close()
        await self._children.close()
        await self._cleanup.close()
        if self._files is not None:
            self._files.close()
            self._files = None


def _remove(file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)
