"""`Producer`: adds the jobs of one tick of the event loop with one call of the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from hasten._coalescing import Coalescer, split_by_weight
from hasten.errors import AddedInPart, StoreError
from hasten.jobs._deduplication import StoredParameters, make_deduplication
from hasten.jobs._job import Job, JobQueue
from hasten.jobs._middleware import EnqueueCall, Middleware, add_many_through, add_through
from hasten.jobs._options import Options, check_metadata, check_name, merge_job_options
from hasten.jobs._per_loop import PerLoop
from hasten.jobs._record import JobTemplate, NewJob
from hasten.jobs._tracing import get_spans_if_tracing

# A call of `Engine.add` blocks all other users of the store: 1,000 jobs block a Redis server for
# 7 ms. A job with a delay, a priority or an id takes twice as long, and so do 2 kB of data; a job
# with a deduplication key takes up to four times as long.
ADDED_AT_ONCE: Final = 1_000
BYTES_PER_WEIGHT: Final = 2_000


class Producer:
    """Adds jobs to one queue, in batches."""

    def __init__(
        self, queue: JobQueue, get_parameters: Callable[[str], StoredParameters | None]
    ) -> None:
        """get_parameters returns the parameters of a task, None if its function is not known."""
        self.queue = queue
        self._get_parameters = get_parameters
        self.middlewares: tuple[Middleware, ...] = ()  # of the queue, outermost first
        self.after_add: Callable[[], Awaitable[None]] | None = None  # see `SharedStore.after_add`
        self._coalescers = PerLoop(
            lambda: Coalescer(
                self._send, max_weight=ADDED_AT_ONCE, weight_of=_weigh_job, sequential=True
            )
        )

    @property
    def queue_name(self) -> str:
        """The name of the queue."""
        return self.queue.name

    def now_ms(self) -> int:
        """Return the current time of the store's clock, in ms since the epoch."""
        return self.queue.clock.now_ms()

    def make_template(self, task: str, options: Options, arguments: object = None) -> JobTemplate:
        """Return the template of jobs of this task that are added now.

        arguments are those of the job, from which its deduplication key is made. With options that
        have no deduplication, the template is the same for all arguments. Raises `InvalidOption` if
        the arguments give no valid key.
        """
        rule = options.deduplication
        if rule is None:
            return JobTemplate.of(task, options, now_ms=self.now_ms())
        deduplication = make_deduplication(rule, task, arguments, self._get_parameters(task))
        return JobTemplate.of(task, options, now_ms=self.now_ms(), deduplication=deduplication)

    def submit(self, template: JobTemplate, data: str) -> Awaitable[Job[Any]]:
        """Add one job, together with all other jobs of this tick of the event loop."""
        spans = get_spans_if_tracing()
        if spans is None:
            job: Awaitable[Job[Any]] = self._coalescers.get().put(self._new_job(template, data))
        else:
            job = spans.send(
                self.queue_name, template, lambda template: self._submit(template, data)
            )
        return job if self.after_add is None else _call_after(job, self.after_add)

    def _submit(self, template: JobTemplate, data: str) -> Awaitable[Job[Any]]:
        return self._coalescers.get().put(self._new_job(template, data))

    async def submit_many(self, jobs: Sequence[tuple[JobTemplate, str]]) -> list[Job[Any]]:
        """Add jobs, with several calls of the store if they are too many for one.

        Raises `AddedInPart` if the store fails after some of the jobs were added.
        """
        spans = get_spans_if_tracing()
        if spans is None:
            added = await self._submit_many(jobs)
        else:
            added = await spans.send_many(self.queue_name, jobs, self._submit_many)
        if self.after_add is not None:
            await self.after_add()
        return added

    async def _submit_many(self, jobs: Sequence[tuple[JobTemplate, str]]) -> list[Job[Any]]:
        new = [self._new_job(template, data) for template, data in jobs]
        added: list[Job[Any]] = []
        for part in split_by_weight(new, ADDED_AT_ONCE, _weigh_job) if new else ():
            try:
                added += await self._send(new[part])
            except StoreError as error:
                if not added:
                    raise
                raise AddedInPart(error, [job.id for job in added], len(new)) from error
        return added

    async def submit_through_middlewares(
        self, call: EnqueueCall, defaults: Options, data: str
    ) -> Job[Any]:
        """Add one job through the middlewares. data is the encoded form of `call.data`.

        defaults are the options of the task, which apply where `call.options` has none.
        """

        async def add(call: EnqueueCall) -> Job[Any]:
            return await self.submit(self.make_template_of_call(call, defaults), data)

        return await add_through(self.middlewares, call, add)

    async def submit_many_through_middlewares(
        self, jobs: Sequence[tuple[EnqueueCall, Options, str]]
    ) -> list[Job[Any]]:
        """Add jobs through the middlewares. Those that reach the end are added together.

        Each job has the arguments of `submit_through_middlewares`.
        """

        async def add_many(calls_by_index: Mapping[int, EnqueueCall]) -> list[Job[Any]]:
            new: list[tuple[JobTemplate, str]] = []
            last: tuple[EnqueueCall, Options, JobTemplate] | None = None
            for index, call in calls_by_index.items():
                _, defaults, data = jobs[index]
                if (
                    last is None
                    or last[2].deduplication is not None
                    or not have_equal_templates(last[0], call, last[1], defaults)
                ):
                    last = call, defaults, self.make_template_of_call(call, defaults)
                new.append((last[2], data))
            return await self.submit_many(new)

        calls = [(self.middlewares, call) for call, _, _ in jobs]
        return await add_many_through(calls, add_many)

    def make_template_of_call(self, call: EnqueueCall, defaults: Options) -> JobTemplate:
        """Return the template of a job, as the middlewares have changed it.

        defaults are the options of its task. Raises `InvalidOption`.
        """
        options = merge_job_options(call.options, defaults, now_ms=self.now_ms())
        if call.metadata:
            options = replace(options, metadata=check_metadata(call.metadata))
        return self.make_template(check_name("task", call.task), options, call.data)

    def _new_job(self, template: JobTemplate, data: str) -> NewJob:
        """Return the record of a job to add."""
        return NewJob(self.queue.name, template, data, template.options.job_id)

    async def _send(self, jobs: Sequence[NewJob]) -> list[Job[Any]]:
        """Add jobs with one call of the store."""
        queue, now_ms = self.queue, self.now_ms()
        added = await queue.engine.add(jobs, now_ms=now_ms)
        return [
            Job(queue, answer.id, (job, now_ms), answer.cursor)
            if answer.existing is None
            else Job(queue, answer.id, answer.existing, answer.cursor, is_duplicate=True)
            for job, answer in zip(jobs, added, strict=True)
        ]

    def close(self) -> None:
        """Drop the batches of all event loops. Called when the queue is closed."""
        self._coalescers.drop_all()


async def _call_after(
    added: Awaitable[Job[Any]], after_add: Callable[[], Awaitable[None]]
) -> Job[Any]:
    job = await added
    await after_add()
    return job


def have_equal_templates(
    one: EnqueueCall, other: EnqueueCall, defaults: Options, other_defaults: Options
) -> bool:
    """Return whether the jobs of two calls have the same task, options and metadata."""
    return (
        one.task == other.task
        and one.options == other.options
        and one.metadata == other.metadata
        and defaults is other_defaults
    )


def _weigh_job(job: NewJob) -> int:
    """Return the cost of adding a job, in multiples of a job without data and options."""
    data = job.data
    size = len(data) if data.isascii() else len(data.encode())
    template = job.template
    options = template.options
    if template.deduplication is not None:
        weight = 4
    else:
        weight = 1 if job.id is None and not options.delay_ms and not options.priority else 2
    return weight + size // BYTES_PER_WEIGHT
