"""What children inherit of the environment."""

from __future__ import annotations

import pytest

from reproq_listen.executors.process.environment import environment_for_children
from reproq_listen.model import ExecutorSettings


@pytest.mark.parametrize("named", [None, ()])
def test_environment_url_of_an_embedded_database(
    monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...] | None
) -> None:
    """Tasks have it, whatever this process has and whatever --executor-env names; without one nothing changes."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere")
    embedded = environment_for_children(ExecutorSettings(executor_env=named, database_url="postgresql://embedded"))
    assert embedded["DATABASE_URL"] == "postgresql://embedded"
    other = environment_for_children(ExecutorSettings(executor_env=named))
    assert other.get("DATABASE_URL") == (None if named == () else "postgresql://elsewhere")
