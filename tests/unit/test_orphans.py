"""Sweeps of adopted processes."""

from __future__ import annotations

import os
import signal

import pytest

from reproq_listen.executors.cleanup import orphans
from reproq_listen.executors.cleanup.orphans import Orphans


def test_orphans_process_that_may_not_be_killed_stops_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setuid program runs as another user: the others are killed, and nobody waits for it."""
    killed: list[int] = []

    def kill(pid: int, number: int) -> None:
        if pid in (1001, 1003):
            raise PermissionError
        if number == signal.SIGKILL:
            killed.append(pid)

    children = [orphans._Child(pid, 0, is_dead=False) for pid in (1001, 1002, 1003, 1004)]
    monkeypatch.setattr(orphans, "_children", lambda _: iter(children))
    monkeypatch.setattr(Orphans, "_number_of", lambda _self, _pid: "of an attempt that is over")
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "killpg", kill)
    monkeypatch.setattr(os, "getpgid", lambda pid: pid if pid > 1002 else 1)
    swept = Orphans("tag", None)
    swept.sweep()
    assert killed == [1002, 1004]
    assert swept._killed == {1002, 1004}
