"""How much the property tests try. With REPROQ_TEST_EXPLORE=20 they try twenty times as much, other cases each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

TIMES = int(os.environ.get("REPROQ_TEST_EXPLORE", "1"))


def effort(examples: int, *, shrink: bool = True) -> settings:
    """Settings of a property test: the same cases in every run, unless told to explore."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
