"""The results of the tasks that this one waited for. Imported by its first use. Standard library only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproq_listen.child.requests import Requests


def read_results(requests: Requests, max_bytes: int) -> list[Any]:
    """Read them page by page. For what is raised see TaskContext.results."""
    found: list[Any] = []
    after, size, expected = 0, 0, 0
    while True:
        page: Any = requests.ask("results", {"after": after})
        size += page["bytes"]
        if size > max_bytes:
            raise ValueError(
                f"the results have more than {max_bytes} bytes: give context.results() a larger max_bytes, "
                "or store large results elsewhere and return where they are"
            )
        found += page["results"]
        expected = page["expected"]
        if page["last_id"] is None:
            break
        after = page["last_id"]
    if len(found) < expected:
        raise LookupError(f"only {len(found)} of {expected} results are there: the other tasks were deleted")
    return found


def dumps(value: object, what: str, max_bytes: int) -> str:
    """Give the JSON text of a value. Raises TypeError or ValueError, which name `what` it is."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what} cannot be stored as JSON: {error}") from error
    if size > max_bytes:
        raise ValueError(f"{what} has {size} bytes; the limit is {max_bytes}")
    return text
