"""The forkserver: a warm process that has imported the application, and forks itself whenever the worker asks.

It is started as a plain script (`python server_script.py FD`) by the Python of the tasks, which need not have
reproq-listen installed. FD is its end of a socket pair (SOCK_SEQPACKET); its other end is client.py. The
first message says what to import; after that each message is a request:

    F id [entry, arguments, environment]  + descriptors   fork a child; answered by F id errno pid
    R pid                                                  reap it; answered by R pid status cpu-seconds KiB

A child leads a session of its own, has the descriptors it was sent as 0, 1, 2 and so on, and runs either the executor
module as `python -m` would (`task`), or the server of the pool (`pool`). It is reaped only on request: until then
its number, and that of its group, cannot pass to a stranger.

When the forkserver forks it holds no thread of Python's, no connection and no lock. It ends when the socket does.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import io
import json
import os
import signal
import socket
import stat
import struct
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

LARGEST_MESSAGE = 256 << 10
MAX_DESCRIPTORS = 8
FORK_REQUEST = struct.Struct("<cI")
FORK_ANSWER = struct.Struct("<cIiq")
REAP_REQUEST = struct.Struct("<cq")
REAP_ANSWER = struct.Struct("<cqidq")
_ENV_START_FIELD = 47  # of /proc/self/stat, counted after the name; see proc(5), env_start
_FILE: Any = io.IOBase.__base__
"""The type of all that is like a file. Unlike io.IOBase it never asks an object of the application what it is."""


class Forkserver:
    """What the children need: the code of the executor, the socket to leave behind, and where the mark stands."""

    def __init__(self, control: socket.socket, told: dict[str, Any]) -> None:
        self.control = control
        self.mark_name: str = told["mark_env"]
        self.result_name: str = told["result_env"]
        self.spec, self.code = _find(told["module"])
        self.executor: Any = sys.modules[told["module"]] if told["is_ours"] else None
        self.pool: Any = importlib.import_module(told["pool"]) if told["pool"] else None
        self.mark_address = _address_of(self.mark_name)
        self.files: Iterable[Any] = ()
        """What the imports have left open: a task may write to it."""

    def serve(self) -> NoReturn:
        """Answer requests until the worker's end is closed. In a child, never returns either."""
        buffer = bytearray(LARGEST_MESSAGE)
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        while True:
            size, ancillary, _, _ = self.control.recvmsg_into([buffer], space, socket.MSG_CMSG_CLOEXEC)
            if size == 0:
                os._exit(0)
            if buffer[:1] == b"R":
                self._reap(buffer)
            else:
                self._fork(buffer, size, _descriptors(ancillary))

    def _reap(self, buffer: bytearray) -> None:
        _, pid = REAP_REQUEST.unpack_from(buffer)
        _, status, usage = os.wait4(pid, 0)
        cpu = usage.ru_utime + usage.ru_stime
        self.control.send(REAP_ANSWER.pack(b"R", pid, os.waitstatus_to_exitcode(status), cpu, usage.ru_maxrss))

    def _fork(self, buffer: bytearray, size: int, fds: list[int]) -> None:
        _, number = FORK_REQUEST.unpack_from(buffer)
        entry, arguments, environment = json.loads(buffer[FORK_REQUEST.size : size])
        gc.freeze()
        try:
            pid = os.fork()
        except OSError as error:
            answer = FORK_ANSWER.pack(b"F", number, error.errno or 1, 0)
        else:
            if pid == 0:
                _run_to_the_end(lambda: self._child(entry, arguments, environment, fds), self.files)
            answer = FORK_ANSWER.pack(b"F", number, 0, pid)
        self.control.send(answer)
        for fd in fds:
            os.close(fd)

    def _child(self, entry: str, arguments: list[str], environment: dict[str, str], fds: list[int]) -> None:
        """What a new process does before the application's own code."""
        os.setsid()
        os.close(self.control.detach())
        for standard, fd in enumerate(fds[:3]):
            os.dup2(fd, standard)
            os.close(fd)
        if self.mark_address and self.mark_name in environment:
            mark = environment[self.mark_name].encode()
            ctypes.memmove(self.mark_address, mark, len(mark))
        os.environ.update(environment)
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # Python's own generator does this by itself
        gc.enable()
        if entry == "pool":
            self.pool.serve(*fds[3:])
            return
        if len(fds) > 3:
            os.environ[self.result_name] = str(fds[3])
        sys.argv[:] = [self.spec.origin, *arguments]
        if self.executor is not None:
            sys.modules["__main__"] = self.executor
            sys.exit(self.executor.main(arguments))  # defined once already: saves the child a third of its work
        self._run_module()

    def _run_module(self) -> None:
        """As `python -m MODULE` with the present sys.argv, but for the search for the module."""
        main = types.ModuleType("__main__")
        main.__dict__.update(
            __file__=self.spec.origin,
            __cached__=self.spec.cached,
            __loader__=self.spec.loader,
            __package__=self.spec.parent,
            __spec__=self.spec,
        )
        sys.modules["__main__"] = main
        exec(self.code, main.__dict__)  # noqa: S102 - this is what running a module is


def _run_to_the_end(work: Callable[[], None], inherited: Iterable[Any]) -> NoReturn:
    """Run what a child is for, and end the process as the interpreter would, without tearing it down.

    What is still open is written: `inherited` files, and the child's own, which are closed where that is more.
    """
    status = 1
    try:
        try:
            work()
            status = 0
        except SystemExit as leaving:
            status = _status_of(leaving.code)
        except BaseException:  # noqa: BLE001 - the last handler of this process
            sys.excepthook(*sys.exc_info())
        threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as at any end
        atexit._run_exitfuncs()  # only what the child has registered: see _start_afresh
        own = _open_files()
        _flush((sys.stdout, sys.stderr, *inherited, *own))
        for file in own:
            if not _is_plain(file):
                with contextlib.suppress(Exception):
                    file.close()
    finally:
        os._exit(status)


