"""The program as operators run it: one command, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.database import Database
from tests.e2e.workers import ROOT


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


def run(*words: str, stdin: str = "", env: dict[str, str] | None = None) -> Ran:
    """Run `reproq-listen WORDS`. Never a traceback, whatever it is told."""
    command = [sys.executable, "-m", "reproq_listen", *words]
    environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | (env or {})
    done = subprocess.run(
        command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=15, env=environ, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


class Shell:
    """Commands on one database."""

    def __init__(self, database: Database) -> None:
        self._env = {"DATABASE_URL": database.dsn}

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> Ran:
        """Run a command that must end with this exit code."""
        ran = run(*words, stdin=stdin, env=self._env)
        assert ran.code == code, (ran.code, ran.out, ran.err)
        return ran

    def json(self, *words: str, stdin: str = "", code: int = 0) -> list[dict[str, Any]]:
        """Its output with --output json."""
        return self(*words, "--output", "json", stdin=stdin, code=code).json
