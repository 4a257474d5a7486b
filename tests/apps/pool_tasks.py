"""Tasks for the tests of the pool: well-behaved and bad ones."""

from __future__ import annotations

import gc
import glob
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from reproq_listen.child.context import TaskContext

HOARD: list[bytearray] = []


def note(path: str, seconds: float = 0.0) -> int:
    """Writes one line, in one go, then takes its time. Gives the pid."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return os.getpid()


def note_and_die(path: str, number: int) -> int:
    note(path)
    os.kill(os.getpid(), number)
    return 0


def note_or_die(path: str, is_deadly: bool) -> int:
    """The same path for the good and the deadly, so that both are sent in one batch."""
    return note_and_die(path, signal.SIGKILL) if is_deadly else note(path)


def resist(path: str, seconds: float) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(path, seconds)


def stop_itself() -> None:
    """Hangs: not even SIGTERM is handled until SIGCONT comes."""
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(30)


def family(path: str, seconds: float) -> None:
    """With a child in a session of its own; both pids go to `path`."""
    child = subprocess.Popen(["sleep", str(seconds)], start_new_session=True)
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n{child.pid}\n")
    time.sleep(seconds)


def litter() -> int:
    """Leaves everything changed that can be changed back."""
    os.chdir("/")
    os.umask(0)
    os.environ["LITTER"] = "1"
    del os.environ["PATH"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_PROF, 60)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    sys.stdin.close()
    sys.stdout = sys.stderr = None
    return os.getpid()


def look() -> dict[str, Any]:
    """What a task finds."""
    umask = os.umask(0o077)
    os.umask(umask)
    time.sleep(0.3)  # an alarm left behind would end this
    return {
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "umask": umask,
        "litter": os.environ.get("LITTER"),
        "path": "PATH" in os.environ,
        "term_ignored": signal.getsignal(signal.SIGTERM) is signal.SIG_IGN,
        "prof_ignored": signal.getsignal(signal.SIGPROF) is signal.SIG_IGN,
        "timers": [signal.getitimer(which) for which in (signal.ITIMER_PROF, signal.ITIMER_VIRTUAL)],
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "stdin": sys.stdin.read(),
        "stdout": sys.stdout is not None,
    }


def pid() -> int:
    return os.getpid()


def leave_thread() -> int:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return os.getpid()


def leave_process() -> int:
    subprocess.Popen(["sleep", "60"])
    return os.getpid()


def redirect(path: str) -> int:
    """Standard input is closed, and both outputs go to a file from now on."""
    with open(path, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdin.close()
    os.close(0)
    return os.getpid()


def close_stdout() -> int:
    sys.stdout.close()
    return os.getpid()


def leave_background() -> int:
    """Its parent, a shell, has ended."""
    os.system("sleep 60 &")
    return os.getpid()


def detach_stdout() -> int:
    """As programs do that want another encoding. What it prints is not flushed."""
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="latin-1")
    print("detached", end="")
    return os.getpid()


def grow(mebibytes: int) -> int:
    HOARD.append(bytearray(os.urandom(1) * (mebibytes << 20)))
    return os.getpid()


def hoard(size: int) -> None:
    """Takes all the memory that there is, in pieces, and keeps it."""
    while size:
        HOARD.append(bytearray(size))


def fork_back() -> int:
    """A copy of the process returns into the pool's code."""
    before = time.process_time()
    if os.fork() == 0:
        while time.process_time() <= before:  # as old as the original, or its account would give it away
            pass
        return -1
    os.wait()
    return os.getpid()


def say(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)


def say_at_length(size: int) -> None:
    print("begin")
    print("y" * (size - 1))
    print("end")


def say_in_a_copy(text: str) -> None:
    copy = multiprocessing.get_context("fork").Process(target=print, args=(text,))
    copy.start()
    copy.join()


def shell(command: str) -> int:
    """The program writes to the descriptors, past Python's own streams."""
    return os.system(command)


def shout(text: str) -> None:
    """Write past Python's own streams."""
    os.write(2, text.encode())


def shout_and_die(text: str) -> None:
    shout(text)
    os.kill(os.getpid(), signal.SIGKILL)


class Parting:
    """Garbage that prints when it is collected."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        print("never closed", file=sys.stderr)


def litter_heap(number: int) -> int:
    """Leaves garbage for the collector, which may run at any time."""
    for _ in range(number):
        Parting()
    return number


def collect_aloud() -> None:
    """From now on the collector runs often, and prints: between tasks, while results are written, at any time."""
    gc.callbacks.append(lambda *_: print("collecting", file=sys.stderr))
    gc.set_threshold(3)


def echo(value: Any) -> Any:
    return value


def accept(number: int) -> int:
    if number < 0:
        raise ValueError("less than nothing")
    return number


def surrogate() -> str:
    return "\ud800"


def nan() -> float:
    return float("nan")


def large(size: int) -> str:
    return "x" * size


def progress(context: TaskContext) -> None:
    context.progress(0.5, "half")


def garble(text: str) -> None:
    """Writes to whatever pipe it has, the result pipe among them. With nothing to write it is harmless."""
    if not text:
        return
    for name in glob.glob("/proc/self/fd/*"):
        fd = int(name.rpartition("/")[2])
        try:
            if fd > 2 and os.readlink(name).startswith("pipe:"):
                os.write(fd, text.encode())
        except OSError:
            continue
    time.sleep(30)


def swallow_tokens() -> None:
    """Takes the tokens of the tasks behind it."""
    for name in glob.glob("/proc/self/fd/*"):
        fd = int(name.rpartition("/")[2])
        try:
            if fd > 2 and os.readlink(name).startswith("pipe:"):
                os.read(fd, 100)
        except OSError:
            continue
    os.kill(os.getpid(), signal.SIGKILL)


def close_all(path: str) -> None:
    """Closes whatever is not its own, then writes a file."""
    os.closerange(3, 4096)
    with open(path, "w") as file:
        file.write("mine")
        file.flush()
        time.sleep(0.05)
        os.open(path, os.O_RDONLY)
        os.open(path, os.O_WRONLY)


def is_patient() -> bool:
    """See pool_impatient.py."""
    return bool(sys.modules["tests.apps.pool_impatient"].is_patient())


def leave(status: int) -> None:
    os._exit(status)


def count_open() -> int:
    return len(os.listdir("/proc/self/fd"))
