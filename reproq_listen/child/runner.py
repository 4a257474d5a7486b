"""The program that runs one task: `python -m reproq_listen.executor`.

Any supervisor that follows the contract can start it: payload in, one JSON envelope on stdout, exit status 0 if the
task succeeded and 1 if it failed. What the task prints then goes to stderr. Our own worker gives it a private pipe for
the envelope; then stdout belongs to the task.

SIGTERM raises `Stopped` (a SystemExit) in the task, so that its `finally` blocks run. Then the process dies of the
signal, without an envelope.

Imports are few and late: every task pays for this file.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from reproq_listen.child.channel import Channel
from reproq_listen.child.context import Stopped, TaskContext
from reproq_listen.child.payload import ArgumentsError, Options, ReceivedTask, RefusedError, Spec
from reproq_listen.protocol import allowlist
from reproq_listen.protocol import executor as protocol

TYPE_CHECKING = False  # the module typing costs a cold start more than all of this
if TYPE_CHECKING:
    from typing import TypeGuard

    from reproq_listen.child.context import Link
    from reproq_listen.child.outcomes import AskedError

USAGE = """\
usage: python -m reproq_listen.executor --result-id N --attempt N
           (--payload-stdin | --payload-file PATH | --payload-json TEXT)

Runs one task. The payload is the task's spec_json. The result is one JSON object on stdout:
    {"ok": true, "return": ...}
    {"ok": false, "exception_class": ..., "message": ..., "traceback": ...}
and, when the task was refused, "kind": invalid_spec, invalid_result or security_violation; when it asks how it should
go on, "kind": retry_asked, snoozed, throttled or discarded, with "after_seconds" or "until".
Exit status: 0 the task succeeded, 1 it failed, 2 wrong usage.
ALLOWED_TASK_MODULES lists the modules that may run (default: myapp.tasks.,tasks.).
"""

DECORATED = "__reproq_task__"
"""Attribute of a function with the decorator: the object that converts its arguments and its result, and knows which
errors end it for good. It is not imported here: the decorator is on a higher floor."""

MAX_TEXT = 16 << 10
_OURS = ("reproq_listen.child.", "reproq_listen.client.", "reproq_listen.django.")
"""Modules whose frames are left out at the top of a traceback: they call the task."""
# Those of `signal` make enums of what they return: in a forked child that costs more than the call.
_set_handler = importlib.import_module("_signal").signal
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
_SIGTERM, _DEFAULT, _IGNORE = int(signal.SIGTERM), int(signal.SIG_DFL), int(signal.SIG_IGN)
_MAX_WRAPPERS = 100
_WARM_RUNS = 20
_NOTHING = b'{"ok": true, "return": null}'
_OUT_OF_MEMORY = b'{"ok": false, "exception_class": "MemoryError", "message": "out of memory"}'


def main(arguments: list[str], result_fd: int | None = None) -> int:
    """Run one task and give the exit status. `result_fd`: see Channel."""
    if "--help" in arguments:
        sys.stdout.write(USAGE)
        return 0
    try:
        options = Options(arguments)
    except ArgumentsError as error:
        sys.stderr.write(f"{error}\n{USAGE}")
        return 2
    return _perform(options, Channel(result_fd))


def main_forked(arguments: list[str], payload: bytes, allowed: tuple[str, ...], result_fd: int) -> int:
    """As `main` in a child of a forkserver, which has read standard input; `allowed`: see `allowed_modules`."""
    if arguments[4:] == ["--payload-stdin"]:
        return _perform(ReceivedTask(int(arguments[1]), int(arguments[3]), payload), Channel(result_fd), allowed)
    return _perform(Options(arguments), Channel(result_fd), allowed)


def _perform(options: "Options | ReceivedTask", channel: Channel, allowed: tuple[str, ...] | None = None) -> int:
    """Run the task, send its envelope, and give the exit status."""
    _set_handler(_SIGTERM, channel.on_term)
    try:
        succeeded, body = run(options, channel, allowed)
        _set_handler(_SIGTERM, _IGNORE)  # a result is sent completely or not at all
    except Stopped as stopped:
        return die_stopped(stopped)
    if not channel.is_ours():
        return 1
    try:
        channel.send(body)
    except OSError as error:
        sys.stderr.write(f"the result could not be sent: {error}\n")
        return 1
    _set_handler(_SIGTERM, _DEFAULT)
    return 0 if succeeded else 1


def die_stopped(stopped: Stopped) -> int:
    """Write what the task printed and where it was interrupted, then die of SIGTERM."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, _traceback(stopped))):
        try:
            stream.write(text)
            stream.flush()
        except Exception:  # noqa: BLE001, S112 - the task has closed or replaced it
            continue
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    return 128 + signal.SIGTERM


