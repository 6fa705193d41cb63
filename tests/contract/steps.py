"""Functions that many tests of the contract use."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final, TypeVar

import msgspec

from hasten.jobs._engine import Engine
from hasten.jobs._options import Options
from hasten.jobs._record import ClaimRequest, Event, JobRecord, JobTemplate, Lease, NewJob
from hasten.jobs._states import State
from tests.patience import DEADLINE_SECONDS

T = TypeVar("T")

QUEUE: Final = "mail"
NOW: Final = 1_000_000
LEASE_MS: Final = 30_000

_numbers: Final = itertools.count(1)


def new_job(
    id: str | None = None,
    *,
    queue: str = QUEUE,
    name: str = "send",
    data: str = "{}",
    opts: str = "{}",
    delay_ms: int = 0,
    priority: int = 0,
    lifo: bool = False,
) -> NewJob:
    if lifo:
        opts = '{"lifo":true}'  # as a queue stores it, where a retry finds it
    options = Options(delay_ms=delay_ms, priority=priority, lifo=lifo)
    return NewJob(queue, JobTemplate(name, opts, options), data, id)


def claim(count: int = 1, token: str = "t1", *, lease_ms: int = LEASE_MS) -> ClaimRequest:
    return ClaimRequest(count, token, worker=f"worker of {token}", lease_ms=lease_ms)


async def add(engine: Engine, *ids: str, now_ms: int = NOW, **options: Any) -> None:
    await engine.add([new_job(id, **options) for id in ids], now_ms=now_ms)


async def take(
    engine: Engine,
    count: int = 1,
    token: str = "t1",
    *,
    now_ms: int = NOW,
    lease_ms: int = LEASE_MS,
) -> list[str]:
    """Claim jobs and return their ids."""
    batch = await engine.claim(QUEUE, claim(count, token, lease_ms=lease_ms), now_ms=now_ms)
    return taken(batch.leases)


async def start(
    engine: Engine,
    *ids: str,
    token: str = "t1",
    now_ms: int = NOW,
    lease_ms: int = LEASE_MS,
    **options: Any,
) -> None:
    """Add jobs to an idle queue and claim them, all with one token."""
    await add(engine, *ids, now_ms=now_ms, **options)
    assert await take(engine, len(ids), token, now_ms=now_ms, lease_ms=lease_ms) == list(ids)


def taken(leases: list[Lease]) -> list[str]:
    return [lease.job.id for lease in leases]


async def take_all(engine: Engine, *, now_ms: int = NOW) -> list[str]:
    """Claim all jobs that are ready one by one, and return their ids in order."""
    ids: list[str] = []
    while one := await take(engine, 1, f"t-all-{next(_numbers)}", now_ms=now_ms):
        ids += one
    return ids


async def job(engine: Engine, id: str, queue: str = QUEUE) -> JobRecord:
    (record,) = await engine.get(queue, [id])
    assert record is not None, f"there is no job {id!r}"
    return record


def as_leased(record: JobRecord) -> JobRecord:
    """Return the fields that a claim returns: without those that earlier runs have set."""
    return msgspec.structs.replace(
        record, progress=None, error=None, tracebacks=[], cancel_requested=False
    )


async def exists(engine: Engine, id: str, queue: str = QUEUE) -> bool:
    return await engine.get(queue, [id]) != [None]


async def ids_in(engine: Engine, state: State, queue: str = QUEUE) -> list[str]:
    """Return the ids of the jobs in a state, in the order in which they would be claimed."""
    page = await engine.get_page(queue, state, offset=0, limit=1000, newest_first=False)
    return [record.id for record in page]


async def counts(engine: Engine, queue: str = QUEUE) -> dict[State, int]:
    """Return the number of jobs by state, without empty states."""
    return {state: n for state, n in (await engine.count(queue)).items() if n}


async def settled(engine: Engine, *outcomes: Any, now_ms: int = NOW) -> None:
    """Settle outcomes of valid leases, and claim nothing."""
    batch = await engine.settle(QUEUE, outcomes, None, now_ms=now_ms)
    assert batch.lost == []
    assert batch.leases == []


async def soon(awaitable: Awaitable[T]) -> T:
    """Await with a time-out, so that a test fails instead of hanging."""
    return await asyncio.wait_for(awaitable, DEADLINE_SECONDS)


@contextlib.asynccontextmanager
async def waiting(
    engine: Engine, queue: str = QUEUE, *, next_due_ms: int | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Wait for work within the block, as an idle worker does."""
    task = asyncio.create_task(engine.wait_for_jobs(queue, next_due_ms=next_due_ms))
    await asyncio.sleep(0)  # the call has started
    await engine.count(queue)  # the engine has prepared the wait
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# Events -----------------------------------------------------------------------------------------


def event(kind: str, job_id: str = "", **fields: Any) -> Event:
    return Event("", kind, job_id, **fields)


async def cursor(engine: Engine, queue: str = QUEUE) -> str:
    """Return the end of the stream of events."""
    page = await soon(engine.events(queue, after=None))
    assert page.events == []
    return page.cursor


async def started(engine: Engine, *ids: str, **options: Any) -> str:
    """Start jobs, and return the end of the stream of events."""
    await start(engine, *ids, **options)
    return await cursor(engine)


async def happened(engine: Engine, after: str, queue: str = QUEUE) -> list[Event]:
    """All events after a cursor, without their own cursors and what only some engines tell.

    To read at the end would wait, so a job is added that marks it.
    """
    mark = f"mark-{next(_numbers)}"
    await engine.add([new_job(mark, queue=queue)], now_ms=NOW)
    events: list[Event] = []
    while True:
        page = await soon(engine.events(queue, after=after))
        assert page.events, "events came back without any"
        assert page.cursor == page.events[-1].cursor
        after = page.cursor
        for event in page.events:
            if event.job_id == mark:
                return events
            events.append(msgspec.structs.replace(event, cursor="", details={}))


async def happened_to(engine: Engine, id: str, after: str) -> list[Event]:
    return [event for event in await happened(engine, after) if event.job_id == id]
