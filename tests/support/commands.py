"""The program as operators run it: one command, its output, its exit code."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

from reproq_listen.cli import main as cli
from tests.support.database import ROOT, Database


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        """Its output, one object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(*words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
    """Run `reproq-listen WORDS` as a process. There is never a traceback."""
    command = [sys.executable, "-m", "reproq_listen", *words]
    done = subprocess.run(
        command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=15, env=_environ(env), check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def run_here(*words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
    """The same in this process, which is many times faster: for what needs no process of its own."""
    out, err = io.StringIO(), io.StringIO()
    handlers = logging.getLogger().handlers[:]
    try:
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
            mock.patch.object(sys, "argv", ["reproq-listen"]),
            mock.patch.dict(os.environ, _environ(env), clear=True),
        ):
            code = cli.main(words)
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.captureWarnings(capture=False)
    return Ran(code, out.getvalue(), err.getvalue())


def _environ(more: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | dict(more or {})


class Shell:
    """Commands on one database."""

    def __init__(self, database: Database) -> None:
        self._env = {"DATABASE_URL": database.dsn}

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> Ran:
        """Run a command that must end with this exit code."""
        ran = run_here(*words, stdin=stdin, env=self._env)
        assert ran.code == code, (ran.code, ran.out, ran.err)
        return ran

    def json(self, *words: str, stdin: str = "", code: int = 0) -> list[dict[str, Any]]:
        """Its output with --output json."""
        return self(*words, "--output", "json", stdin=stdin, code=code).json


_IMPATIENT = """
import sys
from reproq_listen.cli.main import main
from reproq_listen.db import session
sys.argv[0] = "reproq-listen"
session.START_LIMIT = 1.0
sys.exit(main())
"""


def run_impatiently(*words: str) -> subprocess.CompletedProcess[str]:
    """The program, in a process of its own that waits one second for a database that does not answer."""
    command = [sys.executable, "-c", _IMPATIENT, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=18, check=False)
