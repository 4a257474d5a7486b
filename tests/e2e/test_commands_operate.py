"""Operators' commands on a real server: cancel, replay, triage, prune, limit, queue, status, explain, audit."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from reproq_listen.cli import main as cli
from reproq_listen.cli import operator
from reproq_listen.db.roles import grant
from tests.sql.calls import add, add_many, call, claim, rows, task
from tests.support.commands import Shell, run, run_here
from tests.support.database import ROOT, Database
from tests.support.logins import login


def test_commands_largest_id_is_an_id(shell: Shell) -> None:
    """What the refusal of a larger one allows."""
    shell("cancel", "--id", str(2**63 - 1), code=6)
    assert str(2**63 - 1) in shell("cancel", "--id", str(2**63), code=2).err


def test_cancel(shell: Shell, session: psycopg.Connection) -> None:
    """cancelled and requested are done (0), an ended task is unchanged (5), none is missing (6)."""
    ready, waiting, ended = add(session), add(session, status="WAITING"), add(session, status="SUCCESSFUL")
    running = add(session, queue_name="q")
    claim(session, queues=["q"])
    for result_id, answer, code in (
        *((ready, "cancelled", 0), (waiting, "cancelled", 0), (running, "requested", 0)),
        *((ended, "terminal", 5), (ready, "terminal", 5), (999, "missing", 6)),
    ):
        assert shell.json("cancel", "--id", str(result_id), code=code) == [{"result_id": result_id, "answer": answer}]
    assert "not start" in shell("cancel", f"--id={add(session)}").out


def test_replay(shell: Shell, session: psycopg.Connection) -> None:
    """By id and by hash; an active duplicate is unchanged (5), none is missing (6)."""
    old = add(session, status="FAILED", spec_hash="a" * 64)
    ((new,),) = [[row["result_id"]] for row in shell.json("replay", "--id", str(old))]
    assert task(session, new).status == "READY"
    (found,) = shell.json("replay", "--spec-hash", "a" * 64, code=5)
    assert found == {"source_id": new, "result_id": new, "answer": "already_active"}
    assert shell("replay", "--id", "999", code=6).out == "the task does not exist\n"
    assert shell.json("replay", "--spec-hash", "nope", code=6)[0]["answer"] == "missing"
    assert shell("replay", code=2).err.count("\n") == 1
    shell("replay", "--id", "1", "--spec-hash", "x", code=2)


def failed(session: psycopg.Connection, **columns: Any) -> int:
    error = {"kind": "app_error", "message": "no\nsuch \x1b[31mfile", "traceback": "line 1\n  line 2"}
    return add(session, status="FAILED", errors_json=[error], failed_at="2026-01-01", **columns)


def test_triage_list_and_inspect(shell: Shell, session: psycopg.Connection) -> None:
    """Failed tasks, all or of a queue, counted by kind and message on request; one with its errors and traceback."""
    assert shell("triage", "list").out == "no failed tasks\n"
    first, second, other = failed(session), failed(session), failed(session, queue_name="q")
    assert {row["result_id"] for row in shell.json("triage", "list")} == {first, second, other}
    assert len(shell.json("triage", "list", "--limit", "1")) == 1
    assert [row["result_id"] for row in shell.json("triage", "list", "--queue=q")] == [other]
    assert [row["tasks"] for row in shell.json("triage", "list", "--group")] == [2, 1]
    table = shell("triage", "list", "--group").out
    assert "no\\nsuch \\x1b[31mfile" in table
    assert "\x1b" not in table

    text = shell("triage", "inspect", "--id", str(first)).out
    assert "    line 1\n      line 2\n" in text
    assert "spec_json" not in text
    assert '"task_path":"app.tasks.run"' in shell("triage", "inspect", "--id", str(first), "--payload").out
    (found,) = shell.json("triage", "inspect", "--id", str(first))
    assert (found["status"], found["errors_json"][0]["kind"]) == ("FAILED", "app_error")
    shell("triage", "inspect", "--id", "999", code=6)


def test_triage_retry(shell: Shell, session: psycopg.Connection) -> None:
    """retried (0), not failed (5), missing (6)."""
    result_id = failed(session)
    for answer, code in (("retried", 0), ("not_failed", 5)):
        assert shell.json("triage", "retry", "--id", str(result_id), code=code)[0]["answer"] == answer
    assert shell.json("triage", "retry", "--id", "999", code=6)[0]["answer"] == "missing"
    shell("triage", "retry", code=2)
    shell("triage", "retry", "--id", "1", "--all", code=2)


def test_triage_retry_all(shell: Shell, session: psycopg.Connection) -> None:
    """In batches, an answer for each task, progress on standard error; two that share a spec do not stop the others."""
    ids = [failed(session) for _ in range(118)]
    duplicates = [failed(session, spec_hash="t" * 32) for _ in range(2)]
    failed(session, queue_name="q")
    failed(session, task_path="app.tasks.other")
    ran = shell("triage", "retry", "--all", "--queue", "default", "--task-path", "app.tasks.run", "--output", "json")
    assert {row["result_id"]: row["answer"] for row in ran.json} == {
        **dict.fromkeys([*ids, duplicates[0]], "retried"),
        duplicates[1]: "already_active",
    }
    assert ran.err.splitlines()[0].startswith("50 retried; at task")
    assert ran.err.splitlines()[-1] == "119 retried, 1 already_active"
    assert len(shell.json("triage", "retry", "--all", "--limit", "1", "--pace", "0s")) == 1
    assert shell("triage", "retry", "--all", "--queue", "nope").err == "no failed tasks\n"
    assert shell("triage", "retry", "--all", "--kind", "timeout").err == "no failed tasks\n"
    for flag in ("--queue", "--kind"):  # an empty variable of a script must not mean all
        assert flag in shell("triage", "retry", "--all", flag, "", code=2).err


def test_prune(shell: Shell, session: psycopg.Connection) -> None:
    """Batch by batch until nothing is left, or up to the limit; --dry-run counts and deletes nothing."""
    session.execute(
        "insert into task_runs (spec_json, spec_hash, status, finished_at, expires_at)"
        """ select '{"task_path": "a.b"}', n, 'SUCCESSFUL', now() - interval '3 days', now() - interval '2 days'"""
        " from generate_series(1, 2100) n"
    )
    assert shell.json("prune", "expired", "--dry-run") == [{"would_delete": 2100}]
    assert shell.json("prune", "expired", "--limit", "50") == [{"deleted": 50}]
    assert shell.json("prune", "finished", "--older-than", "4d") == [{"deleted": 0}]
    assert shell.json("prune", "finished", "--older-than", "2d12h", "--dry-run", "--limit=7") == [{"would_delete": 7}]
    ran = shell("prune", "finished", "--older-than", "2d12h", "--limit", "0")
    assert (ran.out, ran.err.splitlines()) == ("deleted 2050\n", ["deleted 1000", "deleted 2000", "deleted 2050"])
    assert shell.json("prune", "audit", "--older-than", "0s", "--dry-run") == [{"would_delete": 4}]
    assert shell("prune", "audit", "--older-than", "0s").out == "deleted 4\n"
    for bad in (["finished"], ["finished", "--older-than", "3"], ["expired", "--limit", "-1"], ["all"], []):
        shell("prune", *bad, code=2)


def test_limit(shell: Shell, session: psycopg.Connection) -> None:
    """set, ls, rm; a limit that is not there is missing (6)."""
    shell("limit", "set", "--key", "queue:q", "--rate", "0.5", "--burst", "3")
    found = {row["key"]: row for row in shell.json("limit", "ls")}["queue:q"]
    assert (found["tokens_per_second"], found["burst_size"], found["tokens"]) == (0.5, 3, 3)
    assert shell.json("limit", "rm", "--key=queue:q") == [{"key": "queue:q", "removed": True}]
    shell("limit", "rm", "--key=queue:q", code=6)
    for key, rate, wrong in (("foo", "1", "--key must be"), ("global", "1e-9", "--rate must be")):
        said = shell("limit", "set", "--key", key, "--rate", rate, code=2).err
        assert (wrong in said, "p_" in said, "reproq_limit" in said) == (True, False, False)
    for bad in ("nan", "-1", "inf", "x", ""):
        assert "--rate" in shell("limit", "set", "--key", "queue:q", f"--rate={bad}", code=2).err


def test_queue(shell: Shell, session: psycopg.Connection) -> None:
    """pause with a reason, ls, resume."""
    add(session, queue_name="q")
    shell("queue", "pause", "--queue", "q", "--reason", "deploy")
    (found,) = shell.json("queue", "ls")
    assert (found["queue_name"], found["ready"], found["paused"], found["paused_reason"]) == ("q", 1, True, "deploy")
    shell("queue", "resume", "--queue", "q")
    assert claim(session, queues=["q"]) != []


def test_status_and_workers(shell: Shell, session: psycopg.Connection) -> None:
    """Queues with their states, throttles, busy keys and who holds them; workers, dead ones too."""
    for worker in ("w1", "w2"):
        call(session, "reproq_register_worker", worker_id=worker, hostname="h", concurrency=3, queues=["default"])
    session.execute("update reproq_workers set last_seen_at = now() - interval '1 hour' where worker_id = 'w2'")
    add_many(session, 3, lock_key="key")
    add(session, run_after="2030-01-01")
    add(session, status="WAITING")
    (got,) = claim(session)
    shell("limit", "set", "--key", "global", "--rate", "0.001")
    add(session)
    claim(session)
    claim(session)
    add(session, priority=1)
    (found,) = shell.json("status")
    (queue,) = found["queues"]
    counts = ("ready", "throttled", "blocked", "scheduled", "waiting", "running")
    assert [queue[name] for name in counts] == [1, 1, 2, 1, 1, 2]
    assert queue["throttled_until"]
    (blocked,) = found["blocked"]
    assert (blocked["waits_for"], blocked["key"], blocked["tasks"], blocked["held_by"]) == (
        "lock_key",
        "key",
        2,
        [got.result_id],
    )
    assert [(w["worker_id"], w["alive"], w["running"]) for w in found["workers"]] == [("w1", True, 2), ("w2", False, 0)]
    assert [row["worker_id"] for row in shell.json("workers", "ls")] == ["w1", "w2"]
    text = shell("status").out
    assert "busy keys" in text
    assert "workers" in text


def test_tasks_behind_an_empty_bucket_are_told_apart(shell: Shell, session: psycopg.Connection) -> None:
    """Whatever the bucket is for: a task of one path may be throttled while its queue is not."""
    shell("limit", "set", "--key", "task:app.slow", "--rate", "0.001")
    add_many(session, 3, task_path="app.slow")
    add(session, task_path="app.fast")
    claim(session, limit=1)
    (queue,) = shell.json("queue", "ls")
    assert (queue["ready"], queue["throttled"], queue["throttled_until"]) == (3, 2, None)
    assert "throttled" in shell("status").out


def test_explain(shell: Shell, session: psycopg.Connection) -> None:
    """The reasons and their remedies, by word or flag; a missing task is 6."""
    result_id = add(session, run_after="2030-01-01")
    (blocked, *_) = shell.json("explain", str(result_id))
    assert (blocked["blocks"], blocked["reason"]) == (True, "due_later")
    text = shell("explain", "--id", str(result_id)).out
    assert "blocked: due_later" in text
    assert f"where result_id = {result_id}" in text
    assert "nothing blocks" in shell("explain", str(add(session))).out
    shell("explain", "999", code=6)
    for bad in (["x"], ["0"], ["-1"], [str(2**63)], [], ["1", "2"]):
        shell("explain", *bad, code=2)


def test_audit_and_reasons(shell: Shell, session: psycopg.Connection) -> None:
    """--reason of every operator's command is in the audit log, in the transaction of what it does."""
    failed_one, ready = failed(session), add(session)
    add(session, status="SUCCESSFUL", finished_at="2020-01-01", expires_at="2020-01-01")
    reason = ["--reason", "ticket 42: \"why\"; 'not'"]
    shell("triage", "retry", "--id", str(failed_one), *reason)
    shell("cancel", "--id", str(ready), *reason)
    shell("replay", "--id", str(ready), *reason)
    shell("queue", "pause", "--queue", "q", *reason)
    shell("queue", "resume", "--queue", "q", *reason)
    shell("limit", "set", "--key", "global", "--rate", "9", *reason)
    shell("limit", "rm", "--key", "global", *reason)
    shell("prune", "expired", *reason)
    shell("schedule", "set", "--name", "s", "--cron", "@daily", "--task-path", "a.b", *reason)
    shell("schedule", "rm", "--name", "s", *reason)
    found = shell.json("audit")
    assert [row["what"] for row in reversed(found)] == [
        *("retry", "cancel", "replay", "pause", "resume", "limit_set", "limit_rm", "prune_expired"),
        *("schedule_set", "schedule_rm"),
    ]
    assert {row["why"] for row in found} == {reason[1]}
    assert {row["origin"].split()[-1] for row in found} == {"reproq-listen"}
    assert len(shell.json("audit", "--limit", "3")) == 3


