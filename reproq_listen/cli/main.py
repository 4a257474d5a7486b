"""The command line: finds the command, reads its flags, and turns every error into one line and an exit code."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import ModuleType

from docopt import DocoptExit, docopt

from reproq_listen import __version__
from reproq_listen.errors import ExitCode, ReproqError

USAGE = """
reproq-listen: background tasks out of PostgreSQL.

Usage:
  {program} <command> [<options>...]
  {program} <command> --help
  {program} --help
  {program} --version

Commands:
  demo      See it work: an embedded PostgreSQL, a few dozen real tasks, a table of what became of them.
  migrate   Bring a database's reproq schema up to date. Run it once per deploy.
  grants    Make the database roles by audience, and say who may do what.
  doctor    Find out what is wrong here, why it matters, and what cures it.
  health    Say whether the worker of this host is alive.
  worker    Run tasks until told to stop.
  beat      Enqueue what schedules say, until told to stop.
  docs      Read the pages about reproq-listen.
  config    Show settings and where each came from; print the reference and example files.
  torture   Stress a database with tasks that do nothing.
  version   Print the version.

  enqueue   Enqueue a task, or many from a file.
  workflow  Enqueue a chain, group or chord.
  schedule  Set, show, remove and preview periodic tasks.

  status    How things stand: queues, busy keys, workers.
  explain   Why a task is not running now.
  triage    Look at failed tasks, and retry them.
  cancel    Cancel a task.
  replay    Enqueue a task anew.
  queue     Pause and resume queues, and look at them.
  limit     Limit how fast tasks start.
  prune     Delete what is over.
  workers   Show the workers.
  audit     Show what operators did.

First steps, with a server of your own:
  reproq-listen migrate --dsn postgresql://user@host/database
  reproq-listen worker  --dsn postgresql://user@host/database --allowed-task-modules myapp.tasks

Exit codes:
  0  done, or stopped in good order
  1  it failed; the last line says why
  2  a flag, a variable or a DSN is wrong
  3  the database lacks the reproq schema, or serves another version of it: run migrate
  4  the database does not answer
  5  nothing was changed: the task has ended, has not failed, or has an active duplicate
  6  there is no such task, schedule or limit
  7  worker: the template of fork or pool cannot import the application
  130  a command was interrupted (Ctrl-C, SIGINT); worker and beat stop in good order instead
  141  whoever read the output went away before its end
"""

_COMMANDS = (
    "demo",
    "migrate",
    "grants",
    "doctor",
    "health",
    "worker",
    "docs",
    "config",
    "torture",
    "beat",
    "version",
    "enqueue",
    "workflow",
    "schedule",
    "status",
    "explain",
    "triage",
    "cancel",
    "replay",
    "queue",
    "limit",
    "prune",
    "workers",
    "audit",
)
_INTERRUPTED = 128 + 2  # what shells say of a program that SIGINT ended
_NO_READER = 128 + 13  # and SIGPIPE
_HELP = ("-h", "--help")
_CANNOT_WRITE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and give its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    program = os.path.basename(sys.argv[0] or "reproq-listen")
    if program.startswith("__main__"):
        program = "reproq-listen"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal cannot show is no reason to end
    try:
        code = int(_run(program, words))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except ReproqError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return int(error.exit_code)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return _NO_READER
        print(f"{program}: the output cannot be written: {error.strerror}", file=sys.stderr)
        return int(ExitCode.FAILURE)
    except KeyboardInterrupt:
        return _INTERRUPTED


class UsageError(ReproqError):
    """The command line cannot be understood."""

    exit_code = ExitCode.USAGE


def _run(program: str, words: list[str]) -> ExitCode:
    if not words or words[0] in (*_HELP, "help"):
        print(USAGE.format(program=program).strip())
        return ExitCode.OK if words else ExitCode.USAGE
    if words[0] == "--version":
        words = ["version", *words[1:]]
    if words[0] not in _COMMANDS:
        hint = _nearest(words[0], _COMMANDS)
        raise UsageError(f"there is no command {words[0]!r}{hint}; see {program} --help")
    command = load(words[0])
    doc: str = command.USAGE.format(program=program)
    if any(word in _HELP for word in words[1:]):
        print(doc.strip())
        return ExitCode.OK
    run: Callable[[Mapping[str, object], str], ExitCode] = command.run
    return run(_parse(doc, words, program), program)


def load(name: str) -> ModuleType:
    """Give the module of a command. Only this one is imported: a worker's memory is not spent on the other commands."""
    return importlib.import_module(f"reproq_listen.cli.commands.{name}")


def _parse(doc: str, words: list[str], program: str) -> Mapping[str, object]:
    """Read the flags of a command. What was given is never repeated in an error: it may hold a password."""
    known = set(re.findall(r"^\s+(?:-\w )?(--[a-z-]+)", doc, re.MULTILINE))
    switches = set(re.findall(r"^\s+(--[a-z-]+)(?=  |$)", doc, re.MULTILINE))
    words = _as_go_reads(words, known, switches)
    given = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]
    problem = next((f"there is no flag {flag}{_nearest(flag, known)}" for flag in given if flag not in known), "")
    if not problem:
        try:
            flags: Mapping[str, object] = docopt(doc, words, default_help=False)
        except DocoptExit as error:
            said = str(error.code).splitlines()[0]
            problem = said if said.startswith("--") else _form(doc, words, program)
        else:
            return flags
    raise UsageError(f"{words[0]}: {problem}; see {program} {words[0]} --help")


def _as_go_reads(words: Sequence[str], known: Collection[str], switches: Collection[str]) -> list[str]:
    """Understand what the Go program does: `-flag` for `--flag`, `--switch=true`, `--switch=false`, and the last one of
    a flag that is given twice."""
    read: dict[object, list[str]] = {}  # by flag; other words by their place
    left = iter(enumerate(words))
    for place, word in left:
        if word == "--":
            read[place] = [word, *(word for _, word in left)]
            break
        if re.match(r"-[a-z]", word) and f"-{word.partition('=')[0]}" in known:
            word = f"-{word}"
        flag, is_given, value = word.partition("=")
        if flag not in known:
            read[place] = [word]
            continue
        read.pop(flag, None)
        if flag in switches:
            read[flag] = {"true": [flag], "1": [flag], "false": [], "0": []}.get(value, [word]) if is_given else [flag]
        else:
            read[flag] = [word] if is_given else [word, *(word for _, word in itertools.islice(left, 1))]
    return [word for each in read.values() for word in each]


def _form(doc: str, words: Sequence[str], program: str) -> str:
    """How the command is written: the form that the second word names, or which words there are."""
    usage = doc.partition("Usage:\n")[2].partition("\n\n")[0]
    forms = [" ".join(form.split()) for form in re.split(rf"^  (?={re.escape(program)} )", usage, flags=re.MULTILINE)]
    forms = [re.sub(r" \[--[^\]]*\]", "", form) for form in forms if form]
    named = [form for form in forms if words[1:] and form.split()[2:3] == [words[1]]]
    if named or len(forms) == 1:
        return f"there is a word too many or too few; write {(named or forms)[0]}"
    seconds = [form.split()[2] for form in forms]
    if all(re.fullmatch("[a-z]+", word) for word in seconds):
        return f"say which: {', '.join(seconds)}"
    return f"there is a word too many or too few; write {' or '.join(forms)}"


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


__all__ = ["__version__", "main"]
