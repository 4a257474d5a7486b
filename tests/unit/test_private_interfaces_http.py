"""Interfaces of uvicorn and asyncio that the HTTP server uses and that they do not promise. A change fails here.

The disconnect of a client of /events is noticed because uvicorn (0.32.1 and newer) declares ASGI 2.3 for HTTP, where
starlette's StreamingResponse waits for `http.disconnect`: test_http_number_of_event_streams_is_limited fails otherwise.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from importlib.metadata import requires
from typing import Any

import uvicorn
from packaging.requirements import Requirement


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request is made")


def test_uvicorn_has_an_upper_bound() -> None:
    """Only releases that were tested are allowed; the installed one is among them."""
    bound = next(each for each in map(Requirement, requires("reproq-listen") or ()) if each.name == "uvicorn")
    assert [each.operator for each in bound.specifier].count("<") == 1
    assert uvicorn.__version__ in bound.specifier


def test_uvicorn_starts_and_ends_step_by_step() -> None:
    """`startup` and `shutdown` of a Server with `lifespan` and `ssl` set by hand; no signal handler, no main loop."""

    async def run() -> None:
        config = uvicorn.Config(_answer, http="h11", ws="none", lifespan="off", log_config=None)
        config.load()
        assert config.ssl is None
        config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        listener = socket.create_server(("127.0.0.1", 0))
        await server.startup(sockets=[listener])
        assert server.started
        assert server.servers[0].is_serving()
        await server.shutdown()
        assert not server.servers[0].is_serving()

    assert list(inspect.signature(uvicorn.Server.startup).parameters) == ["self", "sockets"]
    asyncio.run(run())


def test_asyncio_ignores_an_accept_that_is_aborted() -> None:
    """A listening socket may refuse a connection with ConnectionAbortedError; the next one is served."""
    refused: list[bool] = []
    problems: list[dict[str, Any]] = []

    class Refusing(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            connection, address = super().accept()
            if not refused:
                refused.append(True)
                connection.close()
                raise ConnectionAbortedError
            return connection, address

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        listener = Refusing(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        server = await asyncio.start_server(lambda _, writer: writer.close(), sock=listener)
        async with server:
            for _ in range(2):
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                assert await asyncio.wait_for(reader.read(), 5) == b""
                writer.close()

    asyncio.run(run())
    assert (refused, problems) == ([True], [])
