"""README and pages: short where promised, linked, and naming only what exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

import reproq_listen
from reproq_listen import testing
from reproq_listen.cli import main as cli
from reproq_listen.cli.commands import docs
from reproq_listen.client.options import CallOptions, TaskOptions
from reproq_listen.testing import plugin
from tests.support.database import ROOT
from tests.support.documents import (
    DOCS,
    DOCUMENTS,
    GENERATED,
    HARD_WORDS,
    PAGES,
    README,
    anchors,
    blocks,
    ident,
    links,
    spans,
)

REFERENCE = "\n".join(path.read_text() for path in GENERATED)
RUN = ("sql", "python", "sh", "toml", "yaml")
"""Languages of blocks that tests/e2e/test_documents.py runs. Blocks of other languages are output and diagrams."""

OTHERS = frozenset(
    # PostgreSQL
    {"synchronous_commit", "autovacuum", "search_path", "pg_terminate_backend", "pg_stat_activity", "pg_monitor"}
    | {"pg_read_all_stats", "target_session_attrs", "default_transaction_read_only", "pg_temp", "pg_notify"}
    | {"full_page_writes", "checkpoint_timeout", "hot_standby_feedback"}
    # Django and Reproq Django
    | {"DJANGO_SETTINGS_MODULE", "CONN_MAX_AGE", "on_commit", "reproq_django", "--fake-initial", "REPROQ_WORKER_BIN"}
    # the driver of the Go program
    | {"pool_max_conns"}
    # Docker
    | {"--build-arg", "stop_grace_period"}
    # of this repository, not of the program
    | {"REPROQ_TEST_DSN"}
)
"""Names that are not ours."""

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=ident)


def test_readme_has_at_most_150_lines() -> None:
    """It is the first hour; all else is a page."""
    assert len(README.read_text().splitlines()) <= 150


def test_readme_links_every_page() -> None:
    """A page that nothing links to is not found."""
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in links(README)}
    assert [path.name for path in PAGES if path not in linked] == []


@pytest.mark.parametrize("path", PAGES, ids=ident)
def test_page_begins_with_what_it_is_about(path: Path) -> None:
    """The first line is what `reproq-listen docs` lists: `# Subject: what the page says`, in one line of a terminal."""
    assert re.fullmatch(r"# [A-Z][^\n]{10,72}", path.read_text().partition("\n")[0])


@documents
def test_links_lead_somewhere(path: Path) -> None:
    """File and heading exist. Pages link to pages only: in the wheel there is nothing else."""
    for target in links(path):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        assert path.parent != DOCS or file in PAGES, f"{target} is not shipped in the wheel"
        assert not anchor or anchor in anchors(file), target


@documents
def test_words_are_plain_english(path: Path) -> None:
    """None of the words that readers stumbled over."""
    assert HARD_WORDS.findall(path.read_text()) == []


@documents
def test_code_block_is_of_a_known_language(path: Path) -> None:
    """A block is run, or says why not, or is no code."""
    for block in blocks(path):
        assert block.language in (*RUN, "text", "dockerfile"), block.where
        assert block.not_run is None or len(block.not_run) > 10, block.where
        if block.language == "dockerfile":
            assert block.not_run, block.where


@documents
def test_command_lines_are_understood(path: Path) -> None:
    """Each `reproq-listen ...` line of a shell block is read by the real usage, also where the block is not run."""
    for block in blocks(path):
        for line in block.commands if block.language == "sh" else ():
            words = shlex.split(line)
            if words[0] == "reproq-listen":
                assert parsed(words[1:]) is not None, (block.where, line)


def parsed(words: list[str]) -> Mapping[str, object] | None:
    """The flags of a command line. Raises what the program raises."""
    if words[0] in ("--help", "--version"):
        return {}
    assert words[0] in cli.COMMANDS, words[0]
    if "--help" in words:
        return {}
    return cli.parse(words, "reproq-listen")


@documents
def test_names_in_code_font_exist(path: Path) -> None:
    """Commands, flags, settings, functions, columns, events: what looks like a name of ours is in the reference."""
    known = known_names()
    unknown = []
    for span in spans(path):
        words = span.split()
        if words[0] == "reproq-listen":
            unknown += [span] if len(words) > 1 and words[1] not in {*cli.COMMANDS, "--help", "COMMAND"} else []
        elif not words[0].startswith("-") and not re.fullmatch(r"\w+(\(.*\))?;?", words[0]):
            continue  # a path, an expression, another program with its flags
        flags = re.findall(r"(?<!\S)(--[a-z][a-z-]+)", span) if words[0].startswith(("-", "reproq-listen")) else []
        names = re.findall(r"(?<![\w.<{/-])(?!test_)[A-Za-z]\w*_\w+", span)
        unknown += [name for name in (*flags, *names) if name not in known and not name.endswith("_")]
    assert unknown == []


def known_names() -> set[str]:
    """All words of the reference; arguments also without their p_, as JSON has them; the public names of Python."""
    words = set(re.findall(r"--[a-z][a-z-]+|\w+", REFERENCE))
    words |= {word.removeprefix("p_") for word in words if word.startswith("p_")}
    for name in reproq_listen.__all__:
        words |= {name, *dir(getattr(reproq_listen, name))}
    for name in testing.__all__:
        words |= {name, *dir(getattr(testing, name))}
    words |= {*dir(plugin), "REPROQ_TEST_DSN", "result_id", "task_path", "task_result"}
    return words | {*TaskOptions.__annotations__, *CallOptions.__annotations__} | OTHERS


def test_docs_lists_every_page() -> None:
    """Each file is a page of the command, in the order of names, without comments for editors."""
    pages = docs.read_pages()
    assert list(pages) == [path.stem for path in PAGES]
    assert [name for name, text in pages.items() if "<!--" in text] == []
