"""Freeze the SQL of a release: `make release VERSION=0.2.0`. Checks first, then writes; commit what it wrote.

The first release is one file, sql/released/0.1.0.sql: everything, in the order of install.sql. A later one is a folder
with a file for each function, view and trigger that changed since, `rollback.sql`, and a step in migrations/ that loads
them. Released files and the steps that are there are sealed in migrations/SHA256SUMS: they never change again.
"""

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SQL = ROOT / "sql"
RELEASED = SQL / "released"
MIGRATIONS = ROOT / "migrations"
SEALS = MIGRATIONS / "SHA256SUMS"
STEP = '''"""Release {version}: the functions, views and triggers that changed since {before}."""

import random
import time
from pathlib import Path

from yoyo import step

__depends__ = {{"{last}"}}
FOLDER = Path(__file__).resolve().parents[1] / "sql" / "released" / "{version}"
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"
NAMES = (
{names}
)


def load(connection, names):
    cursor = connection.cursor()
    for name in names:
        cursor.execute((FOLDER / f"{{name}}.sql").read_text())


def retried(work):
    """`work`, which waits a second at most for a lock, since all who write wait behind it, and is then repeated."""

    def run(connection):
        cursor = connection.cursor()
        cursor.execute("savepoint reproq_step")
        for is_last in (False,) * 14 + (True,):
            cursor.execute(PATH)
            cursor.execute("set local lock_timeout = '1s'")
            try:
                work(connection)
                return
            except Exception as error:
                if is_last or getattr(error, "sqlstate", None) not in ("55P03", "40P01"):
                    raise
                cursor.execute("rollback to savepoint reproq_step")
                time.sleep(random.uniform(0.5, 1.5))

    return run


step(retried(lambda connection: load(connection, NAMES)), retried(lambda connection: load(connection, ["rollback"])))
'''


def release(version: str) -> None:
    live = live_files()
    frozen = frozen_texts()
    versions = released_versions()
    changed = {name: text for name, text in live.items() if frozen.get(Path(name).stem) != text}
    check_version(version, versions)
    check_seals()
    check_comments(version, changed)
    check_signatures(live, frozen)
    if not versions:
        RELEASED.mkdir(exist_ok=True)
        write(RELEASED / f"{version}.sql", "".join(f"-- file: {name}\n{text}" for name, text in changed.items()))
    else:
        # A change of a table is a step that was written by hand.
        code = {name: text for name, text in changed.items() if not name.startswith("tables/")}
        if code:
            freeze_changes(version, versions[-1], code, frozen)
    seal()


def freeze_changes(version: str, before: str, changed: dict[str, str], frozen: dict[str, str]) -> None:
    """Write the folder of a later release and the step that loads it."""
    folder = RELEASED / version
    folder.mkdir()
    for name, text in changed.items():
        write(folder / Path(name).name, text)
    old = [frozen[Path(name).stem] for name in changed if Path(name).stem in frozen]
    new = [drop_statement(text) for name, text in changed.items() if Path(name).stem not in frozen]
    write(folder / "rollback.sql", "".join([*old, *reversed(new)]))
    last = max(path.stem for path in MIGRATIONS.glob("[0-9]*"))
    number = int(last.split("_")[0]) + 1
    names = "\n".join(f'    "{Path(name).stem}",' for name in changed)
    text = STEP.format(version=version, before=before, last=last, names=names)
    write(MIGRATIONS / f"{number:04}_release_{version.replace('.', '_')}.py", text)


def drop_statement(text: str) -> str:
    """The statement that removes what a file makes."""
    kind, name = re.search(r"^create (?:or replace )?(function|view|trigger) (\w+)", text, re.MULTILINE).groups()
    table = re.search(r"^(?:before|after) [\w\s,]*? on (\w+)", text, re.MULTILINE)
    return f"drop {kind} if exists {name}" + (f" on {table[1]};\n" if kind == "trigger" else ";\n")


def live_files() -> dict[str, str]:
    """Path and text of the files of sql/, in the order of install.sql."""
    names = re.findall(r"^\\ir (\S+)$", (SQL / "install.sql").read_text(), re.MULTILINE)
    return {name: (SQL / name).read_text() for name in names}


def frozen_texts() -> dict[str, str]:
    """The latest frozen text of each object, by its name."""
    texts: dict[str, str] = {}
    for first in RELEASED.glob("*.sql"):
        parts = re.split(r"^-- file: (\S+)\n", first.read_text(), flags=re.MULTILINE)
        texts |= {Path(name).stem: text for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    for version in released_versions():
        texts |= {path.stem: path.read_text() for path in (RELEASED / version).glob("*.sql")}
    return texts


def released_versions() -> list[str]:
    """The frozen releases, the oldest first."""
    names = [path.name.removesuffix(".sql") for path in RELEASED.glob("*")]
    return sorted(names, key=parts_of)


def parts_of(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def check_version(version: str, versions: list[str]) -> None:
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit("usage: make release VERSION=0.2.0")
    if versions and parts_of(version) <= parts_of(versions[-1]):
        sys.exit(f"{version} is not later than {versions[-1]}, the latest release")
    heading = re.search(rf"^## {re.escape(version)}\b.*$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if heading is None or "unreleased" in heading[0]:
        sys.exit(f"CHANGELOG.md: write what changed under a heading that begins with: ## {version} (and a date)")


def check_seals() -> None:
    for line in SEALS.read_text().splitlines() if SEALS.exists() else ():
        digest, name = line.split("  ", 1)
        path = MIGRATIONS / name
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} was changed or removed after its release; restore it")


def check_comments(version: str, changed: dict[str, str]) -> None:
    """The comment of a function ends with the release that last changed it."""
    wrong = [name for name, text in changed.items() if "functions/" in name and f" @{version}';" not in text]
    if wrong:
        sys.exit(f"the comments of these functions must end with @{version}: {', '.join(wrong)}")


def check_signatures(live: dict[str, str], frozen: dict[str, str]) -> None:
    """Calls that run while a release is loaded have the old text and call its helpers: these stay as they are."""
    present = {Path(name).stem: text for name, text in live.items()}
    for name, text in frozen.items():
        if signature(text) is None:
            continue
        if name in present and signature(present[name]) != signature(text):
            sys.exit(f"{name}: give the new signature a new name, and remove the old function a release later")
        callers = [other for other, body in frozen.items() if other != name and re.search(rf"\b{name}\(", body)]
        if name not in present and callers:
            sys.exit(f"{name}: remove it a release later; of the release before, {', '.join(callers)} call it")


def signature(text: str) -> str | None:
    """Parameters and result of the function in a file, defaults aside; None for another object."""
    found = re.search(r"^create or replace function \w+(\(.*?)^language ", text, re.MULTILINE | re.DOTALL)
    return found and re.sub(r" default [^,)]*", "", " ".join(found[1].split()))


def seal() -> None:
    """Add the checksums of released files and steps that have none yet."""
    sealed = SEALS.read_text() if SEALS.exists() else ""
    for path in [*sorted(MIGRATIONS.glob("[0-9]*")), *sorted(RELEASED.rglob("*.sql"))]:
        name = path.name if path.parent == MIGRATIONS else f"../sql/{path.relative_to(SQL)}"
        if f"  {name}\n" not in sealed:
            sealed += f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"
    write(SEALS, sealed)


def write(path: Path, text: str) -> None:
    path.write_text(text)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    release(sys.argv[1] if len(sys.argv) > 1 else "")
