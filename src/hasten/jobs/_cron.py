"""The next match of a cron pattern, in the dialect of BullMQ's schedulers (cron-parser 5).

Five fields, or six with the seconds first. Ranges, steps, lists and names; `?`; `7` is Sunday; `L`
is the last day of a month, `5L` its last Friday, `1#2` its second Monday; `@daily` and its like. If
both kinds of day are restricted, either matches.

At a change between summer and winter time, a pattern with fixed hours follows the local clock: a
match in the missing hour runs one hour later, a match in the repeated hour runs once, the first
time. A pattern for every hour, or every few hours, follows elapsed time.
"""

from __future__ import annotations

import importlib.util
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hasten._extras import require

_NAMED: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@minutely": "0 * * * * *",
    "@secondly": "* * * * * *",
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def is_available() -> bool:
    """Return whether croniter is installed, which parses the patterns."""
    return importlib.util.find_spec("croniter") is not None


def next_match_ms(pattern: str, after_ms: int, zone: str | None) -> int:
    """Return the first match after a time, both in ms since the epoch.

    zone is an IANA name such as Europe/Madrid; None is the zone of this machine. Raises
    `ValueError` for an invalid pattern or zone, `MissingExtra` without croniter.
    """
    fields = _fields(pattern)
    place = _zone(zone)
    after = _EPOCH + timedelta(milliseconds=after_ms)
    if fields[2].startswith("*"):
        found = _by_elapsed_time(fields, after, place)
    else:
        found = _by_local_time(fields, after, place)
    return round((found - _EPOCH).total_seconds() * 1000)


def _fields(pattern: str) -> list[str]:
    fields = _NAMED.get(pattern.strip().lower(), pattern).split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6 or re.search(r"[HhWw]\b", fields[3]) or re.search(r"\b[Hh]\b", pattern):
        raise ValueError(
            f"cron pattern {pattern!r}: expected five fields, or six with seconds first, "
            "without H and W"
        )
    fields[5] = re.sub(r"\b([0-7])L\b", r"L\1", fields[5].upper())  # croniter's form
    return fields


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as exc:
        raise ValueError(f"time zone {name!r}: expected an IANA name, as Europe/Madrid") from exc


def _by_local_time(fields: list[str], after: datetime, place: tzinfo | None) -> datetime:
    local = after.astimezone(place)
    wall = local.replace(tzinfo=None, fold=0)
    # A match in an hour that was just skipped runs in the hour after it, which is now.
    left_out = _offset(after, place) - _offset(after - timedelta(hours=3), place)
    wall -= max(left_out, timedelta())
    while True:
        wall = _next(fields, wall)
        # In a missing hour this is the offset before it, in a repeated one the first of both.
        found = wall.replace(tzinfo=place, fold=0).astimezone(UTC)
        if found > after:
            return found


def _by_elapsed_time(fields: list[str], after: datetime, place: tzinfo | None) -> datetime:
    """Use one offset until it changes, and the next one from there on."""
    offset = _offset(after, place)
    while True:
        fixed = timezone(offset)
        found = _next(fields, after.astimezone(fixed).replace(tzinfo=None)).replace(tzinfo=fixed)
        if _offset(found, place) == offset:
            return found.astimezone(UTC)
        change = _change(offset, after, found.astimezone(UTC), place)
        # A match at the moment of the change comes after the moment before it.
        after, offset = change - timedelta(microseconds=1), _offset(change, place)


def _change(offset: timedelta, first: datetime, last: datetime, place: tzinfo | None) -> datetime:
    """Return when the offset changes between first and last, to the second."""
    low, high = int(first.timestamp()), int(last.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(datetime.fromtimestamp(middle, UTC), place) == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


def _offset(moment: datetime, place: tzinfo | None) -> timedelta:
    offset = moment.astimezone(place).utcoffset()
    assert offset is not None
    return offset


def _next(fields: list[str], wall: datetime) -> datetime:
    croniter = require("croniter", extra="schedules").croniter
    try:
        found = croniter(" ".join(fields), wall, second_at_beginning=True).get_next(datetime)
    except (ValueError, KeyError, AttributeError) as exc:
        raise ValueError(f"cron pattern {' '.join(fields)!r}: {exc}") from exc
    assert isinstance(found, datetime)
    return found
