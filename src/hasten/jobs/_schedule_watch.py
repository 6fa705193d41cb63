"""The part of a worker that stores the declared schedules of a queue, and logs late schedules."""

from __future__ import annotations

import asyncio
from typing import Final

from hasten._logs import get_logger
from hasten.errors import HastenError, StoreError, StoreUnavailable
from hasten.jobs._engine import Engine
from hasten.jobs._epoch import to_datetime
from hasten.jobs._late_schedules import (
    LATE_SECONDS,
    MAX_LATE,
    MAX_NAMED,
    LateSchedule,
    find_late_schedules,
)
from hasten.jobs._outages import OutageLog
from hasten.jobs._queue import Queue
from hasten.jobs._schedule_ids import job_id_of
from hasten.jobs._schedule_record import MAX_CLOCK_DIFFERENCE_MS, ScheduleRecord
from hasten.jobs._schedules import Declaration

logger: Final = get_logger("hasten.schedules")

FIRST_CHECK_SECONDS: Final = 3.0  # after the start, in which the worker starts what is due
CHECK_SECONDS: Final = 10.0
STORED_AT_ONCE: Final = 50  # declared schedules
RETRY_SECONDS: Final = 1.0  # while declared schedules could not be stored

# Of how many late schedules a worker remembers that they are in its log.
MAX_REMEMBERED: Final = 1_000


