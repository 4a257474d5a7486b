"""Producers' commands on a real server: enqueue, workflow, schedule."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.sql.calls import claim, complete, rows, task, value
from tests.support.commands import Shell, run_here


def test_enqueue_returns_a_duplicate(shell: Shell, session: psycopg.Connection) -> None:
    """The defaults are the database's; with --dedupe a duplicate is returned, without it there is none."""
    (first,) = shell.json("enqueue", "app.tasks.run", "--dedupe")
    (second,) = shell.json("enqueue", "app.tasks.run", "--dedupe")
    (third,) = shell.json("enqueue", "app.tasks.run")
    assert (first["created"], second["created"], third["created"]) == (True, False, True)
    assert first["result_id"] == second["result_id"] != third["result_id"]
    by_sql = value(session, "select reproq_enqueue('app.tasks.run', p_dedupe => true)")
    assert by_sql == first["result_id"]
    assert "is there already" in shell("enqueue", "app.tasks.run", "--dedupe").out


def test_enqueue_with_a_unique_key(shell: Shell, session: psycopg.Connection) -> None:
    """The flags are the parameters of reproq_enqueue; a replaced task has the new arguments."""
    (first,) = shell.json("enqueue", "app.tasks.run", "--unique-key", "k", "--in", "1h")
    flags = ("--unique-key", "k", "--unique-while", "active", "--unique-for", "1d")
    (second,) = shell.json("enqueue", "app.tasks.run", "--args", "[2]", *flags, "--on-duplicate", "replace")
    assert (second["result_id"], second["created"]) == (first["result_id"], False)
    assert value(session, "select spec_json -> 'args' from task_runs") == [2]
    complete(session, *claim(session))
    assert shell.json("enqueue", "app.tasks.run", *flags)[0]["result_id"] == first["result_id"]
    assert shell.json("enqueue", "app.tasks.run", "--unique-key", "k")[0]["created"]


def test_commands_every_flag_reaches_the_task(shell: Shell, session: psycopg.Connection) -> None:
    """Numbers as they were written, however long."""
    (made,) = shell.json(
        *("enqueue", "app.tasks.run", "--args", "[1, -2.50, 123456789012345678901234567890]"),
        *('--kwargs={"ä": null}', "--queue", "q", "--priority", "-5", "--run-after", "2030-01-01T00:00:00+01:00"),
        *("--lock-key", "l", "--concurrency-key", "c", "--concurrency-limit", "2", "--max-attempts", "7"),
        *("--timeout-seconds", "8", "--backoff-seconds", "9", "--expires-at", "2031-01-01T00:00Z", "--takes-context"),
    )
    found = task(session, made["result_id"])
    wanted = {
        "queue_name": "q", "priority": -5, "lock_key": "l", "concurrency_key": "c", "concurrency_limit": 2,
        "max_attempts": 7, "timeout_seconds": 8,
    }  # fmt: skip
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert found.run_after == datetime(2029, 12, 31, 23, tzinfo=UTC)
    assert found.expires_at == datetime(2031, 1, 1, tzinfo=UTC)
    spec = value(session, "select spec_json::text from task_runs")
    assert "[1, -2.50, 123456789012345678901234567890]" in spec
    assert '"takes_context": true' in spec
    assert '"backoff_seconds": 9' in spec
    assert '{"ä": null}' in spec


def test_due_in_a_while_by_the_databases_clock(shell: Shell, session: psycopg.Connection) -> None:
    """--in is a duration: the host's clock does not come into it."""
    (made,) = shell.json("enqueue", "app.tasks.run", "--in", "1d12h")
    found = task(session, made["result_id"])
    assert abs(found.run_after - found.enqueued_at - timedelta(hours=36)) < timedelta(seconds=1)
    assert "leave one out" in shell("enqueue", "a.b", "--in", "1s", "--run-after", "2030-01-01T00:00Z", code=2).err


