"""Settings, metrics and events as text: two pages of the reference, and the example files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from reproq_listen.config import definitions
from reproq_listen.config.file import NAMES
from reproq_listen.config.sources import Setting
from reproq_listen.http import metric_definitions
from reproq_listen.http.event_stream import TYPES
from reproq_listen.logs.event_log import Event

_FILE = f"""\
A flag overrides a variable, a variable overrides the file, and the file overrides the default.
`reproq-listen config --explain` shows each value and its source. If both `--metrics-addr` and `--metrics-port` are set,
the one from the stronger source holds; from equal sources the address holds.

The file is YAML or TOML. `--config` names it, else `REPROQ_CONFIG`. Without both it is the first of these in the
working directory: {", ".join(f"`{name}`" for name in NAMES)}.
`reproq-listen config --example yaml` prints one with all defaults. `REPROQ_DEV=1` allows `--payload-mode inline`.
"""
PAGES = (
    ("/metrics", "metrics for Prometheus; numbers of the fleet are at most 15 s old while the database answers"),
    ("/healthz", "asks the database: 200 `ok`, or 503 `unhealthy`"),
    ("/livez", "200 `ok` as long as the process turns, while draining too; asks nothing, needs no token"),
    ("/readyz", "200, or 503 with what fails: database, contract, claim_loop, listener, heartbeat, executor, draining"),
    (
        "/events",
        "server-sent events, the last 200 first; `?queue=`, `?worker_id=`, `?task_id=`; `gap` says how many a slow "
        "reader missed",
    ),
)
_HEAD = "# Copy to reproq.{}. Every key may be left out. A flag or an environment variable overrides this file."
_WIDTH = 100


def reference() -> str:
    """All settings, metrics and events, in Markdown: both pages below."""
    return f"{settings()}\n{metrics_and_events()}"


def settings() -> str:
    """The page about settings."""
    rows = [_setting_row(setting) for setting in definitions.SHOWN]
    heads = ("flag", "variable", "key in the file", "default", "meaning")
    return f"# Settings: every flag, variable and file key\n\n{_table(heads, rows)}\n{_FILE}"


def metrics_and_events() -> str:
    """The page about what a worker shows of itself."""
    parts = [
        "# Metrics and events: HTTP pages, metrics, log lines\n",
        "## HTTP pages\n",
        _table(("page", "what it says"), [(f"`{path}`", meaning) for path, meaning in PAGES]),
        "## Metrics\n",
        _table(("metric", "kind", "labels", "meaning"), map(_metric_row, metric_definitions.ALL)),
        "## Events on /events\n",
        _table(("type", "meaning"), ((f"`{event.value}`", f"the task {text}") for event, text in TYPES.items())),
        "## Events in the log\n",
        _table(("event", "meaning"), ((f"`{event.value}`", event.meaning) for event in Event)),
    ]
    return "\n".join(parts)


def _setting_row(setting: Setting[Any]) -> Sequence[str]:
    variables = (
        [setting.variable, f"{setting.variable}_FILE" if setting.is_secret else None] if setting.variable else []
    )
    return (
        f"`{setting.flag}`" if setting.flag else "",
        ", ".join(f"`{name}`" for name in variables if name),
        ", ".join(f"`{key}`" for key in setting.keys),
        f"`{setting.default}`" if setting.default else setting.default_note,
        setting.help,
    )


def _metric_row(metric: metric_definitions.Metric) -> Sequence[str]:
    return f"`{metric.name}`", metric.kind, ", ".join(metric.labels), metric.about


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def example_yaml() -> str:
    """A configuration file with every key and its default; keys without a default are commented out."""
    lines = [_HEAD.format("yaml")]
    for section, settings in _sections().items():
        indent = "  " if section else ""
        lines += ["", f"{section}:"] if section else []
        for key, setting in settings.items():
            text, mark = _shown(setting)
            value = f"[{', '.join(map(_yaml, text.split(',')))}]" if setting.is_list else text
            lines += [*_comment(setting, indent), f"{indent}{mark}{key}: {value}"]
    return "\n".join(lines) + "\n"


def example_toml() -> str:
    """The same in TOML."""
    lines = [_HEAD.format("toml")]
    for section, settings in _sections().items():
        lines += ["", f"[{section}]"] if section else []
        for key, setting in settings.items():
            text, mark = _shown(setting)
            value = f"[{', '.join(map(_toml, text.split(',') if text else ()))}]" if setting.is_list else _toml(text)
            lines += [*_comment(setting, ""), f"{mark}{key} = {value}"]
    return "\n".join(lines) + "\n"


def _sections() -> dict[str, dict[str, Setting[Any]]]:
    """Each section of the file with its keys; the top has no name."""
    found: dict[str, dict[str, Setting[Any]]] = {}
    for setting in definitions.ALL:
        for name in setting.keys:
            section, _, key = name.rpartition(".")
            found.setdefault(section, {}).setdefault(key, setting)
    return found


def _shown(setting: Setting[Any]) -> tuple[str, str]:
    """The value to show, and the mark that comments it out if it is not the default."""
    return (setting.sample, "#") if setting.default is None else (setting.default, "")


def _comment(setting: Setting[Any], indent: str) -> list[str]:
    text = f"{setting.help} Default: {setting.default_note}." if setting.default_note else setting.help
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _yaml(text: str) -> str:
    return f'"{text}"' if ":" in text else text


def _toml(text: str) -> str:
    return text if re.fullmatch(r"\d+", text) else f'"{text}"'
