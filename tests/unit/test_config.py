"""Settings: what is accepted, what is refused and how, and which source wins."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reproq_listen.config import definitions, parsers
from reproq_listen.config.definitions import DEFAULT_ALLOWED_MODULES
from reproq_listen.config.settings import worker_settings
from reproq_listen.errors import ExitCode, SettingError

DSN = {"--dsn": "postgresql://u:hunter2@h/d"}


def refusal(flags: dict[str, object], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingError) as caught:
        worker_settings({**DSN, **flags}, environ or {})
    assert caught.value.exit_code is ExitCode.USAGE
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_of_the_contract() -> None:
    """Without flags the worker behaves as the Go program's documentation says."""
    settings = worker_settings(DSN, {})
    assert settings.queues == ("default",)
    assert settings.concurrency == 10
    assert settings.lease == timedelta(seconds=300)
    assert settings.heartbeat == timedelta(seconds=60)
    assert settings.reclaim_interval == timedelta(seconds=60)
    assert settings.aging_factor == 60.0
    assert settings.allowed_task_modules == ("myapp.tasks.", "tasks.")
    assert settings.payload_mode == "stdin"
    assert settings.poll_min_backoff == timedelta(milliseconds=100)
    assert settings.poll_max_backoff == timedelta(seconds=5)
    assert settings.shutdown_timeout == timedelta(seconds=30)


def test_config_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    """Precedence: flags, then environment, then defaults."""
    environ = {"QUEUE_NAMES": "a,b", "WORKER_ID": "from-env", "PRIORITY_AGING_FACTOR": "0"}
    settings = worker_settings({**DSN, "--queues": "c"}, environ)
    assert settings.queues == ("c",)
    assert settings.worker_id == "from-env"
    assert settings.aging_factor == 0.0


def test_config_empty_variable_counts_as_unset_but_an_empty_allow_list_allows_nothing() -> None:
    """`QUEUE_NAMES=` in a compose file means the default; `ALLOWED_TASK_MODULES=` must not open the door."""
    settings = worker_settings(DSN, {"QUEUE_NAMES": "", "WORKER_ID": "", "ALLOWED_TASK_MODULES": ""})
    assert settings.queues == ("default",)
    assert settings.worker_id
    assert settings.allowed_task_modules == ()
    assert worker_settings(DSN, {}).allowed_task_modules == DEFAULT_ALLOWED_MODULES


def test_config_empty_flag_counts_as_unset() -> None:
    """Wrappers pass a flag for every variable of theirs, also for those that are not set."""
    empty = {setting.flag: "" for setting in definitions.ALL if setting.flag and setting.metavar}
    del empty["--dsn"], empty["--allowed-task-modules"], empty["--executor-env"]
    assert worker_settings({**DSN, **empty, "--worker-id": "w"}, {}) == worker_settings({**DSN, "--worker-id": "w"}, {})
    environ = {"DATABASE_URL": DSN["--dsn"], "QUEUE_NAMES": "a"}
    assert worker_settings({"--dsn": "", "--queues": ""}, environ).queues == ("a",)
    assert worker_settings({**DSN, "--allowed-task-modules": ""}, {}).allowed_task_modules == ()


def test_config_no_database_is_refused_with_the_ways_to_name_one() -> None:
    """The error says how to give a DSN."""
    with pytest.raises(SettingError, match=r"--dsn .* DATABASE_URL"):
        worker_settings({}, {})


@pytest.mark.parametrize("text", ["0", "-1", "1000000000", "ten", " ", "1.5", "\u0661\u0660", "1" * 5000])
def test_concurrency_is_a_number_from_1_to_1000(text: str) -> None:
    """0 must not be a silent idle worker, nor -1 a panic."""
    assert "--concurrency: needs a whole number from 1 to 1000" in refusal({"--concurrency": text})


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("100ms", 100), ("30s", 30_000), ("1m", 60_000), ("1h", 3_600_000), ("1h30m", 5_400_000), ("1.5s", 1500)],
)
def test_durations_carry_their_units(text: str, milliseconds: int) -> None:
    """Durations are written as the Go program writes them."""
    settings = worker_settings({**DSN, "--shutdown-timeout": text}, {})
    assert settings.shutdown_timeout == timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize("text", ["5", "-5s", "1e3s", "∞", " ", "s", "30m1h", "5 s", "1h30", "9" * 400 + "s"])
