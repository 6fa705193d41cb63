"""Decide how a schedule is stored again: whether anything changes, and which slot comes next.

Pure functions: the stored schedule and the time go in, a `ScheduleChange` comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from msgspec import structs

from hasten.jobs._schedule_record import (
    MAX_CLOCK_DIFFERENCE_MS,
    NewSchedule,
    SchedulePolicy,
    ScheduleRecord,
    ScheduleRule,
)
from hasten.jobs._schedule_times import has_same_times, next_slot_ms, with_offset
from hasten.jobs._schedule_wire import encode_template


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """What to store of a schedule. The pending job is deleted if it has not started.

    first_ms is the slot of the job to add, None to add none: the schedule is paused or has ended.
    count is how many jobs the schedule has added, including that job.
    """

    rule: ScheduleRule
    policy: SchedulePolicy
    task: str
    data: str
    opts: str
    is_declared: bool
    count: int
    first_ms: int | None = None
    is_paused: bool = False
    had_ended: bool = False  # before it was paused

    @property
    def has_ended(self) -> bool:
        """Whether the schedule adds no more jobs."""
        return self.had_ended if self.is_paused else self.first_ms is None

    def slots(self) -> Iterator[int]:
        """Yield first_ms and the slots after it.

        The job is added for the first slot without a job. There is one if the clock was set back:
        then the slot has had its run.
        """
        slot_ms = self.first_ms
        while slot_ms is not None:
            yield slot_ms
            slot_ms = next_slot_ms(self.rule, slot_ms)


def plan_upsert(
    new: NewSchedule, stored: ScheduleRecord | None, now_ms: int
) -> ScheduleChange | None:
    """Return what to store for a new or a changed schedule. None if nothing changes.

    Raises `ValueError` for an invalid cron pattern, and `MissingExtra` if croniter is not
    installed.
    """
    opts = encode_template(new.options, new.policy)
    if stored is None:
        rule = with_offset(new.rule, now_ms, None)
        is_aligned = rule.every_ms is None or new.rule.offset_ms is not None
        # The first slot may be now: that of an interval without an alignment, or the start.
        is_at_once = not is_aligned if rule.start_ms is None else rule.start_ms >= now_ms
        change = ScheduleChange(rule, new.policy, new.task, new.data, opts, new.is_declared, 0)
        return _with_slot_after(change, now_ms - is_at_once)
    has_times = has_same_times(new.rule, stored.rule, now_ms)
    if has_times:
        rule = structs.replace(stored.rule, end_ms=new.rule.end_ms, limit=new.rule.limit)
    else:
        rule = with_offset(new.rule, now_ms, stored.slot_ms)
    is_declared = new.is_declared or stored.is_declared
    change = ScheduleChange(
        rule, new.policy, new.task, new.data, opts, is_declared, _count_started(stored)
    )
    if change == _unchanged(stored) and not stored.is_broken:
        return None
    if stored.is_paused:
        had_ended = stored.has_ended and change.rule == stored.rule
        return replace(change, is_paused=True, had_ended=had_ended)
    if has_times and stored.is_pending and stored.slot_ms is not None:
        return _with_slot_after(change, stored.slot_ms - 1)
    return _with_next_slot(change, stored, now_ms)


def plan_pause(stored: ScheduleRecord) -> ScheduleChange | None:
    """Return what to store to pause a schedule; None if it is paused."""
    if stored.is_paused:
        return None
    return replace(_unchanged(stored), is_paused=True, had_ended=stored.has_ended)


def plan_resume(stored: ScheduleRecord, now_ms: int) -> ScheduleChange | None:
    """Return what to store to end the pause of a schedule; None if it is not paused."""
    return _with_next_slot(_unchanged(stored), stored, now_ms) if stored.is_paused else None


def _count_started(stored: ScheduleRecord) -> int:
    """Return how many jobs the schedule has added, without the pending one, which is replaced."""
    return stored.count - stored.is_pending


def _unchanged(stored: ScheduleRecord) -> ScheduleChange:
    """Return the stored schedule as a change, without a job to add."""
    return ScheduleChange(
        stored.rule, stored.policy, stored.task, stored.data, stored.opts, stored.is_declared,
        _count_started(stored),
    )  # fmt: skip


def _with_next_slot(change: ScheduleChange, stored: ScheduleRecord, now_ms: int) -> ScheduleChange:
    """Return the change with a job for the first slot after now and after the latest run.

    A latest run far in the future is ignored: a worker whose clock was wrong has started it, and
    the schedule would have no runs until then.
    """
    started_ms = None if stored.is_pending else stored.slot_ms
    latest_ms = (each for each in (stored.previous_ms, started_ms) if each is not None)
    credible_ms = (each for each in latest_ms if each <= now_ms + MAX_CLOCK_DIFFERENCE_MS)
    return _with_slot_after(change, max(now_ms, *credible_ms, 0))


def _with_slot_after(change: ScheduleChange, after_ms: int) -> ScheduleChange:
    """Return the change with a job for the first slot after after_ms, if there is one."""
    slot_ms = next_slot_ms(change.rule, after_ms)
    limit = change.rule.limit
    if slot_ms is None or (limit is not None and change.count >= limit):
        return change
    return replace(change, first_ms=slot_ms, count=change.count + 1)
