"""The configuration file: what is read, what is refused and how, and where it stands among the sources."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from reproq_listen.cli.commands.config import explain
from reproq_listen.cli.reference import example_toml, example_yaml
from reproq_listen.config import definitions
from reproq_listen.config import file as config_file
from reproq_listen.config.settings import (
    BeatSettings,
    OperatorSettings,
    WorkerSettings,
    default_worker_id,
    file_warning,
    read,
    read_sources,
    warnings,
    worker_settings,
)
from reproq_listen.config.sources import Setting, Sources
from reproq_listen.errors import SettingError
from tests.support.database import ROOT

DSN = "postgresql://u:hunter2@h/d"
EVERYTHING = {
    "worker": "dsn host=w; worker_id w1; process_role batch; queues a,b; concurrency 3; allowed_task_modules x.,y.; "
    "poll_min_backoff 1s; poll_max_backoff 2s; lease_seconds 30; heartbeat_seconds 9; reclaim_interval_seconds 0; "
    "python_bin /py; executor_module m.e; payload_mode file; max_payload_bytes 5; max_stdout_bytes 6; "
    "max_stderr_bytes 7; logs_dir /l; exec_timeout 2h; max_attempts_default 4; shutdown_timeout 3s; "
    "priority_aging_factor 0",
    "metrics": "addr 127.0.0.1:9090; port 1; auth_token t0ken; allow_cidrs 10.0.0.0/8; tls_cert /c; tls_key /k; "
    "tls_client_ca /a; auth_limit 2; auth_window 3m; auth_max_entries 4",
    "beat": "dsn host=b; interval 5s",
}
SETTINGS: tuple[Setting[Any], ...] = definitions.SHOWN


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(environ: dict[str, str] | None = None, **flags: str) -> WorkerSettings:
    given = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    return worker_settings(given, environ or {})


def refusal(text: str | bytes, name: str = "reproq.yaml") -> str:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingError) as caught:
        settings({"DATABASE_URL": DSN})
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


def test_defaults_then_file_then_environment_then_flags() -> None:
    """Each source goes before the ones named earlier; what one does not say is asked of the next."""
    Path("reproq.yaml").write_text(
        f"dsn: {DSN}\nworker:\n  queues: [f1, f2]\n  worker_id: f\n  priority_aging_factor: 7\n"
    )
    found = settings({"QUEUE_NAMES": "e", "WORKER_ID": "e"}, worker_id="flag")
    assert (found.dsn, found.queues, found.worker_id, found.aging_factor) == (DSN, ("e",), "flag", 7.0)
    assert found.concurrency == 10


def test_config_file_order_holds_for_every_setting() -> None:
    """Whatever a setting is: flag, else variable, else each of its keys, else the default. An empty variable or key
    is passed over, but where empty means something; so is an empty flag."""
    for setting in SETTINGS:
        values = {key: config_file.Value(f"file {key}", 1) for key in setting.keys}
        flags = {} if setting.flag is None else {setting.flag: "flag"}
        environ = {} if setting.variable is None else {setting.variable: "environment"}
        empty = dict.fromkeys(environ, "")

        def text(flags: dict[str, str], environ: dict[str, str], values: dict[str, config_file.Value]) -> str | None:
            found = Sources(flags, environ, config_file.ConfigFile("f", values)).trace(setting)  # noqa: B023
            return None if found is None else found.text

        if flags:
            assert text(flags, environ, values) == "flag"
            weaker = text({}, environ, values)
            assert text(dict.fromkeys(flags, ""), environ, values) == ("" if setting.empty_counts else weaker)
        if environ:
            assert text({}, environ, values) == "environment"
        if setting.keys:
            assert text({}, {}, values) == f"file {setting.keys[0]}"
            assert text({}, empty, values) == ("" if setting.empty_counts and empty else f"file {setting.keys[0]}")
            nothing = {key: config_file.Value("", 1) for key in setting.keys}
            assert text({}, {}, nothing) == ("" if setting.empty_counts else setting.default)
        assert text({}, {}, {}) == setting.default


def test_config_file_what_has_no_effect_is_said() -> None:
    """max_attempts_default is accepted and changes nothing, as in the Go program: tasks have a number of their own."""
    Path("reproq.yaml").write_text("worker:\n  max_attempts_default: 3\n")
    assert warnings(read_sources({}, {})) == []
    Path("reproq.yaml").write_text("worker:\n  max_attempts_default: 5\n")
    (warning,) = warnings(read_sources({}, {}))
    assert warning.startswith("reproq.yaml:2: worker.max_attempts_default has no effect")
    assert "max_attempts_default: needs a whole number" in refusal("worker:\n  max_attempts_default: 0\n")


def test_config_file_keys_that_the_go_program_would_pass_over() -> None:
    """Under the name reproq a key that is not known is only warned about; so are the driver's parameters."""
    Path("reproq.yaml").write_text("worker:\n  colour: red\n")
    environ = {"DATABASE_URL": "postgres://u:hunter2@h/d?pool_max_conns=4"}
    with pytest.raises(SettingError, match=r"no key worker\.colour"):
        worker_settings({}, environ)
    assert worker_settings({}, environ, as_reproq=True).concurrency == 10
    key, parameter = warnings(read_sources({}, environ, tolerant=True))
    assert key.startswith("reproq.yaml:2: there is no key worker.colour")
    assert parameter.startswith("DATABASE_URL: pool_max_conns in the DSN")


