"""The shape of the package: imports point one way, the child stays light, SQL text has one home."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "reproq_listen"

# From the ground up. A module imports from its own layer or from below it, never from above. A folder counts as one.
LAYERS = (
    {"errors", "model", "protocol", "values", "stop", "allowlist", "logs", "wire", "dsn", "config", "notify_systemd"}
    | {"config_file", "settings", "settings_table", "cron", "memory", "metrics_table", "log_writer"},
    {"task_input", "task_context", "task_channel", "executor", "demo_tasks", "task_logs"},
    {"connection", "db", "db_operate", "db_schedule", "embedded_binaries", "embedded", "migrate", "executors"}
    | {"db_roles", "db_doctor", "db_cures", "db_metrics"},
    {"wake", "lease", "outbox", "notes", "reclaim", "executions", "claims", "beat", "doctor", "health"},
    {"worker", "http"},
    {"reference"},
    {"commands"},
    {"cli", "__main__"},
)
LAYER = {module: number for number, layer in enumerate(LAYERS) for module in layer}
SQL = re.compile(
    r"^\s*(select|insert into|update|delete from|with (recursive )?\w+ as|listen|notify|create|alter|drop)\s"
)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST) -> list[tuple[ast.stmt, str]]:
    """Each import statement with the full name of what it imports."""
    found: list[tuple[ast.stmt, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}"
            found += [(node, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def own(tree: ast.AST) -> set[str]:
    """The modules of the package that a module imports."""
    names = {name.removeprefix("reproq_listen.") for _, name in imports(tree) if name.startswith("reproq_listen.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} - {"", "__version__"}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_point_down(module: str) -> None:
    """No module imports from a layer above its own; a new module has to be given its place."""
    place = module.split(".")[0]
    assert place in LAYER, f"{module} has no layer: give it one in LAYERS"
    upwards = {name for name in own(MODULES[module]) if LAYER[name.split(".")[0]] > LAYER[place]}
    assert upwards == set()


def test_there_are_no_cycles() -> None:
    """Some order of import exists in which every module comes after what it needs."""
    waiting = {name: own(tree) for name, tree in MODULES.items()}
    while free := {name for name, needs in waiting.items() if not needs & (waiting.keys() - {name})}:
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert waiting == {}


def test_executors_know_no_database() -> None:
    """What runs children gets tasks and gives outcomes; it never speaks to PostgreSQL."""
    for name, tree in MODULES.items():
        if name.split(".")[0] == "executors":
            assert not own(tree) & {"db", "connection", "dsn"}, name
            assert not [imported for _, imported in imports(tree) if imported.split(".")[0] == "psycopg"], name


def test_the_child_imports_the_standard_library_only() -> None:
    """Every cold start pays for what the child imports: nothing from outside, at any depth."""
    seen: set[str] = set()
    ahead = {"executor"}
    while ahead:
        module = ahead.pop()
        seen.add(module)
        for _, name in imports(MODULES[module]):
            assert name.split(".")[0] in sys.stdlib_module_names | {"reproq_listen"}, f"{module} imports {name}"
        ahead |= own(MODULES[module]) - seen


def test_imports_stand_at_the_top() -> None:
    """No import hides in a function, but an optional extra's, the HTTP pages' that most workers do not serve, and the
    standard library's where the child saves time."""
    hidden = []
    for module, tree in MODULES.items():
        assert isinstance(tree, ast.Module)
        top = {id(statement) for statement in tree.body}
        for statement, name in imports(tree):
            is_extra = (module, name) == ("embedded", "psutil") or (
                module == "commands.worker" and name.startswith(("reproq_listen.embedded.", "reproq_listen.migrate."))
            )
            is_late = module in ("executor", "task_input") and name.split(".")[0] in sys.stdlib_module_names
            is_pages = module == "commands.worker" and name.startswith("reproq_listen.http.")
            if id(statement) not in top and not is_extra and not is_pages and not is_late:
                hidden.append(f"{module}: {name}")
    assert hidden == []


def test_sql_text_has_one_home() -> None:
    """Calls to the functions stand in db.py and the db_ modules; only migrate.py, for whom there are no functions yet,
    has its own."""
    elsewhere = [
        f"{module}:{node.lineno}: {node.value[:40]}"
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if module not in ("db", "migrate")
        and not module.startswith("db_")
        and isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and SQL.match(node.value)
    ]
    assert elsewhere == []
