"""The guard: a small process that outlives the worker by as long as it takes to kill the worker's children.

Its standard input is a pipe from the worker: `+GROUP` and `-GROUP` lines say which process groups are alive.
The end of that pipe means that the worker is gone, by whatever death. Then every group is killed, and on Linux
every process that carries the worker's mark in its environment, so that sessions of their own do not save them.
Where the worker has made a control group, everything in it is killed too, and the group removed.

It is started as a plain script (`python -I -S guard_script.py MARK [FOLDER]`) and imports next to nothing.
FOLDER is that of the control group.
"""

import os
import signal
import sys
import time

_MARK_VARIABLE = b"REPROQ_ATTEMPT_MARK="
_CLEAN_PASSES = 3
_PAUSE_SECONDS = 0.02
_LONGEST_SECONDS = 10.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(mark: str, control_group: str | None = None) -> None:
    """Wait for the worker's end, then leave none of its children alive."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for group in _groups_at_the_end():
        _kill(-group)
    if control_group is not None:
        _kill_all_in(control_group)
    _kill_marked(_MARK_VARIABLE + os.fsencode(mark) + b".")
    if control_group is not None:
        _remove(control_group)


def _groups_at_the_end() -> set[int]:
    groups: set[int] = set()
    rest = b""
    while data := os.read(0, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            group = int(line[1:])
            if line.startswith(b"+"):
                groups.add(group)
            else:
                groups.discard(group)
    return groups


def _kill_marked(mark: bytes) -> None:
    """Look again until nothing is found: a process may fork while it is looked for."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    clean = 0
    while clean < _CLEAN_PASSES and time.monotonic() < deadline:
        found = [pid for pid in _all_processes() if _carries(pid, mark)]
        for pid in found:
            _kill(pid)
        clean = 0 if found else clean + 1
        time.sleep(_PAUSE_SECONDS)


def _kill_all_in(control_group: str) -> None:
    try:
        with open(f"{control_group}/cgroup.kill", "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        pass  # somebody has removed it: then it was empty


def _remove(control_group: str) -> None:
    """What has been killed takes a moment to leave."""
    deadline = time.monotonic() + _LONGEST_SECONDS
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
    """Kill a process, or the group of this number if it is negative; it may have ended by itself."""
    try:  # noqa: SIM105 - contextlib would cost more memory than the rest of this program
        os.kill(target, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _all_processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []  # no /proc: the groups have to do


def _carries(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(entry.startswith(mark) for entry in file.read().split(b"\0"))
    except OSError:
        return False  # ended meanwhile, or another user's


if __name__ == "__main__":
    main(*sys.argv[1:])