def test_unset_is_not_empty() -> None:
    """A key without a value and an empty text count as not given; an empty allow-list allows nothing."""
    Path("reproq.yaml").write_text(f"dsn: {DSN}\nworker:\n  queues:\n  worker_id: ''\n  allowed_task_modules: []\n")
    found = settings()
    assert found.queues == ("default",)
    assert found.worker_id == default_worker_id()
    assert found.allowed_task_modules == ()


def test_config_file_dsn_of_the_section_goes_first() -> None:
    """worker.dsn is the worker's, beat.dsn the beat's, dsn everybody else's."""
    Path("reproq.toml").write_text('dsn = "host=all"\n[worker]\ndsn = "host=w"\n[beat]\ndsn = "host=b"\n')
    sources = read_sources({}, {})
    assert read(OperatorSettings, sources).dsn == "host=all"
    assert worker_settings({}, {}).dsn == "host=w"
    assert read(BeatSettings, sources).dsn == "host=b"


def test_config_file_first_file_of_the_working_directory_is_read() -> None:
    """In the contract's order; one that is named goes before all of them."""
    names = ["reproq.yaml", "reproq.yml", "reproq.toml", ".reproq.yaml", ".reproq.yml", ".reproq.toml"]
    for name in reversed(names):
        is_toml = name.endswith("toml")
        Path(name).write_text(f'dsn = "host={name}"\n' if is_toml else f"dsn: host={name}\n")
        assert settings().dsn == f"host={name}"
    Path("other.toml").write_text('dsn = "host=other"')
    assert settings({"REPROQ_CONFIG": "other.toml"}).dsn == "host=other"
    assert settings({"REPROQ_CONFIG": "other.toml"}, config=".reproq.yml").dsn == "host=.reproq.yml"


@pytest.mark.parametrize("name", ["reproq.yaml", "reproq.toml"])
def test_config_file_every_key_of_the_contract_is_read(name: str) -> None:
    """All keys of worker, beat and metrics, in both languages, reach the settings."""
    lines = {section: dict(line.split(" ") for line in keys.split("; ")) for section, keys in EVERYTHING.items()}
    is_toml = name.endswith("toml")
    text = ""
    for section, keys in lines.items():
        text += f"[{section}]\n" if is_toml else f"{section}:\n"
        text += "".join(f"{key} = '{value}'\n" if is_toml else f"  {key}: {value}\n" for key, value in keys.items())
    Path(name).write_text(text)
    sources = read_sources({}, {})
    for section, keys in lines.items():
        for key, value in keys.items():
            (setting,) = (found for found in SETTINGS if found.keys[:1] == (f"{section}.{key}",))
            traced = sources.trace(setting)
            assert traced is not None
            assert (traced.text, traced.kind) == (value, "file"), key
    found = settings()
    assert found.http is not None
    assert (found.http.host, found.http.port, found.logs_dir, found.max_stderr_bytes) == ("127.0.0.1", 9090, "/l", 7)


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("worker:\n  concurency: 3\n", "reproq.yaml", ["reproq.yaml:2: ", "worker.concurency", "worker.concurrency?"]),
        ("concurrency: 3\n", "reproq.yaml", ["reproq.yaml:1: ", "did you mean worker.concurrency?"]),
        ("[worker]\n\nqueue = 'a'\n", "reproq.toml", ["reproq.toml:3: ", "worker.queue", "worker.queues?"]),
        ("worker:\n  concurrency: ten\n", "reproq.yaml", ["reproq.yaml:2: worker.concurrency: needs a whole number"]),
        ("[worker]\nconcurrency = 0\n", "reproq.toml", ["reproq.toml:2: worker.concurrency: needs a whole number"]),
        ("worker:\n  exec_timeout: 5\n", "reproq.yaml", ["reproq.yaml:2: worker.exec_timeout: ", "1h30m"]),
        ("worker:\n\tqueues: a\n", "reproq.yaml", ["reproq.yaml:2: not YAML", "spaces, not tabs"]),
        ("worker:\n  allowed_task_modules: *\n", "reproq.yaml", ["reproq.yaml:2: not YAML", '"*"']),
        ("a: &a [x]\nb: *a\n", "reproq.yaml", ["reproq.yaml:1: anchors and aliases"]),
        ("worker: !!python/object:os.system {}\n", "reproq.yaml", ["reproq.yaml:1: tags"]),
        ("worker: {a: {b: {c: 1}}}\n", "reproq.yaml", ["reproq.yaml:1: nested too deeply"]),
        ("worker: 3\n", "reproq.yaml", ["reproq.yaml:1: worker is a section", "worker."]),
        ("metrics = 'on'\n", "reproq.toml", ["reproq.toml:1: metrics is a section", "metrics.addr"]),
        ("- a\n", "reproq.yaml", ["reproq.yaml:1: give keys"]),
        ("worker:\n  queues: [a, [b]]\n", "reproq.yaml", ["reproq.yaml:2: nested"]),
        ("worker:\n  queues: {a: b}\n", "reproq.yaml", ["reproq.yaml:2: worker.queues needs a text"]),
        ("worker:\n  queues: ['a,b']\n", "reproq.yaml", ["reproq.yaml:2: worker.queues: an element"]),
        ("dsn: a\ndsn: b\n", "reproq.yaml", ["reproq.yaml:2: dsn is given twice"]),
        ("dsn = 1 2", "reproq.toml", ["reproq.toml:1: not TOML"]),
        ("worker.queues = 1979-05-27\n", "reproq.toml", ["reproq.toml:1: worker.queues needs a text"]),
        ("x = " + "[" * 5000, "reproq.toml", ["reproq.toml"]),
        ("[" * 5000, "reproq.yaml", ["reproq.yaml:1: nested too deeply"]),
        (b"worker:\n  queues: caf\xe9\n", "reproq.yaml", ["reproq.yaml:2: not UTF-8"]),
        ("dsn: x\0y\n", "reproq.yaml", ["reproq.yaml: not YAML"]),
        ("---\na: 1\n---\nb: 2\n", "reproq.yaml", ["reproq.yaml:3: not YAML"]),
        ("#" * 70_000, "reproq.yaml", ["more than 65536 bytes"]),
    ],
)  # fmt: skip
def test_config_file_bad_file_is_told_by_name_line_key_and_remedy(
    text: str | bytes, name: str, words: list[str]
) -> None:
    """No traceback: file, line, key, what is wrong and what would be right."""
    message = refusal(text, name)
    for word in words:
        assert word in message


