"""What a client says about a target that it cannot use."""

from __future__ import annotations

import sys

import pytest

from reproq_listen import Client
from reproq_listen.errors import SettingError


@pytest.mark.parametrize("target", ["", "mydb"])
def test_client_text_that_is_no_dsn_without_django(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """An empty variable or a bare name is a wrong DSN where there is no Django to have an alias of that name."""
    for name in ["django", *(name for name in sys.modules if name.startswith("django."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingError, match=r"Client\(.*\) is neither a DSN .*postgresql://"):
        Client(target)
