"""Which addresses a connection is tried at, one after another, and for how long."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from reproq_listen.db import dsn
from reproq_listen.db.addresses import attempts
from reproq_listen.db.connection import connect
from reproq_listen.db.errors import DatabaseAway

NAMES = {"two.test": ["127.0.0.2", "127.0.0.3"], "one.test": ["127.0.0.4"]}


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our own names; `slow.test` does not answer, others do not exist."""
    over = threading.Event()

    def getaddrinfo(name: str, port: str, **_: object) -> list[Any]:
        if name == "slow.test":
            over.wait(30)
        if name not in NAMES:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, port)) for address in NAMES[name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for variable in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    yield
    over.set()


def tried(**parameters: str) -> list[tuple[str | None, str | None]]:
    """Address (else host) and port of each attempt."""
    found = asyncio.run(attempts(parameters, 0.2))
    return [(each.get("hostaddr") or each.get("host"), each.get("port")) for each in found]


def test_addresses_of_all_names_are_tried_in_order() -> None:
    """Several of one name, several names, each with its port; sockets and addresses as they are."""
    assert tried(host="two.test,one.test", port="1,2") == [("127.0.0.2", "1"), ("127.0.0.3", "1"), ("127.0.0.4", "2")]
    assert tried(host="one.test,two.test", port="9")[-1] == ("127.0.0.3", "9")
    assert tried(host="/run/x,10.0.0.1", port="5") == [("/run/x", "5"), ("10.0.0.1", "5")]
    assert tried(host="a.test,b.test", hostaddr="10.0.0.1,10.0.0.2", port="5")[1] == ("10.0.0.2", "5")
    assert tried(host="two.test", port="1", target_session_attrs="prefer-standby") == 2 * [
        ("127.0.0.2", "1"),
        ("127.0.0.3", "1"),
    ]


def test_addresses_come_from_variables_and_services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PGHOST with several names; a service, whose names would otherwise be looked up while all else waits."""
    monkeypatch.setenv("PGHOST", "one.test,two.test")
    assert [address for address, _ in tried()] == ["127.0.0.4", "127.0.0.2", "127.0.0.3"]
    (tmp_path / "services").write_text("[tasks]\nhost=two.test\nport=7\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    found = conninfo_to_dict(dsn.conninfo("service=tasks"))
    assert found == {"service": "tasks", "host": "two.test", "port": "7"}
    assert conninfo_to_dict(dsn.conninfo("service=tasks host=other")) == {"service": "tasks", "host": "other"}


def test_addresses_name_that_is_not_found_stops_no_other() -> None:
    """Nor does one whose server does not answer. Without any it is said which."""
    assert tried(host="slow.test,gone.test,one.test") == [("127.0.0.4", "5432")]
    for name, words in (("gone.test", "Name or service not known"), ("slow.test", "no answer within 0.2 s")):
        with pytest.raises(DatabaseAway, match=f"{name} could not be looked up: .*{words}"):
            tried(host=name)


def test_addresses_lookup_does_not_keep_the_program() -> None:
    """The end of an event loop waits for its thread pool, and not for us."""
    began = time.monotonic()
    with pytest.raises(DatabaseAway):
        tried(host="slow.test")
    assert time.monotonic() - began < 3


@pytest.fixture
def silent() -> Iterator[Callable[[str, int], None]]:
    """Opens ports where nobody answers."""
    held = []

    def hold(address: str, port: int) -> None:
        held.append(socket.create_server((address, port)))

    yield hold
    for each in held:
        each.close()


def test_connect_second_address_is_reached(silent: Callable[[str, int], None]) -> None:
    """Each address has its own time, a connect_timeout of the DSN included; the error tells both reasons."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    silent("127.0.0.2", port)
    began = time.monotonic()
    with pytest.raises(DatabaseAway, match=r"no connection within 0\.5 s; .*127\.0\.0\.3.*refused"):
        asyncio.run(connect(f"host=two.test port={port} sslmode=disable", 0.5))
    assert 0.4 < time.monotonic() - began < 2
    with pytest.raises(DatabaseAway, match="refused"):
        asyncio.run(connect(f"host=two.test port={port} sslmode=disable connect_timeout=1", 0.1))
    assert time.monotonic() - began > 1.4