@pytest.mark.parametrize(
    "words",
    [
        ["nodots"], ["a..b"], ["a.b", "--args", "{}"], ["a.b", "--args", "[NaN]"], ["a.b", "--args", "["],
        ["a.b", "--args", "[" * 100_000], ["a.b", "--args", '["\\u0000"]'], ["a.b", "--kwargs", "[]"],
        ["a.b", "--priority", "1.5"], ["a.b", "--priority", str(2**31)], ["a.b", "--max-attempts", "0"],
        ["a.b", "--in", "5"], ["a.b", "--in", "-5s"], ["a.b", "--run-after", "tomorrow"],
        ["a.b", "--run-after", "2030-01-01"], ["a.b", "--run-after", "2030-02-30T00:00Z"],
        ["a.b", "--unique-for", "1h"], ["a.b", "--unique-key", "k", "--unique-while", "x"],
        ["a.b", "--unique-key", "k", "--dedupe"],
        ["a.b", "--lock-key", ""], ["a.b", "--concurrency-limit", "3"], ["a.b", "--queue", "x" * 600],
        ["a.b", "--file", "x"], [], ["a.b", "c.d"], ["a.gr\udcffeet"], ["a.b", "--args", '["\udcff"]'],
    ],
)  # fmt: skip
def test_commands_what_cannot_be_a_task(shell: Shell, session: psycopg.Connection, words: list[str]) -> None:
    """Exit code 2, one line, and nothing is enqueued."""
    ran = shell("enqueue", *words, code=2)
    assert ran.err.count("\n") == 1
    assert value(session, "select count(*) from task_runs") == 0


@pytest.mark.parametrize(
    ("text", "problem"), [("\\u0000", "u0000"), ("\\ud800", "surrogate"), ("\\\\\\u0000", "u0000")]
)
def test_characters_that_no_database_stores(shell: Shell, session: psycopg.Connection, text: str, problem: str) -> None:
    """The flag or the line that holds them is named, and the remedy; what only looks so is text like any other."""
    task = f'{{"task_path": "a.b", "args": ["{text}"]}}'
    for words, where in (
        (("a.b", "--args", f'["{text}"]'), "--args"),
        (("a.b", "--kwargs", f'{{"{text}": 1}}'), "--kwargs"),
        (("--file", "-"), "line 3"),
    ):
        said = shell("enqueue", *words, stdin=f'{{"task_path": "a.b"}}\n\n{task}\n', code=2).err
        assert where in said
        assert problem in said
        assert "leave it out" in said
    shell("enqueue", "a.b", "--args", f'["\\{text[-6:]}"]')
    assert value(session, "select count(*) from task_runs") == 1


def test_commands_many_from_a_file(shell: Shell, session: psycopg.Connection, tmp_path: Path) -> None:
    """Lines in batches, in order; empty ones are passed over; duplicates are found across batches."""
    task = {"task_path": "app.tasks.run", "queue_name": "q", "dedupe": True}
    lines = [json.dumps({**task, "args": [n]}) for n in range(2500)]
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join([lines[0], "", *lines]) + "\n")
    ran = shell("enqueue", "--file", str(path), "--output", "json")
    made = ran.json
    assert [row["ordinal"] for row in made] == list(range(1, 2502))
    assert [row["created"] for row in made[:3]] == [True, False, True]
    assert "enqueued 2501" in ran.err
    assert value(session, "select count(*) from task_runs") == 2500
    assert len(shell.json("enqueue", "--file", "-", stdin=lines[0])) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{}\n", "task_path"),
        (b'{"task_path": "a.b"}\n[]\n', "line 2"),
        (b'{"task_path": "a.b"}\n\n{"task_path": "a.c", "what": 1}\n', "tasks.jsonl: line 3"),
        (b'{"task_path": "a.b"}\n' * 1000 + b"\n{}\n", "tasks.jsonl: line 1002"),
        (b"\xff\xfe", "UTF-8"),
        (None, "No such file"),
    ],
)
def test_bad_files(shell: Shell, session: psycopg.Connection, tmp_path: Path, content: bytes | None, says: str) -> None:
    """Named by file and line; a batch is enqueued whole or not at all."""
    path = tmp_path / "tasks.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert says in shell("enqueue", "--file", str(path), code=2).err
    assert value(session, "select count(*) from task_runs") == (1000 if "1002" in says else 0)


def test_workflows(shell: Shell, session: psycopg.Connection) -> None:
    """A chain of lines, a group of an array, a chord with its callback as ordinal 0."""
    lines = '{"task_path": "a.b"}\n\n{"task_path": "a.c"}\n'
    chain = shell.json("workflow", "chain", "--file", "-", stdin=lines)
    assert [task(session, row["result_id"]).status for row in chain] == ["READY", "WAITING"]
    group = shell.json("workflow", "group", "--file", "-", stdin='[{"task_path": "a.b"}]')
    assert len(group) == 1
    chord = shell.json("workflow", "chord", "--file", "-", "--callback", '{"task_path": "a.d"}', stdin=lines)
    assert [row["ordinal"] for row in chord] == [1, 2, 0]
    while got := claim(session, 10):
        complete(session, *got)
    assert {row.status for row in rows(session, "select status from task_runs")} == {"SUCCESSFUL"}


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (["chain", "--file", "-"], '[{"task_path": "a.b"}, {"task_path": "nodots"}]'),
        (["chain", "--file", "-"], "[1"),
        (["group", "--file", "-"], "nonsense"),
        (["chord", "--file", "-"], "[]"),
        (["chord", "--file", "-", "--callback", "[]"], "[]"),
        (["chord", "--file", "-", "--callback", "{}"], "[]"),
        (["chain", "--file", "-", "--callback", "{}"], "[]"),
    ],
)
def test_bad_workflows(shell: Shell, session: psycopg.Connection, words: list[str], stdin: str) -> None:
    """Exit code 2, and nothing is enqueued."""
    assert shell("workflow", *words, stdin=stdin, code=2).err.count("\n") == 1
    assert value(session, "select count(*) from task_runs") == 0


