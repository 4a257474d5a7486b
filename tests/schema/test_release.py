"""`make release` in a copy of the checkout: what it freezes, what it refuses, and what the steps then build."""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reproq_listen.db.migrations import StepReport, migrate, roll_back
from tests.schema import catalog, django
from tests.schema.test_adoption import DJANGOS_OWN
from tests.support.database import ROOT, Database, create_database, drop_database

PAUSE = "sql/functions/operate/reproq_pause.sql"
ADDED_FUNCTION = """create or replace function _reproq_added() returns integer
language sql immutable parallel safe
as $$
select 1
$$;

revoke execute on function _reproq_added() from public;
comment on function _reproq_added() is 'New. @0.2.0';
"""
ADDED_TRIGGER = """create or replace trigger reproq_added
before insert on task_runs
for each row execute function _reproq_coerce_foreign_write();
"""


def ignore(_: StepReport) -> None:
    """For callers that want no reports."""


class Checkout:
    """A copy of what a release reads and writes, as if nothing had been released."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sql", "migrations", ".ci"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "Makefile", folder)
        shutil.rmtree(folder / "sql" / "released", ignore_errors=True)
        (folder / "migrations" / "SHA256SUMS").unlink(missing_ok=True)
        for step in (folder / "migrations").glob("[0-9]*_release_*.py"):
            step.unlink()
        for path in folder.glob("sql/functions/**/*.sql"):
            path.write_text(re.sub(r" @\d+\.\d+\.\d+';", " @0.1.0';", path.read_text()))
        self.write_changelog("0.1.0 (2026-12-01)")

    def write_changelog(self, *headings: str) -> None:
        """Name these releases in CHANGELOG.md."""
        (self.folder / "CHANGELOG.md").write_text("".join(f"## {heading}\n\n- Changes.\n\n" for heading in headings))

    def release(self, version: str) -> None:
        """Run `make release`; it must succeed."""
        assert self.run(version) == (0, "")

    def run(self, version: str) -> tuple[int, str]:
        """Exit status of `make release`, and what it complains of."""
        command = ["make", "--silent", "release", f"VERSION={version}"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that is there once."""
        text = (self.folder / path).read_text()
        assert text.count(old) == 1
        (self.folder / path).write_text(text.replace(old, new))

    def change(self) -> None:
        """A changed function, a new function and a new trigger."""
        self.edit(PAUSE, "Stops claims from a queue", "Changed: stops claims from a queue")
        (self.folder / "sql/functions/work/_reproq_added.sql").write_text(ADDED_FUNCTION)
        (self.folder / "sql/triggers/reproq_added.sql").write_text(ADDED_TRIGGER)
        with (self.folder / "sql/install.sql").open("a") as script:
            script.write("\\ir functions/work/_reproq_added.sql\n\\ir triggers/reproq_added.sql\n")

    def released(self) -> list[str]:
        """What was frozen: paths below sql/released."""
        top = self.folder / "sql" / "released"
        return sorted(str(path.relative_to(top)) for path in top.rglob("*.sql"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """The copy, from which `migrate` and `roll_back` read in this test."""
    copy = Checkout(tmp_path)
    monkeypatch.setattr("reproq_listen.db.migrations.database_folder", lambda: copy.folder)
    return copy


@pytest.fixture
def create(server_dsn: str) -> Iterator[Callable[[], Database]]:
    """Makes empty databases."""
    made: list[Database] = []

    def new() -> Database:
        made.append(create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}"))
        return made[-1]

    yield new
    for database in made:
        drop_database(server_dsn, database.name)


def snapshot(database: Database) -> dict[str, str]:
    with database.connect() as connection:
        return catalog.read(connection)


def migrated(database: Database) -> dict[str, str]:
    """The schema after a migration."""
    migrate(database.dsn, report=ignore)
    return snapshot(database)


def installed(checkout: Checkout, database: Database) -> dict[str, str]:
    """The schema that sql/install.sql of the copy builds."""
    script = (checkout.folder / "sql/install.sql").read_text()
    with database.connect() as connection, connection.transaction():
        connection.execute("set local search_path = public, pg_temp")
        for name in re.findall(r"^\\ir (\S+)$", script, re.MULTILINE):
            connection.execute((checkout.folder / "sql" / name).read_bytes())
    return snapshot(database)


def test_release_first_release_is_one_file_that_the_steps_load(
    checkout: Checkout, create: Callable[[], Database]
) -> None:
    """The baseline loads the frozen file, not the live ones, also for tables that Django made; all is sealed."""
    truth = installed(checkout, create())
    checkout.release("0.1.0")
    assert checkout.released() == ["0.1.0.sql"]
    seals = (checkout.folder / "migrations/SHA256SUMS").read_text()
    assert "  ../sql/released/0.1.0.sql\n" in seals
    assert "  0005_reproq_adopted_indexes.py\n" in seals
    for path in checkout.folder.glob("sql/tables/*.sql"):
        path.write_text("not what was released")
    assert catalog.difference(truth, migrated(create())) == {}
    adopted = create()
    with adopted.connect() as connection:
        django.create_tables(connection)
    assert catalog.difference(truth, migrated(adopted)).keys() <= DJANGOS_OWN


def test_release_change_after_a_release_arrives_before_the_next(
    checkout: Checkout, create: Callable[[], Database]
) -> None:
    """A database of a checkout gets the live text with the next migration, and the release changes nothing more."""
    database = create()
    checkout.release("0.1.0")
    before = migrated(database)
    checkout.change()
    truth = installed(checkout, create())
    assert catalog.difference(before, truth) != {}
    assert catalog.difference(truth, migrated(database)) == {}
    assert catalog.difference(truth, migrated(create())) == {}
    checkout.edit(PAUSE, "@0.1.0", "@0.2.0")
    checkout.write_changelog("0.2.0", "0.1.0")
    checkout.release("0.2.0")
    assert catalog.difference(installed(checkout, create()), migrated(database)) == {}
    assert roll_back(database.dsn, steps=len(list(checkout.folder.glob("migrations/[0-9]*"))), report=ignore)
    assert snapshot(database) == {}


def test_release_later_release_is_a_folder_and_a_step(checkout: Checkout, create: Callable[[], Database]) -> None:
    """One file for each object that changed; the step brings an older database to the same schema, and back."""
    checkout.release("0.1.0")
    old = create()
    before = migrated(old)
    checkout.change()
    checkout.edit(PAUSE, "@0.1.0", "@0.2.0")
    checkout.write_changelog("0.2.0", "0.1.0")
    checkout.release("0.2.0")
    changed = ["_reproq_added.sql", "reproq_added.sql", "reproq_pause.sql", "rollback.sql"]
    assert checkout.released() == ["0.1.0.sql", *(f"0.2.0/{name}" for name in changed)]
    truth = installed(checkout, create())
    steps = sorted(path.stem for path in checkout.folder.glob("migrations/[0-9]*"))
    assert steps[-1].endswith("_release_0_2_0")
    reports = migrate(old.dsn, report=ignore)
    assert [report.step for report in reports if report.outcome == "applied"] == steps[-1:]
    assert catalog.difference(truth, snapshot(old)) == {}
    assert catalog.difference(truth, migrated(create())) == {}
    for _ in range(2):
        roll_back(old.dsn, report=ignore)
        assert catalog.difference(before, snapshot(old)) == {}
        assert catalog.difference(truth, migrated(old)) == {}


def test_release_released_checkout_loads_frozen_texts_only(checkout: Checkout, create: Callable[[], Database]) -> None:
    """Where all is released a repeated migration writes no object."""
    checkout.release("0.1.0")
    database = create()
    newest = "select max(xmin::text::bigint) from pg_proc where pronamespace = 'public'::regnamespace"
    migrate(database.dsn, report=ignore)
    with database.connect() as connection:
        written = connection.execute(newest).fetchone()
        migrate(database.dsn, report=ignore)
        assert connection.execute(newest).fetchone() == written


def test_release_refuses_what_is_not_ready(checkout: Checkout) -> None:
    """No version, no entry in CHANGELOG.md, an old version, a comment of an older release: nothing is written."""
    assert "usage: make release VERSION=" in checkout.run("")[1]
    checkout.write_changelog("0.1.0 (unreleased)")
    assert "CHANGELOG.md" in checkout.run("0.1.0")[1]
    assert checkout.released() == []
    checkout.write_changelog("0.2.0", "0.1.0")
    checkout.release("0.1.0")
    assert "not later than 0.1.0" in checkout.run("0.1.0")[1]
    checkout.change()
    assert f"must end with @0.2.0: {PAUSE.removeprefix('sql/')}" in checkout.run("0.2.0")[1]
    assert checkout.released() == ["0.1.0.sql"]


def test_release_refuses_what_breaks_calls_in_flight(checkout: Checkout) -> None:
    """A helper keeps its signature, and stays as long as functions of the release before call it."""
    checkout.write_changelog("0.2.0", "0.1.0")
    checkout.release("0.1.0")
    helper = "sql/functions/operate/_reproq_write_audit.sql"
    text = (checkout.folder / helper).read_text()
    (checkout.folder / helper).write_text(
        text.replace("(p_what text, p_details jsonb)", "(p_what text, p_details jsonb, p_more text)")
        .replace("(text, jsonb)", "(text, jsonb, text)")
        .replace("@0.1.0", "@0.2.0")
    )
    assert "_reproq_write_audit: give the new signature a new name" in checkout.run("0.2.0")[1]
    (checkout.folder / helper).unlink()
    checkout.edit("sql/install.sql", "\\ir functions/operate/_reproq_write_audit.sql\n", "")
    complaint = checkout.run("0.2.0")[1]
    assert "_reproq_write_audit: remove it a release later" in complaint
    assert "reproq_pause" in complaint


@pytest.mark.parametrize("path", ["sql/released/0.1.0.sql", "migrations/0001_reproq_tables.py"])
def test_release_refuses_changed_seals(checkout: Checkout, path: str) -> None:
    """A frozen file or a sealed step that was edited is named."""
    checkout.write_changelog("0.2.0", "0.1.0")
    checkout.release("0.1.0")
    with (checkout.folder / path).open("a") as file:
        file.write("\n-- edited")
    status, complaint = checkout.run("0.2.0")
    assert status != 0
    assert f"{Path(path).name} was changed" in complaint
