"""The records of schedules: when a schedule is due, what it adds, and how far it has come.

A *slot* is a time at which a schedule is due. A schedule always has one pending job, that of its
next slot, with the id ``repeat:<schedule>:<slot in ms>``, as in BullMQ. The claim of this job adds
the next one.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from hasten.jobs._options import Options
from hasten.jobs._states import FINISHED, State

Missed = Literal["last", "skip", "all"]
"""What happens with slots that pass while no worker starts their jobs.

"last": one late run stands for all of them. "skip": they get no run. "all": each gets a run.
"""

Overlap = Literal["allow", "skip", "queue"]
"""What happens at a slot while an earlier run of the schedule has not finished.

"allow": both run. "skip": the slot gets no run. "queue": its run starts when the earlier one ends.
"""

MAX_CATCH_UP: Final = 1_000
"""How many missed slots in a row get a run with `missed="all"`. Later ones are dropped."""

MAX_COUNTED: Final = 100
"""The missed slots of a cron pattern are counted up to this number."""


MAX_CLOCK_DIFFERENCE_MS: Final = 60_000
"""A run for a slot that is later than now by more than this was started by a wrong clock."""


class ScheduleRule(msgspec.Struct, frozen=True):
    """When a schedule is due. Either every_ms or cron is set. Times are in ms since the epoch."""

    every_ms: int | None = None
    cron: str | None = None
    tz: str | None = None  # of cron; None, in schedules of Node: the time zone of the machine
    offset_ms: int | None = None  # of every_ms: the slots are multiples of every_ms plus this
    start_ms: int | None = None  # there is no slot before this time
    end_ms: int | None = None  # there is no slot after this time
    limit: int | None = None  # the largest number of runs


class SchedulePolicy(msgspec.Struct, frozen=True):
    """What happens with missed and overlapping slots, and by how much runs are spread."""

    missed: Missed = "last"
    overlap: Overlap = "allow"
    jitter_ms: int = 0  # a job is delayed after its slot by up to this


class NewSchedule(msgspec.Struct, frozen=True):
    """A schedule to store; see `Engine.upsert_schedule`. data is JSON."""

    id: str
    rule: ScheduleRule
    policy: SchedulePolicy
    task: str
    data: str
    options: Options  # of its jobs
    is_declared: bool = False  # by `Queue.cron` or `Queue.every`


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored schedule, and the state of its pending job."""

    queue: str
    id: str
    rule: ScheduleRule
    policy: SchedulePolicy
    task: str
    data: str  # JSON
    opts: str  # JSON: the options of its jobs, see `hasten.jobs._options`
    count: int  # how many jobs the schedule has added, including the pending one
    slot_ms: int | None  # of the pending job, or of the last one that was added; None if paused
    due_ms: int | None = None  # while the pending job is delayed: when it is due
    pending: State | None = None  # the state of the pending job; None if it does not exist
    previous_ms: int | None = None  # the slot of the latest run that started; None: unknown
    dropped: int = 0  # how many slots got no run because of missed or overlap
    is_unlocked: bool = False  # the job of the slot is active, but no worker has a lease on it
    is_held: bool = False  # the pending job waits until an earlier run ends
    is_paused: bool = False
    is_declared: bool = False  # it was stored for `Queue.cron` or `Queue.every`
    has_ended: bool = False  # its limit or its end is reached: it adds no more jobs

    @property
    def is_pending(self) -> bool:
        """Whether a job for the next slot exists that has not started."""
        return (
            self.pending is not None
            and self.pending not in {State.ACTIVE, *FINISHED}
            and self.previous_ms != self.slot_ms  # else it is the last run, and waits for a retry
        )

    @property
    def is_broken(self) -> bool:
        """Whether the pending job is missing, so that the schedule adds no more jobs.

        `Engine.upsert_schedule` adds it again.
        """
        is_claimed = self.pending is State.ACTIVE
        return not (self.is_paused or self.has_ended or self.is_pending or is_claimed)

    @property
    def is_abandoned(self) -> bool:
        """Whether a worker has claimed the pending job and left it before it added the next one.

        On Redis: a worker of BullMQ whose cron parser failed, or a worker that was killed.
        """
        has_run = self.previous_ms is not None and self.previous_ms == self.slot_ms
        return self.is_unlocked and not (self.is_paused or self.has_ended or has_run)

    def is_late(self, before_ms: int) -> bool:
        """Return whether the pending job was due before this time, and has not started.

        Also True if the schedule is broken since before this time, or a worker has left the job. A
        job that waits for the end of an earlier run is not late.
        """
        is_waiting = self.is_pending or self.is_broken or self.is_abandoned
        if self.slot_ms is None or self.is_held or not is_waiting:
            return False
        return max(self.slot_ms, self.due_ms or 0) < before_ms
