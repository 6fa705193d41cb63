"""The engine on Redis or Valkey: each verb, such as `add`, is one call of one Lua script.

The layout is that of BullMQ 6, and the scripts do what BullMQ's scripts do, for many jobs at once.
Additions of hasten are stored where BullMQ does not look: `opts.hasten` in the options of a job,
and the set `hasten:cancelled` of the running jobs that should stop. A lease is BullMQ's lock.
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
from hasten._redis.listener import Listener
from hasten._redis.server import Server
from hasten._store_url import DEFAULT_TIMEOUT, Address
from hasten.errors import (
    HastenError,
    StoreError,
    StoreInterrupted,
    StoreRejected,
    WrongState,
)
from hasten.jobs import _cron as cron
from hasten.jobs._encoding import UNDECODABLE
from hasten.jobs._engine import CANCELLED_ERROR, CRASH_ERROR, check_cursor
from hasten.jobs._engines.redis import script_requests
from hasten.jobs._engines.redis.decoding import (
    SettleReply,
    decode_added,
    decode_settled,
    event,
    job_record,
    pair,
    stream_id,
    stream_id_before,
    text,
)
from hasten.jobs._engines.redis.job_scripts import SCRIPTS
from hasten.jobs._engines.redis.marker_waiter import MarkerWaiter
from hasten.jobs._engines.redis.queue_keys import DEFAULT_PREFIX, STATE_KEYS, QueueKeys
from hasten.jobs._engines.redis.skipped_runs import SkippedRuns
from hasten.jobs._record import (
    MISSED,
    Added,
    Batch,
    Claim,
    End,
    Event,
    EventPage,
    JobRecord,
    Lease,
    NewJob,
    Outcome,
    Update,
)
from hasten.jobs._states import State

logger = get_logger("hasten.redis")

# A script blocks all others. What need not be one step is split into calls of so many jobs.
JOBS_AT_ONCE: Final = 250

# `reclaim` does nothing if it runs later than this after a probe, by the server's clock. A server
# that was suspended with such a call in its socket executes it when it resumes, before any worker
# has renewed its leases. The shortest lease is a second, and was renewed in its last quarter.
RECLAIM_MS: Final = 500

# A server closes the connection of a client that sends more in one argument (proto-max-bulk-len).
MAX_REQUEST_BYTES: Final = 512 * 1024 * 1024

EVENTS_AT_ONCE: Final = 1_000
READ_SECONDS: Final = 10.0


class RedisEngine:
    """Jobs on a server. prefix is the beginning of all keys, as in BullMQ's option prefix."""

    max_in_flight = 2  # the server works on one while the worker runs the jobs of the other
    max_batch = JOBS_AT_ONCE
    adds_across_queues = False  # the queues may be on different servers of a cluster
    uses_server_clock = True

    def __init__(
        self, address: Address, *, timeout: float = DEFAULT_TIMEOUT, prefix: str | None = None
    ) -> None:
        self._server = Server(replace(address, timeout=timeout))
        self._keys = QueueKeys(
            DEFAULT_PREFIX if prefix is None else prefix, tagged=self._server.is_cluster
        )
        self._url = address.shown
        self._orphans = _OrphanedClaims()
        self._has_cron = cron.is_available()
        self._skipped = SkippedRuns()
        self._probed_ms: dict[str, int] = {}  # by queue: the time of the server at the last probe
        self._beginning: dict[Future[str], int] = {}  # calls of `begin_events`, and their process
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Local] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def url(self) -> str:
        return self._url

    def require_existing(self) -> None:
        """Do nothing: a server has nothing to create."""

    async def _run(
        self, verb: str, queue: str, request: Mapping[str, object], *, repeatable: bool = False
    ) -> Any:
        if self._beginning:
            await self._until_begun()
        return await self._server.run(
            SCRIPTS[verb], self._keys.base(queue), self._pack(verb, request), repeatable=repeatable
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
        """Run a verb for a portion of the ids at a time. Returns the replies for all of them.

        A script may stop after the first ids, and is called again for the rest.
        """
        answers: list[Any] = []
        while len(answers) < len(ids):
            portion = ids[len(answers) : len(answers) + JOBS_AT_ONCE]
            answers += await self._run(
                verb, queue, {**(request or {}), "ids": portion}, repeatable=repeatable
            )
        return answers

    def _pack(self, verb: str, request: Mapping[str, object]) -> bytes:
        try:
            packed = script_requests.pack(request)
        except (ValueError, OverflowError) as exc:  # a lone surrogate, a number beyond 64 bits
            raise StoreRejected(self._url, f"{verb}: a value cannot be stored: {exc}") from exc
        if len(packed) > MAX_REQUEST_BYTES:
            raise StoreRejected(
                self._url,
                f"{verb}: {len(packed):,} bytes in one call, the server accepts "
                f"{MAX_REQUEST_BYTES:,}: send fewer jobs in one call",
            )
        return packed

    def _run_blocking(self, verb: str, queue: str, request: Mapping[str, object]) -> Any:
        return self._server.run_blocking(
            SCRIPTS[verb], self._keys.base(queue), self._pack(verb, request)
        )

    # Adding -------------------------------------------------------------------------------------

    async def add(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[Added]:
        first = jobs[0].queue if jobs else ""
        if all(job.queue == first for job in jobs):
            return await self._add(first, jobs, now_ms)
        by_queue: dict[str, list[int]] = {}
        for index, job in enumerate(jobs):
            by_queue.setdefault(job.queue, []).append(index)
        answers: dict[int, Added] = {}
        for queue, indexes in by_queue.items():
            added = await self._add(queue, [jobs[index] for index in indexes], now_ms)
            answers.update(zip(indexes, added, strict=True))
        return [answers[index] for index in range(len(jobs))]

    async def _add(self, queue: str, jobs: Sequence[NewJob], now_ms: int) -> list[Added]:
        if not jobs:
            return []
        # If the URL has `wait`, a call whose reply was lost is repeated.
        wait = self._server.address.wait
        idempotency = (secrets.token_hex(8), int((wait + 60) * 1000)) if wait else None
        request = script_requests.add(jobs, now_ms, idempotency)
        packed = await self._run("add", queue, request, repeatable=idempotency is not None)
        added = decode_added(packed)
        number, cursor = added.first, added.cursor
        answers = [
            Added(str(number + index) if job.id is None else job.id, None, cursor)
            for index, job in enumerate(jobs)
        ]
        for place, state, due_ms, fields in added.existing:
            id = answers[place - 1].id
            due = int(due_ms) if due_ms else None
            answers[place - 1] = Added(id, _record(queue, id, State(state), due, fields), cursor)
        return answers

    # Claiming and settling ----------------------------------------------------------------------

    async def claim(self, queue: str, claim: Claim, *, now_ms: int) -> Batch:
        return await self.settle(queue, (), claim, now_ms=now_ms)

    async def settle(
        self, queue: str, outcomes: Sequence[Outcome], claim: Claim | None, *, now_ms: int
    ) -> Batch:
        verb = "settle" if outcomes or claim is None else "claim"
        row = None
        if claim is not None:
            orphans = self._orphans.of(queue, now_ms)
            row = script_requests.claim_row(claim, orphans, has_cron=self._has_cron)
        request = script_requests.settle(queue, outcomes, row, now_ms)
        try:
            reply = decode_settled(await self._run(verb, queue, request))
            for id, problem in reply.errors:
                logger.error("queue %s: job %s: %s", queue, id, problem)
            if reply.skipped:
                self._skipped.add(queue, reply.skipped)
            if reply.cron_jobs:
                await self._add_next_runs(queue, reply, now_ms)
        except (StoreInterrupted, asyncio.CancelledError):
            if claim is not None:
                self._orphans.add(queue, claim, now_ms)
            raise
        token = "" if claim is None else claim.token
        leases = [Lease(job, token) for job in reply.jobs]
        next_due_ms = reply.next_due_ms
        return Batch(leases, None if next_due_ms is False else int(next_due_ms), reply.lost)

    async def _add_next_runs(self, queue: str, reply: SettleReply, now_ms: int) -> None:
        """Add the next jobs of the cron schedulers whose jobs were claimed."""
        for id, scheduler, opts in reply.cron_jobs:
            try:
                due_ms = _next_run_ms(opts, now_ms)
                request = {
                    "now": now_ms, "id": id, "scheduler": scheduler, "opts": opts, "due": due_ms,
                }  # fmt: skip
                await self._run("add_next_run", queue, request, repeatable=True)
            except (*UNDECODABLE, ArithmeticError, HastenError) as error:
                # The job itself is claimed and runs. Without the next job, the schedule ends here.
                logger.error(
                    "queue %s: cannot add the next run of scheduler %s: %s",
                    queue, scheduler, error,
                )  # fmt: skip

    def renew(
        self, queue: str, leases: Mapping[str, str], *, lease_ms: int, now_ms: int
    ) -> set[str]:
        lost: set[str] = set()
        ids, tokens = list(leases), list(leases.values())
        done = 0
        while done < len(ids):
            part = slice(done, done + JOBS_AT_ONCE)
            request = {"lease": lease_ms, "ids": ids[part], "tokens": tokens[part]}
            lost_now, handled = self._run_blocking("renew", queue, request)
            lost.update(map(text, lost_now))
            done += handled
        return lost

    def find_cancelled(self, queue: str, ids: Collection[str]) -> set[str]:
        cancelled: set[str] = set()
        running = list(ids)
        for first in range(0, len(running), JOBS_AT_ONCE):
            request = {"ids": running[first : first + JOBS_AT_ONCE]}
            cancelled.update(map(text, self._run_blocking("find_cancelled", queue, request)))
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
            reclaimed, last = await self._run(
                "reclaim", queue, {**request, "last": last}, repeatable=True
            )
            ids += map(text, reclaimed)
        return ids[::-1]

    async def probe(self, queue: str) -> None:
        # A server that rejects writes reports that when there is something to reclaim.
        *_, server_ms = await self._run("has_work", queue, {}, repeatable=True)
        self._probed_ms[queue] = server_ms

    async def update(
        self, queue: str, updates: Sequence[Update], *, now_ms: int
    ) -> list[State | None]:
        if not updates:
            return []
        return _states(await self._run("update", queue, script_requests.update(updates, now_ms)))

    # Waiting ------------------------------------------------------------------------------------

    async def register_worker(self, queue: str, worker: str, *, name: str) -> None:
        connection_name = self._keys.worker_connection(queue, name)
        await self._local().waiter(self, queue, worker, connection_name).open()

    async def unregister_worker(self, queue: str, worker: str) -> None:
        waiter = self._local().waiters.pop((queue, worker), None)
        if waiter is not None:
            await waiter.close()

    async def wait(self, queue: str, *, next_due_ms: int | None, worker: str = "") -> None:
        def is_sooner(due_ms: float) -> bool:
            return next_due_ms is None or due_ms < next_due_ms

        ready, due_ms, limited_ms, _ = await self._run("has_work", queue, {}, repeatable=True)
        if limited_ms:
            # The marker stays: popping it now would mean to claim in vain and to set it again, over
            # and over.
            await asyncio.sleep(limited_ms / 1000)
            return
        if ready or (due_ms is not None and is_sooner(due_ms)):
            return
        waiter = self._local().waiter(self, queue, worker)
        while True:
            marked_ms = await waiter.until_marked()
            if not marked_ms or is_sooner(marked_ms):
                return

    def new_waiter(self, queue: str, connection_name: str | None) -> MarkerWaiter:
        """Make a waiter; `_Local` keeps it."""
        return MarkerWaiter(self._server, self._keys.base(queue), connection_name)

    def _local(self) -> _Local:
        loop = asyncio.get_running_loop()
        local = self._by_loop.get(loop)
        if local is None:
            local = self._by_loop[loop] = _Local()
        return local

    # Reading ------------------------------------------------------------------------------------

    async def get(self, queue: str, ids: Sequence[str]) -> list[JobRecord | None]:
        rows = await self._run_in_portions("get", queue, ids, repeatable=True)
        return [
            None if row is None else _record(queue, id, State(text(row[0])), row[1], row[2])
            for id, row in zip(ids, rows, strict=True)
        ]

    async def ends(self, queue: str, ids: Sequence[str]) -> list[End | None]:
        rows = await self._run_in_portions("ends", queue, ids, repeatable=True)
        return [
            None
            if row is None
            else End(State(text(row[0])), None if row[1] is None else text(row[1]))
            for row in rows
        ]

    async def page(
        self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool
    ) -> list[JobRecord]:
        found: dict[str, JobRecord] = {}  # each once: jobs may move between two calls
        handled, is_end = 0, False
        while handled < limit and not is_end:
            request = {
                "state": STATE_KEYS[state],
                "first": offset + handled,
                "count": min(limit - handled, JOBS_AT_ONCE),
                "newest_first": newest_first,
            }
            rows, handled_now, is_end = await self._run("page", queue, request, repeatable=True)
            handled += handled_now
            for row in rows:
                id = text(row[0])
                found[id] = _record(queue, id, state, row[1], row[2])
        return list(found.values())

    async def count(self, queue: str) -> dict[State, int]:
        counted = await self._run("count", queue, {}, repeatable=True)
        states = (
            State.WAITING, State.ACTIVE, State.PRIORITIZED, State.DELAYED, State.WAITING_CHILDREN,
            State.COMPLETED, State.FAILED,
        )  # fmt: skip
        by_state = dict(zip(states, counted, strict=False))
        return {state: by_state[state] for state in State}

    async def logs(self, queue: str, id: str) -> list[str]:
        key = f"{self._keys.base(queue)}{id}:logs"
        try:
            key.encode()
        except UnicodeEncodeError as exc:
            raise StoreRejected(self._url, f"invalid job id: {exc}") from exc
        return list(map(text, await self._server.command("LRANGE", key, 0, -1, key=key)))

    async def events(self, queue: str, *, after: str | None, wait: bool = True) -> EventPage:
        key = self._keys.base(queue) + "events"
        if after is None:
            return EventPage([], await self._newest_cursor(key))
        check_cursor(after)
        streams: tuple[Part, ...] = "COUNT", EVENTS_AT_ONCE, "STREAMS", key, after
        last_read: list[Any] = []
        if not wait:
            found = await self._server.command("XREAD", *streams, key=key)
            if not found:
                return EventPage([], after)
        else:
            found = None
            async with self._local().reader(self, queue) as listener:
                while not found:
                    last_read, found = await listener.commands(
                        ["XRANGE", key, after, after],
                        ["XREAD", "BLOCK", int(READ_SECONDS * 1000), *streams],
                        seconds=READ_SECONDS,
                    )
        _, entries = found[0]
        read = [event(text(id), pair(fields)) for id, fields in entries]
        # Mostly the last event that was read still exists, and so do all later ones.
        if not last_read and await self._is_behind(key, after, read[0].cursor):
            read.insert(0, Event(stream_id_before(read[0].cursor), MISSED, ""))
        return EventPage(read, read[-1].cursor)

    async def _newest_cursor(self, key: str) -> str:
        newest = await self._server.command("XREVRANGE", key, "+", "-", "COUNT", 1, key=key)
        return text(newest[0][0]) if newest else "0-0"

    async def _is_behind(self, key: str, after: str, first: str) -> bool:
        """Return whether events between a cursor and the first one after it may be deleted."""
        if stream_id_before(first) == after:
            return False
        try:
            flat = await self._server.command("XINFO", "STREAM", key, key=key)
        except StoreError as error:
            if "no such key" in error.reason:
                return False  # the queue has just been obliterated
            raise
        facts = {text(name): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        oldest = facts["first-entry"]
        if oldest and stream_id(text(oldest[0])) <= stream_id(after):
            return False
        if "entries-added" not in facts:  # before Redis 7
            return after != "0-0"
        return int(facts["entries-added"]) > int(facts["length"])

    def begin_events(self, queue: str) -> Future[str]:
        # On the loop of the portal: the caller may have no loop, or block it with a .sync call.
        cursor = _portal.start(self._newest_cursor(self._keys.base(queue) + "events"))
        self._beginning[cursor] = os.getpid()
        cursor.add_done_callback(lambda done: self._beginning.pop(done, None))
        return cursor

    async def _until_begun(self) -> None:
        """Wait until the cursors of earlier calls of `begin_events` are read."""
        for begun, process in list(self._beginning.items()):
            if process != os.getpid():
                del self._beginning[begun]  # of the parent process: it is never done here
            else:
                waiting = asyncio.gather(asyncio.wrap_future(begun), return_exceptions=True)
                await asyncio.shield(waiting)  # others wait for it, too

    def new_reader(self, queue: str) -> Listener:
        """Make a connection that reads events; `_Local` keeps it."""
        key = self._keys.base(queue) + "events"
        return self._server.make_listener(key=key, name=self._keys.reader_connection(queue))

    # Administration -----------------------------------------------------------------------------

    async def requeue(
        self, queue: str, ids: Sequence[str], sources: Collection[State], *, now_ms: int
    ) -> list[State | None]:
        request = {"sources": {source.value: True for source in sources}}
        return _states(await self._run_in_portions("requeue", queue, ids, request))

    async def cancel(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[State | None]:
        request = {
            "now": now_ms, "error": CANCELLED_ERROR, "keep_failed": script_requests.KEEP_FAILED,
        }  # fmt: skip
        answers = await self._run_in_portions("cancel", queue, ids, request)
        _check_not_scheduled(queue, ids, answers, "cancelled")
        return _states(answers)

    async def remove(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[State | None]:
        answers = await self._run_in_portions("remove", queue, ids)
        _check_not_scheduled(queue, ids, answers, "removed")
        return _states(answers)

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
            purged += await self._purge(queue, state, before_ms, left)
        if purged:
            await self._run("emit_cleaned", queue, {"count": len(purged)}, repeatable=True)
        return purged

    async def _purge(
        self, queue: str, state: State, before_ms: int | None, limit: int | None
    ) -> list[str]:
        purged: list[str] = []
        skip, is_end = 0, False
        while not is_end and (limit is None or len(purged) < limit):
            request = {
                "state": STATE_KEYS[state], "before": before_ms, "skip": skip,
                "portion": JOBS_AT_ONCE,
                "limit": JOBS_AT_ONCE if limit is None else limit - len(purged),
            }  # fmt: skip
            deleted, kept, is_end = await self._run("purge", queue, request)
            purged += map(text, deleted)
            skip += kept
        return purged

    async def obliterate(self, queue: str) -> None:
        while await self._run("obliterate", queue, {"limit": JOBS_AT_ONCE}, repeatable=True):
            pass
        # The ids of events are times of the server's clock. The events of a new queue with this
        # name must come after those that readers have seen of the old one.
        await asyncio.sleep(0.002)

    async def pause(self, queue: str, *, now_ms: int) -> None:
        await self._run("pause", queue, {}, repeatable=True)

    async def resume(self, queue: str, *, now_ms: int) -> None:
        while await self._run("resume", queue, {}, repeatable=True):
            pass

    async def is_paused(self, queue: str) -> bool:
        key = self._keys.base(queue) + "meta"
        return bool(await self._server.command("HEXISTS", key, "paused", key=key))

    async def queues(self) -> list[str]:
        names = [name for name in await self._named_queues() if name is not None]
        used = []
        for name in sorted(set(names)):
            *counts, paused = await self._run("count", name, {}, repeatable=True)
            if any(counts) or paused:
                used.append(name)
        return used

    async def _named_queues(self) -> list[str | None]:
        """Return the queues that have a `meta` key, in use or not."""
        keys = await self._server.scan(f"{_literal(self._keys.prefix)}:*:meta")
        return [self._keys.queue_of(text(key)) for key in keys]

    async def aclose(self) -> None:
        local = self._by_loop.pop(asyncio.get_running_loop(), None)
        if local is not None:
            await local.close()
        await self._server.close()

    def close_now(self) -> None:
        self._server.close_now()


class _Local:
    """The blocking connections of one event loop."""

    def __init__(self) -> None:
        self.waiters: dict[tuple[str, str], MarkerWaiter] = {}
        self._idle_readers: dict[str, list[Listener]] = {}

    def waiter(
        self, engine: RedisEngine, queue: str, worker: str, connection_name: str | None = None
    ) -> MarkerWaiter:
        """Return the waiter of a worker, made at the first call."""
        waiter = self.waiters.get((queue, worker))
        if waiter is None:
            waiter = self.waiters[queue, worker] = engine.new_waiter(queue, connection_name)
        return waiter

    @contextlib.asynccontextmanager
    async def reader(self, engine: RedisEngine, queue: str) -> AsyncIterator[Listener]:
        """Borrow a connection to read events; each concurrent reader has its own."""
        idle = self._idle_readers.setdefault(queue, [])
        listener = idle.pop() if idle else engine.new_reader(queue)
        try:
            yield listener
        except BaseException:
            await listener.close()  # a reply may still arrive
            raise
        idle.append(listener)

    async def close(self) -> None:
        """Close all connections."""
        for waiter in self.waiters.values():
            await waiter.close()
        self.waiters.clear()
        for listener in (one for idle in self._idle_readers.values() for one in idle):
            await listener.close()
        self._idle_readers.clear()


class _OrphanedClaims:
    """Claims whose reply was lost: their jobs may be leased, but no worker runs them.

    A server that hung may execute a claim later, so the next claims search for its jobs as long as
    its leases last.
    """

    def __init__(self) -> None:
        self._until_ms: dict[str, dict[str, int]] = {}

    def add(self, queue: str, claim: Claim, now_ms: int) -> None:
        # now_ms is when the request was sent. Twice the lease leaves room for the time-out.
        self._until_ms.setdefault(queue, {})[claim.token] = now_ms + 2 * claim.lease_ms

    def of(self, queue: str, now_ms: int) -> list[str]:
        """Return the tokens of the orphaned claims of a queue."""
        tokens = self._until_ms.get(queue)
        if not tokens:
            return []
        for token in [token for token, until_ms in tokens.items() if until_ms < now_ms]:
            del tokens[token]
        return list(tokens)


class _Repeat(msgspec.Struct):
    """The cron pattern in the options of a scheduler's job."""

    pattern: str
    tz: str | None = None


class _IterationOptions(msgspec.Struct):
    repeat: _Repeat
    prevMillis: float = 0  # noqa: N815  # BullMQ's name


_iteration_options: Final = msgspec.json.Decoder(_IterationOptions)


def _next_run_ms(opts: str, now_ms: int) -> int:
    """Return the next due time of a scheduler from the options of its job. Raises `ValueError`."""
    options = _iteration_options.decode(opts)
    after_ms = max(now_ms, int(options.prevMillis))
    return cron.next_match_ms(options.repeat.pattern, after_ms, options.repeat.tz)


def _record(queue: str, id: str, state: State, due_ms: int | None, fields: Any) -> JobRecord:
    return job_record(queue, id, state, due_ms, pair(fields))


def _states(answers: Sequence[bytes | None]) -> list[State | None]:
    return [None if answer is None else State(text(answer)) for answer in answers]


def _check_not_scheduled(
    queue: str, ids: Sequence[str], answers: Sequence[bytes | None], what: str
) -> None:
    """Raise `WrongState` for the pending run of a scheduler: without it the schedule would end."""
    for id, answer in zip(ids, answers, strict=True):
        if answer == b"scheduled":
            raise WrongState(
                queue, id, "the next run of a scheduler", [f"{what} with its scheduler"]
            )


def _literal(pattern: str) -> str:
    """Escape a text, as a pattern that matches only itself."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in pattern)