def test_config_what_is_not_a_duration_is_refused(text: str) -> None:
    """The error shows the forms that are accepted."""
    message = refusal({"--shutdown-timeout": text})
    assert message.startswith("--shutdown-timeout: ")
    assert "1h30m" in message


@pytest.mark.parametrize("text", ["5s", "-1", "1e3", "nan", "inf", " "])
def test_seconds_are_plain_numbers(text: str) -> None:
    """Flags whose name ends in seconds take a number."""
    assert "--lease-seconds: needs a plain number" in refusal({"--lease-seconds": text})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"--lease-seconds": "60", "--heartbeat-seconds": "60"}, "--heartbeat-seconds (60) must be less than"),
        ({"--lease-seconds": "0"}, "--lease-seconds: must be from 1 "),
        ({"--heartbeat-seconds": "0.05"}, "--heartbeat-seconds: must be 0 or from 0.1 "),
        ({"--lease-seconds": "3", "--grace-seconds": "3"}, "--grace-seconds (3) must be less than"),
        ({"--poll-min-backoff": "10s"}, "--poll-min-backoff must not be more than"),
        ({"--payload-mode": "inline"}, "REPROQ_DEV=1"),
        ({"--payload-mode": "carrier"}, "stdin, file or inline"),
        ({"--embedded": True}, "--embedded starts a server of its own"),
        ({"--queues": " , "}, "names no queue"),
        ({"--queues": "a\nb"}, "control character"),
        ({"--queues": "a\0b"}, "control character"),
        ({"--queues": "q" * 65536}, "65536 bytes"),
        ({"--queues": ",".join(f"q{n}" for n in range(1001))}, "1001 queues"),
        ({"--queues": "\udc80"}, "UTF-8"),
        ({"--worker-id": " "}, "must not be empty"),
        ({"--allowed-task-modules": "os;rm"}, "module name"),
        ({"--allowed-task-modules": "a..b"}, "module name"),
        ({"--executor-module": "-c"}, "module name"),
        ({"--priority-aging-factor": "nan"}, "plain number"),
        ({"--dsn": "postgresql://u:hunter2@h/d\n"}, "control character"),
    ],
)
def test_values_that_cannot_work_are_refused(flags: dict[str, object], words: str) -> None:
    """Each refusal names the setting and what would be right."""
    assert words in refusal(flags)


def test_config_short_lease_needs_no_other_flag() -> None:
    """Defaults make way: a unit file that sets the lease alone is no error. What a user gave stays as it is."""
    short = worker_settings({**DSN, "--lease-seconds": "3"}, {})
    assert (short.heartbeat, short.grace) == (timedelta(seconds=1), timedelta(seconds=0.75))
    given = worker_settings({**DSN, "--lease-seconds": "3", "--heartbeat-seconds": "2", "--grace-seconds": "0"}, {})
    assert (given.heartbeat, given.grace) == (timedelta(seconds=2), timedelta(0))
    assert "--heartbeat-seconds (60)" in refusal({"--lease-seconds": "30", "--heartbeat-seconds": "60"})


def test_config_heartbeat_of_zero_is_the_default() -> None:
    """The Go program takes 0; leases are renewed all the same."""
    assert worker_settings({**DSN, "--heartbeat-seconds": "0"}, {}).heartbeat == timedelta(seconds=60)
    short = worker_settings({**DSN, "--heartbeat-seconds": "0", "--lease-seconds": "3"}, {})
    assert short.heartbeat == timedelta(seconds=1)


