"""What a task may be and return, and what is refused: each through a real child process."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from reproq_listen.model import Outcome
from tests.apps import lasting_tasks
from tests.support.executing import MODULE, claimed, error_of, run, task, value_of

pytestmark = pytest.mark.usefixtures("each_mode")

TIMEDELTA = {"__reproq_type__": "timedelta", "days": 1, "seconds": 2, "microseconds": 500000}


@pytest.mark.parametrize(
    ("name", "args", "value"),
    [
        ("add", [2, 3], 5),
        ("add_later", [2, 3], 5),
        ("not_async", [2], 4),
        ("with_decorator", [7], ["decorated", 7]),
        ("Tools.double", [4], 8),
        ("echo", ["ü", None, 1.5, {"a": [True]}], [["ü", None, 1.5, {"a": [True]}], {}]),
        ("timedelta_seconds", [TIMEDELTA], 86402.5),
    ],
)
def test_function_runs_and_its_value_comes_back(name: str, args: list[Any], value: object) -> None:
    """Plain functions run: sync, async, decorated, static methods. A timedelta in the payload is decoded."""
    assert value_of(run(task(name, *args))) == value


def test_keyword_arguments_and_numbers_arrive_as_they_were_sent() -> None:
    """The result's text is the child's own, digit by digit: no number passes through a float here."""
    spec = f'{{"v": 1, "task_path": "{MODULE}.echo", "args": [9007199254740993], "kwargs": {{"x": 0.1}}}}'
    assert run(claimed(spec, f"{MODULE}.echo")).result == '[[9007199254740993], {"x": 0.1}]'


def test_context_is_the_first_argument_when_asked_for() -> None:
    """takes_context: result_id, attempt, queue_name and task_path."""
    outcome = run(task("about_me", "hello", takes_context=True, queue_name="mail"))
    assert value_of(outcome) == [42, 1, "mail", f"{MODULE}.about_me", "hello"]


def test_print_never_reaches_the_result() -> None:
    """Stdout belongs to the task, even if it prints a whole envelope."""
    assert value_of(run(task("shout", "hello"))) == "said"


@pytest.mark.parametrize(
    ("name", "args", "exception", "message"),
    [
        ("fail", ["no luck"], "ValueError", "no luck"),
        ("fail_strangely", [], "ValueError", "a\ufffdb\ufffdc"),
        ("exit_politely", [0], "SystemExit", "the task ended its own process: 0"),
        ("exit_politely", [None], "SystemExit", "the task ended its own process: no status given"),
        ("interrupt", [], "KeyboardInterrupt", "KeyboardInterrupt"),
        ("recurse", [], "RecursionError", "maximum recursion depth exceeded"),
        ("eat_memory", [], "MemoryError", "MemoryError"),
        ("fail_unprintably", [], f"{MODULE}.UnprintableError", "(an error whose text cannot be shown"),
        ("fail_leaving", [], f"{MODULE}.LeavingError", "(an error whose text cannot be shown"),
        ("no_such_function", [], "AttributeError", "has no attribute"),
        ("add", [1], "TypeError", "missing 1 required positional argument"),
    ],
)
def test_whatever_a_task_raises_is_an_app_error(name: str, args: list[Any], exception: str, message: str) -> None:
    """Every exception, BaseException included, is a definite outcome with class, message and traceback."""
    error = error_of(run(task(name, *args)))
    assert (error.kind, error.exception_class) == ("app_error", exception)
    assert error.message.startswith(message) or message in error.message
    assert error.traceback is not None
    assert error.signal is None


def test_traceback_starts_in_the_task() -> None:
    """The executor's own frames are left out; the line that raised is there."""
    trace = error_of(run(task("fail", "no luck"))).traceback or ""
    assert "raise ValueError(message)" in trace
    assert "reproq_listen/" not in trace


