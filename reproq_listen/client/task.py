"""The decorator `@task`: a function that stays callable, with the options and the typed calls of its task.

The process of a task imports this module with the task's own. So it imports little: what only producers need, and what
converts arguments by annotations, is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from functools import update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from reproq_listen.child.context import TaskContext
from reproq_listen.client.annotations import is_plain
from reproq_listen.client.options import CallOptions, Exceptions, TaskOptions, checked, checked_decorator, merged
from reproq_listen.errors import InvalidTaskError

if TYPE_CHECKING:
    from reproq_listen.client.codec import Codec

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TaskCall(Generic[R_co]):
    """A task with its arguments, checked and encoded: what `Task.call` gives, ready to be enqueued."""

    __slots__ = ("args", "encoded_args", "encoded_kwargs", "kwargs", "options", "task")

    def __init__(
        self,
        task: Task[..., R_co],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> None:
        """Raises InvalidArgumentsError if the arguments do not fit the function, or cannot be encoded."""
        self.task = task
        self.args = args
        self.kwargs = kwargs
        codec = task.codec
        bound = codec.bind(args, kwargs)
        self.encoded_args, self.encoded_kwargs = codec.encode(args, kwargs)
        self.options = codec.filled(task.parameters, bound)

    def element(self) -> dict[str, object]:
        """Give the call as an element of `reproq_enqueue_many`: JSON."""
        element: dict[str, object] = {
            "task_path": self.task.module_path,
            "args": self.encoded_args,
            "kwargs": self.encoded_kwargs,
        }
        element.update((name, _as_json(value)) for name, value in self.options.items())
        return element


def _as_json(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else value


class Task(Generic[P, R_co]):
    """A function that can be enqueued. Calling it runs the function here, as without the decorator.

    `R_co` is the type of its result; for an `async` function, of what it returns when awaited.
    """

    __name__: str
    __qualname__: str

    def __init__(
        self,
        function: Callable[..., object],
        parameters: Mapping[str, object],
        *,
        takes_context: bool = False,
        retry_on: Exceptions | None = None,
        discard_on: Exceptions = (),
    ) -> None:
        self.func = function
        self.takes_context = takes_context
        self.parameters = parameters
        """What is said about the task, in the terms of `reproq_enqueue`; the rest has the defaults of the database."""
        self.retry_on = retry_on
        self.discard_on = discard_on
        self._reads_plain, self._writes_plain = is_plain(function)
        self._codec: Codec | None = None
        update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - subclasses below say what
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.module_path}>"

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.func.__name__

    @property
    def module_path(self) -> str:
        """The path that workers import: `shop.send_welcome`."""
        return f"{self.func.__module__}.{self.func.__qualname__}"

    @property
    def queue_name(self) -> str:
        """The queue that calls go to."""
        return str(self.parameters.get("queue_name", "default"))

    @property
    def priority(self) -> int:
        """The priority of calls."""
        return cast("int", self.parameters.get("priority", 0))

    def using(self, **options: Unpack[CallOptions]) -> Self:
        """Give the same task with other options. Raises InvalidTaskError, which names the option."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, parameters=merged(self.parameters, checked(options)))
        return other

    def call(self, *args: P.args, **kwargs: P.kwargs) -> TaskCall[R_co]:
        """Give this task with these arguments, to be enqueued later. Raises InvalidArgumentsError."""
        return TaskCall(self, args, kwargs)

    @property
    def codec(self) -> Codec:
        """What checks and converts arguments and results."""
        if self._codec is None:
            from reproq_listen.client.codec import Codec

            self._codec = Codec(self.func, takes_context=self.takes_context)
        return self._codec

    # What the process of a task calls: see `reproq_listen.child.runner.call`.

    @property
    def __reproq_task__(self) -> Task[P, R_co]:
        return self

    def read_arguments(self, args: list[object], kwargs: dict[str, object]) -> tuple[list[object], dict[str, object]]:
        """Convert decoded JSON by the annotations. Raises RefusedError (`invalid_spec`)."""
        return (args, kwargs) if self._reads_plain else self.codec.decode(args, kwargs)

    def write_result(self, value: object) -> object:
        """Convert a result to what the JSON encoder takes. Raises RefusedError (`invalid_result`)."""
        return value if self._writes_plain else self.codec.encode_result(value)

    def discards(self, error: BaseException) -> bool:
        """Whether this error of the function ends the task, attempts left or not."""
        if isinstance(error, self.discard_on):
            return True
        return self.retry_on is not None and isinstance(error, Exception) and not isinstance(error, self.retry_on)


if TYPE_CHECKING:
    # Four ways to write a function; they differ in what a plain call takes and gives.

    class FunctionTask(Task[P, R_co]):
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    class CoroutineTask(Task[P, R_co]):
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...

    class ContextTask(Task[P, R_co]):
        def __call__(self, context: TaskContext, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    class ContextCoroutineTask(Task[P, R_co]):
        def __call__(self, context: TaskContext, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...

    class _Decorator(Protocol):
        @overload
        def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, function: Callable[P, R], /) -> FunctionTask[P, R]: ...

    class _ContextDecorator(Protocol):
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /
        ) -> ContextCoroutineTask[P, R]: ...
        @overload
        def __call__(self, function: Callable[Concatenate[TaskContext, P], R], /) -> ContextTask[P, R]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...  # type: ignore[overload-overlap]
@overload
def task(function: Callable[P, R], /) -> FunctionTask[P, R]: ...
@overload
def task(*, takes_context: Literal[True], **options: Unpack[TaskOptions]) -> _ContextDecorator: ...
@overload
def task(*, takes_context: Literal[False] = False, **options: Unpack[TaskOptions]) -> _Decorator: ...
def task(
    function: Callable[..., Any] | None = None, /, *, takes_context: bool = False, **options: Unpack[TaskOptions]
) -> Any:
    """Make a task of a function: `@task`, or `@task(queue_name="mail", max_attempts=5)`.

    Raises InvalidTaskError if no worker could import the function again, or an option is wrong.
    """

    def decorate(function: Callable[..., Any]) -> Task[..., Any]:
        _check_importable(function)
        return Task(function, parameters, takes_context=takes_context, retry_on=retry_on, discard_on=discard_on)

    parameters, retry_on, discard_on = checked_decorator(options)
    if takes_context:
        parameters["takes_context"] = True
    return decorate if function is None else decorate(function)


def _check_importable(function: object) -> None:
    """Raise InvalidTaskError, with the reason, unless a worker can import the function by its path."""
    if isinstance(function, Task):
        raise InvalidTaskError(f"{function.module_path} is a task already: decorate it once")
    name, module = getattr(function, "__qualname__", None), getattr(function, "__module__", None)
    if isinstance(function, type) or not callable(function) or name is None or module is None:
        raise InvalidTaskError(f"a task is a function, not {function!r:.80}")
    if "<lambda>" in name:
        raise InvalidTaskError("a lambda cannot be a task: workers import tasks by name. Write a function with def")
    if "<locals>" in name:
        raise InvalidTaskError(
            f"{name} cannot be a task: it is defined inside a function, and workers import tasks by name. "
            "Move it to the top of its module"
        )
    if module == "__main__":
        raise InvalidTaskError(
            f"{name} cannot be a task: it is defined in the program that was started (__main__), and workers cannot "
            "import that by name. Move it into a module, such as tasks.py, and import it from there"
        )
