"""Find the schedules that are late, for the log, the metrics and the health of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hasten._clock import Clock
from hasten.jobs._engine import Engine
from hasten.jobs._schedule_record import ScheduleRecord

LATE_SECONDS: Final = 60.0
"""From this lateness on, a schedule counts as late in the log and in the metrics."""

MAX_LATE: Final = 100
"""How many late schedules of a queue are read at once, at most."""

MAX_NAMED: Final = 10
"""How many late schedules of a queue are named, at most."""


@dataclass(frozen=True, slots=True)
class LateSchedule:
    """A schedule whose next run is due and has not started.

    seconds is for how long it has been due. is_broken: there is no job for that run, see
    `Schedule.is_broken`.
    """

    id: str
    slot_ms: int
    seconds: float
    is_broken: bool = False


async def find_late_schedules(
    engine: Engine, queue: str, clock: Clock, seconds: float = 0.0
) -> list[LateSchedule]:
    """Return the schedules that are late by more than this, the latest first.

    One call of the store, which returns at most `MAX_LATE` schedules. Raises `StoreError`.
    """
    now_ms = clock.now_ms()
    before_ms = now_ms - round(seconds * 1000)
    found = await engine.late_schedules(queue, before_ms=before_ms, limit=MAX_LATE)
    late = [_to_late_schedule(record, now_ms) for record in found]
    return sorted(late, key=lambda each: -each.seconds)


def _to_late_schedule(record: ScheduleRecord, now_ms: int) -> LateSchedule:
    slot_ms = record.slot_ms or 0
    due_ms = max(slot_ms, record.due_ms or 0)
    return LateSchedule(
        record.id, slot_ms, max(0.0, (now_ms - due_ms) / 1000), is_broken=record.is_broken
    )


def describe_late_schedules(
    queue: str, late: Sequence[LateSchedule], allowed_seconds: float
) -> list[str]:
    """Return a sentence for each late schedule, for a health endpoint. At most 11 sentences."""
    sentences = [
        f"queue {queue}: schedule {each.id} is late by {each.seconds:.0f} s, more than "
        f"{allowed_seconds:g} s" + (", because its next job was deleted" * each.is_broken)
        for each in late[:MAX_NAMED]
    ]
    if len(late) > MAX_NAMED:
        more = "or more" if len(late) >= MAX_LATE else "in total"
        sentences.append(f"queue {queue}: {len(late)} {more} schedules are late")
    return sentences
