"""The forkserver: a process that has imported the application, and forks itself whenever the worker asks.

It runs as a plain script (`python server_script.py FD`) with the Python of the tasks, which need not have
reproq-listen installed. FD is its end of a socket pair (SOCK_SEQPACKET); client.py holds the other end. The first
message says what to import; after that each message is a request:

    F id entry tag  + descriptors   fork a child; answered by F id errno pid
    R pid                           reap it; answered by R pid status cpu-seconds KiB

A child leads a session of its own and has the descriptors it was sent as 0, 1, 2 and so on. With entry T it runs the
executor module as `python -m` would, with P the server of the pool. T first waits until its arguments come on stdin:
their length, then the arguments with NUL between them. What follows is for the module. W is T for a child that may wait
for long: before that it runs an empty task, so that what a task writes to is copied already. A child is reaped only on
request: until then no other process can get its number, or that of its group.

Most of a fork's price is paid page by page: each page that parent or child writes to after the fork is copied, and to
use a Python object is to write to its reference count. So the code on the way from request to task is short, and
avoids what touches many objects (json, enums, abstract classes, os.environ.update).

When the forkserver forks, it has no other Python thread, no connection and no lock. It ends when the socket closes.
"""

from __future__ import annotations

import _thread
import array
import atexit
import contextlib
import ctypes
import errno
import gc
import importlib
import importlib.util
import io
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
import types
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

MAX_MESSAGE_BYTES = 256 << 10
MAX_DESCRIPTORS = 8
FORK_REQUEST = struct.Struct("<cIc")
FORK_ANSWER = struct.Struct("<cIiq")
ARGUMENTS_HEADER = struct.Struct("<I")
REAP_REQUEST = struct.Struct("<cq")
REAP_ANSWER = struct.Struct("<cqidq")
UNSHAREABLE_STATUS = 75
"""Exit status if the imports have made something that children must not share."""
_WARM_RUNS = 50
_CLOSE_ON_EXEC, _CUT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_CTRUNC)
_ENV_START_FIELD = 47  # of /proc/self/stat, counted after the name; see proc(5), env_start
_FILE: Any = io.IOBase.__base__
"""The type of everything like a file. Unlike with io.IOBase, issubclass() calls no code of the application."""


class RequestLoop:
    """Answers requests, and holds what children need: the executor's code, the pool's server, the tag's address."""

    def __init__(self, control: socket.socket, config: dict[str, Any], serve_pool: Any) -> None:  # noqa: ANN401
        self.control = control
        self.tag_name: str = config["tag_env"]
        self.memory_limit = (config["memory_bytes"],) * 2
        self.spec, self.code = _find(config["module"])
        self.executor: Any = sys.modules[config["module"]] if config["is_ours"] else None
        self.allowed: tuple[str, ...] = () if self.executor is None else self.executor.allowed_modules()
        self.serve_pool = serve_pool
        self.tag_key = os.fsencode(self.tag_name)
        self.tag_memory = _memory_of(self.tag_name)
        self.children: set[int] = set()
        """Not reaped yet."""
        self.files: Iterable[Any] = ()
        """Files that the imports have left open: tasks may write to them."""

    def serve(self) -> NoReturn:
        """Answer requests until the worker closes its end. Never returns, in children neither."""
        buffer = bytearray(MAX_MESSAGE_BYTES)
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        while True:
            size, ancillary, flags, _ = self.control.recvmsg_into([buffer], space, _CLOSE_ON_EXEC)
            if size == 0:
                self._end()
            if buffer[:1] == b"R":
                self._reap(buffer)
            else:
                is_cut = bool(flags & _CUT)  # there were too few free descriptors
                self._fork(buffer[:size], _descriptors(ancillary), errno.EMFILE if is_cut else 0)

    def _end(self) -> NoReturn:
        """The worker has closed its end. It does so when it has reaped all children, so if some are left it is dead."""
        for pid in self.children:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)

    def _reap(self, buffer: bytearray) -> None:
        _, pid = REAP_REQUEST.unpack_from(buffer)
        _, status, usage = os.wait4(pid, 0)
        self.children.discard(pid)
        cpu = usage.ru_utime + usage.ru_stime
        self.control.send(REAP_ANSWER.pack(b"R", pid, os.waitstatus_to_exitcode(status), cpu, usage.ru_maxrss))

    def _fork(self, request: bytearray, fds: Sequence[int], problem: int) -> None:
        _, number, entry = FORK_REQUEST.unpack_from(request)
        tag = request[FORK_REQUEST.size :]
        gc.freeze()
        pid = 0
        try:
            if not problem:
                pid = os.fork()
                if pid == 0:
                    _run_and_exit(lambda: self._child(entry, tag, fds), self.files)
                self.children.add(pid)
        except OSError as error:
            problem = error.errno or errno.EAGAIN
        self.control.send(FORK_ANSWER.pack(b"F", number, problem, pid))
        for fd in fds:
            os.close(fd)

    def _child(self, entry: bytes, tag: bytearray, fds: Sequence[int]) -> int:
        """Make a forked copy a process of its own, run what it is for, and give its exit status."""
        os.setsid()
        os.close(self.control.detach())
        for standard, fd in enumerate(fds[:3]):
            os.dup2(fd, standard)
            os.close(fd)
        if self.tag_memory is not None:
            self.tag_memory[: len(tag)] = tag  # C code sees it there
            os.environ._data[self.tag_key] = bytes(tag)  # type: ignore[attr-defined]
        else:
            os.environ[self.tag_name] = tag.decode()
        if self.memory_limit[0]:
            resource.setrlimit(resource.RLIMIT_DATA, self.memory_limit)
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # Python's own generator does this by itself
        gc.enable()
        if entry == b"P":
            self.serve_pool(*fds[3:])
            return 0
        if self.executor is None:
            sys.argv[:] = [self.spec.origin, *_read_arguments()]
            self._run_module()
            return 0
        if entry == b"W":
            self.executor.warm_up(1)
        arguments, payload = _read_arguments_and_payload()
        sys.argv[:] = [self.spec.origin, *arguments]
        sys.modules["__main__"] = self.executor
        # It is imported and set up: this saves a third of the child's work.
        status: int = self.executor.main_forked(arguments, payload, self.allowed, *fds[3:])
        return status

    def _run_module(self) -> None:
        """As `python -m MODULE` with the present sys.argv, without searching the module again."""
        sys.modules["__main__"] = main = importlib.util.module_from_spec(self.spec)
        main.__name__ = "__main__"
        exec(self.code, main.__dict__)  # noqa: S102 - this is what running a module is


