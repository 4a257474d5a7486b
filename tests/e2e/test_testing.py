"""The fixtures that applications test with: `reproq_listen.testing`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from reproq_listen import Client, chain, chord
from reproq_listen.db.errors import DatabaseAway
from reproq_listen.testing import Clock, DrainingWorker, EnqueuedTasks, TestDatabase
from reproq_listen.testing.worker import WORKER_ID
from tests.apps import testing_tasks as tasks


@pytest.fixture(scope="session")
def reproq_server(server_dsn: str) -> str:
    """The server that all our tests share."""
    return server_dsn


def answers(worker: DrainingWorker) -> list[str]:
    return [attempt.answer for attempt in worker.drain()]


def test_drain_runs_tasks_in_this_process(reproq_client: Client, reproq_worker: DrainingWorker) -> None:
    """What a task leaves in its module is seen here, and the result is stored."""
    tasks.sent.clear()
    result = reproq_client.enqueue(tasks.send_welcome, 3, loud=True)
    (attempt,) = reproq_worker.drain()
    assert (attempt.result_id, attempt.task_path, attempt.attempt) == (result.id, tasks.send_welcome.module_path, 1)
    assert (attempt.answer, attempt.error) == ("ok", None)
    assert tasks.sent == [3]
    result.refresh()
    assert result.return_value == "welcome 3!"
    assert reproq_worker.drain() == []


def test_drain_runs_what_comes_due_by_it(reproq_client: Client, reproq_worker: DrainingWorker) -> None:
    """Steps of a chain; the callback of a chord, which reads the results of the members."""
    reproq_client.enqueue(chain(tasks.add.call(1), tasks.add.call(2)))
    work = reproq_client.enqueue(chord([tasks.add.call(number) for number in range(4)], tasks.total.call()))
    assert answers(reproq_worker) == ["ok"] * 7
    work.result.refresh()
    assert work.result.return_value == 1 + 2 + 3 + 4


def test_drain_leaves_other_queues(reproq_client: Client, reproq_worker: DrainingWorker) -> None:
    reproq_client.enqueue(tasks.send_welcome, 1)
    reproq_client.enqueue(tasks.add, 1)
    assert [attempt.task_path for attempt in reproq_worker.drain(["mail"])] == [tasks.send_welcome.module_path]
    assert len(reproq_worker.drain()) == 1


def test_drain_failure_is_stored_and_raised_on_request(reproq_client: Client, reproq_worker: DrainingWorker) -> None:
    """The error itself, with the frames of the task."""
    result = reproq_client.enqueue(tasks.fail, "first")
    (attempt,) = reproq_worker.drain()
    assert attempt.answer == "retry"
    assert attempt.error is not None
    assert (attempt.error.exception_class, attempt.error.message) == ("LookupError", "first")
    reproq_client.enqueue(tasks.fail, "second")
    with pytest.raises(LookupError, match="second") as raised:
        reproq_worker.drain(raise_errors=True)
    assert raised.traceback[-1].name == "fail"
    result.refresh()
    assert [error.message for error in result.errors] == ["first"]


def test_drain_obeys_what_a_task_asks_for(
    reproq_client: Client, reproq_worker: DrainingWorker, reproq_clock: Clock
) -> None:
    """Retry and Snooze come back when the clock says so; Discard does not."""
    for how in ("retry", "snooze", "discard"):
        reproq_client.enqueue(tasks.ask_again, how)
    first = reproq_worker.drain()
    assert first[-1].answer == "failed"
    assert reproq_worker.drain() == []
    reproq_clock.travel(minutes=1, seconds=1)
    assert [attempt.attempt for attempt in reproq_worker.drain()] == [1]
    reproq_clock.travel(timedelta(hours=1))
    assert sorted(attempt.attempt for attempt in reproq_worker.drain()) == [1, 2]


def test_drain_stores_metadata(
    reproq_client: Client, reproq_worker: DrainingWorker, reproq_database: TestDatabase
) -> None:
    reproq_client.enqueue(tasks.report)
    assert answers(reproq_worker) == ["ok"]
    with reproq_database.connect() as connection:
        assert connection.execute("select metadata_json ->> 'pages' from task_runs").fetchall() == [("3",)]


def test_drain_ends_an_endless_loop(
    reproq_client: Client, reproq_worker: DrainingWorker, reproq_database: TestDatabase
) -> None:
    reproq_client.enqueue(tasks.endless, reproq_database.dsn)
    with pytest.raises(AssertionError, match="10 attempts"):
        reproq_worker.drain(max_attempts=10)


def test_drain_async_works_in_a_running_loop(reproq_client: Client, reproq_worker: DrainingWorker) -> None:
    """An `async` task has an event loop of its own."""
    result = reproq_client.enqueue(tasks.later, 21)
    assert [attempt.answer for attempt in asyncio.run(reproq_worker.drain_async())] == ["ok"]
    result.refresh()
    assert result.return_value == 42


def test_clock_travels_both_ways(reproq_clock: Clock) -> None:
    before = reproq_clock.now
    reproq_clock.travel(days=2)
    assert timedelta(days=2) <= reproq_clock.now - before < timedelta(days=2, minutes=1)
    reproq_clock.travel(timedelta(days=-4))
    assert reproq_clock.now - before < timedelta(days=-1)


def test_assert_enqueued_compares_by_the_signature(reproq_client: Client, assert_enqueued: EnqueuedTasks) -> None:
    """Positional or by name, defaults or not; without arguments any."""
    result = reproq_client.enqueue(tasks.send_welcome, 3)
    assert assert_enqueued(tasks.send_welcome, user_id=3).id == result.id
    assert_enqueued(tasks.send_welcome, 3, loud=False)
    assert_enqueued(tasks.send_welcome)
    assert_enqueued.none(tasks.send_welcome, 4)
    assert_enqueued.none(tasks.add)
    with pytest.raises(AssertionError, match="is enqueued: result_id"):
        assert_enqueued.none(tasks.send_welcome, 3)


def test_assert_enqueued_without_arguments_takes_rows_that_do_not_fit(
    reproq_client: Client, assert_enqueued: EnqueuedTasks, reproq_database: TestDatabase
) -> None:
    """SQL checks no signature. Such a row is a task of that path, and no task with these arguments."""
    with reproq_database.connect() as session:
        session.execute("select reproq_enqueue(%s, '[1, 2, 3, 4]')", [tasks.add.module_path])
    assert_enqueued(tasks.add)
    result = reproq_client.enqueue(tasks.add, 1)
    assert assert_enqueued(tasks.add, 1).id == result.id


def test_worker_without_a_database_leaves_no_thread() -> None:
    with pytest.raises(DatabaseAway), DrainingWorker("host=/nowhere dbname=nothing"):
        raise AssertionError
    assert not [thread for thread in threading.enumerate() if thread.name == WORKER_ID]


def test_assert_enqueued_says_what_waits(
    reproq_client: Client, assert_enqueued: EnqueuedTasks, reproq_worker: DrainingWorker
) -> None:
    with pytest.raises(AssertionError, match="No task waits"):
        assert_enqueued(tasks.add, 1)
    reproq_client.enqueue(tasks.add, 1)
    with pytest.raises(AssertionError, match=r"add\(5\) of queue default.*\n.*add args=\[1\]"):
        assert_enqueued(tasks.add, 5)
    reproq_client.enqueue(tasks.add.using(priority=7), 5)
    with pytest.raises(AssertionError, match="priority 0"):
        assert_enqueued(tasks.add, 5)
    assert_enqueued(tasks.add.using(priority=7), 5)
    reproq_worker.drain()
    assert_enqueued.none(tasks.add)


@pytest.mark.parametrize("turn", [1, 2])
def test_database_is_fresh_for_each_test(reproq_client: Client, reproq_database: TestDatabase, turn: int) -> None:
    del turn
    with reproq_database.connect() as connection:
        assert connection.execute("select count(*) from task_runs").fetchone() == (0,)
    reproq_client.enqueue(tasks.add, 1)


def test_plugin_costs_other_projects_nothing() -> None:
    """pytest imports it wherever the package is installed."""
    code = (
        "import sys, pytest; before = set(sys.modules); import reproq_listen.testing.plugin;"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('reproq_listen')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) <= {"json", "json.decoder", "json.encoder", "json.scanner", "_json"}
