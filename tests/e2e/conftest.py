"""Fixtures of the tests with real processes."""

from collections.abc import Iterator

import pytest

from tests.executing import MODE


@pytest.fixture(params=["spawn", "fork"])
def each_mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once in each executor mode that has a process for every attempt: they make the same promises."""
    token = MODE.set(request.param)
    yield request.param
    MODE.reset(token)