def run(
    options: "Options | ReceivedTask",
    link: "Link",
    allowed: tuple[str, ...] | None = None,
    on_error: Callable[[BaseException], None] = lambda _: None,
) -> tuple[bool, bytes]:
    """Run the task; give whether it succeeded and its envelope. Raises only Stopped.

    `allowed`: modules that may run; None: those of the environment. `on_error` gets the error behind a bad envelope.
    """
    function = None
    try:
        spec = Spec(options.read_payload())
        allowed = allowed_modules() if allowed is None else allowed
        _set_up_django()
        function = resolve(spec.path, allowed)
        return True, _good_envelope(*call(function, spec, options.result_id, options.attempt, link))
    except Stopped:
        raise
    except BaseException as error:  # noqa: BLE001 - the one place where a task's end becomes a value
        on_error(error)
        return False, bad_envelope(error, function)


def _set_up_django() -> None:
    """Set up the Django project that the environment names, if any, unless the forkserver has done so."""
    if "django.apps" not in sys.modules and os.environ.get("DJANGO_SETTINGS_MODULE"):
        try:
            django = importlib.import_module("django")
        except ModuleNotFoundError as error:
            if error.name != "django":
                raise
        else:
            django.setup()


def allowed_modules() -> tuple[str, ...]:
    """Give the modules that may run, and take them out of the environment."""
    handed_down = os.environ.pop(protocol.ALLOW_ENV, None)
    if handed_down is None:
        handed_down = os.environ.get("ALLOWED_TASK_MODULES", protocol.DEFAULT_ALLOWED)
    return allowlist.unpack(handed_down)


