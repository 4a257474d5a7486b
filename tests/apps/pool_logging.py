"""A module that keeps the standard streams while it is imported, as applications do that set up logging."""

from __future__ import annotations

import logging
import sys

_LOG = logging.getLogger("tests.apps.pool_logging")
_LOG.addHandler(logging.StreamHandler())
_LOG.propagate = False
_OUT = sys.stdout
_BYTES = sys.stdout.buffer


def log(text: str) -> None:
    """One line on each stream."""
    _LOG.warning(text)
    print(text, file=_OUT)


def log_bytes(text: str) -> None:
    """As `log`, past the text layer."""
    _LOG.warning(text)
    _BYTES.write(f"{text}\n".encode())
