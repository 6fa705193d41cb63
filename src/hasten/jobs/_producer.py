"""Adding jobs to a queue: the calls of one tick of the event loop leave as one."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final

from hasten._coalescing import Coalescer, split_by_weight
from hasten.errors import AddedInPart, StoreError
from hasten.jobs._job import Job, JobQueue
from hasten.jobs._options import Options
from hasten.jobs._per_loop import PerLoop
from hasten.jobs._record import JobTemplate, NewJob

# A call of `add` blocks all other users of the store: a Redis server for 7 ms with a thousand plain
# jobs. A job with a delay, a priority or an id takes twice as long, and so do 2 kB of data.
ADDED_AT_ONCE: Final = 1_000
BYTES_LIKE_A_JOB: Final = 2_000


class Producer:
    """Adds jobs to one queue."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._coalescers = PerLoop(
            lambda: Coalescer(
                self._send, max_weight=ADDED_AT_ONCE, weight_of=_weight, sequential=True
            )
        )

    @property
    def queue_name(self) -> str:
        """The name of the queue."""
        return self._queue.name

    def now_ms(self) -> int:
        """Return the time by the clock of the queue's store."""
        return self._queue.clock.now_ms()

    def template(self, name: str, options: Options) -> JobTemplate:
        """Make the template of jobs of a task."""
        return JobTemplate.of(name, options, now_ms=self.now_ms())

    def submit(self, template: JobTemplate, data: str) -> Awaitable[Job[Any]]:
        """Add one job, together with all others that are added in this tick of the event loop."""
        return self._coalescers.get().put(self._new_job(template, data))

    async def submit_many(self, jobs: Sequence[tuple[JobTemplate, str]]) -> list[Job[Any]]:
        """Add jobs, in several calls if they are too many for one. Raises `AddedInPart`."""
        new = [self._new_job(template, data) for template, data in jobs]
        added: list[Job[Any]] = []
        for part in split_by_weight(new, ADDED_AT_ONCE, _weight) if new else ():
            try:
                added += await self._send(new[part])
            except StoreError as error:
                if not added:
                    raise
                raise AddedInPart(error, [job.id for job in added], len(new)) from error
        return added

    def _new_job(self, template: JobTemplate, data: str) -> NewJob:
        return NewJob(self._queue.name, template, data, template.options.job_id)

    async def _send(self, jobs: Sequence[NewJob]) -> list[Job[Any]]:
        queue, now_ms = self._queue, self.now_ms()
        added = await queue.engine.add(jobs, now_ms=now_ms)
        return [
            Job(queue, answer.id, (job, now_ms), answer.cursor)
            if answer.existing is None
            else Job(queue, answer.id, answer.existing, answer.cursor, is_duplicate=True)
            for job, answer in zip(jobs, added, strict=True)
        ]

    def close(self) -> None:
        """Forget the event loops that have added jobs."""
        self._coalescers.clear()


def _weight(job: NewJob) -> int:
    """Return the cost of adding a job, as a number of plain jobs without data."""
    data = job.data
    size = len(data) if data.isascii() else len(data.encode())
    options = job.template.options
    is_plain = job.id is None and not options.delay_ms and not options.priority
    return (1 if is_plain else 2) + size // BYTES_LIKE_A_JOB
