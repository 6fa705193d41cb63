"""The engine on Redis or Valkey: each verb is one call of one script.

What is stored is what BullMQ 6 stores, and the scripts do what BullMQ's do, many jobs at a time.
What only we have lives where BullMQ does not look: `opts.hasten` in a job's options, and the set
`hasten:cancelled` of running jobs whose cancellation was asked for. A lease is BullMQ's lock.
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
from hasten._redis_address import Address
from hasten._store import DEFAULT_TIMEOUT
from hasten.errors import (
    HastenError,
    StoreError,
    StoreInterrupted,
    StoreRejected,
    WrongState,
)
from hasten.jobs._cron import next_match_ms
from hasten.jobs._encoding import UNDECODABLE
from hasten.jobs._engine import CANCELLED_ERROR, CRASH_ERROR, check_cursor, keep_or
from hasten.jobs._engines.redis import requests
from hasten.jobs._engines.redis.fields import (
    Answer,
    decode_added,
    decode_answer,
    event,
    job_record,
    pair,
    stream_id,
    stream_id_before,
    text,
)
from hasten.jobs._engines.redis.keys import DEFAULT_PREFIX, STATE_KEYS, Keys
from hasten.jobs._engines.redis.scripts import SCRIPTS
from hasten.jobs._engines.redis.waiting import Waiter
from hasten.jobs._options import DEFAULT_KEEP_FAILED, Keep, decode_options
from hasten.jobs._record import (
    MISSED,
    Added,
    Batch,
    Claim,
    End,
    Event,
    EventPage,
    Failed,
    JobRecord,
    Lease,
    NewJob,
    Outcome,
    Update,
)
from hasten.jobs._states import State

logger = get_logger("hasten.redis")

# A script holds up everybody else's. What need not be one step goes in calls of so many jobs.
JOBS_AT_ONCE: Final = 250

# So long after a probe, by the server's clock, jobs are no longer taken back. A server that was
# stopped with such a call in its socket carries it out when it goes on, before any worker has
# renewed its leases. The shortest lease is a second, and was renewed in the last quarter of it.
RECLAIM_MS: Final = 500

# A server breaks the connection of whoever sends more in one argument (its proto-max-bulk-len).
MAX_REQUEST_BYTES: Final = 512 * 1024 * 1024

EVENTS_AT_ONCE: Final = 1_000
READ_SECONDS: Final = 10.0

# Why a parent cannot complete, by BullMQ's codes.
REFUSALS: Final = {
    -4: "it has children that have not finished",
    -9: "a child of it has failed",
}


class RedisEngine:
    """Jobs on a server. prefix is what all keys begin with, as BullMQ's option of that name."""

    max_in_flight = 2  # the server works on one while the worker runs the jobs of the other
    max_batch = JOBS_AT_ONCE

    def __init__(
        self, address: Address, *, timeout: float = DEFAULT_TIMEOUT, prefix: str | None = None
    ) -> None:
        self._server = Server(replace(address, timeout=timeout))
        self._keys = Keys(
            DEFAULT_PREFIX if prefix is None else prefix, tagged=self._server.is_cluster
        )
        self._url = address.shown
        self._strays = _Strays()
        self._probed_ms: dict[str, int] = {}  # by queue: when the server answered, by its clock
        self._beginning: dict[Future[str], int] = {}  # `begin_events` under way, with their process
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Local] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def url(self) -> str:
        return self._url

    def require_existing(self) -> None:
        """A server has nothing to create."""

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
        lists: Mapping[str, Sequence[object]],
        request: Mapping[str, object] | None = None,
        *,
        repeatable: bool = False,
    ) -> list[Any]:
        """Run a verb for some ids at a time. Returns its answers for all of them.

        lists are "ids", and what else there is for each id. A script that has done enough answers
        for the first ids only.
        """
        answers: list[Any] = []
        while len(answers) < len(lists["ids"]):
            portion = slice(len(answers), len(answers) + JOBS_AT_ONCE)
            parts = {name: values[portion] for name, values in lists.items()}
            answers += await self._run(
                verb, queue, {**(request or {}), **parts}, repeatable=repeatable
            )
        return answers

    def _pack(self, verb: str, request: Mapping[str, object]) -> bytes:
        try:
            packed = requests.pack(request)
        except (ValueError, OverflowError) as exc:  # a lone surrogate, a number beyond 64 bits
            raise StoreRejected(self._url, f"{verb}: a value cannot be stored: {exc}") from exc
        if len(packed) > MAX_REQUEST_BYTES:
            raise StoreRejected(
                self._url,
                f"{verb}: {len(packed):,} bytes at once, where the server takes "
                f"{MAX_REQUEST_BYTES:,}: send fewer jobs in one call",
            )
        return packed

    def _run_blocking(self, verb: str, queue: str, request: Mapping[str, object]) -> Any:
        return self._server.run_blocking(
            SCRIPTS[verb], self._keys.base(queue), self._pack(verb, request)
        )

    # Producing ----------------------------------------------------------------------------------

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
        # Who is told to wait for a server that is away tries again where the answer did not come.
        wait = self._server.address.wait
        memo = (secrets.token_hex(8), int((wait + 60) * 1000)) if wait else None
        request = requests.add(jobs, now_ms, memo)
        packed = await self._run("add", queue, request, repeatable=memo is not None)
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

    # Working ------------------------------------------------------------------------------------

    async def claim(self, queue: str, claim: Claim, *, now_ms: int) -> Batch:
        return await self._take("claim", queue, (), claim, now_ms)

    async def settle(
        self, queue: str, outcomes: Sequence[Outcome], claim: Claim | None, *, now_ms: int
    ) -> Batch:
        if outcomes or claim is None:
            return await self._take("settle", queue, outcomes, claim, now_ms)
        return await self._take("claim", queue, outcomes, claim, now_ms)

    async def _take(
        self,
        verb: str,
        queue: str,
        outcomes: Sequence[Outcome],
        claim: Claim | None,
        now_ms: int,
    ) -> Batch:
        wish = None
        if claim is not None:
            wish = requests.wish(claim, self._strays.of(queue, now_ms))
        try:
            packed = await self._run(verb, queue, requests.settle(queue, outcomes, wish, now_ms))
        except (StoreInterrupted, asyncio.CancelledError):
            if claim is not None:
                self._strays.add(queue, claim, now_ms)
            raise
        answer = decode_answer(packed)
        for id, problem in answer.troubles:
            logger.error(
                "job %s of queue %s: what depends on it was not done: %s", id, queue, problem
            )
        if answer.crons:
            await self._schedule(queue, answer, now_ms)
        if answer.refused:
            answer.lost += await self._fail_parents(queue, outcomes, answer, now_ms)
        token = "" if claim is None else claim.token
        leases = [Lease(job, token) for job in answer.jobs]
        next_due_ms = answer.next_due_ms
        return Batch(leases, None if next_due_ms is False else int(next_due_ms), answer.lost)

    async def _schedule(self, queue: str, answer: Answer, now_ms: int) -> None:
        """Add the next runs of the schedulers whose jobs we have taken."""
        for id, scheduler, opts in answer.crons:
            try:
                due_ms = _next_run_ms(opts, now_ms)
                request = {
                    "now": now_ms, "id": id, "scheduler": scheduler, "opts": opts, "due": due_ms,
                }  # fmt: skip
                await self._run("iterate", queue, request, repeatable=True)
            except (*UNDECODABLE, ArithmeticError, HastenError) as error:
                # The job itself has been taken, and runs. Without us its schedule would end here.
                logger.error(
                    "scheduler %s of queue %s: its next run cannot be added: %s",
                    scheduler, queue, error,
                )  # fmt: skip

    async def _fail_parents(
        self, queue: str, outcomes: Sequence[Outcome], answer: Answer, now_ms: int
    ) -> list[str]:
        """A parent whose children have not all completed cannot complete: it fails, and says why.

        Returns those whose lease was lost meanwhile.
        """
        codes = dict(answer.refused)
        failures = [
            Failed(end.id, end.token, REFUSALS[codes[end.id]])
            for end in outcomes
            if end.id in codes
        ]
        batch = await self._take("settle", queue, failures, None, now_ms)
        return batch.lost

    def renew(
        self, queue: str, leases: Mapping[str, str], *, lease_ms: int, now_ms: int
    ) -> set[str]:
        lost: set[str] = set()
        ids, tokens = list(leases), list(leases.values())
        done = 0
        while done < len(ids):
            part = slice(done, done + JOBS_AT_ONCE)
            request = {"lease": lease_ms, "ids": ids[part], "tokens": tokens[part]}
            lost_now, looked = self._run_blocking("renew", queue, request)
            lost.update(map(text, lost_now))
            done += looked
        return lost

    def find_cancelled(self, queue: str, ids: Collection[str]) -> set[str]:
        asked: set[str] = set()
        running = list(ids)
        for first in range(0, len(running), JOBS_AT_ONCE):
            request = {"ids": running[first : first + JOBS_AT_ONCE]}
            asked.update(map(text, self._run_blocking("find_cancelled", queue, request)))
        return asked

    async def reclaim(self, queue: str, *, crash_limit: int, now_ms: int) -> list[str]:
        request = {
            "now": now_ms, "crash_limit": crash_limit, "reason": CRASH_ERROR,
            "portion": JOBS_AT_ONCE,
        }  # fmt: skip
        if (probed_ms := self._probed_ms.pop(queue, None)) is not None:
            request["deadline"] = probed_ms + RECLAIM_MS
        ids: list[str] = []
        last: int | None = None
        while last != 0:
            taken_back, last = await self._run(
                "reclaim", queue, {**request, "last": last}, repeatable=True
            )
            ids += map(text, taken_back)
        return ids[::-1]

    async def probe(self, queue: str) -> None:
        # What does not take writes tells so when there is something to take back.
        *_, server_ms = await self._run("has_work", queue, {}, repeatable=True)
        self._probed_ms[queue] = server_ms

    async def update(
        self, queue: str, updates: Sequence[Update], *, now_ms: int
    ) -> list[State | None]:
        if not updates:
            return []
        return _states(await self._run("update", queue, requests.update(updates, now_ms)))

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
            # The marker stays for those who do not know of the limit yet: whoever popped it now
            # would claim in vain and put it back, again and again.
            await asyncio.sleep(limited_ms / 1000)
            return
        if ready or (due_ms is not None and is_sooner(due_ms)):
            return
        waiter = self._local().waiter(self, queue, worker)
        while True:
            marked_ms = await waiter.until_marked()
            if not marked_ms or is_sooner(marked_ms):
                return

    def waiter(self, queue: str, connection_name: str | None) -> Waiter:
        """A new one; see `_Local`, which keeps them."""
        return Waiter(self._server, self._keys.base(queue), connection_name)

    def _local(self) -> _Local:
        loop = asyncio.get_running_loop()
        local = self._by_loop.get(loop)
        if local is None:
            local = self._by_loop[loop] = _Local()
        return local

    # Reading ------------------------------------------------------------------------------------

    async def get(self, queue: str, ids: Sequence[str]) -> list[JobRecord | None]:
        rows = await self._run_in_portions("get", queue, {"ids": ids}, repeatable=True)
        return [
            None if row is None else _record(queue, id, State(text(row[0])), row[1], row[2])
            for id, row in zip(ids, rows, strict=True)
        ]

    async def ends(self, queue: str, ids: Sequence[str]) -> list[End | None]:
        rows = await self._run_in_portions("ends", queue, {"ids": ids}, repeatable=True)
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
        looked, is_end = 0, False
        while looked < limit and not is_end:
            request = {
                "state": STATE_KEYS[state],
                "first": offset + looked,
                "count": min(limit - looked, JOBS_AT_ONCE),
                "newest_first": newest_first,
            }
            rows, looked_at, is_end = await self._run("page", queue, request, repeatable=True)
            looked += looked_at
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
            raise StoreRejected(self._url, f"no job has such an id: {exc}") from exc
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
        # Mostly the event that was read last is still there, and so is all that follows it.
        if not last_read and await self._is_behind(key, after, read[0].cursor):
            read.insert(0, Event(stream_id_before(read[0].cursor), MISSED, ""))
        return EventPage(read, read[-1].cursor)

    async def _newest_cursor(self, key: str) -> str:
        newest = await self._server.command("XREVRANGE", key, "+", "-", "COUNT", 1, key=key)
        return text(newest[0][0]) if newest else "0-0"

    async def _is_behind(self, key: str, after: str, first: str) -> bool:
        """Whether events may have been deleted between a cursor and the first one behind it."""
        if stream_id_before(first) == after:
            return False
        try:
            flat = await self._server.command("XINFO", "STREAM", key, key=key)
        except StoreError as error:
            if "no such key" in error.reason:
                return False  # the queue was obliterated just now
            raise
        facts = {text(name): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        oldest = facts["first-entry"]
        if oldest and stream_id(text(oldest[0])) <= stream_id(after):
            return False
        if "entries-added" not in facts:  # before Redis 7
            return after != "0-0"
        return int(facts["entries-added"]) > int(facts["length"])

    def begin_events(self, queue: str) -> Future[str]:
        # In the loop of the portal: the caller may have none, or block it with a .sync call next.
        cursor = _portal.start(self._newest_cursor(self._keys.base(queue) + "events"))
        self._beginning[cursor] = os.getpid()
        cursor.add_done_callback(lambda done: self._beginning.pop(done, None))
        return cursor

    async def _until_begun(self) -> None:
        """Wait until the server has told the cursors that it was asked for before."""
        for begun, process in list(self._beginning.items()):
            if process != os.getpid():
                del self._beginning[begun]  # the parent's: it is never done in this process
            else:
                waiting = asyncio.gather(asyncio.wrap_future(begun), return_exceptions=True)
                await asyncio.shield(waiting)  # it is not ours to cancel

    def reader(self, queue: str) -> Listener:
        """A new one; see `_Local`, which keeps them."""
        key = self._keys.base(queue) + "events"
        return self._server.listener(key=key, name=self._keys.reader_connection(queue))

    # Administration -----------------------------------------------------------------------------

    async def requeue(
        self, queue: str, ids: Sequence[str], source: State, *, now_ms: int
    ) -> list[State | None]:
        answers: list[State | None] = []
        for first in range(0, len(ids), JOBS_AT_ONCE):
            request = {"ids": ids[first : first + JOBS_AT_ONCE], "source": source.value}
            answers += _states(await self._run("requeue", queue, request))
        return answers

    async def cancel(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[State | None]:
        rules = [
            requests.keep_rule(keep_or(_own_rule(record), DEFAULT_KEEP_FAILED))
            for record in await self.get(queue, ids)
        ]
        lists = {"ids": ids, "keeps": rules}
        request = {"now": now_ms, "reason": CANCELLED_ERROR}
        answers = await self._run_in_portions("cancel", queue, lists, request)
        _check_unarmed(queue, ids, answers, "cancelled")
        return _states(answers)

    async def remove(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[State | None]:
        answers = await self._run_in_portions("remove", queue, {"ids": ids})
        _check_unarmed(queue, ids, answers, "removed")
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
            await self._run("cleaned", queue, {"count": len(purged)}, repeatable=True)
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
            gone, left, is_end = await self._run("purge", queue, request)
            purged += map(text, gone)
            skip += left
        return purged

    async def obliterate(self, queue: str) -> None:
        while await self._run("obliterate", queue, {"limit": JOBS_AT_ONCE}, repeatable=True):
            pass
        # Events are numbered by the server's clock. Those of a new queue by this name must come
        # after the last one that a reader has seen of the old one.
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
        """Those that have a `meta`, in use or not."""
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
    """What belongs to one event loop: the connections that block."""

    def __init__(self) -> None:
        self.waiters: dict[tuple[str, str], Waiter] = {}
        self._idle_readers: dict[str, list[Listener]] = {}

    def waiter(
        self, engine: RedisEngine, queue: str, worker: str, connection_name: str | None = None
    ) -> Waiter:
        waiter = self.waiters.get((queue, worker))
        if waiter is None:
            waiter = self.waiters[queue, worker] = engine.waiter(queue, connection_name)
        return waiter

    @contextlib.asynccontextmanager
    async def reader(self, engine: RedisEngine, queue: str) -> AsyncIterator[Listener]:
        """A connection to read events with; one for each who reads at the same time."""
        idle = self._idle_readers.setdefault(queue, [])
        listener = idle.pop() if idle else engine.reader(queue)
        try:
            yield listener
        except BaseException:
            await listener.close()  # an answer may be on its way to nobody
            raise
        idle.append(listener)

    async def close(self) -> None:
        for waiter in self.waiters.values():
            await waiter.close()
        self.waiters.clear()
        for listener in (one for idle in self._idle_readers.values() for one in idle):
            await listener.close()
        self._idle_readers.clear()


class _Strays:
    """Claims whose answer never arrived: their jobs may be leased to us, and nobody runs them.

    A server that hung may still do what it was asked; so each is looked for as long as its leases
    would last.
    """

    def __init__(self) -> None:
        self._until_ms: dict[str, dict[str, int]] = {}

    def add(self, queue: str, claim: Claim, now_ms: int) -> None:
        # From when the request was sent; that it took a time-out to be given up is in the double.
        self._until_ms.setdefault(queue, {})[claim.token] = now_ms + 2 * claim.lease_ms

    def of(self, queue: str, now_ms: int) -> list[str]:
        tokens = self._until_ms.get(queue)
        if not tokens:
            return []
        for token in [token for token, until_ms in tokens.items() if until_ms < now_ms]:
            del tokens[token]
        return list(tokens)


class _Repeat(msgspec.Struct):
    """What a scheduler's job says of its rule; `count` and the limits are the script's business."""

    pattern: str
    tz: str | None = None


class _IterationOptions(msgspec.Struct):
    repeat: _Repeat
    prevMillis: float = 0  # noqa: N815  # BullMQ's name


_iteration_options: Final = msgspec.json.Decoder(_IterationOptions)


def _next_run_ms(opts: str, now_ms: int) -> int:
    """When the scheduler runs whose job has these options. Raises `ValueError` with the reason."""
    options = _iteration_options.decode(opts)
    after_ms = max(now_ms, int(options.prevMillis))
    return next_match_ms(options.repeat.pattern, after_ms, options.repeat.tz)


def _record(queue: str, id: str, state: State, due_ms: int | None, fields: Any) -> JobRecord:
    return job_record(queue, id, state, due_ms, pair(fields))


def _states(answers: Sequence[bytes | None]) -> list[State | None]:
    return [None if answer is None else State(text(answer)) for answer in answers]


def _check_unarmed(
    queue: str, ids: Sequence[str], answers: Sequence[bytes | None], what: str
) -> None:
    """A schedule goes on by its next job: that one cannot be taken out of it."""
    for id, answer in zip(ids, answers, strict=True):
        if answer == b"armed":
            raise WrongState(
                queue, id, "the next run of a scheduler", [f"{what} with its scheduler"]
            )


def _own_rule(record: JobRecord | None) -> Keep | None:
    if record is None:
        return None
    try:
        return decode_options(record.opts).keep_failed
    except ValueError:  # a job that cannot be run can still be cancelled
        return None


def _literal(pattern: str) -> str:
    """A text as a pattern that matches nothing but itself."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in pattern)
