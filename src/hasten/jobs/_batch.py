"""`Batch`: jobs that are added bit by bit, and whose common end matters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from hasten import _portal
from hasten._checks import check_whole_number
from hasten._durations import Duration
from hasten.errors import BatchClosed, InvalidOption, JobFailed, JobNotFound, WrongState
from hasten.jobs import _child_ends as child_ends
from hasten.jobs import _family as family
from hasten.jobs import _flow_adding as flow_adding
from hasten.jobs import _moments as moments
from hasten.jobs._built_in_tasks import BATCH_TASK, opening_id
from hasten.jobs._family import Child, ChildProgress
from hasten.jobs._flow import Moment, Nodes, check_nodes
from hasten.jobs._job import Job, JobQueue
from hasten.jobs._moments import HookJob, Members
from hasten.jobs._producer import Producer
from hasten.jobs._record import JobRecord, NewJob, ParentLink, WhyFacts
from hasten.jobs._states import FINISHED

T = TypeVar("T")

MAX_FAILURES: Final = 500
MAX_BATCH_ID: Final = 400
"""Ids of batches are shorter than those of jobs, because the ids of some jobs are made of them."""


class Batch:
    """Jobs that are added bit by bit, until `close`, and whose common end matters.

    Created by `Queue.batch`, which also finds a batch that another process has opened. The members
    are jobs and flows of any tasks and queues of the store. They run as soon as they are added. A
    batch with an open end waits for more members even if all have ended so far.

    `first_failure`, `ended` and `succeeded` wait for moments of the batch, in any process. The jobs
    that were given to `Queue.batch` are added at these moments by the workers of the queue. A
    member has ended when it has completed, or has failed for good.
    """

    __slots__ = ("_hooks", "_queue", "_since", "id")

    def __init__(
        self,
        queue: JobQueue,
        id: str,
        hooks: Mapping[Moment, HookJob],
        since: str | None = None,
    ) -> None:
        self._queue = queue
        self._hooks = hooks
        self._since = since  # cursor of the queue's events from before the batch could end
        self.id = id

    def __repr__(self) -> str:
        return f"<Batch {self.id} of {self._queue.name}>"

    @property
    def queue(self) -> str:
        """The name of the queue that the batch belongs to."""
        return self._queue.name

    async def add(self, nodes: Nodes) -> list[Job[Any]]:
        """Add jobs and flows, one or several, in one step: all or none. Returns their jobs.

        `await batch.add(send.many(addresses))`. A call adds at most 10,000 jobs.

        Raises `BatchClosed`, and the exceptions of `Flow.enqueue`. Call `close` only after all
        calls of `add` have returned: an `add` at the same time may add jobs for which the moments
        do not wait.
        """
        checked = check_nodes(nodes, "nodes")
        members = await self._read()
        if not members.is_open:
            raise BatchClosed(self.queue, self.id)
        link = ParentLink(self.queue, self.id, moments.policy_of(self._hooks))
        try:
            return await flow_adding.add_members(
                checked, link, self._queue.engine, check_store=self._check_store
            )
        except (JobNotFound, WrongState) as error:
            raise BatchClosed(self.queue, self.id) from error

    def _check_store(self, producer: Producer) -> None:
        if not self._queue.shares_store_with(producer.queue):
            raise InvalidOption(
                "nodes",
                f"jobs of the queue {producer.queue_name!r}",
                f"jobs of the store of queue {self.queue!r}",
            )

    async def close(self) -> bool:
        """Add no more members. Returns False if the batch was closed already.

        Any process can close it. The batch ends when its last member has ended.
        """
        now_ms = self._queue.clock.now_ms()
        (state,) = await self._queue.engine.remove(self.queue, [opening_id(self.id)], now_ms=now_ms)
        return state is not None and state not in FINISHED

    async def is_open(self) -> bool:
        """Return whether members can be added. Raises `JobNotFound` if the batch was deleted."""
        return (await self._read()).is_open

    async def progress(self) -> ChildProgress:
        """Return how many members are pending, have completed or have failed.

        A flow counts as one member. Raises `JobNotFound` if the batch was deleted, which happens
        some time after its end: see `keep_completed`.
        """
        return (await self._read()).progress

    async def failures(self, *, limit: int = 100) -> list[Child]:
        """Return members that have failed for good, at most limit. The maximum of limit is 500."""
        found = await self._queue.engine.failed_children(
            self.queue, self.id, limit=check_whole_number("limit", limit, 1, MAX_FAILURES)
        )
        return [family.to_child(child, None) for child in found]

    async def ended(self, timeout: Duration | None = None) -> ChildProgress:
        """Wait until the batch is closed and all members have ended. Returns how they have ended.

        timeout is a `Duration`; None waits without limit. Raises `ResultTimeout`, and `JobNotFound`
        if the batch was deleted.
        """

        async def read(_facts: WhyFacts) -> ChildProgress | None:
            return _progress_if_ended(await self._read())

        return await self._wait(read, lambda progress: progress, timeout)

    async def first_failure(self, timeout: Duration | None = None) -> Child | None:
        """Wait until a member has failed for good, and return it.

        Returns None if the batch has ended without a failure. If several have failed before, it
        returns one of them. timeout and the exceptions are those of `ended`.
        """

        async def read(facts: WhyFacts) -> tuple[Child | None] | None:
            found = await child_ends.find_failed_child(self._queue.engine, facts)
            if found is not None:
                return (found,)
            return None if _progress_if_ended(await self._read()) is None else (None,)

        def convert(progress: ChildProgress) -> tuple[Child | None]:
            if progress.failed:
                reason = "the batch has ended and was deleted, and the names of its members with it"
                raise JobNotFound(self.queue, self.id, reason)
            return (None,)

        return (await self._wait(read, convert, timeout))[0]

    async def succeeded(self, timeout: Duration | None = None) -> ChildProgress:
        """Wait until the batch is closed and all members have completed.

        Raises `JobFailed` as soon as a member has failed for good, and the exceptions of `ended`.
        """

        async def read(facts: WhyFacts) -> ChildProgress | None:
            failed = await child_ends.find_failed_child(self._queue.engine, facts)
            if failed is not None:
                raise JobFailed(failed.id, failed.error or "unknown error")
            return _progress_if_ended(await self._read())

        def convert(progress: ChildProgress) -> ChildProgress:
            if progress.failed:
                raise JobFailed(self.id, f"{progress.failed:,} members have failed")
            return progress

        return await self._wait(read, convert, timeout)

    async def _wait(
        self,
        read: Callable[[WhyFacts], Awaitable[T | None]],
        convert: Callable[[ChildProgress], T],
        timeout: Duration | None,
    ) -> T:
        """Wait until read returns something; see `child_ends.wait_for`.

        If the batch has ended and was deleted meanwhile, its end may still be in the events of the
        queue: then return what convert returns for it.
        """
        seconds = child_ends.to_timeout(timeout)
        since = self._since
        if since is None:
            since = (await self._queue.engine.events(self.queue, after=None)).cursor
        try:
            return await child_ends.wait_for(
                self._queue, self._queue.queue_named, self.id, read, seconds
            )
        except JobNotFound:
            text = await self._queue.results.wait(self.id, seconds, since_cursor=since)
            return convert(moments.decode_progress(text))

    async def cancel(self) -> int:
        """Close the batch, and cancel all of its members that have not ended. Returns their number.

        The jobs below a member are cancelled, too, and counted.
        """
        await self.close()
        now_ms = self._queue.clock.now_ms()
        return await family.cancel_descendants(
            self._queue.engine, self.queue, self.id, now_ms=now_ms
        )

    async def _read(self) -> Members:
        """Read the members of the batch. Raises `JobNotFound` if the batch was deleted."""
        members = await moments.read_members(self._queue.engine, BATCH_TASK, self.queue, self.id)
        if not members.is_open and not members.progress.total:
            await family.require_job(self._queue.engine, self.queue, self.id)
        return members

    @property
    def sync(self) -> SyncBatch:
        """Blocking versions of these methods, for code that does not run in an event loop."""
        return SyncBatch(self)


def _progress_if_ended(members: Members) -> ChildProgress | None:
    return None if members.is_open or members.progress.pending else members.progress


async def open_batch(
    queue: JobQueue, id: str, hooks: Mapping[Moment, NewJob], *, open_ms: int
) -> Batch:
    """Return the batch with this id, which is created and opened if it does not exist."""
    found = await find_batch(queue, id)
    if found is not None:
        return found
    now_ms = queue.clock.now_ms()
    watcher = moments.make_watcher(BATCH_TASK, queue.name, id, hooks, now_ms=now_ms)
    opening = moments.make_opening(queue.name, id, open_ms=open_ms, now_ms=now_ms)
    try:
        added = await queue.engine.add_flow([watcher, opening], now_ms=now_ms)
    except InvalidOption:
        found = await find_batch(queue, id)  # another process has opened it at the same time
        if found is None:
            raise
        return found
    described: dict[Moment, HookJob] = {
        moment: HookJob.of(job, now_ms) for moment, job in hooks.items()
    }
    return Batch(queue, id, described, added[0].cursor)


async def find_batch(queue: JobQueue, id: str) -> Batch | None:
    """Return the batch with this id, None if there is none. Raises `InvalidOption` for a job."""
    (record,) = await queue.engine.get(queue.name, [id])
    return None if record is None else to_batch(queue, record)


def to_batch(queue: JobQueue, record: JobRecord) -> Batch:
    """Return the batch of a stored watcher. Raises `InvalidOption` for another job."""
    if record.name != BATCH_TASK:
        expected = f"an id that no other job of queue {queue.name!r} has"
        raise InvalidOption("id", record.id, expected, code="duplicate")
    return Batch(queue, record.id, moments.read_hooks(record))


class SyncBatch:
    """Blocking versions of the methods of `Batch`, for code that does not run in an event loop."""

    __slots__ = ("_batch",)

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __repr__(self) -> str:
        return f"{self._batch!r}.sync"

    def add(self, nodes: Nodes) -> list[Job[Any]]:
        """Add jobs and flows; see `Batch.add`."""
        return _portal.run_for_sync_method(self._batch.add(nodes))

    def close(self) -> bool:
        """Add no more members; see `Batch.close`."""
        return _portal.run_for_sync_method(self._batch.close())

    def is_open(self) -> bool:
        """Return whether members can be added; see `Batch.is_open`."""
        return _portal.run_for_sync_method(self._batch.is_open())

    def progress(self) -> ChildProgress:
        """Return how many members have ended; see `Batch.progress`."""
        return _portal.run_for_sync_method(self._batch.progress())

    def failures(self, *, limit: int = 100) -> list[Child]:
        """Return failed members; see `Batch.failures`."""
        return _portal.run_for_sync_method(self._batch.failures(limit=limit))

    def ended(self, timeout: Duration | None = None) -> ChildProgress:
        """Wait until all members have ended; see `Batch.ended`."""
        return _portal.run_for_sync_method(self._batch.ended(timeout), may_deadlock=True)

    def first_failure(self, timeout: Duration | None = None) -> Child | None:
        """Wait until a member has failed; see `Batch.first_failure`."""
        return _portal.run_for_sync_method(self._batch.first_failure(timeout), may_deadlock=True)

    def succeeded(self, timeout: Duration | None = None) -> ChildProgress:
        """Wait until all members have completed; see `Batch.succeeded`."""
        return _portal.run_for_sync_method(self._batch.succeeded(timeout), may_deadlock=True)

    def cancel(self) -> int:
        """Cancel all members; see `Batch.cancel`."""
        return _portal.run_for_sync_method(self._batch.cancel())
