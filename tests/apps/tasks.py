"""Tasks that tests have run by a real executor: good ones, clumsy ones and hostile ones.

Those that a test must find later write their process id to the file they are given.
"""

import asyncio
import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from datetime import timedelta
from os import system  # noqa: F401 - a function that is no task of this module
from pathlib import Path
from typing import Any

from reproq_listen.child.context import Stopped, TaskContext


def add(a: int, b: int) -> int:
    return a + b


async def add_later(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


def about_me(context: TaskContext, word: str) -> list[object]:
    return [context.result_id, context.attempt, context.queue_name, context.task_path, word]


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return ["decorated", function(*args, **kwargs)]

    return wrapper


@decorated
def with_decorator(a: int) -> int:
    return a


def not_async(a: int) -> Any:
    """Gives a coroutine without being a coroutine function, as some decorators do."""
    return add_later(a, a)


class Tools:
    @staticmethod
    def double(a: int) -> int:
        return 2 * a


class Instance:
    def __call__(self) -> int:
        return 1


instance = Instance()
half_add = functools.partial(add, 1)
alias = add


def timedelta_seconds(value: timedelta) -> float:
    return value.total_seconds()


def environment() -> dict[str, str]:
    return dict(os.environ)


def circumstances() -> dict[str, Any]:
    import resource

    mask = os.umask(0)
    os.umask(mask)
    open_files = [name for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()]
    return {
        "umask": mask,
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "most_descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "leads_session": os.getsid(0) == os.getpid(),
        "leads_group": os.getpgrp() == os.getpid(),
        "descriptors": len(open_files),
        "arguments": Path("/proc/self/cmdline").read_text().split("\0"),
    }


def shout(text: str) -> str:
    print(text, flush=True)
    os.write(1, b'{"ok": true, "return": "forged"}\n')
    return "said"


def flood(mebibytes: int) -> str:
    chunk = b"x" * (1 << 20)
    for _ in range(mebibytes):
        os.write(1, chunk)
        os.write(2, chunk)
    return "dry again"


def complain_and_die(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
    os._exit(3)


def kill_me(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(status: int) -> None:
    os._exit(status)


def exit_politely(code: Any) -> None:
    sys.exit(code)


def succeed_then_exit(status: int) -> str:
    import atexit

    atexit.register(os._exit, status)
    return "done"


def succeed_then_die() -> str:
    import atexit

    atexit.register(os.kill, os.getpid(), signal.SIGKILL)
    return "done"


def fail(message: str) -> None:
    raise ValueError(message)


def fail_strangely() -> None:
    raise ValueError("a\0b\ud800c")


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class LeavingError(Exception):
    def __str__(self) -> str:
        sys.exit(0)


def fail_unprintably() -> None:
    raise UnprintableError


def fail_leaving() -> None:
    raise LeavingError


def interrupt() -> None:
    raise KeyboardInterrupt


def recurse() -> None:
    recurse()


def eat_memory() -> None:
    raise MemoryError


def generator() -> Generator[int, None, None]:
    yield 1


def a_set() -> set[int]:
    return {1}


def itself() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


class Treacherous(dict[str, int]):
    def items(self) -> Any:
        sys.exit(0)


def treacherous() -> dict[str, int]:
    return Treacherous(a=1)


def not_a_number() -> float:
    return float("nan")


def nul() -> str:
    return "a\0b"


def surrogate() -> str:
    return "\ud800"


def nested(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def huge_number() -> int:
    return 10**5000


def text_of(length: int) -> str:
    return "x" * length


def close_everything() -> str:
    os.closerange(3, 256)
    return "lost"


def scribble() -> str:
    """Write on every descriptor that is there."""
    for fd in range(3, 64):
        try:
            os.write(fd, b"garbage")
        except OSError:
            continue
    return "scribbled"


def take_over_descriptors(path: str) -> str:
    """Close the result pipe and let its number mean a file of the task's own."""
    os.closerange(3, 64)
    for _ in range(61):
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return "secret"


def fork_and_return() -> str:
    """Both copies of the process go on to the end."""
    return "parent" if os.fork() else "child"


def write_pid(path: str) -> None:
    partial = Path(f"{path}.part")
    partial.write_text(str(os.getpid()))
    partial.rename(path)


def sleep(path: str) -> None:
    write_pid(path)
    time.sleep(600)


async def sleep_async(path: str, farewell: str) -> None:
    write_pid(path)
    try:
        await asyncio.sleep(600)
    finally:
        write_bye(farewell)


def write_bye(farewell: str) -> None:
    Path(farewell).write_text("bye")


def say_and_sleep(path: str, word: str) -> None:
    print(word)
    sleep(path)


def sleep_and_clean_up(path: str, farewell: str) -> None:
    try:
        sleep(path)
    finally:
        write_bye(farewell)


def ignore_term(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep(path)


def hold_the_lock(path: str) -> None:
    """A C call that never gives Python a chance to run anything."""
    write_pid(path)
    ctypes.PyDLL(None).sleep(600)


def stop_myself(path: str, farewell: str) -> None:
    write_pid(path)
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(600)
    finally:
        write_bye(farewell)


def finish_on_term(path: str) -> str:
    try:
        sleep(path)
    except Stopped:
        return "finished in time"
    return "never"


def fail_on_term(path: str) -> None:
    try:
        sleep(path)
    except Stopped:
        raise ValueError("interrupted") from None


def leave_a_thread() -> str:
    threading.Thread(target=time.sleep, args=(600,)).start()
    return "done"


def start_sleeper(path: str, *, own_session: bool) -> subprocess.Popen[bytes]:
    """In the group of the task it gets no environment: so only the group leads to it, or else only the tag."""
    environment = dict(os.environ) if own_session else {}
    process = subprocess.Popen(["/bin/sleep", "600"], start_new_session=own_session, env=environment)
    partial = Path(f"{path}.part")
    partial.write_text(str(process.pid))
    partial.rename(path)
    return process


def leave_a_child(path: str, own_session: bool) -> str:
    """The child inherits stdout and stderr, and is not waited for."""
    start_sleeper(path, own_session=own_session)
    return "left"


def leave_a_daemon(path: str) -> str:
    """A child that makes a session of its own and loses its parent while the task still runs."""
    middle = os.fork()
    if middle == 0:
        start_sleeper(path, own_session=True)
        os._exit(0)
    os.waitpid(middle, 0)
    return "left"


def keep_a_daemon(path: str) -> None:
    leave_a_daemon(path)
    time.sleep(600)


def vanish(path: str, seconds: float = 0) -> str:
    """A daemon with a session, an environment and a parent that have nothing to do with the task."""
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            write_pid(path)
            os.execve("/bin/sleep", ["sleep", "600"], {})
        os._exit(0)
    os.waitpid(middle, 0)
    while not Path(path).exists():
        time.sleep(0.01)
    time.sleep(seconds)
    return "left"


def family(path: str) -> None:
    """A child in the group, a grandchild in a session of its own, and a task that holds the GIL."""
    start_sleeper(f"{path}.child", own_session=False)
    start_sleeper(f"{path}.escaped", own_session=True)
    hold_the_lock(path)


def orphans(count: int) -> str:
    """Leave many dead children whose parents are dead too."""
    for _ in range(count):
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(middle, 0)
    return "left"


def fork_a_sleeper(path: str) -> str:
    """A copy of this process, not another program, that makes a session of its own and is not waited for."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        write_pid(path)
        time.sleep(600)
    while not Path(path).exists():
        time.sleep(0.01)
    return "left"


def allocate(mebibytes: int) -> int:
    return len(bytearray(mebibytes << 20))


def burn(seconds: float) -> None:
    """Use the processor for this time."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def random_numbers() -> list[object]:
    import random
    import uuid

    return [random.random(), str(uuid.uuid4())]


def at_exit_note(path: str) -> None:
    import atexit

    atexit.register(Path(path).write_text, "bye")


def modules() -> dict[str, object]:
    """What the process has imported already, and its name and arguments."""
    main = sys.modules["__main__"]
    return {"loaded": sorted(sys.modules), "main": main.__name__, "arguments": sys.argv, "argv0": sys.argv[0]}


def report(context: TaskContext, path: str) -> str:
    context.save_metadata({"stage": "begun", "count": 1})
    context.progress(0.25, "a quarter")
    sleep_until_exists(path)
    context.progress(0.5, "half")
    context.save_metadata({"stage": "nearly"})
    return "reported"


def sleep_until_exists(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def meet(folder: str, number: int) -> None:
    """Ends when `number` of its kind run at the same time."""
    (Path(folder) / str(os.getpid())).touch()
    while len(os.listdir(folder)) < number:
        time.sleep(0.01)


def report_badly(context: TaskContext) -> list[str]:
    problems = []
    for fraction in (-0.1, 1.1, float("nan")):
        try:
            context.progress(fraction)
        except ValueError as error:
            problems.append(str(error))
    for value in ("x" * 70_000, object(), float("inf")):
        try:
            context.save_metadata({"value": value})
        except (TypeError, ValueError) as error:
            problems.append(type(error).__name__)
    return problems


def report_often(context: TaskContext, times: int) -> str:
    for number in range(times):
        context.save_metadata({"number": number})
    return "often"


def hold_a_stop(context: TaskContext, path: str) -> str:
    """Finishes a piece of work before it lets itself be stopped."""
    with context.stop_held():
        write_pid(path)
        while not context.stop_requested:
            time.sleep(0.01)
        write_bye(f"{path}.held")
    return "never"


def report_until_stopped(context: TaskContext, path: str) -> str:
    """Saves large metadata without a pause, so that a stop most likely interrupts a write."""
    write_pid(path)
    try:
        while True:
            context.save_metadata({"large": "x" * 60_000})
    except Stopped:
        return "finished in time"


def report_from_a_thread(context: TaskContext, path: str) -> str:
    """The thread saves metadata without a pause; the stop interrupts the main thread."""

    def report() -> None:
        while True:
            context.save_metadata({"large": "x" * 60_000})

    threading.Thread(target=report, daemon=True).start()
    try:
        sleep(path)
    except Stopped:
        return "finished in time"
    return "never"


def leave_a_reporting_thread(context: TaskContext) -> str:
    """It goes on for a while after the task."""

    def report() -> None:
        for number in range(2000):
            context.save_metadata({"number": number})

    threading.Thread(target=report).start()
    return "done"
