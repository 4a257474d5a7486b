"""Where things stand: imports at the top of a module, SQL text in `db/`. And in which words: plain ones."""

from __future__ import annotations

import ast
import re
import sys

from tests.support.database import ROOT
from tests.support.documents import HARD_WORDS
from tests.unit.test_imports import MODULES, PACKAGE, imports

STARTS_SMALL = ("executors.forkserver.server_script",)
SQL = re.compile(
    r"^\s*(select|insert into|update|delete from|with (recursive )?\w+ as|listen|notify|create|alter|drop)\s"
)


def test_imports_stand_at_the_top() -> None:
    """No import hides in a function, but an optional extra's, the HTTP pages' that most workers do not serve, the
    standard library's where the child saves time, and what the decorator, pytest or Django does not need at first."""
    hidden = []
    for module, tree in MODULES.items():
        assert isinstance(tree, ast.Module)
        top = {id(statement) for statement in tree.body}
        for statement, name in imports(tree):
            is_extra = (module, name) == ("embedded.server", "psutil") or (
                module == "worker.service"
                and name.startswith(("reproq_listen.embedded.", "reproq_listen.db.migrations."))
            )
            is_late = (module in STARTS_SMALL or module.startswith("child.")) and (
                name.split(".")[0] in sys.stdlib_module_names
                or name.startswith(("reproq_listen.child.", "reproq_listen.protocol."))
            )
            is_pages = module == "worker.service" and name.startswith("reproq_listen.http.")
            is_client = (module, name) == ("client.task", "reproq_listen.client.codec.Codec") or (
                module in ("__init__", "testing", "testing.plugin", "django")
            )
            if id(statement) not in top and not (is_extra or is_pages or is_late or is_client):
                hidden.append(f"{module}: {name}")
    assert hidden == []


def test_sql_text_stands_in_db() -> None:
    """Calls to the functions, and the few other statements, stand in `db/` and nowhere else, but for the calls that a
    task makes on its own connection."""
    elsewhere = [
        f"{module}:{node.lineno}: {node.value[:40]}"
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if module.split(".")[0] != "db"
        and module != "child.transaction"
        and isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and SQL.match(node.value)
    ]
    assert elsewhere == []


def test_words_of_code_are_plain_english() -> None:
    """Package, SQL and migrations have none of the words that readers stumbled over, in names, texts and comments."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "sql").rglob("*.*"), *(ROOT / "migrations").glob("*.*")]
    found = {str(path.relative_to(ROOT)): HARD_WORDS.findall(path.read_text()) for path in files}
    assert {path: words for path, words in found.items() if words} == {}
