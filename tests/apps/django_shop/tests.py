"""Run by `manage.py test` in tests/django/: inside of Django's transactions, on Django's test database."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils import timezone

from reproq_listen import InvalidArgumentsError, InvalidTaskError
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
