"""Run by `manage.py test` in tests/django/: inside of Django's transactions, on Django's test database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast
from unittest import mock

from django.db import connection, connections, transaction
from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.utils import timezone
from psycopg.conninfo import conninfo_to_dict

from reproq_listen import Discard, InvalidArgumentsError, InvalidTaskError, Retry, Snooze, TaskContext
from reproq_listen.child.payload import Spec
from reproq_listen.django.database import dsn
from tests.apps.django_shop import tasks

BACKEND = "reproq_listen.django.ReproqBackend"


def row(result_id: str) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("select to_jsonb(t) from task_runs t where result_id = %s", [int(result_id)])
        ((found,),) = cursor.fetchall()
    return found if isinstance(found, dict) else json.loads(found)


class EnqueueTests(TestCase):
    """In the transaction of the test: the backend writes into it, and Django rolls it back."""

    def test_result_is_ready(self) -> None:
        result = tasks.add.enqueue(1, b=2)
        self.assertEqual(result.status, TaskResultStatus.READY)
        self.assertFalse(result.is_finished)
        self.assertEqual((result.args, result.kwargs), ([1], {"b": 2}))
        again = tasks.add.get_result(result.id)
        self.assertEqual((again.id, again.task, again.args, again.kwargs), (result.id, tasks.add, [1], {"b": 2}))
        self.assertEqual((again.attempts, again.errors, again.worker_ids), (0, [], []))
        self.assertIsNotNone(again.enqueued_at)
        with self.assertRaises(ValueError):
            _ = again.return_value

    def test_options_reach_the_row(self) -> None:
        found = row(tasks.send.enqueue(3).id)
        self.assertEqual((found["queue_name"], found["priority"]), ("mail", 7))
        self.assertEqual((found["max_attempts"], found["lock_key"]), (2, "user:3"))
        when = timezone.now() + timedelta(hours=1)
        found = row(tasks.send.using(priority=-5, run_after=when, reproq={"max_attempts": 9}).enqueue(4).id)
        self.assertEqual((found["priority"], found["max_attempts"], found["lock_key"]), (-5, 9, "user:4"))
        self.assertEqual(found["run_after"][:16], when.isoformat()[:16])

    def test_wrong_arguments_are_found_at_once(self) -> None:
        with self.assertRaises(InvalidArgumentsError):
            tasks.add.enqueue()
        with self.assertRaises(TypeError):
            tasks.add.enqueue(object())
        with self.assertRaises(InvalidTaskError):
            tasks.add.using(reproq={"max_attempt": 1})
        with self.assertRaises(InvalidTask):
            tasks.add.using(priority=101)

    def test_missing_result(self) -> None:
        for result_id in ("1", "99999999999999999999", "x", ""):
            with self.assertRaises(TaskResultDoesNotExist):
                tasks.add.get_result(result_id)

    def test_signal_is_sent(self) -> None:
        seen = []

        def note(task_result: Any, **_: object) -> None:
            seen.append(task_result.id)

        task_enqueued.connect(note)
        try:
            result = tasks.add.enqueue(1)
        finally:
            task_enqueued.disconnect(note)
        self.assertEqual(seen, [result.id])

    async def test_async(self) -> None:
        result = await tasks.later.aenqueue(1)
        again = await tasks.later.aget_result(result.id)
        self.assertEqual(again.status, TaskResultStatus.READY)

    def test_plain_call_runs_here(self) -> None:
        self.assertEqual(tasks.add.call(1, 2), 3)

    def test_backend_supports_all(self) -> None:
        backend = task_backends["default"]
        self.assertTrue(backend.supports_defer and backend.supports_async_task)
        self.assertTrue(backend.supports_get_result and backend.supports_priority)
        self.assertEqual(backend.check(), [])

    @override_settings(
        TASKS={"default": {"BACKEND": "reproq_listen.django.ReproqBackend", "OPTIONS": {"DATABASE": "no"}}}
    )
    def test_check_names_the_setting(self) -> None:
        (error,) = task_backends["default"].check()
        self.assertIn("DATABASE", error.msg)
        self.assertIn("default", error.hint)


class CommitTests(TransactionTestCase):
    """Committed together with the rest of the transaction, or not at all."""

    def count(self) -> int:
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from task_runs")
            ((found,),) = cursor.fetchall()
        return int(found)

    def test_rolled_back(self) -> None:
        before = self.count()
        with self.assertRaises(RuntimeError), transaction.atomic():
            tasks.add.enqueue(1)
            raise RuntimeError
        self.assertEqual(self.count(), before)
        with transaction.atomic():
            tasks.add.enqueue(1)
            self.assertEqual(self.count(), before + 1)
        self.assertEqual(self.count(), before + 1)


class NoWorker:
    """The link of a task that can ask no worker: then its spec says what its limits are."""

    def requests(self) -> Any:
        raise OSError


@contextmanager
def finished() -> Iterator[list[TaskResultStatus]]:
    """What `task_finished` was sent with."""
    found: list[TaskResultStatus] = []

    def note(sender: Any, task_result: Any, **kwargs: Any) -> None:
        found.append(task_result.status)

    task_finished.connect(note)
    yield found
    task_finished.disconnect(note)


def attempt(task: Any, number: int, *args: object) -> None:
    """Run a task as the process of a worker does, in its attempt `number` of 2."""
    spec = {"v": 1, "task_path": task.module_path, "args": [], "kwargs": {}, "exec": {"max_attempts": 2}}
    task(TaskContext(1, number, Spec(json.dumps(spec)), cast("Any", NoWorker()), task.write_result), *args)


class SignalTests(SimpleTestCase):
    """`task_finished` is sent once, when it is known how the task ends."""

    def test_success(self) -> None:
        with finished() as found:
            attempt(tasks.add, 1, 1)
        self.assertEqual(found, [TaskResultStatus.SUCCESSFUL])

    def test_last_attempt_fails(self) -> None:
        for task, argument, error in ((tasks.fail, "sku", LookupError), (tasks.wish, "retry", Retry)):
            for number, ends in ((1, []), (2, [TaskResultStatus.FAILED])):
                with finished() as found, self.assertRaises(error):
                    attempt(task, number, argument)
                self.assertEqual(found, ends)

    def test_snoozed_task_goes_on_after_its_last_attempt(self) -> None:
        for number in (1, 2):
            with finished() as found, self.assertRaises(Snooze):
                attempt(tasks.wish, number, "snooze")
            self.assertEqual(found, [])

    def test_discarded_task_ends_with_its_first_attempt(self) -> None:
        with finished() as found, self.assertRaises(Discard):
            attempt(tasks.wish, 1, "discard")
        self.assertEqual(found, [TaskResultStatus.FAILED])

    def test_result_that_is_no_json_is_a_failure(self) -> None:
        with finished() as found, self.assertRaisesRegex(Exception, "cannot be stored as JSON"):
            attempt(tasks.unserializable, 1)
        self.assertEqual(found, [TaskResultStatus.FAILED])


class DatabaseTests(SimpleTestCase):
    def test_dsn_has_the_options_of_the_driver(self) -> None:
        """Those that are Django's own stay out."""
        options = {"sslmode": "prefer", "options": "-c search_path=app", "connect_timeout": 5, "isolation_level": 1}
        given = {**connections["default"].settings_dict, "OPTIONS": options}
        with mock.patch.object(connections["default"], "settings_dict", given):
            found = conninfo_to_dict(dsn("default"))
        self.assertEqual((found["options"], str(found["connect_timeout"])), ("-c search_path=app", "5"))
        self.assertNotIn("isolation_level", found)
