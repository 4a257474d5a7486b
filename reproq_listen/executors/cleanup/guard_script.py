"""The guard: a small process that outlives the worker for as long as it takes to kill the worker's children.

Its standard input is a pipe from the worker: lines `+GROUP` and `-GROUP` register and remove process groups. The end of
that pipe means that the worker is dead. Then the guard kills every registered group and, on Linux, every process with
the worker's tag in its environment, so that a session of its own does not save it. If the worker has made a control
group, the guard kills everything in it too, and removes it.

A line `!MODULE INPUT` names a module of Python to run after that, and its standard input in hexadecimal; the last such
line counts, and `!` takes it back.

It runs as a plain script (`python -I -S guard_script.py TAG [FOLDER]`) and imports next to nothing. FOLDER is that of
the control group.
"""

import os
import signal
import sys
import time

_TAG_VARIABLE = b"REPROQ_ATTEMPT_TAG="
_READ_PAUSE_SECONDS = 0.1  # a busy worker sends thousands of lines a second: to wake up for each is expensive
_CLEAN_PASSES = 3
_PAUSE_SECONDS = 0.02
_MAX_SECONDS = 10.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(tag: str, control_group: str | None = None) -> None:
    """Wait for the worker's end, then kill all its children."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    groups, last_line = _state_at_the_end()
    for group in groups:
        _kill(-group)
    if control_group is not None:
        _kill_all_in(control_group)
    _kill_tagged(_TAG_VARIABLE + os.fsencode(tag) + b".")
    if control_group is not None:
        _remove(control_group)
    if last_line:
        _run(*last_line.decode().split(" "))


def _state_at_the_end() -> tuple[set[int], bytes]:
    groups: set[int] = set()
    last_line = rest = b""
    while data := os.read(0, 1 << 16):
        time.sleep(_READ_PAUSE_SECONDS)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"!"):
                last_line = line[1:]
                continue
            group = int(line[1:])
            if line.startswith(b"+"):
                groups.add(group)
            else:
                groups.discard(group)
    return groups, last_line


def _run(module: str, data: str) -> None:
    """Start a module that ends by itself."""
    reading, writing = os.pipe()
    os.write(writing, bytes.fromhex(data))
    os.close(writing)
    actions = [(os.POSIX_SPAWN_DUP2, reading, 0)]
    os.posix_spawn(sys.executable, [sys.executable, "-m", module], os.environ, file_actions=actions)


def _kill_tagged(tag: bytes) -> None:
    """Look repeatedly until none is found: a process may fork between two looks."""
    deadline = time.monotonic() + _MAX_SECONDS
    clean = 0
    while clean < _CLEAN_PASSES and time.monotonic() < deadline:
        found = [pid for pid in _all_processes() if _has_tag(pid, tag)]
        for pid in found:
            _kill(pid)
        clean = 0 if found else clean + 1
        time.sleep(_PAUSE_SECONDS)


def _kill_all_in(control_group: str) -> None:
    try:
        with open(f"{control_group}/cgroup.kill", "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        pass  # it has been removed, so it was empty


def _remove(control_group: str) -> None:
    """Retry: killed processes take a moment to leave the group."""
    deadline = time.monotonic() + _MAX_SECONDS
    while time.monotonic() < deadline:
        try:
            os.rmdir(control_group)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _kill(target: int) -> None:
    """Kill a process, or a group if the number is negative. It may have ended by itself."""
    try:  # noqa: SIM105 - importing contextlib costs more memory than the rest of this program
        os.kill(target, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _all_processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []  # there is no /proc: killing the groups must be enough


def _has_tag(pid: int, tag: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(entry.startswith(tag) for entry in file.read().split(b"\0"))
    except OSError:
        return False  # it has ended, or is another user's


if __name__ == "__main__":
    main(*sys.argv[1:])
