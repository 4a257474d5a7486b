"""Checks of the server, its settings, and the transactions of other sessions."""

from __future__ import annotations

from datetime import datetime, timedelta

from reproq_listen.db import remedies
from reproq_listen.db.catalog_queries import Record
from reproq_listen.db.database import NEEDED_ENCODING
from reproq_listen.db.migrations import OLDEST_SERVER
from reproq_listen.doctor.findings import Finding, error, ok, warning

_LISTEN_FIXED = {14: 21, 15: 16, 16: 12, 17: 8, 18: 2}  # minor releases in which LISTEN survives a vacuumed commit log
_MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)
_OLD = 300.0  # seconds of an open transaction that are worth a warning
_TOO_OLD = 3600.0
_QUEUE_HALF = 0.5  # of the notification queue; at 1 every NOTIFY fails at commit
_QUEUE_SOME = 0.1


def version(server: Record) -> Finding:
    """PostgreSQL is new enough, and not a release with a known fault of LISTEN."""
    number, said = server["version_number"], server["version"]
    if number < OLDEST_SERVER:
        return error(
            "version", f"PostgreSQL {said}", "reproq-listen needs 14 or newer", "install PostgreSQL 14 or newer"
        )
    major, minor = divmod(number, 10000)
    if minor < _LISTEN_FIXED.get(major, 0):
        return warning(
            "version",
            f"PostgreSQL {said}",
            "LISTEN can fail after a vacuum (could not access status of transaction); workers then poll",
            f"install PostgreSQL {major}.{_LISTEN_FIXED[major]} or newer",
        )
    return ok("version", f"PostgreSQL {said}")


def encoding(server: Record) -> Finding:
    """The database can hold all text."""
    if server["encoding"] != NEEDED_ENCODING:
        return error(
            "encoding",
            f"the database has the encoding {server['encoding']}",
            "workers and migrations refuse it: a row that cannot be sent would stop every claim",
            f"{remedies.NEW_DATABASE} -- and restore a dump into it",
        )
    return ok("encoding", f"the database has the encoding {NEEDED_ENCODING}")


def writable(server: Record) -> Finding:
    """The server accepts writes."""
    if server["is_standby"]:
        return error(
            "writable",
            "this server is a standby",
            "nothing can be claimed or enqueued on it, and LISTEN fails",
            "name the primary, or all hosts with target_session_attrs=read-write",
        )
    if server["is_read_only"]:
        return error(
            "writable",
            f"transactions of {server['role']} are read-only by default",
            "every claim and every result of a task is refused",
            remedies.reset_for_all(server["role"], server["database"], "default_transaction_read_only")
            + " -- or name the new primary in the DSN",
        )
    return ok("writable", "the server accepts writes")


def durability(server: Record) -> Finding:
    """Acknowledged writes survive a crash of the server."""
    if server["synchronous_commit"] == "off":
        return warning(
            "durability",
            "synchronous_commit is off",
            "after a crash of the server, finished tasks may run again and tasks just enqueued may be lost",
            remedies.commit_durably(server["role"]),
        )
    return ok("durability", f"synchronous_commit is {server['synchronous_commit']}")


def notify(server: Record) -> Finding:
    """Tasks that this role enqueues notify workers."""
    if server["notify"] in ("off", "false", "no", "0"):
        return warning(
            "notify",
            f"reproq.notify is {server['notify']} for {server['role']}",
            "tasks that this role enqueues do not wake workers; polling finds them",
            remedies.reset(server["role"], "reproq.notify"),
        )
    return ok("notify", "enqueueing notifies workers")


def array_nulls(server: Record) -> Finding:
    """Nulls in arrays are nulls."""
    if not server["array_nulls"]:
        return error(
            "array_nulls",
            f"array_nulls is off for {server['role']}",
            "a null in an array becomes the text NULL: results get a path of a log that does not exist",
            remedies.reset_for_all(server["role"], server["database"], "array_nulls"),
        )
    return ok("array_nulls", "array_nulls is on")


def notification_queue(server: Record) -> Finding:
    """There is room for notifications."""
    usage = server["notification_usage"]
    what = f"{usage:.0%} of the notification queue is in use"
    why = "a listening session has a long transaction open; when the queue is full, every enqueue fails at commit"
    remedy = f"find it and end it: {remedies.oldest_transactions()}"
    if usage >= _QUEUE_HALF:
        return error("notification_queue", what, why, remedy)
    if usage >= _QUEUE_SOME:
        return warning("notification_queue", what, why, remedy)
    return ok("notification_queue", what)


def clock(server: Record, asked: datetime, answered: datetime) -> Finding:
    """The clocks of this host and the database agree, up to one round trip. Leases do not depend on it."""
    now: datetime = server["now"]
    off = max(asked - now, now - answered, timedelta(0))
    side = "ahead of" if asked > now else "behind"
    if off > _MAX_CLOCK_DIFFERENCE:
        return warning(
            "clock",
            f"this host is {off.total_seconds():.1f} s {side} the database",
            "the database compares run_after and expires_at, computed here, with its own clock",
            "synchronise both clocks (timedatectl set-ntp true), or let SQL compute: now() + interval '5 minutes'",
        )
    return ok("clock", f"this host and the database agree within {(answered - asked + off).total_seconds():.3f} s")


def oldest_transaction(oldest: Record | None, role: str, *, may_see: bool) -> Finding:
    """No transaction holds back vacuum: every claim reads dead rows that cannot be removed."""
    check = "oldest_transaction"
    who = (
        f"pid {oldest['pid']}, role {oldest['role']}, {oldest['application'] or 'no application name'}"
        if oldest
        else ""
    )
    seconds = oldest["seconds"] if oldest else None
    if not may_see:
        seen = f"; the oldest snapshot is {oldest['transactions_behind']} transactions old: {who}" if oldest else ""
        return warning(
            check,
            f"this role may not see when transactions of other roles began{seen}",
            "a transaction that stays open slows every claim",
            remedies.see_sessions(role),
        )
    if oldest is None:
        return ok(check, "no other session has a transaction open")
    if seconds is None:
        return ok(check, f"a snapshot {oldest['transactions_behind']} transactions old: {who}")
    what = f"open for {seconds:.0f} s ({oldest['state']}): {who}"
    why = "while it is open, dead rows cannot be removed and every claim reads them"
    remedy = remedies.end_session(oldest["pid"])
    if seconds >= _TOO_OLD:
        return error(check, what, why, remedy)
    if seconds >= _OLD:
        return warning(check, what, why, remedy)
    return ok(check, what)


def prepared_transaction(oldest: Record | None) -> Finding:
    """No prepared transaction is old."""
    if oldest is None or oldest["seconds"] < _OLD:
        return ok("prepared_transaction", "none is older than five minutes")
    return error(
        "prepared_transaction",
        f"{oldest['gid']!r} of {oldest['role']} has been prepared for {oldest['seconds']:.0f} s",
        "it keeps its locks and holds back vacuum until it is committed or rolled back",
        remedies.end_prepared(oldest["gid"]),
    )