def _open_files() -> list[Any]:
    """All that is like a file and not frozen: in a child, what is its own."""
    return [each for each in gc.get_objects() if issubclass(type(each), _FILE)]


def _is_plain(file: object) -> bool:
    """Whether a flush is all that it needs. One made in Python (a compressed file, say) may have an end to write."""
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


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [fd for _, _, data in ancillary for (fd,) in struct.iter_unpack("i", data[: len(data) // 4 * 4])]


def _find(module: str) -> tuple[Any, types.CodeType]:
    """Import the module, and give the spec and code that `python -m` would run."""
    imported = importlib.import_module(module)
    name = f"{module}.__main__" if hasattr(imported, "__path__") else module
    spec = importlib.util.find_spec(name)
    code = spec.loader.get_code(name) if spec and spec.loader else None  # type: ignore[attr-defined]
    if code is None:
        raise ImportError(f"there is no code in {name} that could be run")
    return spec, code


def _address_of(name: str) -> int:
    """Where the value of an environment variable stands in the memory that /proc/PID/environ shows; 0 if unknown."""
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            start = int(file.read().rpartition(")")[2].split()[_ENV_START_FIELD])
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
    except (OSError, IndexError, ValueError):
        return 0
    entry = f"{name}=".encode()
    offset = 0 if block.startswith(entry) else block.find(b"\0" + entry) + 1
    if start == 0 or not block[offset:].startswith(entry):
        return 0
    return start + offset + len(entry)


def _set_up_django() -> None:
    """Make a Django project ready, if the environment names one, and let go of what it may have connected."""
    if os.environ.get("DJANGO_SETTINGS_MODULE") and importlib.util.find_spec("django"):
        importlib.import_module("django").setup()


def _let_go(control: socket.socket) -> None:
    """Close what children must not share. Raises RuntimeError for what cannot be closed from here."""
    if "logging" in sys.modules:
        _flush(handler() for handler in sys.modules["logging"]._handlerList)
    if "django.db" in sys.modules:
        sys.modules["django.db"].connections.close_all()
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        raise RuntimeError(
            f"the imports have started threads ({', '.join(others)}), which a forked child would not have: "
            "start them in the tasks, or use --executor spawn"
        )
    for fd in map(int, os.listdir("/proc/self/fd")):
        peer = None if fd == control.fileno() else _peer_of(fd)
        if peer is not None:
            raise RuntimeError(
                f"the imports have opened a connection (to {peer}), which all forked children would share: "
                "connect in the tasks, or use --executor spawn"
            )


def _peer_of(fd: int) -> object:
    """Whom a descriptor is connected to, if it is a stream socket that is connected."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        is_blocking = os.get_blocking(fd)
        connection = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    os.set_blocking(fd, is_blocking)  # a time limit that the imports have set for all sockets has changed it
    with connection:
        try:
            return (connection.getpeername() or "a local socket") if connection.type == socket.SOCK_STREAM else None
        except OSError:
            return None


def _start_afresh() -> Iterable[Any]:
    """See that at its end a child does what its own task has left to do, and nothing that the imports have: that is
    this process's. Gives the files that they have left open, written so far."""
    atexit._clear()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    # What the library had registered is everybody's.
    if "logging" in sys.modules:
        atexit.register(_end_logging, _idle_handlers())
    if "multiprocessing.util" in sys.modules:
        sys.modules["multiprocessing.process"]._children.clear()
        sys.modules["multiprocessing.util"]._finalizer_registry.clear()
        atexit.register(_end_multiprocessing)
    files = [file for file in _open_files() if _is_plain(file)]
    _flush((sys.stdout, sys.stderr, *files))
    return weakref.WeakSet(files)


def _idle_handlers() -> list[object]:
    """The handlers of the log, if all write each record at once and so have nothing left to do; else none."""
    logging = sys.modules["logging"]
    plain = (logging.Handler, logging.StreamHandler, logging.FileHandler)
    known = {each.flush for each in plain} | {each.close for each in plain}
    kinds = {type(handler()) for handler in logging._handlerList} - {type(None)}
    return list(logging._handlerList) if all({kind.flush, kind.close} <= known for kind in kinds) else []


def _end_logging(idle: list[object]) -> None:
    """Flush and close the handlers, if there are others than those."""
    if sys.modules["logging"]._handlerList != idle:
        sys.modules["logging"].shutdown()


def _end_multiprocessing() -> None:
    """Finalize what the child has made, and wait for its processes."""
    util = sys.modules["multiprocessing.util"]
    if util._finalizer_registry or sys.modules["multiprocessing.process"]._children:
        util._exit_function()


def main() -> None:
    """Import everything once, say so, and serve."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # as `python -m` has it
    gc.disable()  # leaves no holes that children would have to copy
    told = json.loads(control.recv(LARGEST_MESSAGE))
    _set_up_django()
    forkserver = Forkserver(control, told)
    for module in told["preload"]:
        importlib.import_module(module)
    if forkserver.executor is not None:
        forkserver.executor.warm_up()
    _let_go(control)
    forkserver.files = _start_afresh()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()
    control.send(b"U" + json.dumps({"marked": bool(forkserver.mark_address)}).encode())
    forkserver.serve()


if __name__ == "__main__":
    main()