def _read_arguments() -> list[str]:
    """Wait for them. Ends the process if none come: it is not needed."""
    (size,) = ARGUMENTS_HEADER.unpack(_read(ARGUMENTS_HEADER.size))
    return _read(size).decode().split("\0")


def _read(size: int) -> bytes:
    """Read this number of bytes from stdin, without a buffer: what follows is not ours."""
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def _read_arguments_and_payload() -> tuple[list[str], bytes]:
    """As `_read_arguments`, with all that follows."""
    data = b""
    while more := os.read(0, 1 << 16):
        data += more
    if not data:
        os._exit(0)
    start = ARGUMENTS_HEADER.size
    end = start + ARGUMENTS_HEADER.unpack_from(data)[0]
    return data[start:end].decode().split("\0"), data[end:]


def _run_and_exit(work: Callable[[], int], inherited: Iterable[Any]) -> NoReturn:
    """Run `work`, then end the process as the interpreter would, without the cost of tearing it down.

    `inherited` files are flushed. Files that the child has opened are flushed too, and closed if that does more.
    """
    status = 1
    try:
        try:
            status = work()
        except SystemExit as leaving:
            status = _status_of(leaving.code)
        except BaseException:  # noqa: BLE001 - the last handler of this process
            sys.excepthook(*sys.exc_info())
        if _thread._count():
            sys.modules["threading"]._shutdown()  # waits for threads, as at any exit
        atexit._run_exitfuncs()  # only what the child has registered: see _forget_exit_work
        own = _open_files()
        _flush((sys.stdout, sys.stderr, *inherited, *own))
        for file in own:
            if not _is_built_in(file):
                with contextlib.suppress(Exception):
                    file.close()
    finally:
        os._exit(status)


def _open_files() -> list[Any]:
    """Give every object like a file that is not frozen: in a child, its own."""
    return [each for each in gc.get_objects() if issubclass(type(each), _FILE)]


def _is_built_in(file: object) -> bool:
    """Whether a flush writes everything. A type made in Python (of a compressed file, say) may write more at close."""
    return type(file).__module__ == "_io"


def _flush(files: Iterable[Any]) -> None:
    for file in files:
        try:
            file.flush()
        except Exception:  # noqa: BLE001, S112 - it is closed, say
            continue


