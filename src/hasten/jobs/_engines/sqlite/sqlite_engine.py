"""`SqliteEngine`: implements each operation of `Engine` as a function that takes the connection.

`Database` runs the function in a transaction, together with other waiting work, and returns its
result after the commit. The functions use one statement for many rows and read rows as one JSON
value; `hasten._sqlite` explains why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from sqlite3 import Connection
from typing import Final, Literal, TypeVar

from hasten._sqlite import GROUP_WEIGHT, Database
from hasten._store_url import DEFAULT_TIMEOUT, SqliteFile
from hasten.errors import InvalidOption, StoreRejected
from hasten.jobs._engine import check_cursor, raise_if_scheduled
from hasten.jobs._engines.skipped_runs import SkippedScheduledJobs
from hasten.jobs._engines.sqlite import (
    adding,
    administration,
    deduplicating,
    event_rows,
    flows,
    leasing,
    schedules,
    settling,
    situations,
    updating,
    workers,
)
from hasten.jobs._engines.sqlite.claiming import JobSizes
from hasten.jobs._engines.sqlite.job_rows import (
    encode_json,
    find_seqs,
    read_jobs,
    read_jobs_by_id,
    read_json,
)
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._engines.sqlite.jobs_schema import migrate, require_existing_store
from hasten.jobs._engines.sqlite.queue_ledger import Ledger
from hasten.jobs._engines.sqlite.retention import Retention
from hasten.jobs._engines.sqlite.transaction_limits import MOVED_AT_ONCE, MoreLeft
from hasten.jobs._record import (
    AddResult,
    ChildCounts,
    ChildJob,
    ClaimedJobs,
    ClaimRequest,
    Completed,
    EventPage,
    JobChange,
    JobEnd,
    JobRecord,
    NewJob,
    Outcome,
    Parked,
    Update,
    WhyFacts,
)
from hasten.jobs._schedule_record import NewSchedule, ScheduleRecord
from hasten.jobs._states import State, StatesBefore
from hasten.jobs._worker_info import WorkerInfo, encode_worker_info

T = TypeVar("T")

NEVER: Final = 2**62  # later than any time in ms

# How many results one statement reads. Their JSON stays below SQLite's limit for one string.
ENDS_AT_ONCE: Final = 500

# Writing this many bytes of data costs about as much as writing a row.
BYTES_LIKE_A_ROW: Final = 10_000

# An operation with several transactions pauses this long between them, so that other processes can
# write: they try to get the lock every millisecond.
YIELD_SECONDS: Final = 0.002


class SqliteEngine:
    """The engine for a SQLite file or a database in memory; see `Engine` for its methods.

    If `file.synchronous` is FULL, new jobs and outcomes of runs are flushed to the disk before a
    call returns. If it is NORMAL, a power cut may lose the last commits. timeout is how many
    seconds to wait for a lock that another process holds.
    """

    max_concurrent_settles = 1
    max_jobs_per_settle = 500
    adds_atomically_across_queues = True
    leases_use_server_clock = False

    def __init__(self, file: SqliteFile, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._path = path = file.path
        self._url = "memory://" if path is None else f"sqlite:///{path}"
        if file.synchronous != "FULL":
            self._url += f"?synchronous={file.synchronous.lower()}"
        self._database = Database(
            path,
            name=self._url,
            prepare=partial(migrate, self._url),
            synchronous=file.synchronous,
            busy_seconds=timeout,
            read_marks=_read_change_numbers,
        )
        self._flushes = path is not None and file.synchronous == "FULL"
        self._retention = Retention()
        self._sizes: JobSizes = {}
        self._skipped = SkippedScheduledJobs()

    @property
    def url(self) -> str:
        return self._url

    def require_existing_store(self) -> None:
        require_existing_store(self._url, self._path)

    # Adding -------------------------------------------------------------------------------------

    async def add(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        work = partial(adding.add, jobs=jobs, now_ms=now_ms)
        size = sum(len(job.data) for job in jobs)
        queues = {job.queue for job in jobs}
        return await self._database.run(
            work,
            weight=len(jobs) + size // BYTES_LIKE_A_ROW,
            topic=queues.pop() if len(queues) == 1 else None,
        )

    def check_flow_queues(self, queues: Collection[str]) -> None:
        """Do nothing: a file has all queues, so their jobs can be added in one transaction."""

    async def add_flow(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        touched: set[str] = set()
        work = partial(flows.add_flow, jobs=jobs, now_ms=now_ms, touched=touched)
        size = sum(len(job.data) for job in jobs)
        weight = 2 * len(jobs) + size // BYTES_LIKE_A_ROW
        return await self._database.run(work, weight=weight, topic=touched)

    # Claiming and settling ----------------------------------------------------------------------

    async def claim(self, queue: str, claim: ClaimRequest, *, now_ms: int) -> ClaimedJobs:
        return await self.settle(queue, (), claim, now_ms=now_ms)

    async def settle(
        self,
        queue: str,
        outcomes: Sequence[Outcome],
        claim: ClaimRequest | None,
        *,
        now_ms: int,
        metrics_minutes: int | None = None,
    ) -> ClaimedJobs:
        size = sum(len(end.result) for end in outcomes if type(end) is Completed)
        weight = len(outcomes) + (claim.count if claim else 0) + size // BYTES_LIKE_A_ROW
        weight += sum(2 * len(end.children) for end in outcomes if type(end) is Parked)
        touched = {queue}
        settle = partial(
            settling.settle,
            queue=queue,
            outcomes=outcomes,
            claim=claim,
            retention=self._retention,
            sizes=self._sizes,
            skipped=self._skipped,
            now_ms=now_ms,
            touched=touched,
        )
        # A claim without outcomes need not be flushed to the disk. If a power cut loses the claim,
        # its jobs are waiting again, as after the expiry of their leases.
        run = partial(self._database.run, weight=weight, durable=bool(outcomes), topic=touched)
        try:
            try:
                return await run(partial(settle, check_leases=False))
            except settling.LeaseMismatch:
                return await run(partial(settle, check_leases=True))
        except (flows.ChildExists, InvalidOption) as error:
            raise StoreRejected(self._url, str(error)) from error
        except asyncio.CancelledError:
            if claim is not None:
                # The thread executes the claim nevertheless, but nobody receives its jobs.
                self._database.submit_and_forget(
                    partial(
                        settling.release_jobs_of_claim,
                        queue=queue,
                        token=claim.token,
                        retention=self._retention,
                        sizes=self._sizes,
                        skipped=self._skipped,
                        now_ms=now_ms,
                    ),
                    topic=queue,
                )
            raise

    def renew(
        self, queue: str, tokens_by_id: Mapping[str, str], *, lease_ms: int, now_ms: int
    ) -> set[str]:
        lost: set[str] = set()
        ids = list(tokens_by_id)
        for first in range(0, len(ids), MOVED_AT_ONCE):
            portion = {id: tokens_by_id[id] for id in ids[first : first + MOVED_AT_ONCE]}
            work = partial(
                leasing.renew, queue=queue, tokens_by_id=portion, lease_ms=lease_ms, now_ms=now_ms
            )
            lost |= self._database.run_blocking(work, durable=False, topic=queue)
        return lost

    def find_cancelled(self, queue: str, ids: Collection[str]) -> set[str]:
        return self._database.run_blocking(
            partial(leasing.find_cancelled, queue=queue, ids=ids), write=False
        )

    async def reclaim(self, queue: str, *, crash_limit: int, now_ms: int) -> list[str]:
        seqs = await self._read(partial(leasing.find_expired, queue=queue, now_ms=now_ms))
        ids: list[str] = []
        # Each portion is put in front of the earlier ones, so the oldest jobs come last.
        for first in range(0, len(seqs), MOVED_AT_ONCE):
            portion = seqs[first : first + MOVED_AT_ONCE]
            work = partial(
                leasing.reclaim, queue=queue, seqs=portion, crash_limit=crash_limit, now_ms=now_ms
            )
            ids[:0] = await self._run_portion(
                queue,
                work,
                is_continuation=first > 0,
                is_last=first + MOVED_AT_ONCE >= len(seqs),
                weight=len(portion),
            )
        return ids

    async def wait_until_writable(self, queue: str) -> None:
        await self._database.run(lambda connection: None, durable=False, topic=queue)

    async def update(self, queue: str, updates: Sequence[Update], *, now_ms: int) -> StatesBefore:
        work = partial(updating.update, queue=queue, updates=updates, now_ms=now_ms)
        # Progress and log lines need not survive a power cut.
        durable = any(isinstance(update, JobChange) for update in updates)
        return await self._database.run(work, durable=durable, topic=queue)

    async def register_worker(self, queue: str, worker_id: str, *, name: str) -> None:
        """Do nothing: the first report announces the worker."""

    def report_worker(
        self, queue: str, worker: WorkerInfo, *, lifetime_ms: int, now_ms: int
    ) -> bool:
        work = partial(
            workers.report, queue=queue, id=worker.id,
            encoded_info=encode_worker_info(worker),
            lifetime_ms=lifetime_ms, now_ms=now_ms,
        )  # fmt: skip
        return self._database.run_blocking(work, durable=False, topic=workers.TOPIC)

    async def unregister_worker(self, queue: str, worker_id: str) -> None:
        work = partial(workers.delete, queue=queue, id=worker_id)
        await self._database.run(work, durable=False, topic=workers.TOPIC)

    async def wait_for_jobs(
        self, queue: str, *, next_due_ms: int | None, worker_id: str = ""
    ) -> None:
        next_due = NEVER if next_due_ms is None else next_due_ms

        def true_if_ready(connection: Connection) -> Literal[True] | None:
            row = execute(connection, "has_ready", queue=queue, next_due=next_due).fetchone()
            return None if row is None else True

        await self._database.wait_until(queue, true_if_ready)

    # Reading ------------------------------------------------------------------------------------

    async def get(self, queue: str, ids: Sequence[str]) -> list[JobRecord | None]:
        return await self._read(partial(read_jobs_by_id, queue=queue, ids=ids))

    async def get_why_facts(self, queue: str, id: str, *, now_ms: int) -> WhyFacts | None:
        return await self._read(partial(situations.read_why_facts, queue=queue, id=id))

    async def children(self, queue: str, id: str, *, offset: int = 0, limit: int) -> list[ChildJob]:
        found: list[ChildJob] = []
        while left := limit - len(found):
            at, count = offset + len(found), min(left, ENDS_AT_ONCE)
            page = await self._read(
                partial(flows.read_children, queue=queue, id=id, offset=at, limit=count)
            )
            if not page:
                break
            found += page
        return found

    async def failed_children(self, queue: str, id: str, *, limit: int) -> list[ChildJob]:
        at_most = min(limit, ENDS_AT_ONCE)
        return await self._read(
            partial(flows.read_failed_children, queue=queue, id=id, limit=at_most)
        )

    async def count_children(self, queue: str, id: str) -> ChildCounts:
        return await self._read(partial(flows.count_children, queue=queue, id=id))

    async def count_workers_except(
        self, queue: str, known: Sequence[WorkerInfo], *, now_ms: int
    ) -> int:
        # All of them report. Those of later versions of hasten may do so in a form that is unknown.
        counted = await self._read(partial(workers.count_running, queue=queue, now_ms=now_ms))
        return max(0, counted - len(known))

    async def get_ends(self, queue: str, ids: Sequence[str]) -> list[JobEnd | None]:
        ends: list[JobEnd | None] = []
        for first in range(0, len(ids), ENDS_AT_ONCE):
            portion = ids[first : first + ENDS_AT_ONCE]
            ends += await self._read(partial(_read_ends, queue=queue, ids=portion))
        return ends

    async def get_page(
        self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool
    ) -> list[JobRecord]:
        statement = "list_newest" if newest_first else "list_oldest"

        def read(connection: Connection) -> list[JobRecord]:
            seqs = read_json(
                connection, statement, queue=queue, state=state, limit=limit, offset=offset
            )
            return list(read_jobs(connection, seqs).values())

        return await self._read(read)

    async def count(self, queue: str) -> dict[State, int]:
        counted = await self._read(partial(read_json, statement="count_jobs", queue=queue))
        return {state: counted.get(state, 0) for state in State}

    async def workers(self, queue: str, *, now_ms: int) -> list[WorkerInfo]:
        return await self._read(partial(workers.read, queue=queue, now_ms=now_ms))

    async def logs(self, queue: str, id: str) -> list[str]:
        def read(connection: Connection) -> list[str]:
            (seq,) = find_seqs(connection, queue, [id])
            lines: list[str] = read_json(connection, "read_log", seq=seq, queue=queue, id=id)
            return lines

        return await self._read(read)

    async def events(self, queue: str, *, after: str | None, wait: bool = True) -> EventPage:
        if after is None:
            return EventPage([], await self._read(partial(event_rows.newest_cursor, queue=queue)))
        check_cursor(after)
        read = partial(event_rows.read_events_after, queue=queue, cursor=after)
        if not wait:
            return await self._read(read) or EventPage([], after)
        return await self._database.wait_until(queue, read)

    def start_reading_latest_cursor(self, queue: str) -> Future[str]:
        newest_cursor = partial(event_rows.newest_cursor, queue=queue)
        return self._database.submit(newest_cursor, write=False)

    # Schedules ----------------------------------------------------------------------------------

    async def upsert_schedule(
        self, queue: str, schedule: NewSchedule, *, now_ms: int
    ) -> ScheduleRecord | None:
        work = partial(schedules.upsert, queue=queue, schedule=schedule, now_ms=now_ms)
        return await self._database.run(work, topic=queue)

    async def get_schedules(self, queue: str, ids: Sequence[str]) -> list[ScheduleRecord | None]:
        return await self._read(partial(schedules.get, queue=queue, ids=ids))

    async def list_schedules(self, queue: str, *, offset: int, limit: int) -> list[ScheduleRecord]:
        return await self._read(
            partial(schedules.read_page, queue=queue, offset=offset, limit=limit)
        )

    async def count_schedules(self, queue: str) -> int:
        return await self._read(partial(schedules.count, queue=queue))

    async def late_schedules(
        self, queue: str, *, before_ms: int, limit: int
    ) -> list[ScheduleRecord]:
        return await self._read(
            partial(schedules.read_late, queue=queue, before_ms=before_ms, limit=limit)
        )

    async def pause_schedule(self, queue: str, id: str, *, now_ms: int) -> bool:
        work = partial(schedules.pause, queue=queue, id=id, now_ms=now_ms)
        return await self._database.run(work, topic=queue)

    async def resume_schedule(self, queue: str, id: str, *, now_ms: int) -> bool:
        work = partial(schedules.resume, queue=queue, id=id, now_ms=now_ms)
        return await self._database.run(work, topic=queue)

    async def run_schedule(self, queue: str, id: str, *, now_ms: int) -> str | None:
        work = partial(schedules.run, queue=queue, id=id, now_ms=now_ms)
        return await self._database.run(work, topic=queue)

    async def remove_schedules(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[bool]:
        removed: list[bool] = []
        for first in range(0, len(ids), MOVED_AT_ONCE):
            portion = ids[first : first + MOVED_AT_ONCE]
            work = partial(schedules.remove, queue=queue, ids=portion, now_ms=now_ms)
            removed += await self._run_portion(
                queue, work, is_continuation=first > 0, is_last=first + len(portion) == len(ids)
            )
        return removed

    # Administration -----------------------------------------------------------------------------

    async def requeue(
        self, queue: str, ids: Sequence[str], from_states: Collection[State], *, now_ms: int
    ) -> StatesBefore:
        work = partial(administration.requeue, queue=queue, from_states=from_states, now_ms=now_ms)
        return await self._run_in_portions(queue, work, ids)

    async def cancel(self, queue: str, ids: Sequence[str], *, now_ms: int) -> StatesBefore:
        touched = {queue}
        scheduled: set[str] = set()
        work = partial(
            administration.cancel, queue=queue, retention=self._retention, now_ms=now_ms,
            touched=touched, scheduled=scheduled,
        )  # fmt: skip
        states = await self._run_in_portions(touched, work, ids)
        raise_if_scheduled(queue, scheduled, "cancelled")
        return states

    async def remove(self, queue: str, ids: Sequence[str], *, now_ms: int) -> StatesBefore:
        descendants: list[int] = []
        touched = {queue}
        scheduled: set[str] = set()
        work = partial(
            administration.remove, queue=queue, descendants=descendants, touched=touched,
            scheduled=scheduled,
        )  # fmt: skip
        answers = await self._run_in_portions(touched, work, ids)
        while descendants:
            delete = partial(flows.delete_next_descendants, seqs=descendants, touched=touched)
            descendants = await self._run_portion(touched, delete, is_continuation=True)
        raise_if_scheduled(queue, scheduled, "removed")
        return answers

    async def remove_deduplication_key(self, queue: str, id: str, *, now_ms: int) -> bool:
        work = partial(deduplicating.free_key, queue=queue, key=id, now_ms=now_ms)
        return await self._database.run(work, topic=queue)

    async def _run_in_portions(
        self, topic: str | set[str], work: Callable[..., list[State | None]], ids: Sequence[str]
    ) -> StatesBefore:
        """Call work for `MOVED_AT_ONCE` ids at a time, and return the results for all ids.

        Each call is a transaction. A call that would take too long returns results only for the
        first of its ids, and the next call begins with the first id that has no result.
        """
        answers: list[State | None] = []
        while len(answers) < len(ids):
            portion = ids[len(answers) : len(answers) + MOVED_AT_ONCE]
            answers += await self._run_portion(
                topic,
                partial(work, ids=portion),
                is_continuation=bool(answers),
                is_last=len(answers) + len(portion) == len(ids),
                weight=len(portion),
            )
        return answers

    async def _run_portion(
        self,
        topic: str | set[str],
        work: Callable[[Connection], T],
        *,
        is_continuation: bool,
        is_last: bool = False,
        weight: int = GROUP_WEIGHT,
    ) -> T:
        """Run one of the transactions of an operation that needs several.

        topic: the queue that it changes, or a set of queues, to which work may add others.
        is_continuation: it is not the first one, so it begins with a pause in which others can
        write.
        is_last: its commit flushes all of the transactions to the disk. The log is also flushed
        before that, so that the commit holds the lock only while its own pages are written.
        weight: about how many rows it writes, which limits how many transactions are committed
        together.
        """
        if is_continuation:
            await asyncio.sleep(YIELD_SECONDS)
            if is_last and self._flushes:
                log = f"{self._path}-wal"
                await self._read(lambda connection: _fsync_file(log))
        return await self._database.run(work, durable=is_last, weight=weight, topic=topic)

    async def purge(
        self,
        queue: str,
        states: Collection[State],
        *,
        before_ms: int | None,
        limit: int | None,
        now_ms: int,
    ) -> list[str]:
        purged: list[str] = []
        for state in (state for state in State if state in states):
            left = None if limit is None else limit - len(purged)
            async for ids in self._purge_state(queue, state, before_ms, left):
                purged += ids
        work = partial(administration.emit_cleaned, queue=queue, count=len(purged))
        await self._run_portion(queue, work, is_continuation=bool(purged), is_last=True, weight=1)
        return purged

    async def _purge_state(
        self, queue: str, state: State, before_ms: int | None, limit: int | None
    ) -> AsyncIterator[list[str]]:
        """Delete at most limit jobs in one state, in several transactions. Yields the ids of each.

        The jobs are found in read transactions, which do not block writers.
        """
        touched = {queue}
        left = NEVER if limit is None else limit
        place: tuple[int, int] | None = -NEVER, 0
        is_continuation = False
        while left and place is not None:
            find = partial(
                administration.find_purgeable, queue=queue, state=state, before_ms=before_ms,
                after=place, limit=left,
            )  # fmt: skip
            found, place = await self._read(find)
            while found:
                delete = partial(
                    administration.purge_found, queue=queue, state=state, found=found,
                    touched=touched,
                )  # fmt: skip
                ids, found = await self._run_portion(
                    touched, delete, is_continuation=is_continuation
                )
                is_continuation = True
                left -= len(ids)
                yield ids

    async def obliterate(self, queue: str) -> None:
        await self._database.run(
            partial(administration.begin_obliterating, queue=queue), topic=queue
        )
        # Active jobs are deleted first. After that, no job of the paused queue changes its state,
        # except parents in waiting-children, when their children are deleted.
        touched = {queue}
        for state in (State.ACTIVE, State.WAITING_CHILDREN, *State):
            delete = partial(
                administration.obliterate_next_jobs, queue=queue, state=state, touched=touched
            )
            await self._repeat_while_rows_left(touched, delete)
        await self._repeat_while_rows_left(queue, partial(schedules.obliterate_next, queue=queue))
        await self._repeat_while_rows_left(
            queue, partial(administration.obliterate_next_events, queue=queue)
        )
        await self._repeat_while_rows_left(
            queue, partial(administration.obliterate_next_keys, queue=queue)
        )
        end = partial(administration.end_obliterating, queue=queue)
        await self._run_portion(queue, end, is_continuation=True, is_last=True)

    async def _repeat_while_rows_left(
        self, topic: str | set[str], work: Callable[[Connection], MoreLeft]
    ) -> None:
        """Run work in one transaction after another, until no rows are left for it."""
        is_continuation = False
        while await self._run_portion(topic, work, is_continuation=is_continuation):
            is_continuation = True

    async def pause(self, queue: str, *, now_ms: int) -> None:
        await self._database.run(
            partial(administration.set_paused, queue=queue, paused=True), topic=queue
        )

    async def resume(self, queue: str, *, now_ms: int) -> None:
        await self._database.run(
            partial(administration.set_paused, queue=queue, paused=False), topic=queue
        )

    async def is_paused(self, queue: str) -> bool:
        def read(connection: Connection) -> bool:
            return Ledger(connection, queue, now_ms=0).paused

        return await self._read(read)

    async def queues(self) -> list[str]:
        names: list[str] = await self._read(partial(read_json, statement="queues"))
        return names

    async def _read(self, work: Callable[[Connection], T]) -> T:
        """Run work that only reads, and return its result."""
        return await self._database.run(work, write=False)

    async def aclose(self) -> None:
        self.close_without_event_loop()

    def close_without_event_loop(self) -> None:
        """Close the database, without an event loop. Blocks until the waiting work is done."""
        self._database.close()


def _read_change_numbers(connection: Connection, queues: list[str]) -> dict[str, int]:
    """Return, for each queue, a number that changes with new jobs, new events, pause and resume."""
    marks: dict[str, int] = read_json(connection, "read_marks", queues=encode_json(queues))
    return marks


def _fsync_file(path: str) -> None:
    """Flush a file to the disk with fsync. Errors are ignored."""
    with contextlib.suppress(OSError):  # the commit that follows reports them
        file = os.open(path, os.O_RDWR)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _read_ends(connection: Connection, queue: str, ids: Sequence[str]) -> list[JobEnd | None]:
    """Return how jobs have ended; see `Engine.get_ends`."""
    seqs = encode_json(find_seqs(connection, queue, ids))
    rows = read_json(connection, "read_ends", queue=queue, seqs=seqs)
    found = {id: JobEnd(State(state), value) for id, state, value in rows}
    return [found.get(id) for id in ids]
