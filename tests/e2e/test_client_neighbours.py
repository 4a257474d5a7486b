"""The client on the connections of real libraries: psycopg, its pools, SQLAlchemy, Django, a Starlette request."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from reproq_listen import AsyncClient, Client, InvalidArgumentsError, ReproqError, TaskUnfinishedError, chord
from reproq_listen.errors import SettingError
from tests.apps import client_tasks as app
from tests.support.database import ROOT, Database


@pytest.fixture
def count(database: Database) -> Iterator[Callable[[], int]]:
    """The number of committed tasks."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        yield lambda: len(connection.execute("select from task_runs").fetchall())


def url(database: Database, driver: str) -> sqlalchemy.URL:
    parts = conninfo_to_dict(database.dsn)
    return sqlalchemy.URL.create(
        f"postgresql+{driver}",
        username=str(parts["user"]),
        database=str(parts["dbname"]),
        query={"host": str(parts["host"])} | ({"port": str(parts["port"])} if "port" in parts else {}),
    )


@contextlib.contextmanager
def engine_of(database: Database) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(url(database, "psycopg"))
    yield engine
    engine.dispose()


@contextlib.asynccontextmanager
async def async_engine_of(database: Database, driver: str) -> AsyncIterator[Any]:
    engine = create_async_engine(url(database, driver))
    yield engine
    await engine.dispose()


def use(client: Client) -> None:
    """Every way to enqueue, with each kind of option."""
    client.enqueue(app.send_welcome, 3, loud=True)
    client.enqueue_many([app.debounced.call("a", 1), app.later.call(3)])
    client.enqueue(chord([app.untyped.call(1)], app.later.call(2)))
    result = client.enqueue(app.send_welcome.using(run_after=60.0 * app.MINUTE, priority=3, backoff=0.5), 4)
    result.refresh()
    assert (result.status, result.args) == ("READY", (4,))
    assert result.enqueued_at is not None
    assert result.enqueued_at.utcoffset() is not None


async def use_async(client: AsyncClient) -> None:
    """As `use`."""
    await client.enqueue(app.send_welcome, 3, loud=True)
    await client.enqueue_many([app.debounced.call("a", 1), app.later.call(3)])
    await client.enqueue(chord([app.untyped.call(1)], app.later.call(2)))
    result = await client.enqueue(app.send_welcome.using(run_after=60.0 * app.MINUTE, priority=3, backoff=0.5), 4)
    await result.refresh()
    assert (result.status, result.args) == ("READY", (4,))
    assert result.enqueued_at is not None
    assert result.enqueued_at.utcoffset() is not None


USED = 6
"""Tasks that `use` enqueues."""


def test_client_on_a_pool(database: Database, count: Callable[[], int]) -> None:
    """Each call is committed."""
    with ConnectionPool(database.dsn, min_size=1, max_size=2, kwargs={"row_factory": dict_row}, open=True) as pool:
        use(Client(pool))
        assert count() == USED


def test_client_on_sqlalchemy(database: Database, count: Callable[[], int]) -> None:
    """Session and Connection: in their transaction. Engine: committed. ORM objects and tasks go together."""
    with engine_of(database) as engine:
        with Session(engine) as session:
            use(Client(session))
            assert count() == 0
            session.rollback()
        assert count() == 0
        with Session(engine) as session, session.begin():
            use(Client(session))
        assert count() == USED
        with engine.connect() as connection:
            use(Client(connection))
            connection.commit()
        assert count() == 2 * USED - 1  # the debounced task is there already
        result = Client(engine).enqueue(app.send_welcome, 1)
        assert count() == 2 * USED
        with pytest.raises(TaskUnfinishedError):
            result.wait(0.1)
        with Session(engine) as session, pytest.raises(ReproqError, match="Commit first"):
            Client(session).enqueue(app.send_welcome, 1).wait(0.1)


def test_client_refuses_another_database() -> None:
    """SQLite has no reproq; an asynchronous target belongs to AsyncClient."""
    with pytest.raises(SettingError, match="speaks sqlite"):
        Client(sqlalchemy.create_engine("sqlite://"))
    with pytest.raises(SettingError, match=r"Client needs .*; not sqlalchemy\.ext\.asyncio\.session\.AsyncSession"):
        Client(AsyncSession())
    with pytest.raises(SettingError, match=r"AsyncClient needs .*; not sqlalchemy\.orm\.session\.Session"):
        AsyncClient(Session())


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_async_client_on_psycopg(database: Database, count: Callable[[], int]) -> None:
    """A connection of the program is not committed; a pool and a DSN are."""

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
            await use_async(AsyncClient(connection))
            await connection.rollback()
        assert count() == 0
        async with AsyncConnectionPool(database.dsn, min_size=1, max_size=2, open=False) as pool:
            await use_async(AsyncClient(pool))
        assert count() == USED
        async with AsyncClient(database.dsn) as client:
            await asyncio.gather(*(client.enqueue(app.send_welcome, number) for number in range(10)))
            with pytest.raises(InvalidArgumentsError):
                await client.enqueue(app.send_welcome, "x")  # type: ignore[call-overload]
        assert count() == USED + 10

    run(work)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_client_on_sqlalchemy(database: Database, count: Callable[[], int], driver: str) -> None:
    """AsyncSession, AsyncConnection and AsyncEngine, with both drivers."""

    async def work() -> None:
        async with async_engine_of(database, driver) as engine:
            async with AsyncSession(engine) as session:
                await use_async(AsyncClient(session))
                assert count() == 0
                await session.rollback()
            async with AsyncSession(engine) as session, session.begin():
                await use_async(AsyncClient(session))
            assert count() == USED
            async with engine.begin() as connection:
                await AsyncClient(connection).enqueue(app.send_welcome, 1)
            await AsyncClient(engine).enqueue(app.send_welcome, 1)
            assert count() == USED + 2

    run(work)