def test_schedules(shell: Shell, session: psycopg.Connection) -> None:
    """set with every flag, ls with problems, rm; a second rm is missing (6)."""
    flags = (
        *("--name", "s", "--cron", "30 2 * * mon-fri", "--task-path", "a.b", "--time-zone", "Europe/Vienna"),
        *("--args", "[1]", "--kwargs", '{"a": 1}', "--queue", "q", "--priority", "3", "--max-attempts", "2"),
        *("--concurrency-key", "c", "--concurrency-limit", "1", "--misfire", "all", "--overlap", "queue_one"),
    )
    for answer in ("created", "unchanged"):
        assert shell.json("schedule", "set", *flags) == [{"name": "s", "answer": answer}]
    assert shell.json("schedule", "set", *flags, "--disabled") == [{"name": "s", "answer": "changed"}]
    shell("schedule", "set", *flags)
    session.execute(
        "insert into periodic_tasks (name, cron_expr, task_path, next_run_at) values ('bad', 'x', 'a.b', now())"
    )
    found = {row["name"]: row for row in shell.json("schedule", "ls")}
    assert found["s"]["problem"] == "no beat has planned it yet"
    assert "five fields" in found["bad"]["problem"]
    shell("beat", "--once")
    found = {row["name"]: row for row in shell.json("schedule", "ls")}
    assert (found["s"]["problem"], found["s"]["misfire"], found["s"]["overlap"]) == (None, "all", "queue_one")
    next_run = datetime.fromisoformat(found["s"]["next_run_at"]).astimezone(UTC)
    assert next_run.minute == 30
    assert next_run.hour in (0, 1)
    assert shell.json("schedule", "rm", "--name", "s") == [{"name": "s", "removed": True}]
    shell("schedule", "rm", "--name", "s", code=6)


@pytest.mark.parametrize(
    "words",
    [
        ["--cron", "* * * *"], ["--cron", "61 * * * *"], ["--cron", "@every 1h"], ["--cron", ""],
        ["--time-zone", "Mars/Olympus"], ["--misfire", "x"], ["--overlap", "x"], ["--args", "{}"], ["--task-path", "x"],
        ["--priority", "x"], ["--name", ""],
    ],
)  # fmt: skip
def test_bad_schedules(shell: Shell, session: psycopg.Connection, words: list[str]) -> None:
    """Exit code 2, one line, and nothing is set."""
    given = {"--name": "s", "--cron": "@daily", "--task-path": "a.b"} | dict([words])
    ran = shell("schedule", "set", *(word for pair in given.items() for word in pair), code=2)
    assert ran.err.count("\n") == 1
    assert value(session, "select count(*) from periodic_tasks") == 0


def test_preview_shows_what_the_clock_does() -> None:
    """The run in the gap comes right after it; the change of the clock is pointed out. No database is needed."""
    words = ("schedule", "preview", "--cron", "30 2 * * *", "--time-zone", "Europe/Vienna")
    ran = run_here(*words, "--from", "2026-03-28T00:00:00Z", "--count=3")
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()[1:]]
    assert [" ".join(line[2:6]) for line in lines] == [
        "Sat 2026-03-28 02:30 +0100", "Sun 2026-03-29 03:00 +0200", "Mon 2026-03-30 02:30 +0200",
    ]  # fmt: skip
    assert ["clock" in line for line in lines] == [False, True, False]
    ran = run_here(*words, "--output", "json", "--from=2026-10-24T00:00:00Z", "--count", "2")
    assert [row["occurrence"] for row in ran.json] == ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z"]
    assert run_here("schedule", "preview", "--cron", "nonsense").code == 2
    assert len(run_here("schedule", "preview", "--cron", "@hourly").out.splitlines()) == 11
