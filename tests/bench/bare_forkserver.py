"""The least that a forkserver can do: children forked ahead, one task each, four at a time. The limit of `fork`.

No checks, no cleanup, no output, no limits: a process imports the modules, forks children that wait at a socket, and
passes the other end of each to this process. This one writes a task to it and reads the result.

usage: python -m tests.bench.bare_forkserver SECONDS MODULE...     prints tasks a second
"""

import gc
import importlib
import json
import os
import select
import socket
import sys
import time

CONCURRENCY = 4
TASK = json.dumps({"v": 1, "task_path": "tests.apps.bench_tasks.nothing", "args": [], "kwargs": {}}).encode()


def main() -> None:
    """Run tasks for a while, four at a time."""
    seconds, modules = float(sys.argv[1]), sys.argv[2:]
    ours, theirs = socket.socketpair()
    forkserver = os.fork()
    if forkserver == 0:
        ours.close()
        _serve(theirs, modules)
    theirs.close()
    running = {ready.fileno(): ready for ready in (_receive(ours) for _ in range(CONCURRENCY))}
    poll = select.poll()
    for fd, child in running.items():
        poll.register(fd, select.POLLIN)
        child.sendall(TASK)
    count = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for fd, _ in poll.poll():
            child = running.pop(fd)
            assert json.loads(child.recv(1 << 16))["ok"]
            count += 1
            poll.unregister(fd)
            child.close()
            following = _receive(ours)
            following.sendall(TASK)
            running[following.fileno()] = following
            poll.register(following.fileno(), select.POLLIN)
    print(json.dumps({"rate": count / (time.monotonic() - began)}))
    ours.close()  # ends the forkserver at its next child
    for child in running.values():
        child.close()
    os.waitpid(forkserver, 0)


def _receive(control: socket.socket) -> socket.socket:
    _, fds, _, _ = socket.recv_fds(control, 1, 1)
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fds[0])


def _serve(control: socket.socket, modules: list[str]) -> None:
    """Import, and keep as many children ready as may run at the same time."""
    gc.disable()
    if os.environ.get("DJANGO_SETTINGS_MODULE"):
        importlib.import_module("django").setup()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    alive = 0
    while True:
        if alive == 2 * CONCURRENCY:
            os.wait()
            alive -= 1
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            _run(theirs)
        theirs.close()
        alive += 1
        try:
            socket.send_fds(control, [b"x"], [ours.fileno()])
        except OSError:
            os._exit(0)
        ours.close()


def _run(channel: socket.socket) -> None:
    """Run one task, which does nothing."""
    task = channel.recv(1 << 16)
    if task:
        channel.sendall(json.dumps({"ok": True, "return": json.loads(task)["kwargs"] or None}).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