def test_long_error_texts_are_cut_at_a_character() -> None:
    """Message and traceback: at most 8 KiB each, whole characters."""
    error = error_of(run(task("fail", "é" * 100_000)))
    assert 8000 < len(error.message.encode()) <= 8192
    assert len((error.traceback or "").encode()) <= 8192


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("generator", [], "type generator is not JSON serializable"),
        ("a_set", [], "type set is not JSON serializable"),
        ("itself", [], "Circular reference"),
        ("treacherous", [], "cannot be stored"),
        ("not_a_number", [], "not JSON compliant"),
        ("nul", [], "NUL"),
        ("surrogate", [], "surrogate"),
        ("nested", [501], "nested"),
        ("nested", [100_000], "recursion"),
        ("text_of", [(1 << 20) + 1], "max_stdout_bytes"),
        ("huge_number", [], "digits"),
    ],
)
def test_value_that_cannot_be_stored_is_invalid_result(name: str, args: list[Any], reason: str) -> None:
    """A definite failure with the reason, never a database error later."""
    error = error_of(run(task(name, *args)))
    assert error.kind == "invalid_result"
    assert reason in error.message


@pytest.mark.parametrize("limit_delta", [0, 1])
def test_result_of_just_the_limit_passes_and_one_byte_more_does_not(limit_delta: int) -> None:
    """The limit counts the whole envelope."""
    envelope_without_text = len('{"ok": true, "return": ""}')
    outcome = run(task("text_of", 1000), max_stdout_bytes=1000 + envelope_without_text - limit_delta)
    assert (outcome.error is None) == (limit_delta == 0)


def test_deep_but_storable_result_passes() -> None:
    """The limit of nesting is the stated one, not less."""
    assert run(task("nested", 499)).error is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a", "invalid_spec"),
        (".a", "invalid_spec"),
        ("a.", "invalid_spec"),
        ("a..b", "invalid_spec"),
        ("tests.apps.tasks.x y", "invalid_spec"),
        ("tests.apps.tasks.Tools", "invalid_spec"),
        ("tests.apps.tasks.MODULE", "app_error"),
        ("tests.no_such_module.f", "app_error"),
        ("tests.apps.tasks.add.__globals__", "security_violation"),
        ("tests.apps.tasks.__builtins__.exec", "security_violation"),
        ("tests.apps.tasks.os.system", "security_violation"),
        ("tests.apps.tasks.system", "security_violation"),
        ("tests.apps.tasks.subprocess.run", "security_violation"),
        ("tests.apps.tasks.decorated", "app_error"),
        ("tests.apps.tasks.alias", "security_violation"),
        ("tests.apps.tasks.half_add", "security_violation"),
        ("tests.apps.tasks.instance", "security_violation"),
    ],
)
def test_executor_only_a_function_under_its_own_name_is_a_task(path: str, kind: str) -> None:
    """Allowing a module does not allow what it imports, nor anything that is not a function."""
    spec = json.dumps({"v": 1, "task_path": path, "args": [], "kwargs": {}})
    assert error_of(run(claimed(spec, path), allowed_task_modules=("*",))).kind == kind


@pytest.mark.parametrize(
    ("allowed", "runs"),
    [
        (("tests.apps.tasks",), True),
        (("tests.apps.tasks.",), True),
        (("tests.apps.tasks.add",), True),
        (("tests",), True),
        (("*",), True),
        ((), False),
        (("tests.apps.task",), False),
        (("tests.apps.tasks.ad",), False),
    ],
)
def test_allow_list_decides(allowed: tuple[str, ...], runs: bool) -> None:
    """Prefixes match at dots; an empty list refuses everything."""
    outcome = run(task("add", 1, 2), allowed_task_modules=allowed)
    assert (outcome.error is None) is runs
    if not runs:
        assert error_of(outcome).kind == "security_violation"


@pytest.mark.parametrize("column", ["tests.apps.tasks.echo", None, ""])
def test_row_whose_column_differs_from_its_spec_is_refused(column: str | None) -> None:
    """The path that is checked is the path that is executed."""
    error = error_of(run(claimed(task("add", 1, 2).spec, column)))
    assert error.kind == "security_violation"
    assert "column" in error.message