class ScheduleWatch:
    """Watches the schedules of one queue for a worker. `run` is a service of the worker."""

    def __init__(self, queue: Queue, outage: OutageLog) -> None:
        self._schedules = queue.schedules
        self._name = queue.name
        self._clock = queue.clock
        # Not `queue.engine`, which would open the queue again after its user has closed it.
        self._find_engine = queue.shared_store.engine
        self._outage = outage
        self._unstored = list(queue.schedules.declared.values())
        self._late: dict[str, float] = {}  # the lateness of those that are logged, in seconds

    @property
    def _engine(self) -> Engine:
        return self._find_engine()

    async def run(self) -> None:
        """Store the declared schedules, and then look for late schedules again and again."""
        await self._store_declared()
        seconds = FIRST_CHECK_SECONDS
        while True:
            await self._clock.sleep(RETRY_SECONDS if self._unstored else seconds)
            if self._unstored:
                await self._store_declared()
            else:
                await self._check()
                seconds = CHECK_SECONDS

    async def _store_declared(self) -> None:
        """Store the declared schedules that are not stored yet, until the store fails."""
        activity = f"store the declared schedules of queue {self._name}"
        while self._unstored:
            portion = self._unstored[:STORED_AT_ONCE]
            errors = await asyncio.gather(*map(self._try_to_store, portion))
            self._unstored[: len(portion)] = [
                declaration
                for declaration, error in zip(portion, errors, strict=True)
                if error is not None
            ]
            for error in errors:
                if error is not None:
                    self._outage.record_failure(activity, error)
                    return
        self._outage.record_success(activity)

    async def _try_to_store(self, declaration: Declaration) -> StoreUnavailable | None:
        """Store a declared schedule. Returns the error if the store is unavailable."""
        try:
            await self._store(declaration)
        except StoreUnavailable as error:
            return error
        return None

    async def _store(self, declaration: Declaration) -> None:
        """Store a declared schedule. Logs errors, except that the store is unavailable."""
        try:
            new = self._schedules.make_declared(declaration)
            now_ms = self._clock.now_ms()
            record = await self._engine.upsert_schedule(self._name, new, now_ms=now_ms)
            if record is None:
                logger.warning(
                    "queue %s: declared schedule %s not stored: its end is over",
                    self._name, declaration.id,
                )  # fmt: skip
            elif (record.previous_ms or 0) > now_ms + MAX_CLOCK_DIFFERENCE_MS:
                self._log_future_run(record)
        except StoreUnavailable:
            raise
        except HastenError as error:
            logger.error(
                "queue %s: declared schedule %s not stored: %s", self._name, declaration.id, error
            )

    def _log_future_run(self, record: ScheduleRecord) -> None:
        """Log that a worker whose clock was wrong has run a slot of the future."""
        logger.warning(
            "queue %s: the latest run of schedule %s was for %s, which is in the future: the clock "
            "of a worker was wrong. Its next run is at %s. To run it earlier, pause and resume it",
            self._name, record.id, to_datetime(record.previous_ms or 0).isoformat(),
            "no time" if record.slot_ms is None else to_datetime(record.slot_ms).isoformat(),
        )  # fmt: skip

    # Late schedules -----------------------------------------------------------------------------

    async def _check(self) -> None:
        """Log the schedules that have become late, and those that are late no longer."""
        activity = f"look for late schedules of queue {self._name}"
        try:
            engine = self._engine
            late = await find_late_schedules(engine, self._name, self._clock, LATE_SECONDS)
            # The runs of a paused queue wait because somebody wants that.
            if late and await engine.is_paused(self._name):
                late = []
            self._log_changes(late)
            for each in late:
                if each.is_broken:
                    await self._repair(each)
        except StoreError as error:
            self._outage.record_failure(activity, error)
        else:
            self._outage.record_success(activity)

    async def _repair(self, late: LateSchedule) -> None:
        """Store a declared schedule again whose next job was deleted."""
        declaration = self._schedules.declared.get(late.id)
        if declaration is not None:
            await self._store(declaration)
            logger.warning(
                "queue %s: schedule %s stored again, because its next job was deleted",
                self._name, late.id,
                extra={"queue": self._name, "schedule": late.id},
            )  # fmt: skip

    def _log_changes(self, late: list[LateSchedule]) -> None:
        """Log which schedules have become late, or are late no longer. late are those at present.

        Each is logged once for as long as it is late.
        """
        new = [each for each in late if each.id not in self._late]
        for each in new[:MAX_NAMED]:
            self._log_late(each)
        if len(new) > MAX_NAMED:
            logger.warning(
                "queue %s: further late schedules: %d%s. See: hasten schedules list --late",
                self._name, len(new) - MAX_NAMED, " or more" if len(late) >= MAX_LATE else "",
            )  # fmt: skip
        ids = {each.id for each in late}
        # If the list of late schedules is full, others may be late, too.
        ended = [] if len(late) >= MAX_LATE else [id for id in self._late if id not in ids]
        for id in ended[:MAX_NAMED]:
            seconds = self._late[id]
            logger.info(
                "queue %s: schedule %s is no longer late; it was late by %.0f s or more",
                self._name, id, seconds,
                extra={"queue": self._name, "schedule": id, "late_seconds": seconds},
            )  # fmt: skip
        if len(ended) > MAX_NAMED:
            logger.info(
                "queue %s: further schedules that are no longer late: %d",
                self._name, len(ended) - MAX_NAMED,
            )  # fmt: skip
        for id in ended:
            del self._late[id]
        for each in late:
            self._late[each.id] = each.seconds
        for id in list(self._late)[: max(0, len(self._late) - MAX_REMEMBERED)]:
            del self._late[id]

    def _log_late(self, late: LateSchedule) -> None:
        slot = to_datetime(late.slot_ms).isoformat()
        attributes = {"queue": self._name, "schedule": late.id, "late_seconds": late.seconds}
        if late.is_broken:
            logger.warning(
                "queue %s: schedule %s has no run since %s, because its next job was deleted: "
                "store the schedule again (Schedules.upsert)",
                self._name, late.id, slot,
                extra=attributes,
            )  # fmt: skip
        else:
            logger.warning(
                "queue %s: schedule %s is late: its run for %s has been due for %.0f s. "
                "For the reason, use: hasten jobs why MODULE:QUEUE %s",
                self._name, late.id, slot, late.seconds, job_id_of(late.id, late.slot_ms),
                extra=attributes,
            )  # fmt: skip