def test_config_allow_list_knows_localhost() -> None:
    """It stands for all loopback addresses; no name is looked up."""
    http = worker_settings({**DSN, "--metrics-port": "1", "--metrics-allow-cidrs": "10.0.0.1,localhost"}, {}).http
    assert http
    assert [str(network) for network in http.allow] == ["10.0.0.1/32", "127.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("port", "address", "served"),
    [
        ("9000", "127.0.0.1:9464", ("127.0.0.1", 9000)),
        ("9000", ":9464", (None, 9000)),
        ("0", "127.0.0.1:9464", None),
        ("0", "127.0.0.1", None),
        ("9000", "127.0.0.1", ("127.0.0.1", 9000)),
    ],
)
def test_config_port_from_a_stronger_source_replaces_that_of_the_address(
    port: str, address: str, served: tuple[str | None, int] | None
) -> None:
    """As any flag does a variable; 0 switches it off. The host stays: nothing is served where the address does not
    say so."""
    http = worker_settings({**DSN, "--metrics-port": port}, {"METRICS_ADDR": address}).http
    assert (http and (http.host, http.port)) == served


def test_config_address_goes_before_a_port_of_its_own_source() -> None:
    """And before one from a weaker source, that there is none included."""
    http = worker_settings({**DSN, "--metrics-port": "9000", "--metrics-addr": "127.0.0.1:9464"}, {}).http
    assert (http and (http.host, http.port)) == ("127.0.0.1", 9464)
    http = worker_settings(DSN, {"METRICS_ADDR": "127.0.0.1:9464"}).http
    assert (http and (http.host, http.port)) == ("127.0.0.1", 9464)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60), ("1m", 60), ("0", None), ("0s", None), ("", None), ("off", None), ("None", None)]
)
def test_memory_is_logged_so_often(text: str, seconds: int | None) -> None:
    """REPROQ_MEMORY_LOG_INTERVAL is a duration or plain seconds; 0 and empty are never."""
    found = worker_settings(DSN, {"REPROQ_MEMORY_LOG_INTERVAL": text}).memory_log_interval
    assert found == (None if seconds is None else timedelta(seconds=seconds))
    for bad in ("100ms", "-1", "often", "9" * 10):
        assert refusal({}, {"REPROQ_MEMORY_LOG_INTERVAL": bad}).startswith("REPROQ_MEMORY_LOG_INTERVAL: ")


def test_nothing_is_a_duration_too() -> None:
    """A plain 0 needs no unit; where nothing cannot be, it is refused with the bounds in full."""
    assert worker_settings({**DSN, "--shutdown-timeout": "0"}, {}).shutdown_timeout == timedelta(0)
    assert "from 0.001 to 31536000 seconds, not 0" in refusal({"--exec-timeout": "0"})


def test_queue_names_may_be_anything_that_fits_on_a_line() -> None:
    """Odd names are names; one given twice counts once; spaces around are not part of it, and no name is no error."""
    settings = worker_settings({**DSN, "--queues": " a , *,,../x,🐘,a, it's,"}, {})
    assert settings.queues == ("a", "*", "../x", "🐘", "it's")


def test_config_source_of_a_wrong_value_is_named() -> None:
    """A wrong variable is told by its own name, not by the flag's."""
    assert refusal({}, {"PRIORITY_AGING_FACTOR": "fast"}).startswith("PRIORITY_AGING_FACTOR: ")


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("1024", 1024), ("4k", 4 << 10), ("512M", 512 << 20), (" 2G ", 2 << 30)]
)
def test_sizes_are_bytes_or_carry_a_unit(text: str, number: int) -> None:
    """K, M and G are KiB, MiB and GiB."""
    assert parsers.size(text) == number


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "10MB", "ten", "1e3"])
def test_config_what_is_not_a_size_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(ValueError, match="512M"):
        parsers.size(text)


def test_modules_to_preload_are_whole_names() -> None:
    """By commas; an empty list is none."""
    assert parsers.module_names(" a.b, c ,") == ("a.b", "c")
    assert parsers.module_names("") == ()
    with pytest.raises(ValueError, match="module name"):
        parsers.module_names("a-b")
