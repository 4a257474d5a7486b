"""The addresses that a DSN stands for: names are looked up here, and each address is tried by itself.

psycopg looks names up in the thread pool of the event loop, which the end of the program waits for: a name server that
does not answer kept a stopped worker for half a minute. Here each name has a daemon thread, and a time limit.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from psycopg import pq

from reproq_listen.db.errors import DatabaseAway

Parameters = dict[str, Any]
_PER_HOST = ("host", "hostaddr", "port")


def default_parameters() -> dict[str, str]:
    """What libpq takes for parameters that are not given: from the PGSERVICE file, PG* variables, or built in."""
    return {option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val}


async def attempts(parameters: Mapping[str, Any], limit: float) -> list[Parameters]:
    """Parameters of one attempt for each address, in the order to try them. A name may take `limit` seconds.

    Names are looked up at the same time; one that is not found is left out. Raises DatabaseAway if none is.
    """
    looked_up = await asyncio.gather(*(_look_up(host, limit) for host in _hosts(parameters)), return_exceptions=True)
    found = [attempt for addresses in looked_up if isinstance(addresses, list) for attempt in addresses]
    for problem in looked_up if not found else ():
        assert isinstance(problem, BaseException)
        raise problem
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(found)
    if parameters.get("target_session_attrs") == "prefer-standby":  # first each as a standby, then any
        any_of_them = [{**attempt, "target_session_attrs": "any"} for attempt in found]
        return [{**attempt, "target_session_attrs": "standby"} for attempt in found] + any_of_them
    return found


def _hosts(parameters: Mapping[str, Any]) -> list[Parameters]:
    """The parameters of each host."""
    given: Parameters = {**default_parameters(), **parameters}
    values = {name: str(given.get(name, "")).split(",") for name in _PER_HOST}
    count = max(len(values["host"]), len(values["hostaddr"]))
    if any(len(each) not in (1, count) for each in values.values()):
        return [dict(parameters)]  # libpq says what is wrong
    rest = {name: value for name, value in parameters.items() if name not in _PER_HOST}
    return [
        rest | {name: each[place % len(each)] for name, each in values.items() if each[place % len(each)]}
        for place in range(count)
    ]


async def _look_up(host: Parameters, limit: float) -> list[Parameters]:
    name = host.get("host", "")
    if not name or name.startswith(("/", "@")) or "hostaddr" in host or "," in name:
        return [host]
    with suppress(ValueError):
        ip_address(name)
        return [{**host, "hostaddr": name}]
    try:
        async with asyncio.timeout(limit):
            return [{**host, "hostaddr": address} for address in await _addresses_of(name, str(host.get("port", 5432)))]
    except OSError as error:  # TimeoutError is one
        why = str(error) or f"no answer within {limit:g} s"
        raise DatabaseAway(f"the host name {name} could not be looked up: {why}") from None


async def _addresses_of(name: str, port: str) -> list[str]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str] | OSError) -> None:
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: list[str] | OSError
        try:
            asked = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            found = [str(item[4][0]) for item in asked]
        except (OSError, UnicodeError) as error:
            found = error if isinstance(error, OSError) else OSError(str(error))
        with suppress(RuntimeError):  # the loop is closed: the question was given up
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=ask, name="name lookup", daemon=True).start()
    return await answer
