"""Validate the options of schedules, and convert them to a rule and a policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, get_args

from msgspec import structs

from hasten._checks import check_aware_datetime, check_choice, check_text, check_whole_number
from hasten._durations import Duration, to_nearest_ms
from hasten._escapes import is_printable
from hasten.errors import InvalidOption
from hasten.jobs import _cron as cron_patterns
from hasten.jobs._cron_canonical import to_canonical_pattern
from hasten.jobs._deduplication import DeduplicationMode
from hasten.jobs._options import MAX_COUNT, MAX_NAME, PRINTABLE_TEXT, Options
from hasten.jobs._schedule_record import Missed, Overlap, SchedulePolicy, ScheduleRule
from hasten.jobs._schedule_times import next_slot_ms

DEFAULT_ZONE: Final = "UTC"
MIN_EVERY_MS: Final = 1_000

# Files beside the time zones, which are not the same or do not exist on each machine.
_OTHER_FILES: Final = re.compile("(localtime|posixrules|Factory)$|(posix|right)/")

# The slots of a pattern that are compared with its jitter: the first ones of these four years.
_SPAN_START_MS: Final = 1_767_225_600_000  # 2026-01-01, a Thursday
_SPAN_END_MS: Final = 1_893_456_000_000
_COMPARED_SLOTS: Final = 60


def make_rule(
    now_ms: int,
    *,
    every: Duration | None = None,
    cron: str | None = None,
    tz: str | None = None,
    offset: Duration | None = None,
    limit: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> ScheduleRule:
    """Validate the times of a schedule. Raises `InvalidOption`."""
    if (every is None) == (cron is None):
        raise InvalidOption("every", every, "given if cron is not, and only then")
    start_ms, end_ms = _to_epoch_ms("start", start), _to_epoch_ms("end", end)
    if start_ms is not None and end_ms is not None and end_ms < start_ms:
        raise InvalidOption("end", end, f"not before start, which is {start}")
    rule = ScheduleRule(
        start_ms=start_ms,
        end_ms=end_ms,
        limit=None if limit is None else check_whole_number("limit", limit, 1, MAX_COUNT),
    )
    if every is not None:
        every_ms = to_nearest_ms("every", every, at_least_ms=MIN_EVERY_MS)
        if tz is not None:
            raise InvalidOption.conflict(
                "tz", tz, "every: an interval does not depend on a time zone. Use cron instead"
            )
        offset_ms = None if offset is None else to_nearest_ms("offset", offset)
        if offset_ms is not None and offset_ms >= every_ms:
            raise InvalidOption("offset", offset, f"less than the interval, which is {every}")
        return structs.replace(rule, every_ms=every_ms, offset_ms=offset_ms)
    if offset is not None:
        raise InvalidOption.conflict("offset", offset, "cron: write the times into the pattern")
    rule = structs.replace(rule, cron=check_text("cron", cron), tz=_check_zone(tz))
    return _with_checked_pattern(rule, now_ms)


def make_policy(
    rule: ScheduleRule, missed: object, overlap: object, jitter: Duration
) -> SchedulePolicy:
    """Validate the policy of a schedule. Raises `InvalidOption`."""
    checked = check_choice("missed", missed, get_args(Missed))
    policy = SchedulePolicy(
        checked,
        check_choice("overlap", overlap, get_args(Overlap)),
        to_nearest_ms("jitter", jitter),
    )
    if policy.missed == "all" and policy.overlap == "skip":
        raise InvalidOption.conflict(
            "missed", missed, "overlap='skip', which gives some slots no run: use overlap='queue'"
        )
    if policy.missed == "all" and rule.limit is not None:
        raise InvalidOption.conflict(
            "missed", missed, "limit, which ends the schedule before all slots have a run"
        )
    if policy.jitter_ms:
        _check_jitter(rule, policy.jitter_ms, jitter)
    return policy


def _check_jitter(rule: ScheduleRule, jitter_ms: int, jitter: Duration) -> None:
    """Raise `InvalidOption` unless the jitter is shorter than the time between two slots."""
    gap_ms = rule.every_ms if rule.cron is None else _find_smallest_gap(rule)
    if gap_ms is not None and jitter_ms >= gap_ms:
        raise InvalidOption(
            "jitter", jitter, "shorter than the time between two slots, which may be "
            f"{gap_ms / 1000:g} s",
        )  # fmt: skip


def _find_smallest_gap(rule: ScheduleRule) -> int | None:
    """Return the shortest time between two of the first slots of a fixed time span, in ms.

    The same pattern always has the same one, whatever the current time is.
    """
    rule = structs.replace(rule, start_ms=None, end_ms=None)
    smallest_ms: int | None = None
    slot_ms = next_slot_ms(rule, _SPAN_START_MS)
    for _ in range(_COMPARED_SLOTS):
        if slot_ms is None or slot_ms > _SPAN_END_MS:
            break
        previous_ms, slot_ms = slot_ms, next_slot_ms(rule, slot_ms)
        if slot_ms is not None:
            gap_ms = slot_ms - previous_ms
            smallest_ms = gap_ms if smallest_ms is None else min(smallest_ms, gap_ms)
    return smallest_ms


def _with_checked_pattern(rule: ScheduleRule, now_ms: int) -> ScheduleRule:
    """Return a rule with its cron pattern as Node's workers accept it, too.

    Raises `InvalidOption` for a pattern that is invalid, or matches no time.
    """
    try:
        next_slot_ms(structs.replace(rule, start_ms=None, end_ms=None), now_ms)
        return structs.replace(rule, cron=to_canonical_pattern(rule.cron or ""))
    except (ValueError, OverflowError) as exc:
        raise InvalidOption("cron", rule.cron, f"a cron pattern: {exc}") from exc


def _check_zone(tz: object) -> str:
    """Return the name of a time zone, `DEFAULT_ZONE` for None. Raises `InvalidOption`."""
    if tz is None:
        return DEFAULT_ZONE
    if isinstance(tz, str) and not _OTHER_FILES.match(tz) and cron_patterns.is_known_zone(tz):
        return tz
    raise InvalidOption(
        "tz", tz, "the IANA name of a time zone, such as 'Europe/Madrid'. If the name is right, "
        "install the tzdata package",
    )  # fmt: skip


def check_id(id: object) -> str:
    if not isinstance(id, str) or not 0 < len(id) <= MAX_NAME:
        raise InvalidOption("id", id, f"a string of 1 to {MAX_NAME} characters")
    return id


def check_new_id(id: object) -> str:
    """Return the id of a schedule to store. Raises `InvalidOption`."""
    checked = check_id(id)
    if ":" in checked:
        raise InvalidOption(
            "id", id, "an id without ':', because ':' separates the parts of a Redis key"
        )
    if not is_printable(checked):
        raise InvalidOption("id", id, PRINTABLE_TEXT)
    return checked


_ONE_JOB_PER_SLOT: Final = (
    "each slot has one job already. Use overlap to keep two of them from running at once"
)


def reject_deduplication(task: str, options: Options) -> None:
    """Raise `InvalidOption` if the options of a task give its jobs a deduplication key.

    A schedule would ignore the key.
    """
    rule = options.deduplication
    if rule is not None:
        raise InvalidOption.conflict(
            rule.mode,
            rule.key,
            f"a schedule of task {task!r}: {_ONE_JOB_PER_SLOT}, and add {rule.mode}=None to the "
            "options of the schedule",
        )


def check_template_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check that the options may be those of many jobs. Raises `InvalidOption`."""
    remedies = {
        "delay": "the slots of the schedule say when its jobs run: use offset or jitter",
        "at": "the slots of the schedule say when its jobs run: use start",
        "job_id": "each job of a schedule has its own id",
    } | {mode: _ONE_JOB_PER_SLOT for mode in DeduplicationMode if options.get(mode) is not None}
    for option, value in options.items():
        remedy = remedies.get(option)
        if remedy is not None:
            raise InvalidOption.conflict(option, value, f"a schedule: {remedy}")
    return options


def _to_epoch_ms(option: str, value: object) -> int | None:
    """Convert a datetime with a time zone to ms since the epoch. Raises `InvalidOption`."""
    if value is None:
        return None
    return round(check_aware_datetime(option, value).timestamp() * 1000)
