"""The command line as text: what is understood, and how what is not is told."""

from __future__ import annotations

import pytest

from reproq_listen.cli import main as cli

DSN = ("--dsn", "host=/nowhere")
UNREACHABLE = 4  # the flags were understood, the database is not there


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    """What a command line that ends with this code says on standard error: one line."""
    assert cli.main(words) == code, words
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("cancel", "cancel --id N [options]"),
        ("triage retry", "triage retry (--id N | --all) [options]"),
        ("triage", "give one of: list, inspect, retry"),
        ("triage lst", "give one of: list, inspect, retry"),
        ("limit set --key global", "limit set --key KEY --rate R [options]"),
        ("replay --id 1 --spec-hash x", "replay (--id N | --spec-hash HASH) [options]"),
        ("enqueue", "enqueue TASK_PATH [options] or"),
        ("worker now", "worker [options]"),
        ("version now", "version [options]"),
        ("--version now", "version [options]"),
        ("worker --concurency 3", "did you mean --concurrency?"),
        ("worker --concurrency", "--concurrency requires argument"),
        ("beat --once=maybe", "--once"),
        ("wroker", "did you mean worker?"),
    ],
)
def test_cli_wrong_line_is_told_with_the_right_form(capsys: pytest.CaptureFixture[str], line: str, remedy: str) -> None:
    """Exit code 2, one line, with what would be right."""
    assert remedy in said(capsys, *line.split())


def test_cli_what_was_given_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a password in the wrong place."""
    assert "hunter2" not in said(capsys, "worker", "--dsn", "host=x", "hunter2")
    assert "hunter2" not in said(capsys, "worker", "--pasword=hunter2")
    assert "hunter2" not in said(capsys, "beat", "--once=hunter2")


@pytest.mark.parametrize(
    "line",
    [
        "limit ls --dsn=host=/nowhere",
        "limit ls -dsn host=/nowhere",
        "limit ls -dsn=host=/nowhere",
        "prune expired --dsn host=/nowhere --dry-run=true -limit=0",
        "prune expired -dsn host=/nowhere --dry-run=false",
        "triage retry -all -dsn host=/nowhere",
    ],
)
def test_flags_as_the_go_program_takes_them(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """One dash or two, a space or =, switches with true and false: lines that exist go on."""
    said(capsys, *line.split(), code=UNREACHABLE)


def test_cli_switch_that_is_false_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    """--all=false is as if it were not there."""
    assert "triage retry (--id N | --all)" in said(capsys, "triage", "retry", "--all=false", *DSN)
    said(capsys, "triage", "retry", "--all=1", *DSN, code=UNREACHABLE)


def test_cli_of_a_flag_that_is_given_twice_the_last_one_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """As in the Go program: wrappers append flags to a line that has them. What stands for a value is none of them."""
    assert "'x'" in said(capsys, "cancel", "--id", "1", "-id=x", *DSN)
    said(capsys, "cancel", "--id", "x", *DSN, "--id=2", code=UNREACHABLE)
    said(capsys, "triage", "retry", "--all", "--all", *DSN, code=UNREACHABLE)
    assert "triage retry (--id N | --all)" in said(capsys, "triage", "retry", "--all", "-all=false", *DSN)
    said(capsys, "triage", "retry", "--all=false", "--all", *DSN, code=UNREACHABLE)
    said(capsys, "triage", "retry", "--reason", "--all", "--all", *DSN, code=UNREACHABLE)
    assert "--dsn requires argument" in said(capsys, "triage", "retry", "--all", *DSN, "--dsn")


def test_cli_value_may_look_like_anything(capsys: pytest.CaptureFixture[str]) -> None:
    """A negative number is a value, and so is text with = in it."""
    words = ("enqueue", "a.b", "--priority", "-5", "--kwargs", '{"a": "b=c"}', "--lock-key=x=y", *DSN)
    said(capsys, *words, code=UNREACHABLE)
