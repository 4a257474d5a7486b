"""The pages of the reference that are made from a database are what a migrated database says."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.support.database import ROOT, SQL_FOLDER
from tests.support.reference import DOCS, FROM_DATABASE, KINDS, STATES, page, states


@pytest.mark.parametrize("name", FROM_DATABASE)
def test_reference_page_is_up_to_date(conn: psycopg.Connection, name: str) -> None:
    """Functions, views, tables; states, kinds, SQLSTATEs. Remedy: make docs."""
    assert (DOCS / f"{name}.md").read_text() == page(FROM_DATABASE[name](conn)), "run: make docs"


def test_reference_every_state_is_explained(conn: psycopg.Connection) -> None:
    """Those that the table allows, and no other."""
    assert set(STATES) == set(states(conn))


def test_reference_every_kind_of_error_is_explained() -> None:
    """Those that SQL and the worker write, and no other."""
    sources = [*SQL_FOLDER.glob("functions/**/*.sql"), *(ROOT / "reproq_listen").rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    written = re.findall(r"""(?:'kind',\s+'|kind="|RefusedError\(")([a-z_]+)""", text)
    assert set(written) <= set(KINDS)
    assert [kind for kind in KINDS if not re.search(rf"""['"]{kind}['"]""", text)] == []
