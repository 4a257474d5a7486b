"""The interfaces of CPython and of dependencies that this package uses and that are not documented.

Used by executors/forkserver/server_script.py, so that a forked child ends as the interpreter would end it:

- `threading._shutdown`: waits for threads.
- `atexit._clear`, `atexit._run_exitfuncs`: the child runs its own exit work, not the forkserver's.
- `weakref.finalize._registry`, `weakref.finalize._registered_with_atexit`: the same, for finalizers.
- `multiprocessing.process._children`, `multiprocessing.util._finalizer_registry` and `._exit_function`: the same, for
  multiprocessing.
- `gc.get_objects` leaves out what `gc.freeze` has frozen: the child finds the files that it has opened itself.
- The base of `io.IOBase` is that of all files. For the types of the module `_io` a flush is enough.

Used by child/reset.py, after each task of a pool child:

- `_signal`: as `signal`, without enumerations, in a tenth of the time.
- `os.environ._data`: the environment as bytes, in a twentieth of the time.

Used by db/connection.py: `pgconn.socket` of a psycopg connection. Shutting it down ends a call that waits.

Used by db/migrations.py: `yoyo.backends.core.postgresql.PostgresqlPsycopgBackend`, to connect by conninfo.

Those of uvicorn are listed in test_private_interfaces_http.py. Each test fails if its interface is gone or behaves
differently. Linters refuse other private names (SLF001).
"""

from __future__ import annotations

import gc
import gzip
import importlib
import inspect
import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import default_migration_table

from tests.support.database import Database


def output_of(program: str) -> list[str]:
    """Run a program in a process of its own, which it ends with os._exit, and give the lines that it printed."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.split()


def test_threading_shutdown_waits_for_threads() -> None:
    """Also for the idle threads of a ThreadPoolExecutor, which it ends."""
    program = """
import os, threading, time
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor(1).submit(print, "pool", flush=True)
threading.Thread(target=lambda: (time.sleep(0.2), print("thread", flush=True))).start()
threading._shutdown()
print("end", flush=True)
os._exit(0)
"""
    assert output_of(program) == ["pool", "thread", "end"]


def test_atexit_clears_and_runs_what_is_registered() -> None:
    """What was cleared does not run; the rest runs once."""
    program = """
import atexit, os
atexit.register(print, "cleared", flush=True)
atexit._clear()
atexit.register(print, "registered", flush=True)
atexit._run_exitfuncs()
atexit._run_exitfuncs()
os._exit(0)
"""
    assert output_of(program) == ["registered"]


def test_finalizers_are_in_a_registry() -> None:
    """One with `atexit` False does not run at exit, and a new one registers again after atexit._clear()."""
    program = """
import atexit, os, weakref
old, new = set("o"), set("n")
weakref.finalize(old, print, "old", flush=True)
atexit._clear()
for finalizer in list(weakref.finalize._registry):
    finalizer.atexit = False
assert weakref.finalize._registered_with_atexit is True
weakref.finalize._registered_with_atexit = False
weakref.finalize(new, print, "new", flush=True)
atexit._run_exitfuncs()
os._exit(0)
"""
    assert output_of(program) == ["new"]


def test_multiprocessing_has_its_exit_work_in_registries() -> None:
    """Finalizers and children that were cleared are forgotten; the exit function runs the other finalizers."""
    program = """
import multiprocessing, multiprocessing.process, multiprocessing.util, os, time
multiprocessing.util.Finalize(None, print, args=("old",), kwargs={"flush": True}, exitpriority=1)
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
assert child in multiprocessing.process._children
multiprocessing.process._children.clear()
multiprocessing.util._finalizer_registry.clear()
multiprocessing.util.Finalize(None, print, args=("new",), kwargs={"flush": True}, exitpriority=1)
multiprocessing.util._exit_function()
child.kill()
os._exit(0)
"""
    assert output_of(program) == ["new"]


def test_frozen_objects_are_not_among_all_objects() -> None:
    """Those that are made later are."""
    program = """
import gc, os
old = [[]]
gc.freeze()
new = [[]]
found = gc.get_objects()
print(any(each is old for each in found), any(each is new for each in found), flush=True)
os._exit(0)
"""
    assert output_of(program) == ["False", "True"]


def test_files_have_one_base(tmp_path: Path) -> None:
    """Also sockets' files and types made in Python; only the types of `_io` are complete after a flush."""
    base = io.IOBase.__base__
    assert base is not None
    left, right = socket.socketpair()
    with (
        left,
        right,
        left.makefile("w") as sockets,
        (tmp_path / "plain").open("w") as plain,
        gzip.open(tmp_path / "packed", "wb") as packed,
    ):
        files = (plain, plain.buffer, sockets, packed, io.BytesIO(), io.StringIO())
        assert all(issubclass(type(file), base) for file in files)
        assert [type(file).__module__ == "_io" for file in files] == [True, True, True, False, True, True]
        assert any(each is plain for each in gc.get_objects())


def test_signal_module_in_c_agrees_with_the_public_one() -> None:
    """Handlers are the same objects; masks and timers have the same values."""
    private = importlib.import_module("_signal")
    for number in signal.valid_signals():
        assert private.getsignal(number) == signal.getsignal(number)
    assert private.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGINT)
    assert private.pthread_sigmask(signal.SIG_BLOCK, ()) == signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert private.setitimer(signal.ITIMER_VIRTUAL, 0) == signal.getitimer(signal.ITIMER_VIRTUAL)


def test_environment_is_kept_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One dictionary, which the public views share."""
    data = os.environ._data  # type: ignore[attr-defined]
    monkeypatch.setenv("REPROQ_TEST_VARIABLE", "ä")
    assert data[b"REPROQ_TEST_VARIABLE"] == "ä".encode()
    assert dict(os.environb) == data
    before = dict(data)
    try:
        data.clear()
        assert not os.environ
    finally:
        data.update(before)


def test_psycopg_connection_has_its_socket(database: Database) -> None:
    """A connected socket, which a duplicate of the descriptor can shut down."""
    with psycopg.connect(database.dsn) as connection:
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as handle:
            handle.shutdown(socket.SHUT_RDWR)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("connect", ["self", "dburi"]),
        ("get_log_data", ["self", "migration", "operation"]),
        ("init_database", ["self"]),
        ("lock", ["self", "timeout"]),
        ("to_apply", ["self", "migrations"]),
        ("to_rollback", ["self", "migrations"]),
        ("apply_one", ["self", "migration", "force", "mark"]),
        ("rollback_one", ["self", "migration", "force"]),
    ],
)
def test_yoyo_backend_has_its_methods(method: str, parameters: list[str]) -> None:
    """Two are replaced, the others called. tests/schema/test_migrations.py runs them."""
    function = getattr(PostgresqlPsycopgBackend, method)
    assert list(inspect.signature(function).parameters) == parameters
    assert default_migration_table == "_yoyo_migration"
