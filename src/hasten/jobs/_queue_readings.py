"""Read how many jobs queues have and how long they wait, within a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from hasten import _portal
from hasten.errors import StoreError
from hasten.jobs._late_schedules import LateSchedule, find_late_schedules
from hasten.jobs._options import decode_options
from hasten.jobs._queue import Queue
from hasten.jobs._record import JobRecord
from hasten.jobs._states import READY, State


@dataclass(frozen=True, slots=True)
class QueueReading:
    """The jobs of a queue, or the error with which its store could not be read.

    oldest_wait is for how long the job that waits longest has been ready, in seconds; 0 if none is.
    slots is the number of slots of all workers of the queue. schedules is how many it has, and due
    those whose next run is due, the latest first, at most `MAX_LATE`.
    """

    queue: str
    counts: dict[State, int]
    oldest_wait: float = 0.0
    is_paused: bool = False
    slots: int = 0
    schedules: int = 0
    due: list[LateSchedule] = field(default_factory=list)
    error: str | None = None

    @property
    def backlog(self) -> int:
        """How many jobs are ready to run."""
        return sum(self.counts.get(state, 0) for state in READY)

    def find_late(self, seconds: float) -> list[LateSchedule]:
        """Return those of the due schedules that are late by more than this."""
        return [each for each in self.due if each.seconds > seconds]


def start_reading_queues(
    queues: Sequence[Queue], timeout_seconds: float
) -> Future[list[QueueReading]]:
    """Begin to read queues, in a thread of hasten. The future has a reading for each, in order.

    The future never has an exception: a reading that takes longer than timeout_seconds has an
    error.
    """
    return _portal.start(_read_all(_read_counts_and_waits, queues, timeout_seconds))


def start_reading_paused_flags(
    queues: Sequence[Queue], timeout_seconds: float, *, with_schedules: bool = False
) -> Future[list[QueueReading]]:
    """Begin to read which queues are paused, like `start_reading_queues`. The counts are empty.

    with_schedules: also read which schedules are due.
    """
    read = _read_paused_flag_and_schedules if with_schedules else _read_paused_flag
    return _portal.start(_read_all(read, queues, timeout_seconds))


ReadQueue = Callable[[Queue], Awaitable[QueueReading]]


async def _read_all(read: ReadQueue, queues: Sequence[Queue], seconds: float) -> list[QueueReading]:
    return await asyncio.gather(*(_read_within(read, queue, seconds) for queue in queues))


async def _read_within(read: ReadQueue, queue: Queue, seconds: float) -> QueueReading:
    try:
        async with asyncio.timeout(seconds):
            return await read(queue)
    except TimeoutError:
        return QueueReading(queue.name, {}, error=f"the store did not answer within {seconds:g} s")
    except StoreError as error:
        return QueueReading(queue.name, {}, error=str(error))


async def _read_paused_flag(queue: Queue) -> QueueReading:
    return QueueReading(queue.name, {}, is_paused=await queue.is_paused())


async def _read_paused_flag_and_schedules(queue: Queue) -> QueueReading:
    is_paused = await queue.is_paused()
    due = await find_late_schedules(queue.engine, queue.name, queue.clock)
    return QueueReading(queue.name, {}, is_paused=is_paused, due=due)


async def _read_counts_and_waits(queue: Queue) -> QueueReading:
    engine, name = queue.engine, queue.name
    counts = await engine.count(name)
    oldest = [
        *await _read_oldest_waiting(queue, counts[State.WAITING]),
        *await _read_ends_of_prioritized(queue, counts[State.PRIORITIZED]),
    ]
    now_ms = queue.clock.now_ms()
    schedules = await engine.count_schedules(name)
    return QueueReading(
        name,
        counts,
        oldest_wait=max(
            [0.0, *((now_ms - _estimate_ready_since_ms(job)) / 1000 for job in oldest)]
        ),
        is_paused=await engine.is_paused(name),
        slots=sum(info.slots for info in await engine.workers(name, now_ms=now_ms)),
        schedules=schedules,
        due=await find_late_schedules(engine, name, queue.clock) if schedules else [],
    )


async def _read_oldest_waiting(queue: Queue, count: int) -> list[JobRecord]:
    """Return jobs without a priority, among them the one that waits longest. count is their number.

    In the order of claiming, `lifo` jobs come first, the newest first. The others follow, the
    oldest first. So the oldest job is on one of the two sides of the border between them. A binary
    search finds it, with 20 reads for a million jobs; without `lifo` jobs it is the first job.
    """
    before: list[JobRecord] = []
    after: list[JobRecord] = []
    first, end = 0, count  # the border is at one of these positions
    while first < end:
        # The first position at first: usually there are no `lifo` jobs.
        middle = 0 if not before and not after else (first + end) // 2
        page = await queue.engine.get_page(
            queue.name, State.WAITING, offset=middle, limit=1, newest_first=False
        )
        if page and _is_lifo(page[0]):
            before, first = page, middle + 1
        else:  # also if there are fewer jobs by now
            after, end = page or after, middle
    return before + after


async def _read_ends_of_prioritized(queue: Queue, count: int) -> list[JobRecord]:
    """Return the first and the last job with a priority. count is the number of these jobs.

    To find the oldest one, the engine would have to read all of them.
    """
    jobs: list[JobRecord] = []
    for newest_first in (False, True)[:count]:
        jobs += await queue.engine.get_page(
            queue.name, State.PRIORITIZED, offset=0, limit=1, newest_first=newest_first
        )
    return jobs


def _is_lifo(job: JobRecord) -> bool:
    try:
        return decode_options(job.opts).lifo
    except ValueError:  # of another program
        return False


def _estimate_ready_since_ms(job: JobRecord) -> int:
    """Return since when a waiting job has been ready, in milliseconds since the epoch.

    This time is not stored for each job. It is estimated from when the job was added or last
    started.
    """
    if job.started_ms is not None:
        return max(job.created_ms, job.started_ms)
    try:
        return job.created_ms + decode_options(job.opts).delay_ms
    except ValueError:
        return job.created_ms
