"""A setting is defined once: help texts, reference, example files and the settings objects are made of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from docopt import parse_options
from msgspec import Struct

from reproq_listen.cli import main as cli
from reproq_listen.cli import reference
from reproq_listen.config import definitions, parsers
from reproq_listen.config.file import ConfigFile, Value
from reproq_listen.config.settings import (
    BeatSettings,
    HealthSettings,
    HttpSettings,
    OperatorSettings,
    WorkerSettings,
    read,
    settings_of,
    worker_settings,
)
from reproq_listen.config.sources import Setting, Sources
from tests.support.documents import HARD_WORDS

OBJECTS = (WorkerSettings, HttpSettings, BeatSettings, HealthSettings, OperatorSettings)
COMPUTED = (definitions.ADDR, definitions.PORT, definitions.LOW_MEMORY, definitions.WITH_BEAT)
"""They decide about fields of another form: HttpSettings.host and .port, WorkerSettings.http and .beat."""
NO_VALUE = (definitions.CONFIG, definitions.OUTPUT, definitions.MAX_ATTEMPTS)
"""They choose the file, the form of the output, and nothing."""

settings = pytest.mark.parametrize("setting", definitions.ALL, ids=lambda setting: setting.name)


def help_of(command: str) -> str:
    """The help text of a command, in one line."""
    return " ".join(cli.command_usage(command, "reproq-listen").split())


def commands_of(setting: Setting[Any]) -> list[str]:
    """The commands with its flag; all operators' commands have the same block: one stands for them."""
    return ["status" if name == definitions.OPERATORS else name for name in setting.used_by]


def assert_shown(setting: Setting[Any]) -> None:
    """In help, reference and both example files."""
    for command in commands_of(setting):
        assert f"{setting.flag} {setting.metavar}".strip() + f" {setting.help}" in help_of(command)
    page = reference.settings()
    for name in filter(None, (setting.flag, setting.variable, *setting.keys)):
        assert f"`{name}`" in page
    assert setting.help in page
    for key in setting.keys:
        shown = setting.default if setting.default is not None else setting.sample
        name = key.rpartition(".")[2]
        assert f"{name}: " in reference.example_yaml()
        assert f"{name} = " in reference.example_toml()
        if not setting.is_list and ":" not in shown:
            assert f"{name}: {shown}" in reference.example_yaml()


@settings
def test_setting_is_shown_everywhere(setting: Setting[Any]) -> None:
    """With the same words everywhere."""
    assert setting.help.endswith(".")
    assert setting.used_by or not setting.flag or setting is definitions.REASON
    assert_shown(setting)


def sources_with(setting: Setting[Any]) -> Sources:
    """Its sample as a flag, else a variable, else a key of the file."""
    if setting.flag:
        return Sources({setting.flag: setting.sample}, {})
    if setting.variable:
        return Sources({}, {setting.variable: setting.sample})
    return Sources({}, {}, ConfigFile("reproq.yaml", {setting.keys[0]: Value(setting.sample, 1)}))


@settings
def test_setting_reaches_an_object(setting: Setting[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sample is the value of the field that names it, and is not what holds without it."""
    monkeypatch.chdir(tmp_path)  # which holds no configuration file
    assert setting.default is None or setting.parse(setting.sample) != setting.parse(setting.default)
    sources = sources_with(setting)
    if setting in COMPUTED:
        base: dict[str, object] = {"--dsn": "host=h", "--metrics-port": "1"}
        given = {setting.flag: setting.sample} if setting.flag else {}
        environ = {setting.variable: setting.sample} if setting.variable else {}
        assert worker_settings({**base, **given}, environ) != worker_settings(base, {})
    elif setting not in NO_VALUE:
        fields = [(struct, name) for struct in OBJECTS for name, each in settings_of(struct).items() if each is setting]
        assert fields, "give it a field in config/settings.py"
        for struct, name in fields:
            others = {field: None for field in struct.__struct_fields__ if field not in settings_of(struct)}
            dsn = {"dsn": None} if "dsn" in struct.__struct_fields__ else {}
            assert getattr(read(struct, sources, **others, **dsn), name) == setting.parse(setting.sample)


def test_settings_one_definition_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new setting is in help, reference, example files and explain; a field that names it has its value."""
    pause = Setting(
        flag="--tea-break",
        metavar="DURATION",
        variable="REPROQ_TEA_BREAK",
        keys=("worker.tea_break",),
        default="5m",
        sample="10m",
        parse=parsers.duration(timedelta(0), timedelta(hours=1)),
        help="Length of the tea break.",
        group="Times",
        used_by=("worker", definitions.OPERATORS),
    )
    for name in ("ALL", "SHOWN"):
        monkeypatch.setattr(definitions, name, (*getattr(definitions, name), pause))
    assert_shown(pause)
    flags = cli.parse(["worker", "--tea-break", "10m"], "reproq-listen")
    assert flags["--tea-break"] == "10m"

    class Kitchen(Struct):
        tea_break: Annotated[timedelta, pause]

    monkeypatch.setitem(globals(), "pause", pause)
    assert read(Kitchen, Sources(flags, {})).tea_break == timedelta(minutes=10)
    assert read(Kitchen, Sources({}, {})).tea_break == timedelta(minutes=5)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command(command: str) -> None:
    """At most 100 columns; each line that begins with a dash is an option; none is described twice."""
    text = cli.command_usage(command, "reproq-listen")
    assert text.startswith(f"{cli.COMMANDS[command]}\n\n")
    assert max(map(len, text.splitlines())) <= 100
    options = [option.longer for option in parse_options(text.partition("Usage:")[2].partition("\n\n")[2])]
    assert len(set(options)) == len(options)
    assert "--help" in options
    lines = [line for line in text.splitlines() if line.strip().startswith("-")]
    assert len(lines) == len(options)


def test_help_of_the_program() -> None:
    """At most 100 columns, too."""
    assert max(map(len, cli.usage("reproq-listen").splitlines())) <= 100


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_words_of_help_texts(command: str) -> None:
    """Plain words: none of those that readers stumbled over."""
    assert HARD_WORDS.findall(help_of(command)) == []