def test_bombs_cost_nothing() -> None:
    """A file that would expand to gigabytes is refused at its first anchor."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(20)
    )
    assert "reproq.yaml:1: anchors and aliases" in refusal(bomb)


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
def test_windows_files_are_read(start: bytes) -> None:
    """A byte order mark and CRLF line ends are no errors, in either language."""
    Path("reproq.yaml").write_bytes(start + b"dsn: host=x\r\nworker:\r\n  queues: a,b\r\n")
    assert settings().queues == ("a", "b")
    Path("w.toml").write_bytes(start + b'dsn = "host=x"\r\n[worker]\r\nqueues = ["a", "b"]\r\n')
    assert settings(config="w.toml").queues == ("a", "b")


def test_yaml_does_not_guess() -> None:
    """`on`, `0o17` and `1:30` are the texts that stand there."""
    Path("reproq.yaml").write_text("dsn: host=x\nworker:\n  queues: [on, 0o17, '1:30', 1:30, no, 1e3, 2024-01-01]\n")
    assert settings().queues == ("on", "0o17", "1:30", "no", "1e3", "2024-01-01")


def test_config_file_what_is_not_a_file_is_refused_at_once() -> None:
    """A directory, a FIFO that no process writes to, a missing file, and one we may not read."""
    os.mkdir("directory")
    os.mkfifo("fifo")
    for path, words in {
        "directory": "not a regular file",
        "fifo": "not a regular file",
        "missing": "No such file",
        "a\0b": "null",
        "/dev/zero": "not a regular file",
    }.items():
        with pytest.raises(SettingError, match=words) as caught:
            settings({"DATABASE_URL": DSN}, config=path)
        assert "--config" in str(caught.value)
    os.symlink("nowhere", "reproq.yaml")
    with pytest.raises(SettingError, match="found in the working directory"):
        settings({"DATABASE_URL": DSN})


def test_secrets_that_everybody_may_read_are_warned_about() -> None:
    """A password in a world-readable file; not without one, nor when only the owner may read it."""
    path = Path("reproq.yaml")
    for text, mode, exposed in [
        ("dsn: postgresql://u:pw@h/d\n", 0o644, ["dsn"]),
        ("dsn: host=h password=pw\nmetrics:\n  auth_token: abc\n", 0o604, ["dsn", "metrics.auth_token"]),
        ("dsn: postgresql://u@h/d\n", 0o644, []),
        ('dsn: ""\nworker:\n  dsn: ""\n', 0o644, []),
        ("dsn: postgresql://u:pw@h/d\n", 0o640, []),
    ]:
        path.write_text(text)
        path.chmod(mode)
        warning = file_warning(read_sources({}, {}))
        assert (warning is not None) == bool(exposed)
        assert warning is None or (all(key in warning for key in exposed) and "chmod 600" in warning)


def test_secrets_come_from_files() -> None:
    """DATABASE_URL_FILE and METRICS_AUTH_TOKEN_FILE, as container secrets are mounted; the last newline is not part."""
    Path("secret").write_text("postgresql://u:hunter2@h/d\n")
    Path("token").write_text("abc")
    environ = {"DATABASE_URL_FILE": "secret", "METRICS_AUTH_TOKEN_FILE": "token", "METRICS_ADDR": ":9"}
    found = settings(environ)
    assert (found.dsn, found.http and found.http.auth_token) == (DSN, "abc")
    assert settings(environ, dsn="host=flag").dsn == "host=flag"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\xff", "UTF-8"),
        (b"x" * 70_000, "no secret"),
        (b"a b", "printable"),
    ],
)
def test_config_file_bad_secret_file_is_told_by_its_variable(content: bytes | None, words: str) -> None:
    """The variable is named; what is in the file never."""
    if content is not None:
        Path("token").write_bytes(content)
    environ = {"DATABASE_URL": DSN, "METRICS_AUTH_TOKEN_FILE": "token"}
    with pytest.raises(SettingError, match=words) as caught:
        settings(environ)
    assert "METRICS_AUTH_TOKEN_FILE" in str(caught.value)
    with pytest.raises(SettingError, match="both set"):
        settings({**environ, "METRICS_AUTH_TOKEN": "x"})


def test_explain_says_whose_value_counts_and_hides_secrets() -> None:
    """Value and source of each setting; passwords and tokens never."""
    Path("reproq.yaml").write_text(f"dsn: {DSN}\nworker:\n  concurrency: 3\nmetrics:\n  auth_token: hunter2\n")
    rows = {row.setting: row for row in explain(read_sources({}, {"QUEUE_NAMES": "a", "LOW_MEMORY_MODE": "maybe"}))}
    assert (rows["worker.concurrency"].value, rows["worker.concurrency"].source) == (
        "3",
        "file reproq.yaml:3: worker.concurrency",
    )
    assert rows["worker.queues"].source == "environment QUEUE_NAMES"
    assert rows["worker.lease_seconds"].source == "default"
    assert rows["worker.worker_id"].source == "unset"
    assert rows["LOW_MEMORY_MODE"].problem is not None
    assert "hunter2" not in str(rows)


@pytest.mark.parametrize(
    ("name", "text"), [("reproq.example.yaml", example_yaml()), ("reproq.example.toml", example_toml())]
)
def test_config_file_example_files_are_the_defaults(name: str, text: str) -> None:
    """The files in the repository are what the program would print; reading them changes nothing."""
    assert (ROOT / name).read_text() == text
    environ = {"DATABASE_URL": "host=x", "WORKER_ID": "w"}
    without = settings(environ)
    assert settings({**environ, "REPROQ_CONFIG": str(ROOT / name)}) == without
    for key in definitions.KEYS:
        assert key.rpartition(".")[2] in text
    Path(name).write_text(re.sub(r"^( *)#(?=\w)", r"\1", text, flags=re.MULTILINE))
    everything = settings({"REPROQ_CONFIG": name})
    assert everything.http is not None
    assert [str(network) for network in everything.http.allow] == ["10.0.0.0/8", "::1/128"]


def test_five_hundred_broken_files() -> None:
    """Whatever bytes a file holds: settings, or one clear line."""
    base = example_yaml(), example_toml()
    pieces = [
        b"\0",
        b"\xff",
        b"\t",
        b"&a ",
        b"*a ",
        b"!!x ",
        b"[",
        b"]",
        b"{",
        b"}",
        b": ",
        b"\n",
        b"'",
        b'"',
        b"- ",
        b"---\n",
    ]
    for seed in range(500):
        rng = random.Random(seed)
        is_toml = bool(seed % 2)
        data = bytearray(base[is_toml].replace("# ", "", rng.randrange(80)).encode())
        for _ in range(rng.randrange(1, 12)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at:at] = rng.choice(pieces)
                case 1:
                    del data[at : at + rng.randrange(1, 30)]
                case _:
                    data[at] = rng.randrange(256)
        name = "fuzz.toml" if is_toml else "fuzz.yaml"
        Path(name).write_bytes(data)
        problem = ""
        try:
            settings({"DATABASE_URL": "host=x", "REPROQ_CONFIG": name})
        except SettingError as error:
            problem = str(error)
        assert problem.isprintable(), seed
