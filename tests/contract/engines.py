"""The engines that the contract is tested on. A new engine is one more entry here."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from hasten._store_url import RedisAddress, SqliteFile, parse_store_url
from hasten.jobs._deduplication import DeduplicationMode
from hasten.jobs._engine import Engine
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._engines.sqlite import SqliteEngine
from hasten.jobs._epoch import to_datetime
from hasten.jobs._record import AddResult, ClaimedJobs, ClaimRequest, NewJob, Outcome, WhyFacts
from hasten.jobs._worker_info import WorkerInfo
from tests.servers.redis import shared_redis
from tests.servers.topologies import shared_cluster

KINDS: Final = ("sqlite-memory", "sqlite-file", "redis", "redis-cluster")

DURABLE: Final = frozenset({"sqlite-file", "redis", "redis-cluster"})
"""Those that still have their jobs when they are opened again at the same place."""


FOR_EVER_MS: Final = 10**9

THROTTLE: Final = DeduplicationMode.THROTTLE


@contextlib.asynccontextmanager
async def open_for_test(kind: str, place: Path, *, one_slot: bool = False) -> AsyncIterator[Engine]:
    """Open an engine that has no data in common with other tests. place is an empty folder.

    With one_slot, all queues of a cluster are in one hash slot, as flows need it.
    """
    engine: Engine
    match kind:
        case "sqlite-memory":
            engine = SqliteEngine(SqliteFile(None))
        case "sqlite-file":
            engine = SqliteEngine(SqliteFile(place / "jobs.db"))
        case "redis":
            engine = _redis(shared_redis().url, place)
        case "redis-cluster":
            engine = _redis(shared_cluster().url, place, one_slot=one_slot)
        case _:
            raise LookupError(kind)
    try:
        yield engine
    finally:
        await engine.aclose()


def _redis(url: str, place: Path, *, one_slot: bool = False) -> Engine:
    # On a busy machine a server may take seconds to answer.
    address = parse_store_url(url).location
    assert isinstance(address, RedisAddress)
    return RedisOnTestTime(address, timeout=30, prefix=_prefix(place, one_slot=one_slot))


def _prefix(place: Path, *, one_slot: bool = False) -> str:
    """Return a prefix that depends on the place only, and that no other test has."""
    name = hashlib.sha1(str(place).encode(), usedforsecurity=False).hexdigest()[:12]
    return f"{{test-{name}}}" if one_slot else f"test-{name}"


class RedisOnTestTime(RedisEngine):
    """On Redis leases expire by the server's clock. The tests' clock replaces it here.

    Locks never expire, and are deleted when `now_ms` of a verb is past their end. The same holds
    for the reports of workers, and for deduplication keys with a time.
    """

    def __init__(self, address: RedisAddress, *, timeout: float, prefix: str) -> None:
        super().__init__(address, timeout=timeout, prefix=prefix)
        self._ends_ms: dict[tuple[str, str], int] = {}
        self._windows_ms: dict[str, tuple[str, int]] = {}  # by the key of a deduplication id
        self._reported_ms: dict[tuple[str, str], tuple[int, int]] = {}

    async def settle(
        self,
        queue: str,
        outcomes: Sequence[Outcome],
        claim: ClaimRequest | None,
        *,
        now_ms: int,
        metrics_minutes: int | None = None,
    ) -> ClaimedJobs:
        settle = partial(
            super().settle, queue, outcomes, now_ms=now_ms, metrics_minutes=metrics_minutes
        )
        if claim is None:
            return await settle(None)
        batch = await settle(msgspec.structs.replace(claim, lease_ms=FOR_EVER_MS))
        for lease in batch.leases:
            self._ends_ms[queue, lease.job.id] = now_ms + claim.lease_ms
        return batch

    async def claim(self, queue: str, claim: ClaimRequest, *, now_ms: int) -> ClaimedJobs:
        return await self.settle(queue, (), claim, now_ms=now_ms)

    async def add(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        await self.end_windows(now_ms)
        added = await super().add([_with_window(job, FOR_EVER_MS) for job in jobs], now_ms=now_ms)
        for job, answer in zip(jobs, added, strict=True):
            deduplication = job.template.deduplication
            if deduplication and deduplication.mode is THROTTLE and answer.existing is None:
                key = f"{self._keys.queue_prefix(job.queue)}de:{deduplication.id}"
                self._windows_ms[key] = answer.id, now_ms + deduplication.window_ms
        return added

    async def remove_deduplication_key(self, queue: str, id: str, *, now_ms: int) -> bool:
        await self.end_windows(now_ms)
        return await super().remove_deduplication_key(queue, id, now_ms=now_ms)

    async def end_windows(self, now_ms: int) -> None:
        """Delete the keys of throttled jobs whose time has passed."""
        for key, (owner, end_ms) in list(self._windows_ms.items()):
            if end_ms <= now_ms:
                del self._windows_ms[key]
                lasts = await self._server.run_command("PTTL", key, key=key)
                found = await self._server.run_command("GET", key, key=key)
                if lasts >= 0 and found == owner.encode():
                    await self._server.run_command("DEL", key, key=key)

    def renew(
        self, queue: str, leases: Mapping[str, str], *, lease_ms: int, now_ms: int
    ) -> set[str]:
        lost = super().renew(queue, leases, lease_ms=FOR_EVER_MS, now_ms=now_ms)
        for id in leases.keys() - lost:
            self._ends_ms[queue, id] = now_ms + lease_ms
        return lost

    async def reclaim(self, queue: str, *, crash_limit: int, now_ms: int) -> list[str]:
        for (of, id), end_ms in list(self._ends_ms.items()):
            if of == queue and end_ms <= now_ms:
                lock = f"{self._keys.queue_prefix(queue)}{id}:lock"
                await self._server.run_command("DEL", lock, key=lock)
                self._ends_ms.pop((of, id), None)
        return await super().reclaim(queue, crash_limit=crash_limit, now_ms=now_ms)

    async def get_why_facts(self, queue: str, id: str, *, now_ms: int) -> WhyFacts | None:
        found = await super().get_why_facts(queue, id, now_ms=now_ms)
        if found is None or found.lease_until_ms is None:
            return found
        return msgspec.structs.replace(found, lease_until_ms=self._ends_ms[queue, id])

    def report_worker(
        self, queue: str, worker: WorkerInfo, *, lifetime_ms: int, now_ms: int
    ) -> bool:
        is_paused = super().report_worker(queue, worker, lifetime_ms=FOR_EVER_MS, now_ms=now_ms)
        self._reported_ms[queue, worker.id] = now_ms, lifetime_ms
        return is_paused

    async def workers(self, queue: str, *, now_ms: int) -> list[WorkerInfo]:
        living = []
        for info in await super().workers(queue, now_ms=now_ms):
            seen_ms, lifetime_ms = self._reported_ms[queue, info.id]
            if -lifetime_ms <= now_ms - seen_ms < lifetime_ms:
                living.append(msgspec.structs.replace(info, last_seen_at=to_datetime(seen_ms)))
        return living


def _with_window(job: NewJob, window_ms: int) -> NewJob:
    """Return a throttled job with this time of its key, and other jobs as they are."""
    deduplication = job.template.deduplication
    if deduplication is None or deduplication.mode is not THROTTLE:
        return job
    longer = msgspec.structs.replace(deduplication, window_ms=window_ms)
    template = msgspec.structs.replace(job.template, deduplication=longer)
    return msgspec.structs.replace(job, template=template)


async def event_bytes(engine: Engine, queue: str) -> int:
    """Return how many bytes the store uses for the events of a queue."""
    match engine:
        case SqliteEngine():
            size = "SELECT coalesce(sum(length(CAST(body AS BLOB))), 0) FROM hasten_events"

            def read(connection: sqlite3.Connection) -> int:
                (size_of_all,) = connection.execute(f"{size} WHERE queue = ?", [queue]).fetchone()
                return int(size_of_all)

            return await engine._database.run(read, write=False)
        case RedisEngine():
            key = f"{engine._keys.queue_prefix(queue)}events"
            entries = await engine._server.run_command("XRANGE", key, "-", "+", key=key)
            return sum(len(part) for _, fields in entries for part in fields)
        case _:
            raise LookupError(engine)


async def taken_keys(engine: Engine, queue: str, *, now_ms: int) -> tuple[set[str], set[str]]:
    """Return the deduplication ids that are taken now, and those under which a next job is kept."""
    match engine:
        case SqliteEngine():
            sql = "SELECT key, removed, expires_ms, next_name FROM hasten_deduplication"

            def read(connection: sqlite3.Connection) -> list[Any]:
                return connection.execute(f"{sql} WHERE queue = ?", [queue]).fetchall()

            rows = await engine._database.run(read, write=False)
            is_taken = [not removed and (ms is None or ms > now_ms) for _, removed, ms, _ in rows]
            taken = {row[0] for row, is_it in zip(rows, is_taken, strict=True) if is_it}
            return taken, {row[0] for row in rows if row[3] is not None}
        case RedisOnTestTime():
            await engine.end_windows(now_ms)
            base = engine._keys.queue_prefix(queue)
            keys = [key.decode() for key in await engine._server.scan(f"{base}d[en]:*")]
            return tuple(  # type: ignore[return-value]
                {key.removeprefix(start) for key in keys if key.startswith(start)}
                for start in (f"{base}de:", f"{base}dn:")
            )
        case _:
            raise LookupError(engine)


def orphans(engine: Engine, place: Path) -> list[str]:
    """Return descriptions of what the store still holds of deleted jobs: there should be none."""
    match engine:
        case SqliteEngine():
            return _sqlite_orphans(place / "jobs.db")
        case RedisEngine():
            return _redis_orphans(_client("+cluster" in engine.url), engine._keys.prefix)
        case _:
            raise LookupError(engine)


@functools.cache
def _client(is_cluster: bool) -> Any:
    """Return one client for all calls, because that of a cluster first reads the slots."""
    return (shared_cluster() if is_cluster else shared_redis()).client()


def _sqlite_orphans(path: Path) -> list[str]:
    if not path.exists():
        return []  # in memory, or not opened yet
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE name = 'hasten_logs'")
        if tables.fetchone() is None:
            return []
        rows = connection.execute(
            "SELECT job, line FROM hasten_logs WHERE job NOT IN (SELECT seq FROM hasten_jobs)"
        )
        found = [f"log line of job {job}: {line}" for job, line in rows]
        rows = connection.execute(
            "SELECT id, parent FROM hasten_children "
            "WHERE parent NOT IN (SELECT seq FROM hasten_jobs)"
        )
        return found + [f"child {id} of job {parent}, which is gone" for id, parent in rows]


# Keys of a queue that are not jobs.
_QUEUE_KEYS: Final = frozenset(
    "wait active prioritized delayed waiting-children completed failed id pc meta events marker "
    "stalled limiter hasten".split()
)


def _redis_orphans(client: Any, prefix: str) -> list[str]:
    """Find keys and ids of jobs without a hash, and hashes in no state or in several."""
    found: list[str] = []
    keys = [key.decode() for key in client.scan_iter(f"{prefix}:*", count=1000)]
    queues = {key.split(":")[1] for key in keys}
    for queue in queues:
        base = f"{prefix}:{queue}:"
        rest = [key.removeprefix(base).split(":") for key in keys if key.startswith(base)]
        hashes = {parts[0] for parts in rest if len(parts) == 1} - _QUEUE_KEYS
        owners = {parts[0] for parts in rest if len(parts) == 2} - _QUEUE_KEYS
        found += [f"keys of job {id}, which is gone" for id in owners - hashes]
        standing: list[str] = []
        for state in ("wait", "active"):
            standing += [id.decode() for id in client.lrange(base + state, 0, -1)]
        for state in ("prioritized", "delayed", "waiting-children", "completed", "failed"):
            standing += [id.decode() for id in client.zrange(base + state, 0, -1)]
        found += [f"{id} is in two places" for id in set(standing) if standing.count(id) > 1]
        found += [f"{id} stands somewhere without a hash" for id in set(standing) - hashes]
        found += [f"{id} stands nowhere" for id in hashes - set(standing)]
        active = {id.decode() for id in client.lrange(base + "active", 0, -1)}
        locked = {parts[0] for parts in rest if parts[1:] == ["lock"]}
        found += [f"{id} is locked and not active" for id in locked - active]
    return found
