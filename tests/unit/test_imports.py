"""The shape of the package, in three rules: rooms import downwards, `child/` stands alone, its two sides never meet."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "reproq_listen"

# From the top floor down. A module imports from its own room and from rooms on lower floors, never from above.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"testing", "django"},
    {"worker"},  # serves the pages of http
    {"http", "doctor"},
    {"config", "scheduler", "client", "executor", "demo_tasks"},
    {"executors", "child", "db"},
    {"runtime", "embedded"},
    {"protocol"},
    {"logs", "model", "errors"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Programs that the Python of the tasks runs as plain scripts; it need not have reproq-listen installed.
SCRIPTS = ("executors.cleanup.guard_script", "executors.forkserver.server_script")


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
    """A module imports from its own room and from lower floors only; a new room has to be given its floor."""
    room = module.split(".")[0]
    assert room in FLOOR, f"{module} has no floor: give its room one in FLOORS"
    rooms = {name.split(".")[0] for name in own(MODULES[module])} - {room}
    assert {other for other in rooms if FLOOR[other] <= FLOOR[room]} == set()


def test_modules_import_without_a_circle() -> None:
    """Inside a room too, some order of import exists in which every module comes after what it needs."""
    waiting = {name: own(tree) for name, tree in MODULES.items()}
    while free := {name for name, needs in waiting.items() if not needs & (waiting.keys() - {name})}:
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert waiting == {}


def test_task_imports_standard_library_and_protocol_only() -> None:
    """Every module of `child/` can be imported where nothing else of ours, and nothing installed, can be found."""
    modules = [f"reproq_listen.{name}" for name in MODULES if name.split(".")[0] in ("child", "executor")]
    program = f"""
import importlib, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        top, _, rest = name.partition(".")
        room = rest.split(".")[0]
        if top == "reproq_listen" and room in ("", "child", "protocol", "executor") or top in sys.stdlib_module_names:
            return None
        raise ImportError(f"{{name}} is hidden")
sys.meta_path.insert(0, Hidden())
for module in {modules!r}:
    importlib.import_module(module)
"""
    subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{program}"], check=True
    )


def test_task_starts_with_few_modules() -> None:
    """Each task pays for what its process imports before it: only what every task needs, and not `typing`."""
    program = """
import sys
import reproq_listen.executor
print(*sorted(name for name in sys.modules if name.startswith("reproq_listen.") or name in ("typing", "datetime")))
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split() == [
        f"reproq_listen.{name}"
        for name in (
            *("child", "child.channel", "child.context", "child.payload", "child.runner"),
            *("executor", "protocol", "protocol.allowlist", "protocol.executor"),
        )
    ]


def test_executors_and_task_never_import_each_other() -> None:
    """The worker's side of a task and the task's side share `protocol/` and nothing else; neither knows a database."""
    strangers = {"executors": {"child", "db", "executor"}, "child": {"executors", "db"}}
    for name, tree in MODULES.items():
        room = name.split(".")[0]
        assert not {other.split(".")[0] for other in own(tree)} & strangers.get(room, set()), name
        if room in strangers:
            assert not [imported for _, imported in imports(tree) if imported.split(".")[0] == "psycopg"], name


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_standard_library_only(script: str) -> None:
    """What runs outside the package needs nothing installed."""
    found = {name.split(".")[0] for _, name in imports(MODULES[script])}
    assert found <= sys.stdlib_module_names
