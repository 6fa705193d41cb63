"""Compute the slots of schedules, and decide what happens with the slot of a claimed job.

Pure functions: the time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import structs

from hasten.jobs import _cron as cron
from hasten.jobs._schedule_ids import jitter_of_slot
from hasten.jobs._schedule_record import MAX_CATCH_UP, MAX_COUNTED, SchedulePolicy, ScheduleRule


def next_slot_ms(rule: ScheduleRule, after_ms: int) -> int | None:
    """Return the first slot after after_ms; None if the schedule ends before it.

    Raises `ValueError` for an invalid cron pattern or time zone, and `MissingExtra` if croniter is
    not installed.
    """
    if rule.start_ms is not None:
        after_ms = max(after_ms, rule.start_ms - 1)
    if rule.cron is not None:
        slot_ms = cron.next_match_ms(rule.cron, after_ms, rule.tz)
    else:
        every_ms = rule.every_ms or 1
        slot_ms = after_ms - (after_ms - (rule.offset_ms or 0)) % every_ms + every_ms
    return None if rule.end_ms is not None and slot_ms > rule.end_ms else slot_ms


def with_offset(rule: ScheduleRule, now_ms: int, slot_ms: int | None) -> ScheduleRule:
    """Return the rule with an offset, if it has an interval.

    Without a given offset, the slots are aligned to the start of the schedule, else to slot_ms,
    the slot of the schedule until now, else to the current time.
    """
    if rule.every_ms is None:
        return structs.replace(rule, offset_ms=None)
    anchors = rule.offset_ms, rule.start_ms, slot_ms, now_ms
    anchor_ms = next(anchor for anchor in anchors if anchor is not None)
    return structs.replace(rule, offset_ms=anchor_ms % rule.every_ms)


def has_same_times(given: ScheduleRule, stored: ScheduleRule, now_ms: int) -> bool:
    """Return whether a given rule has the slots of a stored one, except for their end and limit.

    Starts in the past count as equal: code often passes the current time, which must not move the
    slots each time that it runs.
    """
    offset_ms = stored.offset_ms if given.offset_ms is None else given.offset_ms
    is_start_over = (given.start_ms or 0) <= now_ms and (stored.start_ms or 0) <= now_ms
    comparable = structs.replace(
        given,
        offset_ms=offset_ms,
        start_ms=stored.start_ms if is_start_over else given.start_ms,
        end_ms=stored.end_ms,
        limit=stored.limit,
    )
    return comparable == stored


def jitter_of(policy: SchedulePolicy, schedule: str, slot_ms: int) -> int:
    """Return by how many ms the job of a slot is delayed."""
    return jitter_of_slot(policy.jitter_ms, schedule, slot_ms)


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """What follows from the claim of the pending job of a schedule.

    next_ms is the next slot, None if the schedule ends. is_dropped is whether the job must not run,
    because its slot was missed. passed is how many slots are left out between the slot of the job
    and the next one. caught_up is how many missed slots in a row have been made up for.
    """

    next_ms: int | None
    is_dropped: bool = False
    passed: int = 0
    caught_up: int = 0


def plan_slot(
    rule: ScheduleRule, policy: SchedulePolicy, slot_ms: int, now_ms: int, caught_up: int
) -> SlotPlan:
    """Decide what happens when the job of a slot is claimed. caught_up is that of the last plan.

    Raises the errors of `next_slot_ms`.
    """
    following_ms = next_slot_ms(rule, slot_ms)
    if following_ms is None or following_ms > now_ms:
        return SlotPlan(following_ms)
    if policy.missed == "all" and caught_up < MAX_CATCH_UP:
        return SlotPlan(following_ms, caught_up=caught_up + 1)
    return SlotPlan(
        next_slot_ms(rule, now_ms),
        is_dropped=policy.missed == "skip",
        passed=count_slots(rule, slot_ms, now_ms),
    )


def count_slots(rule: ScheduleRule, after_ms: int, until_ms: int) -> int:
    """Return how many slots are after after_ms and not after until_ms.

    Those of a cron pattern are counted up to `MAX_COUNTED`.
    """
    if rule.end_ms is not None:
        until_ms = min(until_ms, rule.end_ms)
    if rule.cron is None:
        first_ms = next_slot_ms(rule, after_ms)
        if first_ms is None or first_ms > until_ms:
            return 0
        return (until_ms - first_ms) // (rule.every_ms or 1) + 1
    counted = 0
    while counted < MAX_COUNTED:
        slot_ms = next_slot_ms(rule, after_ms)
        if slot_ms is None or slot_ms > until_ms:
            break
        counted, after_ms = counted + 1, slot_ms
    return counted
