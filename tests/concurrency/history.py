"""What claimers saw, and whether it could have been: exclusion, rates, and no task held twice, checked afterwards.

Times are the monotonic clock of this process. A claim took effect somewhere between its call and its reply, so a hold
is taken to begin with the reply, and to end with the call that ends it or when the lease could have ended at the
earliest. What overlaps by this measure has overlapped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass
class Hold:
    """One attempt, from the reply of its claim on."""

    result_id: int
    worker: str
    called: float
    replied: float
    lease_ends: float
    lock_key: str | None
    concurrency_key: str | None
    concurrency_limit: int
    task_path: str
    ended: float | None = None

    @property
    def until(self) -> float:
        return self.lease_ends if self.ended is None else min(self.ended, self.lease_ends)


class Violation(AssertionError):
    """The history shows something that must not be."""


def check_holds(holds: Sequence[Hold]) -> None:
    """No task or lock key is held twice at once, no concurrency key beyond the smallest limit of its holders."""
    check_one_at_a_time("task", ((hold.result_id, hold) for hold in holds))
    check_one_at_a_time("lock key", ((hold.lock_key, hold) for hold in holds if hold.lock_key))
    by_key: dict[str, list[Hold]] = defaultdict(list)
    for hold in holds:
        if hold.concurrency_key and hold.concurrency_limit > 0:
            by_key[hold.concurrency_key].append(hold)
    for key, group in by_key.items():
        for hold in group:
            at_once = [other for other in group if other.replied <= hold.replied < other.until]
            if len(at_once) > min((other.concurrency_limit for other in at_once), default=1):
                raise Violation(f"concurrency key {key} has {len(at_once)} holders: {at_once}")


def check_one_at_a_time(what: str, holds: Iterable[tuple[object, Hold]]) -> None:
    """Holds of one thing must not overlap."""
    groups: dict[object, list[Hold]] = defaultdict(list)
    for key, hold in holds:
        if hold.until > hold.replied:
            groups[key].append(hold)
    for key, group in groups.items():
        group.sort(key=lambda hold: hold.replied)
        for earlier, later in pairwise(group):
            if later.replied < earlier.until:
                raise Violation(f"{what} {key} is held twice: {earlier} and {later}")


def check_rate(holds: Sequence[Hold], *, rate: float, burst: int) -> None:
    """In no window were more tasks admitted than burst + rate x its length: of claims that lie wholly within it."""
    spans = sorted((hold.called, hold.replied) for hold in holds)
    for start, _ in spans:
        replies = sorted(reply for called, reply in spans if called >= start)
        for number, reply in enumerate(replies, 1):
            if number > burst + rate * (reply - start):
                raise Violation(f"{number} admitted within {reply - start:.4f} s, rate {rate}, burst {burst}")
