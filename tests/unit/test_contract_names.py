"""Every name that users of the Go program know exists here: commands, flags, variables, keys, pages, metrics, events.

The lists are restated from its documentation, on purpose by hand: nothing here is read from the program.
"""

from __future__ import annotations

import re

import pytest

from reproq_listen.cli import main as cli
from reproq_listen.cli.reference import PAGES
from reproq_listen.config import definitions
from reproq_listen.config.file import NAMES
from reproq_listen.config.settings import read_sources, worker_settings
from reproq_listen.config.sources import Setting
from reproq_listen.http import metric_definitions as metrics_table
from reproq_listen.http.app import Pages
from reproq_listen.http.event_stream import RING, TYPES
from reproq_listen.logs.redaction import REDACTED, Redactor


def words(text: str) -> list[str]:
    """Names, as a listing has them."""
    return text.split()


COMMANDS = {
    "worker": "config dsn worker-id process-role queues allowed-task-modules logs-dir concurrency lease-seconds "
    "heartbeat-seconds reclaim-interval-seconds payload-mode priority-aging-factor metrics-port metrics-addr "
    "metrics-auth-token metrics-allow-cidrs metrics-tls-cert metrics-tls-key metrics-tls-client-ca "
    "metrics-auth-limit metrics-auth-window metrics-auth-max-entries",
    "beat": "dsn config interval once",
    "replay": "dsn id spec-hash",
    "cancel": "dsn id",
    "triage": "dsn limit queue id all",
    "prune": "dsn limit dry-run",
    "limit": "dsn key rate burst",
    "version": "",
    "torture": "dsn count",
}
WORDS = {"triage": "list inspect retry", "prune": "expired", "limit": "set ls rm"}
VARIABLES = words(
    "DATABASE_URL WORKER_ID REPROQ_PROCESS_ROLE QUEUE_NAMES ALLOWED_TASK_MODULES REPROQ_LOGS_DIR "
    "PRIORITY_AGING_FACTOR METRICS_ADDR METRICS_AUTH_TOKEN METRICS_ALLOW_CIDRS METRICS_TLS_CERT "
    "METRICS_TLS_KEY METRICS_TLS_CLIENT_CA METRICS_AUTH_LIMIT METRICS_AUTH_WINDOW "
    "METRICS_AUTH_MAX_ENTRIES LOW_MEMORY_MODE REPROQ_MEMORY_LOG_INTERVAL "
)
KEYS = {
    "": "dsn",
    "worker.": "dsn worker_id process_role queues allowed_task_modules concurrency poll_min_backoff poll_max_backoff "
    "lease_seconds heartbeat_seconds reclaim_interval_seconds python_bin executor_module payload_mode "
    "max_payload_bytes max_stdout_bytes max_stderr_bytes logs_dir exec_timeout max_attempts_default shutdown_timeout "
    "priority_aging_factor",
    "beat.": "dsn interval",
    "metrics.": "addr port auth_token allow_cidrs tls_cert tls_key tls_client_ca auth_limit auth_window "
    "auth_max_entries",
}
DEFAULTS = {
    "--concurrency": "10",
    "--lease-seconds": "300",
    "--heartbeat-seconds": "60",
    "--reclaim-interval-seconds": "60",
    "--payload-mode": "stdin",
    "--priority-aging-factor": "60",
    "--metrics-port": "0",
    "--metrics-auth-limit": "30",
    "--metrics-auth-window": "1m",
    "--metrics-auth-max-entries": "1000",
    "--interval": "30s",
    "--allowed-task-modules": "myapp.tasks.,tasks.",
    "worker.poll_min_backoff": "100ms",
    "worker.poll_max_backoff": "5s",
    "worker.max_payload_bytes": "1048576",
    "worker.max_stdout_bytes": "1048576",
    "worker.max_stderr_bytes": "1048576",
    "worker.exec_timeout": "1h",
    "worker.max_attempts_default": "3",
    "worker.shutdown_timeout": "30s",
}
METRICS = {
    "reproq_tasks_processed_total": "status queue",
    "reproq_tasks_claimed_total": "queue",
    "reproq_tasks_completed_total": "queue status",
    "reproq_claim_duration_seconds": "queue",
    "reproq_exec_duration_seconds": "queue",
    "reproq_queue_wait_duration_seconds": "queue",
    "reproq_db_operation_duration_seconds": "operation",
    "reproq_queue_depth": "",
    "reproq_tasks_running": "",
    "reproq_workers": "",
    "reproq_concurrency_in_use": "",
    "reproq_concurrency_limit": "",
    "reproq_queues_paused": "",
    "reproq_concurrency_blocked_tasks": "",
    "reproq_db_pool_connections_in_use": "",
    "reproq_db_pool_wait_count_total": "",
    "reproq_worker_cpu_usage_percent": "",
    "reproq_worker_mem_usage_bytes": "",
}
EVENTS = words(
    "task_started task_success task_failed task_retry task_rejected task_invalid task_cancelled task_infra_error "
)
PRIVATE = words(
    "args kwargs payload payload_json spec_json return_json errors_json headers body stdout stderr "
    "traceback authorization my_secret the_token db_password some_api_key "
)


