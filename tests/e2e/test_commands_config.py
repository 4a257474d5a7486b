"""Configuration as a user meets it: the real program in a folder with a file, variables and flags."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from reproq_listen.cli.reference import example_toml, example_yaml, reference
from tests.support.database import ROOT, Database


def run(folder: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REPROQ_CONFIG")}
    return subprocess.run(
        [sys.executable, "-m", "reproq_listen", *args],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_explain_shows_each_value_and_its_source(tmp_path: Path) -> None:
    """As a table and as JSON; secrets are hidden; exit 0."""
    (tmp_path / "reproq.yaml").write_text("dsn: postgresql://u:hunter2@h/d\nworker:\n  concurrency: 3\n")
    text = run(tmp_path, "config", "--explain", QUEUE_NAMES="a,b")
    assert text.returncode == 0
    assert "configuration file: reproq.yaml" in text.stdout
    assert "file reproq.yaml:3: worker.concurrency" in text.stdout
    assert "environment QUEUE_NAMES" in text.stdout
    assert "every user may read it: chmod 600 reproq.yaml" in text.stdout
    as_json = run(tmp_path, "config", "--explain", "--output", "json")
    said: dict[str, Any] = json.loads(as_json.stdout)
    (dsn,) = (row for row in said["settings"] if row["setting"] == "worker.dsn")
    assert (dsn["value"], dsn["source"]) == ("[REDACTED]", "file reproq.yaml:1: dsn")
    assert said["problems"] == []
    assert "hunter2" not in text.stdout + as_json.stdout


def test_explain_says_what_is_wrong(tmp_path: Path) -> None:
    """A value that cannot be used, and values that do not fit together: exit 2, the problem last."""
    one = run(tmp_path, "config", "--explain", METRICS_AUTH_LIMIT="many")
    assert one.returncode == 2
    assert one.stdout.splitlines()[-1].startswith("problem: METRICS_AUTH_LIMIT: needs a whole number")
    (tmp_path / "c.toml").write_text("[worker]\nlease_seconds = 60\nheartbeat_seconds = 90\n")
    both = run(tmp_path, "config", "--explain", "--config=c.toml", DATABASE_URL="host=x")
    assert both.returncode == 2
    assert "--heartbeat-seconds (90) must be less than" in both.stdout


def test_explain_says_all_that_is_wrong(tmp_path: Path) -> None:
    """Keys that there are not, and every value that cannot be used, below the whole table."""
    (tmp_path / "reproq.toml").write_text("[worker]\nqueue = 'a'\nconcurrency = 0\nexec_timeout = 5\n[beet]\nx = 1\n")
    text = run(tmp_path, "config", "--explain", METRICS_AUTH_LIMIT="many")
    problems = [line.removeprefix("problem: ") for line in text.stdout.splitlines() if line.startswith("problem: ")]
    assert text.returncode == 2
    assert [problem.split(": ")[0] for problem in problems] == [
        *("reproq.toml:2", "reproq.toml:6", "reproq.toml:3", "reproq.toml:4", "METRICS_AUTH_LIMIT"),
    ]
    assert "file reproq.toml:4: worker.exec_timeout" in text.stdout
    as_json = run(tmp_path, "config", "--explain", "--output", "json", METRICS_AUTH_LIMIT="many")
    assert json.loads(as_json.stdout)["problems"] == problems


def test_examples_and_reference_are_printed(tmp_path: Path) -> None:
    """What the repository has can be had from an installed program."""
    assert run(tmp_path, "config", "--example", "yaml").stdout == example_yaml()
    assert run(tmp_path, "config", "--example=toml").stdout == example_toml()
    assert run(tmp_path, "config", "--reference").stdout == reference()
    assert run(tmp_path, "config", "--example", "ini").returncode == 2
    assert run(tmp_path, "config").returncode == 2


def test_config_worker_is_run_by_its_file_and_its_secrets(database: Database, tmp_path: Path) -> None:
    """DSN from a secret file, the rest from the configuration file found in the working directory; a broken file is
    one line and exit 2."""
    (tmp_path / "dsn").write_text(f"{database.dsn}\n")
    path = tmp_path / "reproq.toml"
    path.write_text('[worker]\nqueues = ["from-the-file"]\nallowed_task_modules = ["tests."]\nworker_id = "filed"\n')
    done = run(tmp_path, "worker", "--drain", DATABASE_URL_FILE="dsn")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    (started,) = (event for event in events if event["event"] == "worker_started")
    assert (started["queues"], started["worker_id"]) == (["from-the-file"], "filed")
    path.write_text("[worker]\nqueue = 1\n")
    broken = run(tmp_path, "worker", "--drain", DATABASE_URL_FILE="dsn")
    assert broken.returncode == 2
    assert broken.stderr == "reproq-listen: reproq.toml:2: there is no key worker.queue; did you mean worker.queues?\n"
    status = run(tmp_path, "status", DATABASE_URL_FILE="dsn")
    assert status.stderr == broken.stderr