def _status_of(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> Sequence[int]:
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
    return fds


def _find(module: str) -> tuple[Any, types.CodeType]:
    """Import the module, and give the spec and code that `python -m` would run."""
    imported = importlib.import_module(module)
    name = f"{module}.__main__" if hasattr(imported, "__path__") else module
    spec = importlib.util.find_spec(name)
    code = spec.loader.get_code(name) if spec and spec.loader else None  # type: ignore[attr-defined]
    if code is None:
        raise ImportError(f"{name} has no code that could be run")
    return spec, code


def _memory_of(name: str) -> memoryview | None:
    """Give an environment variable's value in the memory that /proc/PID/environ shows; None if that is unknown."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            start = int(file.read().rpartition(")")[2].split()[_ENV_START_FIELD])
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
    except (OSError, IndexError, ValueError):
        return None
    entry = f"{name}=".encode()
    offset = 0 if block.startswith(entry) else block.find(b"\0" + entry) + 1
    if start == 0 or not block[offset:].startswith(entry):
        return None
    size = block.index(b"\0", offset) - offset - len(entry)
    return memoryview((ctypes.c_char * size).from_address(start + offset + len(entry))).cast("B")


def _check_shareable(control: socket.socket) -> None:
    """Close Django's connections. Ends the process, with the reason, for other things that children must not share."""
    if "django.db" in sys.modules:
        sys.modules["django.db"].connections.close_all()
    threads = sys.modules["threading"].enumerate() if "threading" in sys.modules else []
    others = [thread.name for thread in threads if thread is not sys.modules["threading"].main_thread()]
    if others:
        _refuse(
            f"the imports have started threads ({', '.join(others)}), which a forked child would not have: start them"
        )
    for fd in map(int, os.listdir("/proc/self/fd")):
        peer = None if fd == control.fileno() else _peer_of(fd)
        if peer is not None:
            _refuse(f"the imports have opened a connection (to {peer}), which all forked children would share: connect")


def _refuse(what: str) -> NoReturn:
    sys.stderr.write(f"{what} in the tasks, or use --executor spawn\n")
    sys.stderr.flush()
    os._exit(UNSHAREABLE_STATUS)  # a thread of the imports would keep the process


def _peer_of(fd: int) -> object:
    """Give the peer of a descriptor that is a connected stream socket, else None."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        is_blocking = os.get_blocking(fd)
        connection = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    os.set_blocking(fd, is_blocking)  # socket.setdefaulttimeout() of the imports makes the new object change it
    with connection:
        try:
            return (connection.getpeername() or "a local socket") if connection.type == socket.SOCK_STREAM else None
        except OSError:
            return None


def _warm_up_fork_handlers() -> None:
    """Run what libraries do in each forked child, which they have registered with os.register_at_fork.

    Only children run it, where it is always cold: without this it is a fifth of a child's work.
    """
    modules = sys.modules
    for _ in range(_WARM_RUNS):
        if "random" in modules:
            modules["random"].seed()
        if "threading" in modules:
            modules["threading"]._after_fork()
        if "logging" in modules:
            modules["logging"]._after_at_fork_child_reinit_locks()


def _forget_exit_work() -> Iterable[Any]:
    """Flush what the imports have written, and drop what they have registered for the exit: it belongs to this process.

    A child then does at its exit what its own task has registered. Gives the files that the imports have left open.
    """
    atexit._clear()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    # What these libraries have registered serves everything made with them, so each child needs it too.
    if "logging" in sys.modules:
        handler_type = sys.modules["logging"].Handler
        _flush(each for each in gc.get_objects() if issubclass(type(each), handler_type))
        atexit.register(sys.modules["logging"].shutdown)
    if "multiprocessing.util" in sys.modules:
        sys.modules["multiprocessing.process"]._children.clear()
        sys.modules["multiprocessing.util"]._finalizer_registry.clear()
        atexit.register(sys.modules["multiprocessing.util"]._exit_function)
    files = [file for file in _open_files() if _is_built_in(file)]
    _flush((sys.stdout, sys.stderr, *files))
    return weakref.WeakSet(files)


def main() -> None:
    """Import everything once, tell the worker, and serve."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # as `python -m` has it
    gc.disable()  # leaves no holes that children would have to copy
    config = json.loads(control.recv(MAX_MESSAGE_BYTES))
    # It replaces the standard streams, so it comes before the imports that may keep them.
    serve_pool = importlib.import_module(config["pool"]).prepare() if config["pool"] else None
    if os.environ.get("DJANGO_SETTINGS_MODULE") and importlib.util.find_spec("django"):
        importlib.import_module("django").setup()
    loop = RequestLoop(control, config, serve_pool)
    for module in config["preload"]:
        importlib.import_module(module)
    if loop.executor is not None:
        loop.executor.warm_up()
    _check_shareable(control)
    _warm_up_fork_handlers()
    loop.files = _forget_exit_work()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()
    control.send(b"U" + json.dumps({"tagged": loop.tag_memory is not None}).encode())
    loop.serve()


if __name__ == "__main__":
    main()