def usage(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main([command, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_contract_every_command_has_the_flags_of_the_contract(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They stand in its --help, from which the program reads what it accepts."""
    text = usage(command, capsys)
    for flag in COMMANDS[command].split():
        assert re.search(rf"(?<![\w-])--{flag}(?![\w-])", text), flag
    for word in WORDS.get(command, "").split():
        assert re.search(rf"^  \S+ {command} .*\b{word}\b", text, re.MULTILINE), word


def test_worker_flags_and_settings_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """What the worker's help lists is what the settings know, and the other way round; nothing is listed in vain."""
    listed = set(re.findall(r"^  (--[a-z-]+) [A-Z]+ ", usage("worker", capsys), re.MULTILINE))
    known = {setting.flag for setting in definitions.ALL if setting.metavar and "worker" in setting.used_by}
    assert listed == known


def test_contract_every_variable_is_read() -> None:
    """Each by a setting; REPROQ_CONFIG by the search for the file; secrets also from files."""
    read = {setting.variable: setting for setting in definitions.ALL if setting.variable}
    for name in VARIABLES:
        assert name in read
    assert {name for name, setting in read.items() if setting.is_secret} == {"DATABASE_URL", "METRICS_AUTH_TOKEN"}


def test_contract_every_key_and_file_name_is_read() -> None:
    """All sections; the files in the order they are looked for."""
    wanted = {f"{section}{key}" for section, keys in KEYS.items() for key in keys.split()}
    assert wanted <= definitions.KEYS
    assert NAMES == ("reproq.yaml", "reproq.yml", "reproq.toml", ".reproq.yaml", ".reproq.yml", ".reproq.toml")


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str) -> None:
    """As documented, as text."""
    (setting,) = (found for found in definitions.ALL if name in (found.flag, *found.keys[:1]))
    assert setting.default == DEFAULTS[name]


def test_contract_every_default_can_be_read() -> None:
    """A default is parsed like any other text."""
    sources = read_sources({}, {})
    for setting in definitions.ALL:
        found: Setting[object] = setting
        if found.default is not None:
            sources.get(found)


def test_executors_and_their_defaults() -> None:
    """Ours under our name; Reproq Django's, in python3, under the Go program's."""
    flags = {"--dsn": "host=x"}
    ours, theirs = (worker_settings(flags, {}, as_reproq=as_reproq) for as_reproq in (False, True))
    assert (ours.executor_module, theirs.executor_module) == ("reproq_listen.executor", "reproq_django.executor")
    assert theirs.python_bin == "python3"


@pytest.mark.parametrize("name", METRICS)
def test_contract_every_metric_keeps_its_name_and_labels(name: str) -> None:
    """Dashboards and alerts read these."""
    (metric,) = (found for found in metrics_table.CONTRACT if found.name == name)
    assert metric.labels == tuple(METRICS[name].split())
    assert len(metrics_table.CONTRACT) == len(METRICS)


def test_pages_and_events() -> None:
    """The pages, the types of events, and how many are kept."""
    paths = set(Pages.PATHS)
    assert {"/metrics", "/healthz", "/events"} <= paths
    assert paths == {path for path, _ in PAGES}
    assert [event.value for event in TYPES] == EVENTS
    assert RING == 200


@pytest.mark.parametrize("key", PRIVATE)
def test_private_keys_are_redacted_in_the_log(key: str) -> None:
    """Payload-like keys, and keys that hold secret, token, password or api_key."""
    assert Redactor(()).clean({key: "x", key.upper(): "y"}) == {key: REDACTED, key.upper(): REDACTED}
