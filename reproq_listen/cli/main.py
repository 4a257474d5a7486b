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

from reproq_listen.cli.usage import fill
from reproq_listen.errors import ExitCode, ReproqError

_GROUPS = {
    "Set up and run": {
        "demo": "See it work: an embedded PostgreSQL, a few dozen real tasks, and a table of the results.",
        "migrate": "Bring the reproq schema of a database up to date. Run it once per deploy.",
        "grants": "Create the database roles and set their rights.",
        "doctor": "Examine the setup. Each finding says what is wrong, why it matters, and the remedy.",
        "health": "Tell whether the worker of this host is alive.",
        "worker": "Run tasks until stopped.",
        "beat": "Enqueue the runs of schedules until stopped.",
        "docs": "Read the pages about reproq-listen.",
        "config": "Show settings and their sources; print the reference and example files.",
        "torture": "Stress a database with tasks that do nothing.",
        "version": "Print the version.",
    },
    "Enqueue": {
        "enqueue": "Enqueue a task, or many from a file.",
        "workflow": "Enqueue a chain, group or chord.",
        "schedule": "Set, sync, list, remove and preview periodic tasks.",
        "tasks": "List the tasks that a Python module declares.",
    },
    "Look and operate": {
        "status": "Show queues, busy keys and workers.",
        "explain": "Show why a task is not running.",
        "triage": "List, inspect and retry failed tasks.",
        "cancel": "Cancel a task.",
        "replay": "Enqueue a copy of a task.",
        "queue": "Pause, resume and list queues.",
        "limit": "Limit how fast tasks start.",
        "prune": "Delete old tasks and audit rows.",
        "workers": "List the workers.",
        "audit": "Show what operators did.",
    },
}
COMMANDS = {name: summary for group in _GROUPS.values() for name, summary in group.items()}
"""Every command with its summary. The module in `commands/` that has its name is imported when it is run."""

USAGE = """
reproq-listen: background tasks out of PostgreSQL.

Usage:
  {program} <command> [<options>...]
  {program} <command> --help
  {program} --help
  {program} --version

{commands}

First steps, with a server of your own:
  reproq-listen migrate --dsn postgresql://user@host/database
  reproq-listen worker  --dsn postgresql://user@host/database --allowed-task-modules myapp.tasks

Exit codes:
  0    done, or stopped on request
  1    failed; the last line says why
  2    a flag, a variable or a DSN is wrong
  3    the database lacks the reproq schema, or has another version of it: run migrate
  4    the database does not answer
  5    nothing was changed: the task has ended, has not failed, or has an active duplicate
  6    the task, schedule or limit does not exist
  7    worker: the template process of fork or pool cannot import the application
  130  interrupted (Ctrl-C, SIGINT); worker and beat stop on request instead
  141  the reader of the output closed it early
"""

_INTERRUPTED = 128 + 2  # the exit code that shells give a program ended by SIGINT
_NO_READER = 128 + 13  # and by SIGPIPE
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
            stream.reconfigure(errors="backslashreplace")  # a character that the terminal lacks must not end us
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


class CommandLineError(ReproqError):
    """The command line cannot be understood."""

    exit_code = ExitCode.USAGE


def _run(program: str, words: list[str]) -> ExitCode:
    if not words or words[0] in (*_HELP, "help"):
        print(usage(program))
        return ExitCode.OK if words else ExitCode.USAGE
    if words[0] == "--version":
        words = ["version", *words[1:]]
    if words[0] not in COMMANDS:
        hint = _nearest(words[0], COMMANDS)
        raise CommandLineError(f"there is no command {words[0]!r}{hint}; see {program} --help")
    if any(word in _HELP for word in words[1:]):
        print(command_usage(words[0], program))
        return ExitCode.OK
    run: Callable[[Mapping[str, object], str], ExitCode] = load(words[0]).run
    return run(parse(words, program), program)


def load(name: str) -> ModuleType:
    """Give the module of a command. Only this one is imported: a worker's memory is not spent on the other commands."""
    return importlib.import_module(f"reproq_listen.cli.commands.{name}")


def usage(program: str) -> str:
    """The help text of the program."""
    width = max(map(len, COMMANDS))
    groups = [
        f"{title}:\n" + "\n".join(f"  {name:<{width}}  {summary}" for name, summary in group.items())
        for title, group in _GROUPS.items()
    ]
    return USAGE.format(program=program, commands="\n\n".join(groups)).strip()


def command_usage(name: str, program: str) -> str:
    """The help text of a command: its summary, and the USAGE of its module."""
    return fill(f"{COMMANDS[name]}\n{load(name).USAGE}", program)


def parse(words: list[str], program: str) -> Mapping[str, object]:
    """Read a command and its flags. Raises CommandLineError, which never repeats a value: it may be a password."""
    doc = command_usage(words[0], program)
    known = set(re.findall(r"^\s+(?:-\w )?(--[a-z-]+)", doc, re.MULTILINE))
    switches = set(re.findall(r"^\s+(--[a-z-]+)(?=  |$)", doc, re.MULTILINE))
    words = _as_go_reads(words, known, switches)
    given = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]
    problem = next((f"there is no flag {flag}{_nearest(flag, known)}" for flag in given if flag not in known), "")
    if not problem:
        try:
            flags: Mapping[str, object] = docopt(doc, words, default_help=False)
        except DocoptExit as error:
            text = str(error.code).splitlines()[0]
            problem = text if text.startswith("--") else _form(doc, words, program)
        else:
            return flags
    raise CommandLineError(f"{words[0]}: {problem}; see {program} {words[0]} --help")


def _as_go_reads(words: Sequence[str], known: Collection[str], switches: Collection[str]) -> list[str]:
    """Read flags as the Go program does: `-flag` for `--flag`, `--switch=true`, `--switch=false`. Of a flag that is
    given twice, the last one holds."""
    read: dict[object, list[str]] = {}  # by flag; other words by their position
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
    """The right form of the command: the one that the second word names, or the possible second words."""
    usage = doc.partition("Usage:\n")[2].partition("\n\n")[0]
    forms = [" ".join(form.split()) for form in re.split(rf"^  (?={re.escape(program)} )", usage, flags=re.MULTILINE)]
    forms = [re.sub(r" \[--[^\]]*\]", "", form) for form in forms if form]
    named = [form for form in forms if words[1:] and form.split()[2:3] == [words[1]]]
    if named or len(forms) == 1:
        return f"an argument is missing or not expected; write {(named or forms)[0]}"
    seconds = [form.split()[2] for form in forms]
    if all(re.fullmatch("[a-z]+", word) for word in seconds):
        return f"give one of: {', '.join(seconds)}"
    return f"an argument is missing or not expected; write {' or '.join(forms)}"


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