def resolve(path: str, allowed: tuple[str, ...]) -> Callable[..., object]:
    """Import the function that `path` names, and give it as decorated.

    Under all decorators there must be a function whose own name is `path`: allowing a module does not allow what it
    imports. Raises RefusedError, or what the import raises (a deploy may mend that).
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise RefusedError("invalid_spec", f"task_path {path!r:.200} is not of the form module.function")
    if any(part.startswith("__") for part in parts):
        raise RefusedError("security_violation", f"task_path {path} reaches into Python's own names")
    if not allowlist.allows(allowed, path):
        raise RefusedError("security_violation", f"{path} is not covered by the allowed task modules")
    target, attributes = _import_longest(parts)
    for name in attributes:
        target = getattr(target, name)
    return _checked(path, target)


def _import_longest(parts: list[str]) -> tuple[object, list[str]]:
    """Import the longest leading part of the path that is a module. Gives it, and the remaining parts."""
    length = len(parts) - 1
    while True:
        name = ".".join(parts[:length])
        try:
            return sys.modules.get(name) or importlib.import_module(name), parts[length:]
        except ModuleNotFoundError as error:
            if length == 1 or error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            length -= 1


def _checked(path: str, target: object) -> Callable[..., object]:
    """Give the target. Raises RefusedError unless the function under all decorators is named `path`."""
    inner = target
    for _ in range(_MAX_WRAPPERS):
        wrapped = getattr(inner, "__wrapped__", None)
        if wrapped is None:
            break
        inner = wrapped
    if isinstance(inner, type) or not callable(target):
        raise RefusedError("invalid_spec", f"{path} is not a function")
    own_name = f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', '?')}"
    if own_name != path:
        raise RefusedError(
            "security_violation",
            f"{path} is not a function of that name but {own_name}; enqueue a task under its own name",
        )
    return target


def call(function: Callable[..., object], spec: Spec, result_id: int, attempt: int, link: "Link") -> tuple[object, str]:
    """Call the task, and await its value if that is awaitable. Gives its result, and the tasks that follow it as JSON
    text, if there are any. Raises what the task raises.

    A function with the decorator converts its arguments and its result.
    """
    decorated = getattr(function, DECORATED, None)
    args, kwargs = spec.args, spec.kwargs
    if decorated is not None:
        args, kwargs = decorated.read_arguments(list(args), kwargs)
    write_result = _as_is if decorated is None else decorated.write_result
    context = TaskContext(result_id, attempt, spec, link, write_result) if spec.takes_context else None
    value = function(*args, **kwargs) if context is None else function(context, *args, **kwargs)
    if value is not None and isinstance(value, Awaitable):
        import asyncio  # late: it costs as much as everything else here together

        value = asyncio.run(_awaited(value))
    follow_ups = "" if context is None else context.end(value)
    return write_result(value), follow_ups


def _as_is(value: object) -> object:
    return value


async def _awaited(value: Awaitable[object]) -> object:
    return await value


def _good_envelope(value: object, follow_ups: str = "") -> bytes:
    """`follow_ups`: JSON text. Raises RefusedError (`invalid_result`) if the value is not JSON."""
    if value is None and not follow_ups:
        return _NOTHING
    try:
        text = _ENCODER.encode({"ok": True, "return": value})
        return (f'{text[:-1]}, "enqueue": {follow_ups}}}' if follow_ups else text).encode()
    except Stopped:
        raise
    except BaseException as error:  # a value's own methods may raise anything
        raise not_json(error, value) from error


def not_json(error: BaseException, value: object) -> RefusedError:
    """Give the refusal of a return value that could not be encoded, with the place if it can be found."""
    text = f"the return value cannot be stored as JSON: {_text(error)}"
    try:
        from reproq_listen.protocol import plain  # late: only failures need it

        place = plain.problem(value, "the return value")
    except Stopped:
        raise
    except BaseException:  # noqa: BLE001 - as in _good_envelope
        place = None
    return RefusedError("invalid_result", f"{text} ({place})" if place else text)


def bad_envelope(error: BaseException, function: object = None) -> bytes:
    """Give the envelope of a task that has raised this error; `function`: as decorated, if it was found."""
    try:
        envelope: dict[str, object] = {"ok": False, "message": _text(error)}
        if isinstance(error, RefusedError):
            envelope["kind"] = error.kind
        elif _is_asked(error):
            envelope |= _wish(error)
        else:
            envelope |= {"exception_class": _name(error), "traceback": _traceback(error)}
            decorated = getattr(function, DECORATED, None)
            if decorated is not None and decorated.discards(error):
                envelope["kind"] = "discarded"
        return json.dumps(envelope).encode()
    except MemoryError:
        return _OUT_OF_MEMORY


def _is_asked(error: BaseException) -> "TypeGuard[AskedError]":
    """Whether the task asks how it should go on. Then it has imported the module of that class."""
    module = sys.modules.get("reproq_listen.child.outcomes")
    return module is not None and isinstance(error, module.AskedError)


def _wish(error: "AskedError") -> dict[str, object]:
    """Give what the envelope says about a wish: with the error that led to it, if there is one."""
    wish: dict[str, object] = {"kind": error.kind}
    if error.after_seconds is not None:
        wish["after_seconds"] = error.after_seconds
    if error.until is not None:
        wish["until"] = error.until
    cause = error.__cause__ if error.__suppress_context__ else error.__context__
    if cause is not None:
        wish |= {"exception_class": _name(cause), "traceback": _traceback(error)}
    return wish


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        text = str(error)[:MAX_TEXT]
        if isinstance(error, SystemExit):
            return f"the task ended its own process: {text or 'no status given'}"
        return text
    except Stopped:
        raise
    except BaseException as second:  # noqa: BLE001 - even its text is the task's own code
        return f"(an error whose text cannot be shown: its __str__ raised {type(second).__name__})"


def _traceback(error: BaseException) -> str:
    """Give the traceback without our own frames at its top, shortened in the middle."""
    import traceback  # late: only failures need it

    trace = error.__traceback__
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith(_OURS):
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, trace or error.__traceback__))
    except Stopped:
        raise
    except BaseException as second:  # noqa: BLE001 - as in _text
        return f"(a traceback that cannot be shown: {type(second).__name__})"
    if len(text) > MAX_TEXT:
        text = f"{text[: MAX_TEXT // 4]}\n  ...\n{text[-(MAX_TEXT // 4) * 3 :]}"
    return text


def warm_up(runs: int = _WARM_RUNS) -> None:
    """Run an empty task some times. In a forkserver: children find the code warm, in memory they share. In a child:
    what a task writes to is copied before the task is there."""
    path = f"{__name__}.nothing"
    payload = json.dumps({"v": 1, "task_path": path, "args": [], "kwargs": {}}).encode()
    reading, writing = os.pipe()
    for _ in range(runs):
        main_forked(["--result-id", "1", "--attempt", "1", "--payload-stdin"], payload, (path,), writing)
        os.read(reading, 1 << 10)
    os.close(reading)
    os.close(writing)


def nothing() -> None:
    """The task of `warm_up`."""
