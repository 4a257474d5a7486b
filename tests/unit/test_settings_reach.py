"""Every flag, variable and key of the Go program changes what the worker is told, and by which text."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from reproq_listen.config import definitions
from reproq_listen.config.settings import WorkerSettings, worker_settings
from tests.unit.test_contract_names import COMMANDS, KEYS, VARIABLES

# flag, variable, key, text, attribute of the settings, its value
REACHES: list[tuple[str | None, str | None, str | None, str, str, object]] = [
    ("--dsn", "DATABASE_URL", "dsn", "host=x", "dsn", "host=x"),
    ("--dsn", "DATABASE_URL", "worker.dsn", "host=y", "dsn", "host=y"),
    ("--worker-id", "WORKER_ID", "worker.worker_id", "w 1", "worker_id", "w 1"),
    ("--process-role", "REPROQ_PROCESS_ROLE", "worker.process_role", "batch", "process_role", "batch"),
    ("--queues", "QUEUE_NAMES", "worker.queues", "a, b,a", "queues", ("a", "b")),
    (
        *("--allowed-task-modules", "ALLOWED_TASK_MODULES", "worker.allowed_task_modules"),
        *("x.,*", "allowed_task_modules", ("x.", "*")),
    ),
    ("--logs-dir", "REPROQ_LOGS_DIR", "worker.logs_dir", "/l", "logs_dir", "/l"),
    ("--concurrency", None, "worker.concurrency", "3", "concurrency", 3),
    ("--lease-seconds", None, "worker.lease_seconds", "200", "lease", timedelta(seconds=200)),
    ("--heartbeat-seconds", None, "worker.heartbeat_seconds", "7", "heartbeat", timedelta(seconds=7)),
    ("--reclaim-interval-seconds", None, "worker.reclaim_interval_seconds", "0", "reclaim_interval", timedelta(0)),
    ("--payload-mode", None, "worker.payload_mode", "file", "payload_mode", "file"),
    ("--priority-aging-factor", "PRIORITY_AGING_FACTOR", "worker.priority_aging_factor", "0", "aging_factor", 0.0),
    (None, None, "worker.poll_min_backoff", "200ms", "poll_min_backoff", timedelta(milliseconds=200)),
    (None, None, "worker.poll_max_backoff", "1m", "poll_max_backoff", timedelta(minutes=1)),
    (None, None, "worker.python_bin", "/py", "python_bin", "/py"),
    (None, None, "worker.executor_module", "m.e", "executor_module", "m.e"),
    (None, None, "worker.max_payload_bytes", "5", "max_payload_bytes", 5),
    (None, None, "worker.max_stdout_bytes", "6", "max_stdout_bytes", 6),
    (None, None, "worker.max_stderr_bytes", "7", "max_stderr_bytes", 7),
    (None, None, "worker.exec_timeout", "2h", "exec_timeout", timedelta(hours=2)),
    (None, None, "worker.shutdown_timeout", "0", "shutdown_timeout", timedelta(0)),
    (None, "REPROQ_MEMORY_LOG_INTERVAL", None, "60", "memory_log_interval", timedelta(minutes=1)),
    ("--metrics-port", None, "metrics.port", "9", "http.port", 9),
    ("--metrics-addr", "METRICS_ADDR", "metrics.addr", "[::1]:9", "http.host", "::1"),
    ("--metrics-auth-token", "METRICS_AUTH_TOKEN", "metrics.auth_token", "t0k", "http.auth_token", "t0k"),
    (
        *("--metrics-allow-cidrs", "METRICS_ALLOW_CIDRS", "metrics.allow_cidrs", "10.0.0.0/8,::1", "http.allow"),
        (ip_network("10.0.0.0/8"), ip_network("::1")),
    ),
    ("--metrics-tls-cert", "METRICS_TLS_CERT", "metrics.tls_cert", "/c", "http.tls_cert", "/c"),
    ("--metrics-tls-key", "METRICS_TLS_KEY", "metrics.tls_key", "/k", "http.tls_key", "/k"),
    ("--metrics-tls-client-ca", "METRICS_TLS_CLIENT_CA", "metrics.tls_client_ca", "/a", "http.tls_client_ca", "/a"),
    ("--metrics-auth-limit", "METRICS_AUTH_LIMIT", "metrics.auth_limit", "2", "http.auth_limit", 2),
    (
        *("--metrics-auth-window", "METRICS_AUTH_WINDOW", "metrics.auth_window", "1h30m", "http.auth_window"),
        timedelta(hours=1.5),
    ),
    (
        *("--metrics-auth-max-entries", "METRICS_AUTH_MAX_ENTRIES", "metrics.auth_max_entries"),
        *("4", "http.auth_max_entries", 4),
    ),
]
COMPANIONS = {
    "http.port": {},
    "http.tls_cert": {"--metrics-tls-key": "/k"},
    "http.tls_key": {"--metrics-tls-cert": "/c"},
    "http.tls_client_ca": {"--metrics-tls-cert": "/c", "--metrics-tls-key": "/k"},
}
"""Flags that must be there too: a port where pages are served, a key with its certificate."""


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def value(settings: WorkerSettings, attribute: str) -> object:
    found: object = settings
    for name in attribute.split("."):
        found = getattr(found, name)
    return found


def companions(flag: str | None, attribute: str) -> dict[str, object]:
    given = {"--dsn": "host=other"} if flag != "--dsn" else {}
    if attribute.startswith("http.") and attribute != "http.host":
        given |= {"--metrics-port": "1", **COMPANIONS.get(attribute, {})}
    if flag is not None:
        given.pop(flag, None)
    return dict(given)


@pytest.mark.parametrize(("flag", "variable", "key", "text", "attribute", "wanted"), REACHES)
def test_settings_each_source_reaches_the_worker(
    flag: str | None, variable: str | None, key: str | None, text: str, attribute: str, wanted: object
) -> None:
    """As a flag, as a variable and as a key of a file in both languages."""
    given = companions(flag, attribute)
    if flag is not None:
        assert value(worker_settings({**given, flag: text}, {}), attribute) == wanted
    if variable is not None:
        assert value(worker_settings(given, {variable: text}), attribute) == wanted
    if key is not None:
        section, _, name = key.rpartition(".")
        is_list = any(key in setting.keys and setting.is_list for setting in definitions.ALL)
        values = [f'"{part.strip()}"' for part in text.split(",")]
        shown = f"[{', '.join(values)}]" if is_list else f'"{text}"'
        head = f"[{section}]\n" if section else ""
        Path("reproq.toml").write_text(f"{head}{name} = {shown}\n")
        Path("c.yaml").write_text(f"{section}:\n  {name}: {shown}\n" if section else f"{name}: {shown}\n")
        for where in ({}, {"--config": "c.yaml"}):
            assert value(worker_settings({**given, **where}, {}), attribute) == wanted


def test_numbers_need_no_quotes() -> None:
    """As YAML and TOML write numbers; a text is taken for a list of one."""
    Path("reproq.toml").write_text(
        'dsn = "host=x"\n[worker]\nconcurrency = 3\nlease_seconds = 30.5\npriority_aging_factor = 0\nqueues = "a"\n'
    )
    Path("c.yaml").write_text(
        "dsn: host=x\nworker:\n  concurrency: 3\n  lease_seconds: 30.5\n  priority_aging_factor: 0\n  queues: a\n"
    )
    for where in ({}, {"--config": "c.yaml"}):
        found = worker_settings(where, {})
        assert (found.concurrency, found.lease, found.aging_factor, found.queues) == (
            3,
            timedelta(seconds=30.5),
            0.0,
            ("a",),
        )


def test_settings_all_names_are_in_this_list() -> None:
    """What test_contract_names lists as the Go program's is tried here."""
    flags = {f"--{name}" for name in COMMANDS["worker"].split()} - {"--config"}
    keys = {f"{section}{key}" for section, names in KEYS.items() for key in names.split()}
    assert {row[0] for row in REACHES if row[0]} == flags
    assert {row[1] for row in REACHES if row[1]} | {"LOW_MEMORY_MODE"} == set(VARIABLES)
    tried_elsewhere = {"beat.dsn", "beat.interval", "worker.max_attempts_default"}
    assert {row[2] for row in REACHES if row[2]} | tried_elsewhere == keys