def end(database: Database, result_id: int) -> None:
    with psycopg.connect(database.dsn) as connection:
        connection.execute("select reproq_cancel(%s)", [result_id])
        connection.execute(
            "update task_runs set status = 'SUCCESSFUL', return_json = '7' where result_id = %s", [result_id]
        )


@pytest.mark.parametrize("target", ["dsn", "pool", "connection", "engine"])
def test_async_wait(database: Database, target: str) -> None:
    """The event loop goes on meanwhile."""

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            client = await opened(stack)
            waiting = []
            for _ in range(2):
                result = await client.enqueue(app.debounced, "a", 1)
                waiting.append(asyncio.create_task(result.wait(20)))
                if target == "connection":
                    break
            await asyncio.sleep(0.1)
            assert not any(waiter.done() for waiter in waiting)
            await asyncio.to_thread(end, database, result.id)
            assert {*await asyncio.gather(*waiting)} == {7}

    async def opened(stack: contextlib.AsyncExitStack) -> AsyncClient:
        if target == "dsn":
            return await stack.enter_async_context(AsyncClient(database.dsn))
        if target == "pool":
            pool = AsyncConnectionPool(database.dsn, min_size=1, max_size=3, open=False)
            return AsyncClient(await stack.enter_async_context(pool))
        if target == "engine":
            return AsyncClient(await stack.enter_async_context(async_engine_of(database, "psycopg")))
        connection = await psycopg.AsyncConnection.connect(database.dsn, autocommit=True)
        return AsyncClient(await stack.enter_async_context(connection))

    run(work)


def test_client_in_a_request(database: Database, count: Callable[[], int]) -> None:
    """A Starlette endpoint enqueues in the transaction of its request; an error rolls both back."""

    async def sign_up(request: Request) -> JSONResponse:
        async with AsyncSession(request.app.state.engine) as session, session.begin():
            await session.execute(sqlalchemy.text("insert into users values (:id)"), {"id": 3})
            result = await AsyncClient(session).enqueue(app.send_welcome, 3)
            if "fail" in request.query_params:
                raise RuntimeError("after the task was enqueued")
        return JSONResponse({"task": result.id})

    async def work() -> None:
        application = Starlette(routes=[Route("/", sign_up, methods=["POST"])])
        transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
        async with (
            async_engine_of(database, "asyncpg") as application.state.engine,
            httpx.AsyncClient(transport=transport, base_url="http://shop") as browser,
        ):
            assert (await browser.post("/?fail=1")).status_code == 500
            assert count() == 0
            assert (await browser.post("/")).json()["task"] > 0
        assert count() == 1

    with database.connect() as connection:
        connection.execute("create table users (id int)")
    run(work)


DJANGO = """
import sys
import django
from django.conf import settings

name, host, user, port = sys.argv[1:]
database = {"ENGINE": "django.db.backends.postgresql", "NAME": name, "HOST": host, "USER": user, "PORT": port}
settings.configure(DATABASES={"default": database})
django.setup()
from django.db import connection, transaction
from reproq_listen import Client, ReproqError
from tests.apps import client_tasks as app

def count():
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from task_runs")
        return cursor.fetchone()[0]

client = Client("default")
try:
    with transaction.atomic():
        result = client.enqueue(app.send_welcome.using(run_after=app.MINUTE), 3, loud=True)
        raise RuntimeError
except RuntimeError:
    assert count() == 0
with transaction.atomic():
    client.enqueue(app.send_welcome, 3)
client.enqueue_many([app.later.call(1)])
assert count() == 2
assert client.get_result(result.id + 1, app.send_welcome).args == (3,)
try:
    Client("nothing")
except ReproqError as error:
    assert "neither a DSN nor a database in Django's DATABASES" in str(error)
"""


def test_client_on_a_django_alias(database: Database) -> None:
    """In `atomic` with the data, else committed at once."""
    parts = conninfo_to_dict(database.dsn)
    arguments = [str(parts["dbname"]), str(parts["host"]), str(parts["user"]), str(parts.get("port", ""))]
    subprocess.run([sys.executable, "-c", DJANGO, *arguments], cwd=ROOT, check=True)