@pytest.mark.parametrize(
    "spec",
    [
        "[]",
        "1",
        "null",
        '"x"',
        "{}",
        '{"task_path": 1}',
        '{"task_path": ""}',
        '{"task_path": null}',
        "[" * 5000 + "]" * 5000,
        f'{{"task_path": "{MODULE}.add", "args": {{}}}}',
        f'{{"task_path": "{MODULE}.add", "kwargs": []}}',
        f'{{"task_path": "{MODULE}.add", "takes_context": 1}}',
        f'{{"task_path": "{MODULE}.add", "v": 2}}',
        f'{{"task_path": "{MODULE}.add", "args": [{{"__reproq_type__": "model"}}]}}',
        f'{{"task_path": "{MODULE}.add", "args": [{{"__reproq_type__": "timedelta", "days": "x"}}]}}',
        f'{{"task_path": "{MODULE}.add", "args": [{{"__reproq_type__": "pickle"}}]}}',
        f'{{"task_path": "{MODULE}.add", "args": [{"[" * 100_000}{"]" * 100_000}]}}',  # deeper than any Python reads
    ],
)
def test_spec_without_a_task_to_run_is_invalid(spec: str) -> None:
    """Bad input has a definite outcome, of a kind that is not retried."""
    assert error_of(run(claimed(spec, f"{MODULE}.add"))).kind == "invalid_spec"


def test_payload_over_the_limit_is_not_even_started() -> None:
    """payload_too_large, with both numbers."""
    big = task("echo", "x" * 2000)
    error = error_of(run(big, max_payload_bytes=2000))
    assert error.kind == "payload_too_large"
    assert "2000" in error.message
    assert run(big, max_payload_bytes=len(big.spec)).error is None


def assert_crashed(outcome: Outcome, crash_class: str) -> None:
    error = error_of(outcome)
    assert (error.kind, error.crash_class) == ("crashed", crash_class)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_process_killed_by_a_signal_has_crashed(number: signal.Signals) -> None:
    """Kind crashed, class signal, the signal's name. (SIGINT is a KeyboardInterrupt to Python.)"""
    outcome = run(task("kill_me", int(number)))
    if number == signal.SIGINT:
        assert error_of(outcome).exception_class == "KeyboardInterrupt"
        return
    assert_crashed(outcome, "signal")
    assert error_of(outcome).signal == number.name


@pytest.mark.parametrize("status", [0, 1, 3, 127])
def test_process_that_ends_without_a_result_has_crashed(status: int) -> None:
    """Exit 0 without a frame is a crash too; the status is kept."""
    outcome = run(task("leave", status))
    assert_crashed(outcome, "exit")
    assert error_of(outcome).exit_status == status


def test_crash_keeps_the_end_of_stderr() -> None:
    """The last 4 KiB of stderr, storable whatever they are."""
    error = error_of(run(task("complain_and_die", "x" * 10_000 + "last \0 words")))
    assert error.stderr_tail is not None
    assert error.stderr_tail.endswith("last \ufffd words")
    assert len(error.stderr_tail.encode()) <= 4096


def test_good_result_counts_although_the_process_ends_badly() -> None:
    """Ok with a non-zero status, or a death after it, is a success with a warning."""
    outcome = run(task("succeed_then_exit", 7))
    assert value_of(outcome) == "done"
    assert "status 7" in outcome.warnings[0]
    outcome = run(task("succeed_then_die"))
    assert value_of(outcome) == "done"
    assert "SIGKILL" in outcome.warnings[0]


def test_files_that_a_task_left_open_are_written_at_its_end(tmp_path: Path) -> None:
    """Files that something still refers to, buffers of the log, finalizers: as at the end of any Python program."""
    modules = ("tests.apps.lasting_tasks",)
    outcome = run(lasting_tasks.task(tmp_path), allowed_task_modules=modules, preload=modules)
    assert not Path(value_of(outcome)).exists()
    assert lasting_tasks.is_written(tmp_path)
    assert outcome.warnings == ()


def test_closing_all_descriptors_is_the_tasks_own_loss() -> None:
    """No result arrives: crashed, with the reason on stderr."""
    outcome = run(task("close_everything"))
    assert_crashed(outcome, "exit")
    assert "could not be sent" in (error_of(outcome).stderr_tail or "")


def test_garbage_on_the_result_pipe_is_no_result() -> None:
    """A task that writes to every descriptor ends as invalid_result, not as a success."""
    assert error_of(run(task("scribble"))).kind == "invalid_result"


def test_result_is_never_written_into_a_file_of_the_task(tmp_path: Path) -> None:
    """Nothing is written to a descriptor that means another file by now."""
    path = tmp_path / "file"
    assert_crashed(run(task("take_over_descriptors", str(path))), "exit")
    assert path.read_bytes() == b""


def test_executor_only_one_of_two_copies_gives_a_result() -> None:
    """A task that forks and returns in both processes gives one result, the original's."""
    assert value_of(run(task("fork_and_return"))) == "parent"
