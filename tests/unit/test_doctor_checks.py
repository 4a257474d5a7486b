"""Doctor's findings for facts that a test server does not have: old releases, standbys, skewed clocks, old sessions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reproq_listen.db import remedies
from reproq_listen.doctor import access, server, shipped
from reproq_listen.doctor.findings import Level

HEALTHY: dict[str, Any] = {
    "version_number": 180006,
    "version": "18.6",
    "encoding": "UTF8",
    "is_standby": False,
    "is_read_only": False,
    "synchronous_commit": "on",
    "autovacuum": True,
    "notify": "",
    "notification_usage": 0.0,
    "role": "app",
    "database": "d",
    "now": datetime(2026, 1, 1, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("number", "level"),
    [(130020, Level.ERROR), (140000, Level.WARNING), (150018, Level.OK), (180001, Level.WARNING), (190000, Level.OK)],
)
def test_versions(number: int, level: Level) -> None:
    """Before 14 nothing works; before certain minor releases LISTEN may fail."""
    assert server.version({**HEALTHY, "version_number": number}).level is level


def test_doctor_standby_is_an_error() -> None:
    """The remedy names the option that follows a failover."""
    finding = server.writable({**HEALTHY, "is_standby": True})
    assert finding.level is Level.ERROR
    assert "target_session_attrs=read-write" in finding.remedy


@pytest.mark.parametrize(("usage", "level"), [(0.05, Level.OK), (0.2, Level.WARNING), (0.6, Level.ERROR)])
def test_doctor_notification_queue(usage: float, level: Level) -> None:
    """A tenth is a warning, a half is an error: at 1 every enqueue fails."""
    assert server.notification_queue({**HEALTHY, "notification_usage": usage}).level is level


@pytest.mark.parametrize(
    ("off", "level", "said"),
    [(0, Level.OK, "agree"), (-4, Level.OK, "agree"), (90, Level.WARNING, "behind"), (-90, Level.WARNING, "ahead of")],
)
def test_doctor_clock(off: int, level: Level, said: str) -> None:
    """Only what the round trip cannot explain counts, in both directions. `off`: the database's clock from ours."""
    asked = HEALTHY["now"] - timedelta(seconds=off)
    finding = server.clock(HEALTHY, asked, asked + timedelta(milliseconds=5))
    assert finding.level is level
    assert said in finding.what


@pytest.mark.parametrize(("seconds", "level"), [(10.0, Level.OK), (600.0, Level.WARNING), (7200.0, Level.ERROR)])
def test_long_transactions(seconds: float, level: Level) -> None:
    """Five minutes are a warning, an hour is an error; the remedy names the session."""
    oldest = {"pid": 42, "role": "x", "application": "", "state": "idle in transaction", "seconds": seconds}
    finding = server.oldest_transaction({**oldest, "transactions_behind": 1}, "app", may_see=True)
    assert finding.level is level
    assert level is Level.OK or finding.remedy == "select pg_terminate_backend(42);"


def test_doctor_forgotten_prepared_transaction() -> None:
    """Older than five minutes it is an error; its name may hold anything."""
    assert server.prepared_transaction({"gid": "a", "role": "x", "seconds": 10.0}).level is Level.OK
    finding = server.prepared_transaction({"gid": "it's", "role": "x", "seconds": 900.0})
    assert finding.level is Level.ERROR
    assert "commit prepared 'it''s';" in finding.remedy


def test_names_in_remedies_are_quoted() -> None:
    """A remedy can be pasted, whatever the names."""
    assert remedies.commit_durably('Odd "name"') == 'alter role "Odd ""name""" set synchronous_commit = on;'


def test_doctor_what_the_package_expects() -> None:
    """The shipped files are read: functions with body and owner's rights, indexes, the rights of each audience."""
    functions = shipped.functions()
    assert functions["reproq_claim"].is_definer
    assert not functions["_reproq_set_final"].is_definer
    assert "task_runs_one_running_per_lock_key" in shipped.indexes()
    rights = shipped.rights()
    assert set(rights) == {"reproq_worker", "reproq_producer", "reproq_operator", "reproq_observer"}
    assert {"reproq_claim", "reproq_now"} <= rights["reproq_worker"].functions
    assert "reproq_queues" in rights["reproq_observer"].views
    assert rights["reproq_producer"].functions <= functions.keys()


def test_doctor_owner_is_no_superuser() -> None:
    """Functions with the rights of a superuser are a warning."""
    found = {"name": "s", "owner": "postgres", "owner_is_superuser": True}
    assert access.owner(found).level is Level.WARNING
    assert access.owner({**found, "owner_is_superuser": False}).level is Level.OK
