"""Every code block of README and pages runs, as a reader would run it, on a real database, with the real commands."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import pytest

from tests.support.database import Database, wait_until
from tests.support.documents import DOCUMENTS, README, Block, blocks, ident

STARTED = {"worker": '"worker_started"', "beat": '"beat_started"'}

_SEED: LiteralString = """
alter table task_runs alter column result_id restart with 42;
select reproq_enqueue('shop.sync', p_queue_name => 'mail');
select reproq_cancel(42);
select reproq_enqueue('shop.sync', p_queue_name => 'mail', p_run_after => now() + interval '1 day');
select reproq_enqueue('shop.sync', '["again"]');
select reproq_cancel(44);
"""


class Reader:
    """Types what a document says, in a folder of its own. Tasks 42 and 44 have failed, task 43 is due tomorrow."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._folder = folder
        self._database = database
        self._services: list[tuple[Block, subprocess.Popen[bytes], Path]] = []
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("REPROQ_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DATABASE_URL": database.dsn,
        }
        self._session = database.connect()
        self._session.execute(_SEED)

    def do(self, block: Block) -> None:
        """Run one block."""
        match block.language:
            case "sql":
                self._session.execute(block.text.encode())
            case "python":
                self._python(block)
            case "sh" if self._service(block) is not None:
                self._start(block)
            case "sh":
                self._run(block, "sh", "-euc", block.text)
            case "toml" | "yaml":
                self._configuration(block)
            case _:
                pass

    def wait_for_tasks(self) -> list[tuple[Any, ...]]:
        """Path and state of the tasks that are due, once a worker that was started has brought them all to an end."""
        due = "select task_path, status from task_runs where coalesce(run_after, now()) <= now() order by result_id"
        open_states = {"READY", "RUNNING", "WAITING"}
        wait_until(
            lambda: not open_states & {status for _, status in self._session.execute(due.encode())},
            what="all tasks ended",
            seconds=30,
        )
        return self._session.execute(due.encode()).fetchall()

    def failures(self) -> list[tuple[Any, ...]]:
        """What failed of itself."""
        failed = "select task_path, last_error from task_runs where status = 'FAILED' and last_error !~ '^cancelled'"
        return self._session.execute(failed.encode()).fetchall()

    def stop(self) -> None:
        """Stop what was started; it ends in good order."""
        for block, process, log in self._services:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0, (block.where, log.read_text())

    def close(self) -> None:
        self._session.close()
        for _, process, _ in self._services:
            process.kill()
            process.wait()

    def _python(self, block: Block) -> None:
        """A block that begins with `# name.py` is a file of that name, and is imported; any other is run."""
        named = re.match(r"# ([\w/]+)\.py\n", block.text)
        if named is None:
            self._run(block, sys.executable, "-c", block.text)
            return
        file = self._folder / f"{named[1]}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(block.text)
        self._run(block, sys.executable, "-c", f"import {named[1].replace('/', '.')}")

    def _configuration(self, block: Block) -> None:
        file = self._folder / f"reproq.{block.language}"
        file.write_text(block.text)
        self._run(block, "reproq-listen", "config", "--explain", "--config", str(file))
        file.unlink()

    @staticmethod
    def _service(block: Block) -> str | None:
        """The command, if the block starts one that runs until it is stopped."""
        words = shlex.split(block.commands[-1])
        is_service = words[0] == "reproq-listen" and words[1] in STARTED and not {"--drain", "--once"} & {*words}
        return words[1] if is_service else None

    def _start(self, block: Block) -> None:
        assert len(block.commands) == 1, f"{block.where}: a service has a block of its own"
        log = self._folder / f"service-{len(self._services)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                shlex.split(block.commands[0]), cwd=self._folder, env=self._environ, stdout=out, stderr=out
            )
        self._services.append((block, process, log))
        event = STARTED[str(self._service(block))]
        wait_until(lambda: event in log.read_text() or process.poll() is not None, what=event, seconds=20)
        assert process.poll() is None, (block.where, log.read_text())

    def _run(self, block: Block, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self._folder, env=self._environ, capture_output=True, text=True, timeout=40, check=False
        )
        assert done.returncode == 0, (block.where, block.text, done.stdout, done.stderr)


@contextmanager
def reading(database: Database, folder: Path) -> Iterator[Reader]:
    """A reader whose processes end with the test."""
    reader = Reader(database, folder)
    try:
        yield reader
    finally:
        reader.close()


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path != README], ids=ident)
def test_blocks_run(path: Path, database: Database, tmp_path: Path) -> None:
    """In the order of the page, in one folder and one database. What is not run says why."""
    with reading(database, tmp_path) as reader:
        for block in blocks(path):
            if block.not_run is None:
                reader.do(block)
        reader.stop()
        assert reader.failures() == []


def test_first_task_of_readme_runs(database: Database, tmp_path: Path) -> None:
    """The function that a reader saves is run by the worker that the reader starts, from psql and from Python."""
    with reading(database, tmp_path) as reader:
        for block in blocks(README):
            if block.not_run is None:
                reader.do(block)
        states = [found for found in reader.wait_for_tasks() if found[0] == "shop.greet"]
        assert states == [("shop.greet", "SUCCESSFUL")] * 2
        reader.stop()


def test_docs_is_paged_in_a_terminal() -> None:
    """With the pager that PAGER names."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "reproq_listen", "docs", "glossary"]
    environ = {**os.environ, "PAGER": "sed s/^/paged:/", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, env=environ) as process:
        os.close(slave)
        seen = os.read(master, 20)
        assert seen.startswith(b"paged:# ")
        with contextlib.suppress(OSError):  # Linux says EIO at the end of a terminal
            while os.read(master, 65536):
                pass
    os.close(master)
    assert process.returncode == 0


def test_docs_is_plain_when_piped() -> None:
    """A list without an argument, a page with one, exit code 2 and the nearest names for a wrong one."""
    command = [sys.executable, "-m", "reproq_listen", "docs"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^enqueue +Enqueue", listed, re.M)
    page = subprocess.run([*command, "enqueue"], capture_output=True, text=True, check=True).stdout
    assert page.startswith("# Enqueue")
    assert "<!--" not in page
    assert "\x1b" not in page
    wrong = subprocess.run([*command, "enqeue"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "Did you mean enqueue" in wrong.stderr
    assert "troubleshooting" in wrong.stderr
    assert wrong.stdout == ""
