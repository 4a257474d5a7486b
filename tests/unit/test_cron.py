"""Occurrences of cron expressions: which there are, and what happens when the clock is put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproq_listen.scheduler.cron import Cron

EXPRESSIONS = (
    "* * * * *", "*/5 * * * *", "7 * * * *", "30 2 * * *", "*/20 2 * * *", "0 2,3 * * *", "15 1-3 * * *",
    "0 0 * * *", "0 0 29 2 *", "0 12 L * *", "0 0 * * MON#2", "10 3 * * SUN", "5 0 1 JAN *",
)  # fmt: skip
ZONES = ("UTC", "Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu")


START = datetime(2025, 1, 1)  # noqa: DTZ001 - hypothesis draws naive ones


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def local(expression: str, zone: str, start: str, count: int) -> list[str]:
    cron = Cron(expression, zone)
    return [f"{t.astimezone(cron.zone):%d %H:%M %z}" for t in islice(cron.after(at(start)), count)]


def test_cron_fixed_time_in_a_gap_runs_right_after_it() -> None:
    """29 March 2026, Vienna: 02:30 does not exist; it runs at 03:00, once, and so do two times in one gap."""
    expected = ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]
    assert local("30 2 * * *", "Europe/Vienna", "2026-03-27T12:00Z", 3) == expected
    expected = ["29 03:00 +0200", "30 02:00 +0200", "30 03:00 +0200"]
    assert local("0 2,3 * * *", "Europe/Vienna", "2026-03-28T12:00Z", 3) == expected


def test_cron_fixed_time_that_occurs_twice_runs_the_first_time() -> None:
    """25 October 2026, Vienna: 02:30 comes twice; it runs in summer time, once."""
    expected = ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]
    assert local("30 2 * * *", "Europe/Vienna", "2026-10-23T12:00Z", 3) == expected
    # Looked at from between the two: the second is none.
    assert local("30 2 * * *", "Europe/Vienna", "2026-10-25T01:10Z", 1) == ["26 02:30 +0100"]


@pytest.mark.parametrize("prefix", ["CRON_TZ=Asia/Tokyo ", " TZ=Asia/Tokyo  "])
def test_cron_zone_in_front_of_an_expression_goes_first(prefix: str) -> None:
    """As the Go program's schedules have it; a zone that is not known is told as one."""
    assert local(f"{prefix}30 4 * * *", "Europe/Vienna", "2026-03-27T12:00Z", 1) == ["28 04:30 +0900"]
    assert local(f"{prefix}@daily", "UTC", "2026-03-27T12:00Z", 1) == ["28 00:00 +0900"]
    with pytest.raises(ValueError, match="time zone 'Mars'"):
        Cron("TZ=Mars * * * * *", "UTC")
    with pytest.raises(ValueError, match="needs five fields"):
        Cron(prefix, "UTC")


def test_cron_other_expressions_follow_elapsed_time() -> None:
    """An hourly run is hourly through gap and overlap; one of the skipped hour does not run that day."""
    assert local("0 * * * *", "Europe/Vienna", "2026-03-28T23:30Z", 3) == [
        "29 01:00 +0100",
        "29 03:00 +0200",
        "29 04:00 +0200",
    ]
    assert local("0 * * * *", "Europe/Vienna", "2026-10-24T23:30Z", 3) == [
        "25 02:00 +0200",
        "25 02:00 +0100",
        "25 03:00 +0100",
    ]
    assert local("*/30 2 * * *", "Europe/Vienna", "2026-03-28T12:00Z", 1) == ["30 02:00 +0200"]
    assert len(set(local("*/30 2 * * *", "Europe/Vienna", "2026-10-24T12:00Z", 4))) == 4


@settings(deadline=None, max_examples=150)
@given(
    expression=st.sampled_from(EXPRESSIONS),
    zone=st.sampled_from(ZONES),
    until=st.datetimes(min_value=START, max_value=START + timedelta(days=1000)).map(lambda t: t.replace(tzinfo=UTC)),
    span=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=40)),
    most=st.integers(1, 120),
)
def test_cron_latest_finds_what_a_walk_finds(
    expression: str, zone: str, until: datetime, span: timedelta, most: int
) -> None:
    """`latest` is the end of the walk from `since`; `next` goes on where it ends: nothing twice, nothing left out."""
    cron = Cron(expression, zone)
    since = until - span
    walked = []
    for t in cron.after(since):
        if t > until:
            break
        walked.append(t)
    assert cron.latest(since, until, most) == walked[-most:]
    assert walked == sorted(set(walked))
    following = cron.next(until)
    assert following is None or following > until
    if walked:
        # Occurrence by occurrence, as a beat that is never late goes.
        assert list(islice(cron.after(walked[0]), min(len(walked) - 1, 20))) == walked[1:21]


def test_cron_reads_a_question_mark_as_a_star() -> None:
    """The Go program's cron takes it; so rows that were written for it go on. Only where it is a whole field."""
    start = at("2026-01-01T00:00Z")
    assert Cron("0 6 ? * 1", "UTC").next(start) == Cron("0 6 * * 1", "UTC").next(start)
    assert Cron("? ? ? ? ?", "UTC").next(start) == start + timedelta(minutes=1)
    with pytest.raises(ValueError, match="cron expression"):
        Cron("0 6 1? * *", "UTC")


def test_cron_latest_is_fast_after_years() -> None:
    """The last hundred of 26 years of minutes take no time."""
    until = at("2026-03-01T00:00Z")
    found = Cron("* * * * *", "Europe/Vienna").latest(at("2000-01-01T00:00Z"), until, 100)
    assert found == [until - timedelta(minutes=n) for n in range(99, -1, -1)]


def test_cron_handles_rare_and_impossible_days() -> None:
    """29 February comes; 30 February is refused; a day that never comes ends the search."""
    assert Cron("0 0 29 2 *", "UTC").next(at("2026-01-01T00:00Z")) == at("2028-02-29T00:00Z")
    assert Cron("0 0 29 2 *", "UTC").latest(at("2000-01-01T00:00Z"), at("2026-01-01T00:00Z"), 2)[-1] == at(
        "2024-02-29T00:00Z"
    )
    assert Cron("* * * * *", "UTC").next(at("9999-12-31T23:59:30Z")) is None


@pytest.mark.parametrize(
    "name", ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly", " @Daily "]
)
def test_cron_names(name: str) -> None:
    """The usual short forms."""
    assert Cron(name, "UTC").next(at("2026-01-01T00:00Z")) is not None


@pytest.mark.parametrize(
    "expression",
    [
        *("", "* * * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "*/0 * * * *", "@reboot", "@every 5m", "a b c d e"),
        *("* * * * MON#9", "5- * * * *", "-5 * * * *", "1,,2 * * * *", "* * L-3 * *", "* * * * 5L/2", "1" * 5000),
        *("* " * 50_000, "\u0661 * * * *"),
    ],
)
def test_cron_errors_name_a_bad_expression(expression: str) -> None:
    """The constructor raises ValueError that names the expression."""
    with pytest.raises(ValueError, match="cron expression"):
        Cron(expression, "UTC")


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "Europe", "/etc/localtime", "Europe/Vienna\0", "x" * 5000]
)
def test_cron_errors_name_a_bad_zone(zone: str) -> None:
    """ValueError, never a look outside the zone folder."""
    with pytest.raises(ValueError, match="time zone"):
        Cron("* * * * *", zone)
