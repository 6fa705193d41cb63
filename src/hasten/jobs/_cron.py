"""Compute the next match of a cron pattern, as BullMQ's job schedulers (cron-parser 5) do.

A pattern has five fields, or six with the seconds first. It supports ranges, steps, lists, names
and `?`; `7` is Sunday; `L` is the last day of a month, `5L` its last Friday, `1#2` its second
Monday; also `@daily` and similar names. If both day of month and day of week are restricted, a day
that matches either of them matches.

When daylight saving time begins or ends, a pattern with fixed hours follows the local clock: a
match in the skipped hour runs one hour later, and a match in the repeated hour runs once, the first
time. A pattern for every hour, or every few hours, follows elapsed time.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hasten._extras import require
from hasten.jobs._cron_canonical import split_pattern

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def is_croniter_installed() -> bool:
    """Return whether croniter is installed, the library that parses the patterns."""
    return importlib.util.find_spec("croniter") is not None


def next_match_ms(pattern: str, after_ms: int, zone: str | None) -> int:
    """Return the first time after after_ms that matches a pattern, in ms since the epoch.

    zone is an IANA name such as Europe/Madrid; None means the time zone of this machine. Raises
    `ValueError` for an invalid pattern or zone, and `MissingExtra` if croniter is not installed.
    """
    fields = _split_fields(pattern)
    zone_info = load_zone(zone)
    after = _EPOCH + timedelta(milliseconds=after_ms)
    if fields[2].startswith("*"):
        found = _next_match_by_elapsed_time(fields, after, zone_info)
    else:
        found = _next_match_by_local_time(fields, after, zone_info)
    return round((found - _EPOCH).total_seconds() * 1000)


def _split_fields(pattern: str) -> list[str]:
    """Return the six fields of a pattern as croniter reads them. Raises `ValueError`."""
    fields = list(split_pattern(pattern))
    fields[5] = re.sub(r"\b([0-7])L\b", r"L\1", fields[5])  # croniter writes 5L as L5
    return fields


def is_known_zone(name: str) -> bool:
    """Return whether there is a time zone with this name on this machine."""
    try:
        load_zone(name)
    except ValueError:
        return False
    return True


def load_zone(name: str | None) -> tzinfo | None:
    """Return the time zone with this name; None for the zone of this machine."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(
            f"time zone {name!r}: expected an IANA name, such as Europe/Madrid"
        ) from exc


def _next_match_by_local_time(
    fields: list[str], after: datetime, zone_info: tzinfo | None
) -> datetime:
    """Return the next match of a pattern with fixed hours, by the local clock."""
    local = after.astimezone(zone_info)
    wall = local.replace(tzinfo=None, fold=0)
    # Begin earlier if the clock was just put forward: a match in the hour that this skipped runs in
    # the hour after it, which may be now.
    left_out = _utc_offset(after, zone_info) - _utc_offset(after - timedelta(hours=3), zone_info)
    wall -= max(left_out, timedelta())
    while True:
        wall = _next_match_without_zone(" ".join(fields), wall)
        # With fold=0, a time in a skipped hour has the offset from before the change, and a time in
        # a repeated hour is the first of the two.
        found = wall.replace(tzinfo=zone_info, fold=0).astimezone(UTC)
        if found > after:
            return found


def _next_match_by_elapsed_time(
    fields: list[str], after: datetime, zone_info: tzinfo | None
) -> datetime:
    """Return the next match of a pattern for every hour or every few hours.

    Computes with the current UTC offset until it changes, and then with the next one.
    """
    offset = _utc_offset(after, zone_info)
    while True:
        fixed = timezone(offset)
        wall = after.astimezone(fixed).replace(tzinfo=None)
        found = _next_match_without_zone(" ".join(fields), wall).replace(tzinfo=fixed)
        if _utc_offset(found, zone_info) == offset:
            return found.astimezone(UTC)
        change = _find_offset_change(offset, after, found.astimezone(UTC), zone_info)
        # One microsecond earlier, so that a match exactly at the change is found.
        after, offset = change - timedelta(microseconds=1), _utc_offset(change, zone_info)


def _find_offset_change(
    offset: timedelta, first: datetime, last: datetime, zone_info: tzinfo | None
) -> datetime:
    """Return the first moment with another UTC offset than offset, to the second.

    offset is the UTC offset at first. At last, the offset has changed.
    """
    low, high = int(first.timestamp()), int(last.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if _utc_offset(datetime.fromtimestamp(middle, UTC), zone_info) == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


def _utc_offset(moment: datetime, zone_info: tzinfo | None) -> timedelta:
    """Return the difference between local time and UTC at a moment."""
    offset = moment.astimezone(zone_info).utcoffset()
    assert offset is not None
    return offset


def _next_match_without_zone(pattern: str, wall: datetime) -> datetime:
    """Return the next match by croniter, in local times without a zone. Raises `ValueError`."""
    require("croniter", extra="schedules")
    return _find_match(pattern, wall)


# Parsing a pattern and finding a match take about half a millisecond, and many schedules have the
# same pattern.
@functools.lru_cache(maxsize=4_096)
def _find_match(pattern: str, wall: datetime) -> datetime:
    croniter = require("croniter", extra="schedules").croniter
    try:
        found = croniter(pattern, wall, second_at_beginning=True).get_next(datetime)
    except (ValueError, KeyError, AttributeError) as exc:
        raise ValueError(f"cron pattern {pattern!r}: {exc}") from exc
    assert isinstance(found, datetime)
    return found
