"""When a schedule runs: the occurrences of a cron expression in a time zone.

Five fields (minute, hour, day of month, month, day of week; names, ranges, steps, lists, L, LW and # as in cronsim, and
? for *) or @yearly, @monthly, @weekly, @daily, @hourly. A zone in front, as in `CRON_TZ=Asia/Tokyo 0 5 * * *` or
`TZ=...`, goes before that of the schedule. Changes of summer time are handled as in Debian's cron:

- An expression of fixed times (neither minute nor hour begins with *) runs once a day in any case. A time that is
  skipped runs at the first minute after the gap; a time that occurs twice runs the first time.
- Any other expression follows elapsed time: it runs in each real minute that matches, so not in a skipped hour, and in
  both hours that occur twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

MAX_EXPRESSION = 1000
_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ZONE = re.compile(r"\s*(?:CRON_)?TZ=(\S+)\s+")
_FIRST_WINDOW = timedelta(hours=2)
_GROWTH = 8  # factor between one window and the next


class Cron:
    """One expression in one zone. The constructor raises ValueError with the reason."""

    def __init__(self, expression: str, zone: str) -> None:
        own = _ZONE.match(expression)
        self.zone = zone_of(own[1] if own else zone)
        self._fields = _fields(expression[own.end() :] if own else expression)
        try:
            CronSim(self._fields, datetime(2000, 1, 1, tzinfo=UTC))
        except (CronSimError, ValueError, AssertionError) as error:
            raise ValueError(f"cron expression {_shown(expression)}: {str(error) or 'cannot be read'}") from None

    def after(self, instant: datetime) -> Iterator[datetime]:
        """The occurrences after an instant, in order, in UTC. Ends when there is none within 50 years."""
        last = instant
        try:
            for local in CronSim(self._fields, instant.astimezone(self.zone)):
                at = local.astimezone(UTC)
                if at > last:  # two fixed times in one gap are one occurrence; a repeated time is none
                    yield at
                    last = at
        except OverflowError:
            return  # the end of the calendar

    def next(self, instant: datetime) -> datetime | None:
        """The first occurrence after an instant; None when there is none within 50 years."""
        return next(self.after(instant), None)

    def latest(self, since: datetime, until: datetime, most: int) -> list[datetime]:
        """The last `most` occurrences after `since` and up to `until`, oldest first.

        Searches windows of growing length before `until`: the last minutes of a year are found without the others.
        """
        window = _FIRST_WINDOW
        while True:
            start = max(since, until - window)
            found: list[datetime] = []
            for at in self.after(start):
                if at > until:
                    break
                found.append(at)
            if len(found) >= most or start == since:
                return found[-most:]
            window *= _GROWTH


def zone_of(name: str) -> tzinfo:
    """The time zone with this IANA name. Raises ValueError."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"time zone {_shown(name)} is not known here: give an IANA name such as Europe/Vienna, "
            "and see that the system (or the package tzdata) has its zones"
        ) from None


def _fields(expression: str) -> str:
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"cron expression of {len(expression)} characters; at most {MAX_EXPRESSION} are possible")
    fields = _NAMES.get(expression.strip().lower(), re.sub(r"(?<!\S)\?(?!\S)", "*", expression))
    if len(fields.split()) != 5:
        raise ValueError(
            f"cron expression {_shown(expression)}: needs five fields (minute, hour, day of month, month, day of week) "
            f"such as */5 * * * *, or one of {', '.join(_NAMES)}"
        )
    return fields


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
