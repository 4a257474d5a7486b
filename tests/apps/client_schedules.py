"""Schedules in code."""

from __future__ import annotations

from reproq_listen import Schedule
from tests.apps import client_tasks as app

schedules = [
    Schedule(
        "welcome", cron="0 3 * * *", time_zone="Europe/Vienna", call=app.add.using(timeout=60).call(3, 4, loud=True)
    ),
    Schedule("context", cron="@hourly", call=app.with_context.call([]), misfire="skip", overlap="queue_one"),
]
