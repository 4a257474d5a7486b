"""A task that tells what a service manager's child must not have."""

from __future__ import annotations

import os


def manager_variables() -> list[str]:
    return sorted({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys())