COMMANDS = (
    *("cancel --id 1", "replay --id 1", "triage list", "triage retry --all", "prune expired", "limit ls"),
    *("queue ls", "workers ls", "status", "explain 1", "audit", "enqueue a.b", "schedule ls", "beat --once"),
    "workflow chain --file /dev/null",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_database_without_the_schema(empty_database: Database, command: str) -> None:
    """Exit code 3, with the remedy."""
    ran = run_here(*command.split(), "--dsn", empty_database.dsn)
    assert (ran.code, ran.out) == (3, "")
    assert "migrate --dsn" in ran.err


def test_commands_schema_of_another_contract(empty_database: Database) -> None:
    """Exit code 3, in a schema of any name."""
    with empty_database.connect() as connection:
        connection.execute(
            "create schema other; create function other.reproq_contract() returns int language sql as 'select 7'"
        )
    ran = run_here("status", "--dsn", empty_database.dsn, "--schema", "other")
    assert (ran.code, "contract 7" in ran.err, "--schema other" in ran.err) == (3, True, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_database(command: str) -> None:
    """No DSN: 2, it says how to give one. No server: 4. The password is never shown."""
    ran = run_here(*command.split())
    assert (ran.code, "DATABASE_URL" in ran.err) == (2, True)
    if command != "beat --once":  # which waits for its database
        ran = run_here(*command.split(), "--dsn", "host=/nowhere password=hunter2")
        assert (ran.code, "hunter2" in ran.err) == (4, False)


def test_as_a_process(database: Database) -> None:
    """The program itself: its output, an error as one line, a reader that goes away."""
    ran = run("limit", "ls", "--output=json", env={"DATABASE_URL": database.dsn})
    assert (ran.code, ran.json[0]["key"], ran.err) == (0, "global", "")
    ran = run("cancel", "--id", "x", env={"DATABASE_URL": database.dsn})
    assert (ran.code, ran.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", sorted({command.split()[0] for command in COMMANDS}))
def test_help_documents_exit_codes(command: str) -> None:
    """--help teaches, and needs no database."""
    ran = run_here(command, "--help")
    assert ran.code == 0
    assert "Exit codes" in ran.out
    assert "--dsn DSN" in ran.out


def test_commands_row_that_somebody_holds(shell: Shell, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators wait for it a while, then are told; nothing is changed."""
    monkeypatch.setattr(operator, "_BUSY_LIMIT", 1.0)
    with database.connect() as session, database.connect(autocommit=False) as other:
        result_id = add(session)
        other.execute("select from task_runs where result_id = %s for update", [result_id])
        assert "Try again" in shell("cancel", "--id", str(result_id), code=1).err
        other.rollback()
        assert rows(session, "select status from task_runs")[0].status == "READY"
        shell("cancel", "--id", str(result_id))


def test_commands_role_without_rights(database: Database) -> None:
    """Said in words, with the remedy."""
    name = f"nobody_{database.name}"
    role = sql.Identifier(name)
    with database.connect() as session:
        session.execute(sql.SQL("create role {} login").format(role))
        try:
            session.execute(sql.SQL("grant execute on function reproq_contract() to {}").format(role))
            ran = run_here("status", "--dsn", f"{database.dsn} user={name}")
            assert (ran.code, "permission denied" in ran.err, "grants --help" in ran.err) == (1, True, True)
            session.execute(sql.SQL("revoke all on function reproq_contract() from {}").format(role))
        finally:
            session.execute(sql.SQL("drop role {}").format(role))


@pytest.mark.parametrize(
    ("command", "group"),
    [
        ("status", "reproq_operator"),
        ("enqueue a.b", "reproq_producer"),
        ("worker --drain", "reproq_worker"),
        ("beat --once", "reproq_worker"),
    ],
)
def test_commands_remedy_of_a_role_without_any_right(database: Database, command: str, group: str) -> None:
    """Exit code 1 at once; the commands it names, run as the owner, are the remedy."""
    owner = str(conninfo_to_dict(database.dsn)["user"])
    with login(database) as dsn:
        ran = run(*command.split(), env={"DATABASE_URL": dsn})
        assert (ran.code, ran.out, "migrate" in ran.err, "password" in ran.err) == (1, "", False, False)
        assert "permission denied" in ran.err
        found = re.search("reproq-listen (grants .*), then in psql: (grant .*;)", ran.err)
        assert found is not None
        words, statement = shlex.split(found[1].replace("OWNER", owner)), found[2]
        assert statement.startswith(f"grant {group} to ")
        assert run_here(*words).code == 0
        with database.connect() as session:
            session.execute(statement.encode())
        assert run(*command.split(), env={"DATABASE_URL": dsn}).code == 0


def test_commands_observers_status(database: Database, session: psycopg.Connection) -> None:
    """Queues and workers are shown; keys are for operators, and that is said."""
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    add_many(session, 2, lock_key="secret")
    claim(session)
    claim(session)
    with login(database, "reproq_observer") as dsn:
        as_text, as_json = (run_here("status", *more, env={"DATABASE_URL": dsn}) for more in ((), ("--output", "json")))
    assert (as_text.code, as_json.code) == (0, 0)
    assert "busy keys are not shown" in as_text.out
    assert "reproq_operator" in as_text.out
    (found,) = as_json.json
    assert (found["blocked"], found["queues"][0]["blocked"], found["workers"]) == (None, 1, [])


@pytest.mark.parametrize("command", ["worker --drain", "beat --once"])
@pytest.mark.parametrize("group", ["reproq_producer", "reproq_operator", "reproq_observer"])
def test_commands_who_may_not_work_is_told_at_once(database: Database, command: str, group: str) -> None:
    """A right that is missing does not come by waiting for it: exit code 1 and the remedy, as everywhere."""
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with login(database, group) as dsn:
        began = time.monotonic()
        ran = run(*command.split(), env={"DATABASE_URL": dsn})
    assert (ran.code, ran.out) == (1, "")
    assert "this role may not do that: permission denied" in ran.err
    assert "see grants --help" in ran.err
    assert time.monotonic() - began < 30


def test_interrupted(shell: Shell, database: Database, session: psycopg.Connection) -> None:
    """Ctrl-C ends a command with 130 and no traceback; what it had done is done, and said."""
    for _ in range(51):
        failed(session)
    command = [sys.executable, "-m", "reproq_listen", "triage", "retry", "--all", "--pace", "1h", "--output", "json"]
    with subprocess.Popen(
        [*command, "--dsn", database.dsn], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("50 retried; at task")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)
    assert (process.returncode, err, out.count("\n")) == (130, "", 50)
    assert rows(session, "select count(*) as n from task_runs where status = 'READY'")[0].n == 50


@pytest.mark.parametrize("flags", [(), ("--output", "json")])
def test_commands_reader_that_is_gone_and_a_disk_that_is_full(database: Database, flags: tuple[str, ...]) -> None:
    """A reader that has seen enough: 141, as SIGPIPE has it, without a word. A full disk: 1, said in one line."""
    command = [sys.executable, "-m", "reproq_listen", "limit", "ls", "--dsn", database.dsn, *flags]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=15, check=False
        )
    assert (done.returncode, done.stderr.count("\n"), "cannot be written" in done.stderr) == (1, 1, True)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=15, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_any_locale(database: Database, session: psycopg.Connection) -> None:
    """JSON is UTF-8 in every locale; a table shows what the terminal cannot as escapes."""
    session.execute("select reproq_pause('qü🐘')")
    env = {"DATABASE_URL": database.dsn, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "reproq_listen", "queue", "ls"]
    text, as_json = (
        subprocess.run(
            [*command, *flags], cwd=ROOT, env={**os.environ, **env}, capture_output=True, timeout=15, check=False
        )
        for flags in ((), ("--output", "json"))
    )
    assert (text.returncode, as_json.returncode, text.stderr, as_json.stderr) == (0, 0, b"", b"")
    assert b"q\xfc\\U0001f418" in text.stdout
    assert json.loads(as_json.stdout)["queue_name"] == "qü🐘"


def test_commands_every_command_has_json(capsys: pytest.CaptureFixture[str]) -> None:
    """All but those that run until told to stop, and the demo."""
    for command in cli.COMMANDS:
        assert cli.main([command, "--help"]) == 0
        assert ("--output FORMAT" in capsys.readouterr().out) == (command not in ("worker", "demo", "docs")), command
