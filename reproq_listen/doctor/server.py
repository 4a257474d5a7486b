"""Checks of the server and its settings, and of other people's transactions."""

from __future__ import annotations

from datetime import datetime, timedelta

from reproq_listen.db import remedies as cures
from reproq_listen.db.catalog_queries import Record
from reproq_listen.db.migrations import OLDEST_SERVER
from reproq_listen.doctor.findings import Finding, error, ok, warning

_LISTEN_MENDED = {
    14: 21,
    15: 16,
    16: 12,
    17: 8,
    18: 2,
}  # minor releases since which LISTEN survives a vacuumed commit log
_MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)
_OLD = 300.0  # seconds that a transaction may be open before it is worth a word
_TOO_OLD = 3600.0
_QUEUE_HALF = 0.5  # of the notification queue; at 1 every NOTIFY fails at commit
_QUEUE_SOME = 0.1


def version(server: Record) -> Finding:
    """PostgreSQL is new enough, and not one whose LISTEN is known to fail."""
    number, said = server["version_number"], server["version"]
    if number < OLDEST_SERVER:
        return error(
            "version", f"PostgreSQL {said}", "reproq-listen needs 14 or newer", "install PostgreSQL 14 or newer"
        )
    major, minor = divmod(number, 10000)
    if minor < _LISTEN_MENDED.get(major, 0):
        return warning(
            "version",
            f"PostgreSQL {said}",
            "LISTEN can fail there after a vacuum (could not access status of transaction); workers then poll",
            f"install PostgreSQL {major}.{_LISTEN_MENDED[major]} or newer",
        )
    return ok("version", f"PostgreSQL {said}")


def writable(server: Record) -> Finding:
    """The server takes writes."""
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
            "every claim and every end of a task is refused",
            cures.reset_for_all(server["role"], server["database"], "default_transaction_read_only")
            + " -- or name the new primary in the DSN",
        )
    return ok("writable", "the server takes writes")


def durability(server: Record) -> Finding:
    """What was acknowledged survives a crash of the server."""
    if server["synchronous_commit"] == "off":
        return warning(
            "durability",
            "synchronous_commit is off",
            "after a crash of the server, tasks that had ended may run again and tasks just enqueued may be gone",
            cures.commit_durably(server["role"]),
        )
    return ok("durability", f"synchronous_commit is {server['synchronous_commit']}")


def bell(server: Record) -> Finding:
    """What this role writes rings."""
    if server["notify"] in ("off", "false", "no", "0"):
        return warning(
            "notify",
            f"reproq.notify is {server['notify']} for {server['role']}",
            "tasks that this role enqueues wake nobody; they are found by polling",
            cures.reset(server["role"], "reproq.notify"),
        )
    return ok("notify", "enqueueing notifies workers")


def notification_queue(server: Record) -> Finding:
    """There is room for notifications."""
    usage = server["notification_usage"]
    what = f"{usage:.0%} of the notification queue is taken"
    why = "a session that listens stands in a long transaction; when the queue is full every enqueue fails at commit"
    cure = f"find it and end it: {cures.oldest_transactions()}"
    if usage >= _QUEUE_HALF:
        return error("notification_queue", what, why, cure)
    if usage >= _QUEUE_SOME:
        return warning("notification_queue", what, why, cure)
    return ok("notification_queue", what)


def clock(server: Record, asked: datetime, answered: datetime) -> Finding:
    """This host's clock agrees with the database's, to the accuracy of one round trip. Leases do not depend on it."""
    now: datetime = server["now"]
    off = max(asked - now, now - answered, timedelta(0))
    side = "ahead of" if asked > now else "behind"
    if off > _MAX_CLOCK_DIFFERENCE:
        return warning(
            "clock",
            f"this host is {off.total_seconds():.1f} s {side} the database",
            "run_after and expires_at that are computed here are judged by the database's clock",
            "synchronise both clocks (timedatectl set-ntp true), or let SQL compute: now() + interval '5 minutes'",
        )
    return ok("clock", f"this host and the database agree within {(answered - asked + off).total_seconds():.3f} s")


def oldest_transaction(oldest: Record | None, role: str, *, may_see: bool) -> Finding:
    """Nobody holds back vacuum: every claim steps over dead rows that cannot be removed."""
    check = "oldest_transaction"
    who = (
        f"pid {oldest['pid']}, role {oldest['role']}, {oldest['application'] or 'no application name'}"
        if oldest
        else ""
    )
    seconds = oldest["seconds"] if oldest else None
    if not may_see:
        seen = f"; the oldest snapshot is {oldest['transactions_behind']} transactions old, of {who}" if oldest else ""
        return warning(
            check,
            f"this role may not see when the transactions of others began{seen}",
            "a transaction left open slows every claim",
            cures.see_sessions(role),
        )
    if oldest is None:
        return ok(check, "no other session has a transaction open")
    if seconds is None:
        return ok(check, f"a snapshot {oldest['transactions_behind']} transactions old, of {who}")
    what = f"open for {seconds:.0f} s ({oldest['state']}): {who}"
    why = "while it is open, dead rows cannot be removed and every claim steps over them"
    cure = cures.end_session(oldest["pid"])
    if seconds >= _TOO_OLD:
        return error(check, what, why, cure)
    if seconds >= _OLD:
        return warning(check, what, why, cure)
    return ok(check, what)


def prepared_transaction(oldest: Record | None) -> Finding:
    """No prepared transaction was forgotten."""
    if oldest is None or oldest["seconds"] < _OLD:
        return ok("prepared_transaction", "none is older than five minutes")
    return error(
        "prepared_transaction",
        f"{oldest['gid']!r} of {oldest['role']} has been prepared for {oldest['seconds']:.0f} s",
        "it holds its locks and keeps dead rows from being removed, until somebody ends it",
        cures.end_prepared(oldest["gid"]),
    )
