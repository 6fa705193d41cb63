"""`RedisEngine`: implements each operation of `Engine`, such as `add`, as a call of a Lua script.

Keys and values have the layout of BullMQ 6, and a script does for many jobs what BullMQ's script
does for one. Data that only hasten has is stored where BullMQ ignores it: in `opts.hasten` of a
job, and in keys that begin with "hasten:". A lease is the lock of BullMQ.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import weakref
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final

import msgspec

from hasten import _portal
from hasten._logs import get_logger
from hasten._redis.connections import Part
from hasten._redis.listener import BlockingConnection
from hasten._redis.server import Server
from hasten._store_url import DEFAULT_TIMEOUT, RedisAddress
from hasten.errors import (
    InvalidOption,
    JobNotFound,
    MissingExtra,
    StoreError,
    StoreInterrupted,
    StoreRejected,
    WrongState,
)
from hasten.jobs import _cron as cron
from hasten.jobs._encoding import UNDECODABLE
from hasten.jobs._engine import CANCELLED_ERROR, CRASH_ERROR, check_cursor, raise_if_scheduled
from hasten.jobs._engines.redis import flow_requests, schedules, script_requests
from hasten.jobs._engines.redis.decoding import (
    SettleReply,
    decode_add_reply,
    decode_flow_reply,
    decode_settle_reply,
    decode_text,
    parse_stream_id,
    stream_id_before,
    to_dict,
    to_event,
    to_job_record,
)
from hasten.jobs._engines.redis.job_scripts import SCRIPTS
from hasten.jobs._engines.redis.marker_waiter import MarkerWaiter
from hasten.jobs._engines.redis.queue_keys import DEFAULT_PREFIX, STATE_KEYS, QueueKeys
from hasten.jobs._engines.skipped_runs import SkippedScheduledJobs
from hasten.jobs._epoch import to_datetime
from hasten.jobs._record import (
    CHILDREN_READ,
    COUNTED_AHEAD,
    MISSED,
    AddResult,
    ChildCounts,
    ChildJob,
    ChildOutcome,
    ClaimedJobs,
    ClaimRequest,
    Event,
    EventPage,
    JobEnd,
    JobRecord,
    Lease,
    NewJob,
    Outcome,
    Parked,
    Update,
    WhyFacts,
    record_of_deleted_owner,
)
from hasten.jobs._schedule_record import NewSchedule, ScheduleRecord
from hasten.jobs._states import State, StatesBefore
from hasten.jobs._worker_info import WorkerInfo, decode_worker_info, encode_worker_info

logger = get_logger("hasten.redis")

# The server runs nothing else during a script. Operations on many jobs that need not be atomic are
# therefore split into calls with this many jobs.
JOBS_AT_ONCE: Final = 250

# If the server runs `reclaim` later than this after a probe, by its own clock, it does nothing. A
# server that was suspended while such a call was in its socket runs the call when it resumes. It
# would reclaim jobs of live workers, which could not renew their leases meanwhile. The shortest
# lease is 1 second, and is renewed before its last quarter.
RECLAIM_MS: Final = 500

# The server's default limit for one argument (proto-max-bulk-len). It closes the connection of a
# client that sends more.
MAX_REQUEST_BYTES: Final = 512 * 1024 * 1024

EVENTS_AT_ONCE: Final = 1_000
READ_SECONDS: Final = 10.0


class RedisEngine:
    """The engine for Redis and Valkey; see `Engine` for its methods.

    timeout limits each request, in seconds. prefix is the beginning of all keys, like BullMQ's
    option prefix.
    """

    max_concurrent_settles = (
        2  # the server processes one call while the worker runs the jobs of the other
    )
    max_jobs_per_settle = JOBS_AT_ONCE
    adds_atomically_across_queues = False  # in a cluster, each queue may be on another server
    leases_use_server_clock = True

    def __init__(
        self, address: RedisAddress, *, timeout: float = DEFAULT_TIMEOUT, prefix: str | None = None
    ) -> None:
        self._server = Server(replace(address, timeout=timeout))
        self._keys = QueueKeys(
            DEFAULT_PREFIX if prefix is None else prefix, tagged=self._server.is_cluster
        )
        self._url = address.shown
        self._orphans = _OrphanedClaims()
        self._can_parse_cron = cron.is_croniter_installed()
        self._skipped = SkippedScheduledJobs()
        self._probed_ms: dict[str, int] = {}  # by queue: the server's time at the last probe
        self._pending_cursors: dict[Future[str], int] = {}  # with the process id
        self._connections_by_loop: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, _EventLoopConnections
        ] = weakref.WeakKeyDictionary()

    @property
    def url(self) -> str:
        return self._url

    def require_existing_store(self) -> None:
        """Do nothing: on a server no file has to be created."""

    async def _run_script(
        self, verb: str, queue: str, request: Mapping[str, object], *, repeatable: bool = False
    ) -> Any:
        """Run the script of an operation, and return its reply. verb is the name of the script.

        repeatable: running the script twice has the same effect as running it once, so it is sent
        again if the connection is lost.
        """
        if self._pending_cursors:
            await self._wait_for_pending_cursors()
        return await self._server.run_script(
            SCRIPTS[verb],
            self._keys.queue_prefix(queue),
            self._pack_request(verb, request),
            repeatable=repeatable,
        )

    async def _run_in_portions(
        self,
        verb: str,
        queue: str,
        ids: Sequence[str],
        request: Mapping[str, object] | None = None,
        *,
        repeatable: bool = False,
    ) -> list[Any]:
        """Run a script for `JOBS_AT_ONCE` ids at a time, and return the replies for all ids.

        A script that would take too long replies only for the first of its ids. The next call
        begins after these. repeatable: see `_run_script`.
        """
        answers: list[Any] = []
        while len(answers) < len(ids):
            portion = ids[len(answers) : len(answers) + JOBS_AT_ONCE]
            answers += await self._run_script(
                verb, queue, {**(request or {}), "ids": portion}, repeatable=repeatable
            )
        return answers

    def _pack_request(self, verb: str, request: Mapping[str, object]) -> bytes:
        """Encode a request. Raises `StoreRejected` for an invalid value or too large a request."""
        try:
            packed = script_requests.pack(request)
        except (ValueError, OverflowError) as exc:  # a lone surrogate, a number beyond 64 bits
            raise StoreRejected(self._url, f"{verb}: a value cannot be stored: {exc}") from exc
        if len(packed) > MAX_REQUEST_BYTES:
            raise StoreRejected(
                self._url,
                f"{verb}: the call has {len(packed):,} bytes, and the server accepts at most "
                f"{MAX_REQUEST_BYTES:,}: send fewer jobs in one call",
            )
        return packed

    def _run_script_blocking(self, verb: str, queue: str, request: Mapping[str, object]) -> Any:
        """Run a repeatable script from a thread without an event loop, and return its reply."""
        return self._server.run_script_from_thread(
            SCRIPTS[verb], self._keys.queue_prefix(queue), self._pack_request(verb, request)
        )

    # Adding -------------------------------------------------------------------------------------

    async def add(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        first = jobs[0].queue if jobs else ""
        if all(job.queue == first for job in jobs):
            return await self._add(first, jobs, now_ms)
        by_queue: dict[str, list[int]] = {}
        for index, job in enumerate(jobs):
            by_queue.setdefault(job.queue, []).append(index)
        answers: dict[int, AddResult] = {}
        for queue, indexes in by_queue.items():
            added = await self._add(queue, [jobs[index] for index in indexes], now_ms)
            answers.update(zip(indexes, added, strict=True))
        return [answers[index] for index in range(len(jobs))]

    async def _add(self, queue: str, jobs: Sequence[NewJob], now_ms: int) -> list[AddResult]:
        """Add jobs to one queue; see `Engine.add`."""
        if not jobs:
            return []
        idempotency = self._make_idempotency_key()
        request = script_requests.make_add_request(jobs, now_ms, idempotency)
        packed = await self._run_script("add", queue, request, repeatable=idempotency is not None)
        added = decode_add_reply(packed)
        number, cursor = added.first, added.cursor
        answers = [
            AddResult(str(number + index) if job.id is None else job.id, None, cursor)
            for index, job in enumerate(jobs)
        ]
        existing = {
            id: self._to_job(queue, id, State(state), int(due_ms) if due_ms else None, fields)
            for id, state, due_ms, fields in added.existing
            if fields
        }
        for place, id in added.duplicates:
            record = existing.get(id) or record_of_deleted_owner(jobs[place - 1], id)
            answers[place - 1] = AddResult(id, record, cursor)
        return answers

    def check_flow_queues(self, queues: Collection[str]) -> None:
        found = sorted(set(queues))
        if len(found) > 1 and self._keys.has_slot_per_queue:
            expected = (
                "a prefix with a hash tag, such as '{bull}': without one, Redis Cluster stores the "
                f"queues {' and '.join(map(repr, found[:2]))} in different hash slots, and their "
                "jobs cannot be parents and children of each other"
            )
            raise InvalidOption("prefix", self._keys.prefix, expected)

    async def add_flow(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        if not jobs:
            return []
        parents = flow_requests.find_stored_parents(jobs)
        self.check_flow_queues({job.queue for job in jobs} | {queue for queue, _ in parents})
        groups, orders = flow_requests.make_flow_rows(jobs, self._keys)
        idempotency = self._make_idempotency_key()
        by_key = {self._keys.queue_prefix(queue) + id: (queue, id) for queue, id in parents}
        request = {
            "now": now_ms,
            "parents": list(by_key),
            "groups": groups,
            "orders": orders,
            "idempotency": idempotency,
        }
        packed = await self._run_script(
            "add_flow", jobs[0].queue, request, repeatable=idempotency is not None
        )
        reply = decode_flow_reply(packed)
        if not isinstance(reply.cursors, dict):
            found = str(reply.refused_for)
            if reply.refused_key in by_key:
                queue, id = by_key[reply.refused_key]
                if not reply.refused_for:
                    raise JobNotFound(queue, id)
                raise WrongState(queue, id, found, ["unfinished"])
            prefixes = {self._keys.queue_prefix(job.queue): job.queue for job in jobs}
            expected = f"an id that no job of queue {prefixes[reply.refused_key]!r} has"
            raise InvalidOption("job_id", found, expected, code="duplicate")
        cursors = reply.cursors
        return [
            AddResult(str(job.id), None, cursors[self._keys.queue_prefix(job.queue)])
            for job in jobs
        ]

    def _make_idempotency_key(self) -> tuple[str, int] | None:
        """Return a unique key for a call that adds jobs, and for how many ms it is remembered.

        If the URL has the parameter `wait`, a call whose reply was lost is repeated with its key.
        None without that parameter.
        """
        wait = self._server.address.wait
        return (secrets.token_hex(8), int((wait + 60) * 1000)) if wait else None

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
        verb = "settle" if outcomes or claim is None else "claim"
        row = None
        if claim is not None:
            orphans = self._orphans.unexpired_tokens(queue, now_ms)
            row = script_requests.to_claim_row(claim, orphans, can_parse_cron=self._can_parse_cron)
        parked = {
            end.id: self._make_rows_of_children(queue, end)
            for end in outcomes
            if type(end) is Parked
        }
        request = script_requests.make_settle_request(
            queue, outcomes, row, now_ms, metrics_minutes, parked
        )
        try:
            reply = decode_settle_reply(await self._run_script(verb, queue, request))
            if reply.taken_key:
                raise StoreRejected(self._url, self._describe_taken_child(reply.taken_key))
            for id, problem in reply.errors:
                logger.error(
                    "queue %s: job %s: cannot update its parent, scheduler or deduplication: %s",
                    queue, id, problem,
                )  # fmt: skip
            if reply.skipped:
                self._skipped.add(queue, reply.skipped)
            token = "" if claim is None else claim.token
            leases = [Lease(job, token) for job in reply.jobs]
            dropped_slots = 0
            if reply.cron_jobs:
                leases, dropped_slots = await self._start_scheduled(queue, reply, leases, now_ms)
        except (StoreInterrupted, asyncio.CancelledError):
            if claim is not None:
                self._orphans.add(queue, claim, now_ms)
            raise
        next_due_ms = reply.next_due_ms
        due_ms = None if next_due_ms is False else int(next_due_ms)
        return ClaimedJobs(leases, due_ms, reply.lost, dropped_slots)

    def _make_rows_of_children(self, queue: str, end: Parked) -> flow_requests.FlowRows:
        """Return the rows of the children of a parked job. Raises `StoreRejected`."""
        try:
            self.check_flow_queues({queue, *(child.queue for child in end.children)})
            return flow_requests.make_flow_rows(end.children, self._keys, added_by=end.id)
        except InvalidOption as error:
            raise StoreRejected(self._url, str(error)) from error

    def _describe_taken_child(self, key: str) -> str:
        """Return the message for a child that cannot be added. key is that of its job."""
        place, _, id = key.rpartition(":")
        queue = self._keys.queue_of_meta_key(f"{place}:meta") or place
        return f"its child {id!r} cannot be added: another job of queue {queue!r} has this id"

    async def _start_scheduled(
        self, queue: str, reply: SettleReply, leases: list[Lease], now_ms: int
    ) -> tuple[list[Lease], int]:
        """Add the next jobs of the schedules whose jobs were claimed.

        The server cannot parse cron patterns, so the slots are computed here. Returns the leases
        without those of jobs that must not run now, and how many slots get no run. Raises
        `StoreInterrupted` if the store fails: then the next claim releases the jobs of this one,
        and adds the next jobs.
        """
        ours = {id: name for id, name, opts in reply.cron_jobs if schedules.has_policy(opts)}
        try:
            for id, scheduler, opts in reply.cron_jobs:
                if id not in ours:
                    await self._add_next_run(queue, id, scheduler, opts, now_ms)
            if not ours:
                return leases, 0
            return await self._start_runs(queue, leases, ours, now_ms)
        except StoreInterrupted:
            raise
        except StoreError as error:
            raise StoreInterrupted(error.store, error.reason) from error

    async def _start_runs(
        self, queue: str, leases: list[Lease], scheduled: Mapping[str, str], now_ms: int
    ) -> tuple[list[Lease], int]:
        """Add the next jobs of schedules that hasten has stored; see `_start_scheduled`.

        scheduled has the schedules of the jobs by job id.
        """
        planned = [lease for lease in leases if lease.job.id in scheduled]
        try:
            found, dropped_slots = await schedules.start_runs(
                self._run_script, queue, planned, scheduled, now_ms
            )
        except StoreRejected as error:  # the keys of the schedules are damaged
            self._log_no_next_run(queue, ", ".join(scheduled.values()), error)
            return leases, 0
        started = {lease.job.id: lease for lease in found}
        remaining = [
            started.get(lease.job.id, lease)
            for lease in leases
            if lease.job.id not in scheduled or lease.job.id in started
        ]
        return remaining, dropped_slots

    async def _add_next_run(
        self, queue: str, id: str, scheduler: str, opts: str, now_ms: int
    ) -> None:
        """Add the next job of a cron scheduler that BullMQ has stored."""
        try:
            due_ms = _next_repeat_ms(opts, now_ms)
            request = {
                "now": now_ms, "id": id, "scheduler": scheduler, "opts": opts, "due": due_ms,
            }  # fmt: skip
            await self._run_script("add_next_run", queue, request, repeatable=True)
        except (*UNDECODABLE, ArithmeticError, MissingExtra, StoreRejected) as error:
            self._log_no_next_run(queue, scheduler, error)

    def _log_no_next_run(self, queue: str, scheduler: str, error: Exception) -> None:
        """Log that the claimed job runs, but its schedule adds no more jobs."""
        logger.error(
            "queue %s: cannot add the next run of scheduler %s: %s", queue, scheduler, error
        )

    def renew(
        self, queue: str, tokens_by_id: Mapping[str, str], *, lease_ms: int, now_ms: int
    ) -> set[str]:
        lost: set[str] = set()
        ids, tokens = list(tokens_by_id), list(tokens_by_id.values())
        done = 0
        while done < len(ids):
            part = slice(done, done + JOBS_AT_ONCE)
            request = {"lease": lease_ms, "ids": ids[part], "tokens": tokens[part]}
            lost_now, handled = self._run_script_blocking("renew", queue, request)
            lost.update(map(decode_text, lost_now))
            done += handled
        return lost

    def find_cancelled(self, queue: str, ids: Collection[str]) -> set[str]:
        cancelled: set[str] = set()
        running = list(ids)
        for first in range(0, len(running), JOBS_AT_ONCE):
            request = {"ids": running[first : first + JOBS_AT_ONCE]}
            cancelled.update(
                map(decode_text, self._run_script_blocking("find_cancelled", queue, request))
            )
        return cancelled

    async def reclaim(self, queue: str, *, crash_limit: int, now_ms: int) -> list[str]:
        request = {
            "now": now_ms, "crash_limit": crash_limit, "error": CRASH_ERROR,
            "portion": JOBS_AT_ONCE,
        }  # fmt: skip
        if (probed_ms := self._probed_ms.pop(queue, None)) is not None:
            request["deadline"] = probed_ms + RECLAIM_MS
        ids: list[str] = []
        last: int | None = None
        while last != 0:
            reclaimed, last = await self._run_script(
                "reclaim", queue, {**request, "last": last}, repeatable=True
            )
            ids += map(decode_text, reclaimed)
        return ids[::-1]

    async def wait_until_writable(self, queue: str) -> None:
        # `has_work` does not write. If the server rejects writes, `reclaim` raises the error.
        *_, server_ms = await self._run_script("has_work", queue, {}, repeatable=True)
        self._probed_ms[queue] = server_ms

    async def update(self, queue: str, updates: Sequence[Update], *, now_ms: int) -> StatesBefore:
        if not updates:
            return []
        return _to_states(
            await self._run_script(
                "update", queue, script_requests.make_update_request(updates, now_ms)
            )
        )

    # Waiting ------------------------------------------------------------------------------------

    async def register_worker(self, queue: str, worker_id: str, *, name: str) -> None:
        connection_name = self._keys.worker_connection_name(queue, name)
        await (
            self._get_loop_connections().get_waiter(self, queue, worker_id, connection_name).open()
        )

    async def unregister_worker(self, queue: str, worker_id: str) -> None:
        waiter = self._get_loop_connections().waiters.pop((queue, worker_id), None)
        if waiter is not None:
            await waiter.close()
        await self._run_script("remove_worker", queue, {"id": worker_id}, repeatable=True)

    def report_worker(
        self, queue: str, worker: WorkerInfo, *, lifetime_ms: int, now_ms: int
    ) -> bool:
        info = encode_worker_info(worker)
        request = {"id": worker.id, "info": info, "lifetime": lifetime_ms}
        return bool(self._run_script_blocking("report_worker", queue, request))

    async def wait_for_jobs(
        self, queue: str, *, next_due_ms: int | None, worker_id: str = ""
    ) -> None:
        def is_sooner(due_ms: float) -> bool:
            return next_due_ms is None or due_ms < next_due_ms

        ready, due_ms, limited_ms, _ = await self._run_script(
            "has_work", queue, {}, repeatable=True
        )
        if limited_ms:
            # The rate limit of the queue blocks claims. If the marker was popped now, the worker
            # would claim nothing, put the marker back and pop it again, in a loop.
            await asyncio.sleep(limited_ms / 1000)
            return
        if ready or (due_ms is not None and is_sooner(due_ms)):
            return
        waiter = self._get_loop_connections().get_waiter(self, queue, worker_id)
        while True:
            marked_ms = await waiter.wait_for_marker()
            if not marked_ms or is_sooner(marked_ms):
                return

    def make_waiter(self, queue: str, connection_name: str | None) -> MarkerWaiter:
        """Make the object that waits on a queue's marker. `_EventLoopConnections` caches it."""
        return MarkerWaiter(self._server, self._keys.queue_prefix(queue), connection_name)

    def _get_loop_connections(self) -> _EventLoopConnections:
        """Return the blocking connections of the running event loop."""
        loop = asyncio.get_running_loop()
        connections = self._connections_by_loop.get(loop)
        if connections is None:
            connections = self._connections_by_loop[loop] = _EventLoopConnections()
        return connections

    # Reading ------------------------------------------------------------------------------------

    async def get(self, queue: str, ids: Sequence[str]) -> list[JobRecord | None]:
        rows = await self._run_in_portions("get", queue, ids, repeatable=True)
        return [
            None
            if row is None
            else self._to_job(queue, id, State(decode_text(row[0])), row[1], row[2])
            for id, row in zip(ids, rows, strict=True)
        ]

    def _to_job(
        self, queue: str, id: str, state: State, due_ms: int | None, fields: Any
    ) -> JobRecord:
        """Convert a job in a script's reply. fields are the names and values of its hash."""
        stored = to_dict(fields)
        parent = flow_requests.decode_parent(stored.get("parent"), self._keys)
        return to_job_record(queue, id, state, due_ms, stored, parent)

    async def get_why_facts(self, queue: str, id: str, *, now_ms: int) -> WhyFacts | None:
        request = {"id": id, "most": COUNTED_AHEAD, "children": CHILDREN_READ}
        reply = await self._run_script("situation", queue, request, repeatable=True)
        if not reply:
            return None
        state, due, fields, paused, lease_ms, ahead, limited_ms, full, pending, children, held = (
            reply
        )
        return WhyFacts(
            self._to_job(queue, id, State(decode_text(state)), due, fields),
            is_paused=bool(paused),
            lease_until_ms=None if lease_ms is None else now_ms + int(lease_ms),
            ahead=ahead,
            limited_until_ms=now_ms + int(limited_ms) if limited_ms else None,
            full=full,
            pending=pending,
            children=await self._read_children(list(map(decode_text, children))),
            is_held=bool(held),
        )

    async def children(self, queue: str, id: str, *, offset: int = 0, limit: int) -> list[ChildJob]:
        *by_outcome, order = await self._run_script("children", queue, {"id": id}, repeatable=True)
        found = [
            (decode_text(key), outcome)
            for outcome, keys in zip(flow_requests.OUTCOMES, by_outcome, strict=True)
            for key in keys
        ]
        stored_order = decode_text(order) if order else ""
        page = flow_requests.sort_children(found, stored_order)[offset : offset + limit]
        return await self._read_child_facts(queue, id, page)

    async def failed_children(self, queue: str, id: str, *, limit: int) -> list[ChildJob]:
        request = {"id": id, "limit": limit}
        ignored, failed = await self._run_script("failed_children", queue, request, repeatable=True)
        found: list[tuple[str, ChildOutcome]] = [
            *((decode_text(key), "failed") for key in failed),
            *((decode_text(key), "ignored") for key in ignored),
        ]
        return await self._read_child_facts(queue, id, found[:limit])

    async def _read_child_facts(
        self, queue: str, id: str, page: Sequence[tuple[str, ChildOutcome]]
    ) -> list[ChildJob]:
        """Return children of a job, given by the keys of their jobs and their outcomes."""
        children: list[ChildJob] = []
        while len(children) < len(page):
            portion = page[len(children) : len(children) + JOBS_AT_ONCE]
            rows = await self._run_script(
                "child_facts", queue, {"id": id, "children": portion}, repeatable=True
            )
            for (key, outcome), row in zip(portion, rows, strict=False):
                children.append(self._to_child(key, outcome, *row))
        return children

    def _to_child(
        self,
        key: str,
        outcome: ChildOutcome,
        state: bytes | None,
        value: bytes | None,
        error: bytes | None,
        parent: bytes | None,
    ) -> ChildJob:
        """Convert a row in the reply of the script `child_facts`. key is that of the child."""
        place, _, id = key.rpartition(":")
        link = (
            None if parent is None else flow_requests.decode_parent(decode_text(parent), self._keys)
        )
        return ChildJob(
            self._keys.queue_of_meta_key(f"{place}:meta") or place,
            id,
            None if state is None else State(decode_text(state)),
            None if error is None else decode_text(error),
            None if value is None else decode_text(value),
            outcome,
            None if link is None else link.on_failure,
        )

    async def count_children(self, queue: str, id: str) -> ChildCounts:
        return ChildCounts(
            *await self._run_script("count_children", queue, {"id": id}, repeatable=True)
        )

    async def _read_children(self, child_keys: Sequence[str]) -> list[ChildJob]:
        """Return the child jobs with these keys, failed ones first."""
        by_queue: dict[str, list[str]] = {}
        for child_key in child_keys:
            place, _, id = child_key.rpartition(":")
            queue = self._keys.queue_of_meta_key(f"{place}:meta")
            if queue is not None:  # not of a queue with another prefix
                by_queue.setdefault(queue, []).append(id)
        found = []
        for queue, ids in sorted(by_queue.items()):
            for id, end in zip(ids, await self.get_ends(queue, ids), strict=True):
                state = None if end is None else end.state
                error = end.value if end is not None and state is State.FAILED else None
                found.append(ChildJob(queue, id, state, error))
        return sorted(found, key=lambda child: child.state is not State.FAILED)

    async def count_workers_except(
        self, queue: str, known: Sequence[WorkerInfo], *, now_ms: int
    ) -> int:
        key = self._keys.queue_prefix(queue) + "marker"
        try:
            listed = await self._server.run_command("CLIENT", "LIST", key=key)
        except StoreError:  # the user of the connection may not list clients
            return 0
        connections = self._keys.find_worker_connection_names(queue, decode_text(listed))
        for info in known:
            name = self._keys.worker_connection_name(queue, info.name)
            if name in connections:
                connections.remove(name)
        return len(connections)

    async def get_ends(self, queue: str, ids: Sequence[str]) -> list[JobEnd | None]:
        rows = await self._run_in_portions("ends", queue, ids, repeatable=True)
        return [
            None
            if row is None
            else JobEnd(State(decode_text(row[0])), None if row[1] is None else decode_text(row[1]))
            for row in rows
        ]

    async def get_page(
        self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool
    ) -> list[JobRecord]:
        found: dict[str, JobRecord] = {}  # by id: a job that moves meanwhile may be read twice
        handled, is_end = 0, False
        while handled < limit and not is_end:
            request = {
                "state": STATE_KEYS[state],
                "first": offset + handled,
                "count": min(limit - handled, JOBS_AT_ONCE),
                "newest_first": newest_first,
            }
            rows, handled_now, is_end = await self._run_script(
                "page", queue, request, repeatable=True
            )
            handled += handled_now
            for row in rows:
                id = decode_text(row[0])
                found[id] = self._to_job(queue, id, state, row[1], row[2])
        return list(found.values())

    async def count(self, queue: str) -> dict[State, int]:
        counted = await self._run_script("count", queue, {}, repeatable=True)
        states = (
            State.WAITING, State.ACTIVE, State.PRIORITIZED, State.DELAYED, State.WAITING_CHILDREN,
            State.COMPLETED, State.FAILED,
        )  # fmt: skip
        by_state = dict(zip(states, counted, strict=False))
        return {state: by_state[state] for state in State}

    async def workers(self, queue: str, *, now_ms: int) -> list[WorkerInfo]:
        rows = await self._run_script("workers", queue, {}, repeatable=True)
        found = [decode_worker_info(info, to_datetime(seen_ms)) for seen_ms, info in rows]
        return [info for info in found if info is not None]

    async def logs(self, queue: str, id: str) -> list[str]:
        key = f"{self._keys.queue_prefix(queue)}{id}:logs"
        try:
            key.encode()
        except UnicodeEncodeError as exc:
            raise StoreRejected(self._url, f"invalid job id: {exc}") from exc
        return list(map(decode_text, await self._server.run_command("LRANGE", key, 0, -1, key=key)))

    async def events(self, queue: str, *, after: str | None, wait: bool = True) -> EventPage:
        key = self._keys.queue_prefix(queue) + "events"
        if after is None:
            return EventPage([], await self._newest_cursor(key))
        check_cursor(after)
        streams: tuple[Part, ...] = "COUNT", EVENTS_AT_ONCE, "STREAMS", key, after
        last_read: list[Any] = []
        if not wait:
            found = await self._server.run_command("XREAD", *streams, key=key)
            if not found:
                return EventPage([], after)
        else:
            found = None
            async with self._get_loop_connections().borrow_event_reader(self, queue) as listener:
                while not found:
                    last_read, found = await listener.run_commands(
                        ["XRANGE", key, after, after],
                        ["XREAD", "BLOCK", int(READ_SECONDS * 1000), *streams],
                        block_seconds=READ_SECONDS,
                    )
        _, entries = found[0]
        read = [to_event(decode_text(id), to_dict(fields)) for id, fields in entries]
        # If the event at the cursor still exists, which is usual, no later one was deleted.
        if not last_read and await self._may_have_missed_events(key, after, read[0].cursor):
            read.insert(0, Event(stream_id_before(read[0].cursor), MISSED, ""))
        return EventPage(read, read[-1].cursor)

    async def _newest_cursor(self, key: str) -> str:
        """Return the id of the newest event in a stream; "0-0" if there is none."""
        newest = await self._server.run_command("XREVRANGE", key, "+", "-", "COUNT", 1, key=key)
        return decode_text(newest[0][0]) if newest else "0-0"

    async def _may_have_missed_events(self, key: str, after: str, first_read: str) -> bool:
        """Return whether events after the cursor may have been deleted before they were read.

        first_read is the cursor of the first event that was read after the cursor.
        """
        if stream_id_before(first_read) == after:
            return False
        try:
            flat = await self._server.run_command("XINFO", "STREAM", key, key=key)
        except StoreError as error:
            if "no such key" in error.reason:
                return False  # the queue has just been obliterated
            raise
        facts = {
            decode_text(name): value for name, value in zip(flat[::2], flat[1::2], strict=True)
        }
        oldest = facts["first-entry"]
        if oldest and parse_stream_id(decode_text(oldest[0])) <= parse_stream_id(after):
            return False
        if "entries-added" not in facts:  # before Redis 7
            return after != "0-0"
        return int(facts["entries-added"]) > int(facts["length"])

    def start_reading_latest_cursor(self, queue: str) -> Future[str]:
        # Runs in the portal's event loop, because the caller may have no loop, or block its loop
        # with a `.sync` call.
        cursor = _portal.start(self._newest_cursor(self._keys.queue_prefix(queue) + "events"))
        self._pending_cursors[cursor] = os.getpid()
        cursor.add_done_callback(lambda done: self._pending_cursors.pop(done, None))
        return cursor

    async def _wait_for_pending_cursors(self) -> None:
        """Wait until earlier calls of `start_reading_latest_cursor` have read their cursors.

        Called before each operation, because its events must come after these cursors.
        """
        for begun, process in list(self._pending_cursors.items()):
            if process != os.getpid():
                del self._pending_cursors[begun]  # made before a fork: it never completes here
            else:
                waiting = asyncio.gather(asyncio.wrap_future(begun), return_exceptions=True)
                await asyncio.shield(waiting)  # other callers may wait for the same cursor

    def make_event_reader(self, queue: str) -> BlockingConnection:
        """Make a connection that reads events. `_EventLoopConnections` caches it."""
        key = self._keys.queue_prefix(queue) + "events"
        return self._server.make_blocking_connection(
            key=key, name=self._keys.event_reader_connection_name(queue)
        )

    # Schedules ----------------------------------------------------------------------------------

    async def upsert_schedule(
        self, queue: str, schedule: NewSchedule, *, now_ms: int
    ) -> ScheduleRecord | None:
        return await schedules.upsert(self._run_script, queue, schedule, now_ms)

    async def get_schedules(self, queue: str, ids: Sequence[str]) -> list[ScheduleRecord | None]:
        return await schedules.get(self._run_script, queue, ids)

    async def list_schedules(self, queue: str, *, offset: int, limit: int) -> list[ScheduleRecord]:
        return await schedules.read_page(self._run_script, queue, offset, limit)

    async def count_schedules(self, queue: str) -> int:
        return int(await self._run_script("count_schedules", queue, {}, repeatable=True))

    async def late_schedules(
        self, queue: str, *, before_ms: int, limit: int
    ) -> list[ScheduleRecord]:
        return await schedules.read_late(self._run_script, queue, before_ms, limit)

    async def pause_schedule(self, queue: str, id: str, *, now_ms: int) -> bool:
        return await schedules.pause(self._run_script, queue, id, now_ms)

    async def resume_schedule(self, queue: str, id: str, *, now_ms: int) -> bool:
        return await schedules.resume(self._run_script, queue, id, now_ms)

    async def run_schedule(self, queue: str, id: str, *, now_ms: int) -> str | None:
        return await schedules.run_now(self._run_script, queue, id, now_ms)

    async def remove_schedules(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[bool]:
        return await schedules.remove(self._run_script, queue, ids)

    # Administration -----------------------------------------------------------------------------

    async def requeue(
        self, queue: str, ids: Sequence[str], from_states: Collection[State], *, now_ms: int
    ) -> StatesBefore:
        request = {"now": now_ms, "sources": {source.value: True for source in from_states}}
        return _to_states(await self._run_in_portions("requeue", queue, ids, request))

    async def cancel(self, queue: str, ids: Sequence[str], *, now_ms: int) -> StatesBefore:
        request = {
            "now": now_ms, "error": CANCELLED_ERROR, "keep_failed": script_requests.KEEP_FAILED,
        }  # fmt: skip
        answers = await self._run_in_portions("cancel", queue, ids, request)
        raise_if_scheduled(queue, _scheduled_ids(ids, answers), "cancelled")
        return _to_states(answers)

    async def remove(self, queue: str, ids: Sequence[str], *, now_ms: int) -> StatesBefore:
        answers: list[Any] = []
        while len(answers) < len(ids):
            portion = ids[len(answers) : len(answers) + JOBS_AT_ONCE]
            answers_now, left = await self._run_script("remove", queue, {"ids": portion})
            answers += answers_now
            await self._remove_descendants(queue, list(map(decode_text, left)))
        raise_if_scheduled(queue, _scheduled_ids(ids, answers), "removed")
        return _to_states(answers)

    async def _remove_descendants(self, queue: str, job_keys: list[str]) -> None:
        """Delete descendants of deleted jobs, by the keys of their jobs."""
        while job_keys:
            portion, rest = job_keys[:JOBS_AT_ONCE], job_keys[JOBS_AT_ONCE:]
            left = await self._run_script(
                "remove_descendants", queue, {"keys": portion}, repeatable=True
            )
            job_keys = [*map(decode_text, left), *rest]

    async def remove_deduplication_key(self, queue: str, id: str, *, now_ms: int) -> bool:
        key = f"{self._keys.queue_prefix(queue)}de:{id}"
        return bool(await self._server.run_command("DEL", key, key=key))

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
            purged += await self._purge_state(queue, state, before_ms, left)
        if purged:
            await self._run_script("emit_cleaned", queue, {"count": len(purged)}, repeatable=True)
        return purged

    async def _purge_state(
        self, queue: str, state: State, before_ms: int | None, limit: int | None
    ) -> list[str]:
        """Delete at most limit jobs in one state; see `Engine.purge`."""
        purged: list[str] = []
        skip, is_end = 0, False
        while not is_end and (limit is None or len(purged) < limit):
            request = {
                "state": STATE_KEYS[state], "before": before_ms, "skip": skip,
                "portion": JOBS_AT_ONCE,
                "limit": JOBS_AT_ONCE if limit is None else limit - len(purged),
            }  # fmt: skip
            deleted, kept, is_end = await self._run_script("purge", queue, request)
            purged += map(decode_text, deleted)
            skip += kept
        return purged

    async def obliterate(self, queue: str) -> None:
        await self._delete_deduplication_keys(queue)
        while await self._run_script("obliterate", queue, {"limit": JOBS_AT_ONCE}, repeatable=True):
            pass
        # The id of an event contains the time in ms. If a queue with this name is used again, its
        # first event must have a later id than the last event of the deleted queue, because readers
        # continue from that.
        await asyncio.sleep(0.002)

    async def _delete_deduplication_keys(self, queue: str) -> None:
        """Delete all deduplication keys of a queue, also those of jobs that no longer exist.

        Nothing refers to the key of a throttled job that was deleted, and programs in Node add such
        keys, too. It is therefore searched for among all keys of the server.
        """
        found = await self._server.scan(f"{_escape_glob(self._keys.queue_prefix(queue))}d[en]:*")
        for first in range(0, len(found), JOBS_AT_ONCE):
            portion = found[first : first + JOBS_AT_ONCE]
            await self._server.run_command("UNLINK", *portion, key=decode_text(portion[0]))

    async def pause(self, queue: str, *, now_ms: int) -> None:
        await self._run_script("pause", queue, {}, repeatable=True)

    async def resume(self, queue: str, *, now_ms: int) -> None:
        while await self._run_script("resume", queue, {}, repeatable=True):
            pass

    async def is_paused(self, queue: str) -> bool:
        key = self._keys.queue_prefix(queue) + "meta"
        return bool(await self._server.run_command("HEXISTS", key, "paused", key=key))

    async def queues(self) -> list[str]:
        names = [name for name in await self._queues_with_meta_key() if name is not None]
        used = []
        for name in sorted(set(names)):
            *counts, paused = await self._run_script("count", name, {}, repeatable=True)
            if any(counts) or paused:
                used.append(name)
        return used

    async def _queues_with_meta_key(self) -> list[str | None]:
        """Return the names of all queues that have a meta key, including unused ones.

        None stands for a meta key that is not one of this engine's queues.
        """
        keys = await self._server.scan(f"{_escape_glob(self._keys.prefix)}:*:meta")
        return [self._keys.queue_of_meta_key(decode_text(key)) for key in keys]

    async def aclose(self) -> None:
        connections = self._connections_by_loop.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()
        await self._server.close()

    def close_without_event_loop(self) -> None:
        self._server.close_without_event_loop()


class _EventLoopConnections:
    """The connections of one event loop on which workers and event readers block."""

    def __init__(self) -> None:
        self.waiters: dict[tuple[str, str], MarkerWaiter] = {}
        self._idle_readers: dict[str, list[BlockingConnection]] = {}

    def get_waiter(
        self, engine: RedisEngine, queue: str, worker_id: str, connection_name: str | None = None
    ) -> MarkerWaiter:
        """Return the waiter of a worker and a queue. It is made on the first call."""
        waiter = self.waiters.get((queue, worker_id))
        if waiter is None:
            waiter = self.waiters[queue, worker_id] = engine.make_waiter(queue, connection_name)
        return waiter

    @contextlib.asynccontextmanager
    async def borrow_event_reader(
        self, engine: RedisEngine, queue: str
    ) -> AsyncIterator[BlockingConnection]:
        """Lend a connection that reads events. Concurrent readers get different connections."""
        idle = self._idle_readers.setdefault(queue, [])
        listener = idle.pop() if idle else engine.make_event_reader(queue)
        try:
            yield listener
        except BaseException:
            await listener.close()  # its reply may still arrive, and is not for the next reader
            raise
        idle.append(listener)

    async def close(self) -> None:
        """Close the connections of all workers, and the idle ones of event readers."""
        for waiter in self.waiters.values():
            await waiter.close()
        self.waiters.clear()
        for listener in (one for idle in self._idle_readers.values() for one in idle):
            await listener.close()
        self._idle_readers.clear()


class _OrphanedClaims:
    """Claims whose reply was lost. Their jobs may be leased, but no worker runs them.

    The next claims pass the tokens of these claims to the server, which makes their jobs ready
    again. They do so until the leases have expired, because a server that hangs may execute the
    lost claim later.
    """

    def __init__(self) -> None:
        # By queue: the token of each orphaned claim, and until when the server searches for it.
        self._until_ms: dict[str, dict[str, int]] = {}

    def add(self, queue: str, claim: ClaimRequest, now_ms: int) -> None:
        """Remember a claim whose reply was lost. now_ms is when it was sent."""
        # Twice the lease, because the server may have executed the claim after a delay.
        self._until_ms.setdefault(queue, {})[claim.token] = now_ms + 2 * claim.lease_ms

    def unexpired_tokens(self, queue: str, now_ms: int) -> list[str]:
        """Return the tokens of a queue's claims whose leases may still exist. Forgets others."""
        tokens = self._until_ms.get(queue)
        if not tokens:
            return []
        for token in [token for token, until_ms in tokens.items() if until_ms < now_ms]:
            del tokens[token]
        return list(tokens)


class _RepeatOptions(msgspec.Struct):
    """The cron pattern and the time zone in BullMQ's option `repeat`."""

    pattern: str
    tz: str | None = None


class _ScheduledJobOptions(msgspec.Struct):
    """The options of a scheduler's job that determine when its next job is due."""

    repeat: _RepeatOptions
    prevMillis: float = 0  # noqa: N815  # BullMQ's name


_scheduled_job_options: Final = msgspec.json.Decoder(_ScheduledJobOptions)


def _next_repeat_ms(opts: str, now_ms: int) -> int:
    """Return when the next job of a cron scheduler is due, from the options of its current job.

    Raises `ValueError` for invalid options or patterns.
    """
    options = _scheduled_job_options.decode(opts)
    after_ms = max(now_ms, int(options.prevMillis))
    return cron.next_match_ms(options.repeat.pattern, after_ms, options.repeat.tz)


def _to_states(answers: Sequence[bytes | None]) -> StatesBefore:
    """Convert the states in the reply of a script. None stands for a job that does not exist."""
    return [None if answer is None else State(decode_text(answer)) for answer in answers]


def _scheduled_ids(ids: Sequence[str], answers: Sequence[bytes | None]) -> list[str]:
    """Return the ids of the jobs that a script has left out, because a schedule needs them."""
    return [id for id, answer in zip(ids, answers, strict=True) if answer == b"scheduled"]


def _escape_glob(text: str) -> str:
    """Return a glob pattern that matches only this string."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in text)
