"""Settings, metrics and events as text: two pages of the reference, and the example files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from reproq_listen.config import definitions as settings_table
from reproq_listen.config import file as config_file
from reproq_listen.config.sources import Setting
from reproq_listen.http import metric_definitions as metrics_table
from reproq_listen.http.event_stream import TYPES
from reproq_listen.logs.event_log import Event

_AS_SEEN = settings_table.WORKER + settings_table.BEAT + settings_table.METRICS
LISTS = frozenset(
    setting.keys
    for setting in (
        *(settings_table.QUEUES, settings_table.ALLOWED, settings_table.PRELOAD, settings_table.EXECUTOR_ENV),
        settings_table.ALLOW_CIDRS,
    )
)
_FILE = f"""\
A flag overrides a variable, a variable overrides the file, and the file overrides the default.
`reproq-listen config --explain` shows each value and its source. If both `--metrics-addr` and `--metrics-port` are set,
the one from the stronger source holds; from equal sources the address holds.

The file is YAML or TOML. `--config` names it, else `REPROQ_CONFIG`. Without both it is the first of these in the
working directory: {", ".join(f"`{name}`" for name in config_file.NAMES)}.
`reproq-listen config --example yaml` prints one with all defaults. `REPROQ_DEV=1` allows `--payload-mode inline`.
"""
PAGES = (
    ("/metrics", "metrics for Prometheus; numbers of the fleet are at most 15 s old while the database answers"),
    ("/healthz", "asks the database: 200 `ok`, or 503 `unhealthy`"),
    ("/livez", "200 `ok` as long as the process turns, while draining too; asks nothing, needs no token"),
    ("/readyz", "200, or 503 with what fails: database, contract, claim_loop, listener, heartbeat, draining"),
    (
        "/events",
        "server-sent events, the last 200 first; `?queue=`, `?worker_id=`, `?task_id=`; `gap` says how many a slow "
        "reader missed",
    ),
)
_SAMPLES = {
    "dsn": "postgresql://me@localhost/mydb",
    "worker.dsn": "postgresql://me@localhost/mydb",
    "beat.dsn": "postgresql://me@localhost/mydb",
    "worker.worker_id": "worker-1",
    "worker.process_role": "worker",
    "worker.python_bin": "python3",
    "worker.executor_module": settings_table.OUR_EXECUTOR,
    "worker.executor": "fork",
    "worker.executor_env": "AWS_*,DJANGO_SETTINGS_MODULE",
    "worker.logs_dir": "/var/log/reproq",
    "metrics.addr": "127.0.0.1:9090",
    "metrics.auth_token": "change-me",
    "metrics.allow_cidrs": "10.0.0.0/8,::1",
    "metrics.tls_cert": "/etc/reproq/tls.crt",
    "metrics.tls_key": "/etc/reproq/tls.key",
    "metrics.tls_client_ca": "/etc/reproq/clients.crt",
}
"""For keys without a default: shown, and commented out."""


def reference() -> str:
    """All settings, metrics and events, in Markdown: both pages below."""
    return f"{settings()}\n{metrics_and_events()}"


def settings() -> str:
    """The page about settings."""
    rows = [_setting_row(setting) for setting in _AS_SEEN]
    heads = ("flag", "variable", "key in the file", "default", "meaning")
    return f"# Settings: every flag, variable and file key\n\n{_table(heads, rows)}\n{_FILE}"


def metrics_and_events() -> str:
    """The page about what a worker shows of itself."""
    parts = [
        "# Metrics and events: HTTP pages, metrics, log lines\n",
        "## HTTP pages\n",
        _table(("page", "what it says"), [(f"`{path}`", meaning) for path, meaning in PAGES]),
        "## Metrics\n",
        _table(("metric", "kind", "labels", "meaning"), map(_metric_row, metrics_table.ALL)),
        "## Events on /events\n",
        _table(("type", "meaning"), ((f"`{event.value}`", f"the task {text}") for event, text in TYPES.items())),
        "## Events in the log\n",
        ", ".join(f"`{event.value}`" for event in Event) + "\n",
    ]
    return "\n".join(parts)


def _setting_row(setting: Setting[Any]) -> Sequence[str]:
    variables = [setting.env, f"{setting.env}_FILE" if setting.secret else None] if setting.env else []
    return (
        f"`{setting.flag}`" if setting.flag else "",
        ", ".join(f"`{name}`" for name in variables if name),
        ", ".join(f"`{key}`" for key in setting.keys),
        f"`{setting.default}`" if setting.default else "",
        setting.about,
    )


def _metric_row(metric: metrics_table.Metric) -> Sequence[str]:
    return f"`{metric.name}`", metric.kind, ", ".join(metric.labels), metric.about


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def example_yaml() -> str:
    """A configuration file with every key; what has a default is set to it, the rest is commented out."""
    lines = ["# Copy to reproq.yaml. Every key may be left out. Flags and environment variables go before this file."]
    for section, settings in _sections():
        if section:
            lines += ["", f"{section}:"]
        for key, setting in settings:
            text = setting.default if setting.default is not None else _SAMPLES[f"{section}.{key}" if section else key]
            value = f"[{', '.join(map(_yaml, text.split(',')))}]" if _is_list(setting) else text
            mark = "" if setting.default is not None else "# "
            lines.append(f"{'  ' if section else ''}{mark}{key}: {value}  # {setting.about}")
    return "\n".join(lines) + "\n"


def example_toml() -> str:
    """The same in TOML."""
    lines = ["# Copy to reproq.toml. Every key may be left out. Flags and environment variables go before this file."]
    for section, settings in _sections():
        if section:
            lines += ["", f"[{section}]"]
        for key, setting in settings:
            text = setting.default if setting.default is not None else _SAMPLES[f"{section}.{key}" if section else key]
            value = f"[{', '.join(map(_toml, text.split(',') if text else ()))}]" if _is_list(setting) else _toml(text)
            mark = "" if setting.default is not None else "# "
            lines.append(f"{mark}{key} = {value}  # {setting.about}")
    return "\n".join(lines) + "\n"


def _sections() -> Iterable[tuple[str, list[tuple[str, Setting[Any]]]]]:
    """Each section of the file with its keys; the top has no name."""
    found: dict[str, dict[str, Setting[Any]]] = {"": {}}
    for setting in settings_table.ALL:
        for name in setting.keys:
            section, _, key = name.rpartition(".")
            found.setdefault(section, {})[key] = setting
    for section, settings in found.items():
        yield section, list(settings.items())


def _is_list(setting: Setting[Any]) -> bool:
    return setting.keys in LISTS


def _yaml(text: str) -> str:
    return f'"{text}"' if ":" in text else text


def _toml(text: str) -> str:
    return text if re.fullmatch(r"\d+", text) else f'"{text}"'
