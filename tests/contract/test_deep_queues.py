"""No script and no transaction takes longer if more jobs wait."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from hasten.errors import StoreUnavailable
from hasten.jobs._engine import Engine
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._engines.sqlite import administration
from hasten.jobs._options import KEEP_ALL, Keep
from hasten.jobs._record import Completed, Failed
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.measured import Measured, measure, measured_connections
from tests.contract.steps import (
    LEASE_MS,
    NOW,
    QUEUE,
    add,
    counts,
    ids_in,
    new_job,
    settled,
    start,
    take,
)
from tests.servers.redis import shared_redis

Verb = Callable[[Engine], Awaitable[Any]]

VERBS: Final[dict[str, Verb]] = {
    "get": lambda engine: engine.get(QUEUE, ["first", "middle", "last", "ended", "none"]),
    "ends": lambda engine: engine.get_ends(QUEUE, ["first", "middle", "last", "ended", "none"]),
    "cancel": lambda engine: engine.cancel(QUEUE, ["middle"], now_ms=NOW),
    "remove": lambda engine: engine.remove(QUEUE, ["middling"], now_ms=NOW),
    "retry": lambda engine: engine.requeue(QUEUE, ["ended"], {State.FAILED}, now_ms=NOW),
    "promote": lambda engine: engine.requeue(QUEUE, ["later"], {State.DELAYED}, now_ms=NOW),
    "add again": lambda engine: engine.add([new_job("last")], now_ms=NOW),
    "clean waiting": lambda engine: engine.purge(
        QUEUE, [State.WAITING], before_ms=NOW, limit=7, now_ms=NOW
    ),
    "clean prioritized": lambda engine: engine.purge(
        QUEUE, [State.PRIORITIZED], before_ms=NOW, limit=7, now_ms=NOW
    ),
    "clean delayed": lambda engine: engine.purge(
        QUEUE, [State.DELAYED], before_ms=NOW, limit=7, now_ms=NOW
    ),
}


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_for_test("redis", tmp_path) as engine:
        yield engine


async def fill(engine: Engine, depth: int) -> None:
    """Add jobs in the states that hold many. "middle" is in the middle of the waiting jobs."""
    await start(engine, "ended")
    await settled(engine, Failed("ended", "t1", "no"))
    await add(engine, "first")
    await add(engine, *(str(n) for n in range(depth // 2)))
    await add(engine, "middle", "middling")
    await add(engine, *(f"-{n}" for n in range(depth // 2)))
    await add(engine, "last")
    await add(engine, *(f"p{n}" for n in range(depth)), priority=1)
    await add(engine, "later", *(f"d{n}" for n in range(depth)), delay_ms=1000)


async def commands_of(work: Awaitable[Any]) -> Counter[str]:
    """Return how often scripts and clients call each command."""
    with shared_redis().client() as client:
        client.config_resetstat()
        await work
        stats: dict[str, Any] = client.info("commandstats")
    ours = {"cmdstat_config|resetstat", "cmdstat_info"}
    return Counter({name: of["calls"] for name, of in stats.items() if name not in ours})


async def test_a_script_runs_the_same_commands_at_any_depth(tmp_path: Path) -> None:
    """None searches the list of waiting jobs, except to remove a job from its middle."""
    at_depth: list[dict[str, Counter[str]]] = []
    for turn, depth in enumerate((500, 500, 10_000)):  # the first one loads the scripts
        async with open_for_test("redis", tmp_path / str(turn)) as engine:
            await fill(engine, depth)
            at_depth.append({verb: await commands_of(run(engine)) for verb, run in VERBS.items()})
    _, shallow, deep = at_depth
    assert deep == shallow
    for verb, commands in deep.items():
        searches = verb in {"cancel", "remove"}  # first only 100 jobs at each end
        assert commands["cmdstat_lpos"] == 2 * searches, verb
        assert commands["cmdstat_lrem"] == searches, verb
        assert commands.total() < 150, verb


@pytest.mark.parametrize("verb", ["cancel", "remove"])
async def test_a_script_searches_a_long_list_for_few_jobs(redis: Engine, verb: str) -> None:
    """The next script searches for the others."""
    await add(redis, *map(str, range(20_000)))
    ids = [str(n) for n in range(5_000, 5_030)]
    work = redis.cancel if verb == "cancel" else redis.remove
    answers: list[State | None] = []

    async def take_out() -> None:
        answers.extend(await work(QUEUE, ids, now_ms=NOW))

    commands = await commands_of(take_out())
    assert answers == [State.WAITING] * 30
    assert commands["cmdstat_lrem"] == 30
    assert commands["cmdstat_evalsha"] >= 3
    assert (await counts(redis))[State.WAITING] == 20_000 - 30


@pytest.mark.parametrize("verb", ["get", "ends"])
async def test_a_script_answers_with_few_large_results(redis: Engine, verb: str) -> None:
    ids = [str(n) for n in range(12)]
    await start(redis, *ids)
    value = '"' + "x" * 1_000_000 + '"'
    await settled(redis, *(Completed(id, "t1", value) for id in ids))
    found: list[Any] = []

    async def read() -> None:
        found.extend(await (redis.get if verb == "get" else redis.get_ends)(QUEUE, ids))

    commands = await commands_of(read())
    assert commands["cmdstat_evalsha"] == 3
    assert [one.result if verb == "get" else one.value for one in found] == [value] * 12


@pytest.mark.parametrize("kind", ["redis", "sqlite-file"])
async def test_a_claim_takes_few_large_jobs(kind: str, tmp_path: Path) -> None:
    """The worker claims again."""
    data = '"' + "x" * 1_000_000 + '"'
    async with open_for_test(kind, tmp_path) as engine:
        for first in range(0, 60, 10):
            ids = [f"j{n}" for n in range(first, first + 10)]
            await engine.add([new_job(id, data=data) for id in ids], now_ms=NOW)
        await add(engine, "small", priority=1)
        found = await take(engine, 60)
        assert 4 <= len(found) <= 20
        while some := await take(engine, 60):
            found += some
    assert found == [*(f"j{n}" for n in range(60)), "small"]


async def test_an_unlimited_clean_goes_through_a_state_in_portions(redis: Engine) -> None:
    await add(redis, *(str(n) for n in range(1_700)))
    await add(redis, *(f"young{n}" for n in range(20)), lifo=True, now_ms=NOW + 1)
    purged: list[str] = []

    async def clean() -> None:
        purged.extend(
            await redis.purge(QUEUE, [State.WAITING], before_ms=NOW, limit=None, now_ms=NOW)
        )

    commands = await commands_of(clean())
    assert purged == [str(n) for n in range(1_700)]
    assert commands["cmdstat_evalsha"] >= 4
    assert commands["cmdstat_lrem"] <= commands["cmdstat_evalsha"]


DEEP: Final = [f"j{n}" for n in range(2_000)]
KEEP_ONE: Final = Keep(count=1, age=None)


async def redis_requeue(engine: Engine) -> None:
    await add(engine, *DEEP, delay_ms=1_000)
    commands = await commands_of(engine.requeue(QUEUE, DEEP, {State.DELAYED}, now_ms=NOW))
    check_scripts(commands, at_least=8)


async def redis_cancel(engine: Engine) -> None:
    await add(engine, *DEEP, priority=1)
    check_scripts(await commands_of(engine.cancel(QUEUE, DEEP, now_ms=NOW)), at_least=8)


async def redis_remove(engine: Engine) -> None:
    await add(engine, *DEEP, priority=1)
    check_scripts(await commands_of(engine.remove(QUEUE, DEEP, now_ms=NOW)), at_least=8)


async def redis_page(engine: Engine) -> None:
    await add(engine, *DEEP)
    found: list[str] = []

    async def page() -> None:
        page = await engine.get_page(
            QUEUE, State.WAITING, offset=1, limit=9_999, newest_first=False
        )
        found.extend(record.id for record in page)

    check_scripts(await commands_of(page()), at_least=8)
    assert found == DEEP[1:]


async def redis_promote(engine: Engine) -> None:
    """The first claim after many jobs have become due."""
    await add(engine, *DEEP, delay_ms=1_000)
    check_scripts(await commands_of(take(engine, now_ms=NOW + 1_000)), at_least=1)


async def redis_take_back(engine: Engine) -> None:
    await start(engine, *DEEP)
    taken_back: list[str] = []

    async def reclaim() -> None:
        taken_back.extend(await engine.reclaim(QUEUE, crash_limit=3, now_ms=NOW + LEASE_MS))

    check_scripts(await commands_of(reclaim()), at_least=8)
    assert taken_back == DEEP
    assert await take(engine, 2_000, now_ms=NOW + LEASE_MS) == DEEP


async def redis_renew_after_an_outage(engine: Engine) -> None:
    """All locks have expired, and each job is searched for in the list of active ones."""
    await start(engine, *DEEP)
    with shared_redis().client() as client:
        client.delete(*(f"{base_of(engine)}{id}:lock" for id in DEEP))
    work = partial(engine.renew, QUEUE, dict.fromkeys(DEEP, "t1"), lease_ms=LEASE_MS, now_ms=NOW)
    commands = await commands_of(asyncio.to_thread(work))
    check_scripts(commands, at_least=20)
    assert commands["cmdstat_lpos"] == 2_000


async def redis_look_for_cancelled(engine: Engine) -> None:
    await start(engine, *DEEP)
    await engine.cancel(QUEUE, DEEP, now_ms=NOW)
    work = partial(engine.find_cancelled, QUEUE, DEEP[:100])
    commands = await commands_of(asyncio.to_thread(work))
    check_scripts(commands, at_least=1)
    assert commands.total() < 50


async def redis_keep_less(engine: Engine) -> None:
    await start(engine, *DEEP)
    await settled(engine, *(Completed(id, "t1", "1", KEEP_ALL) for id in DEEP[:-5]))
    for id in DEEP[-5:-1]:
        last = engine.settle(QUEUE, [Completed(id, "t1", "1", KEEP_ONE)], None, now_ms=NOW)
        check_scripts(await commands_of(last), at_least=1)
    assert (await counts(engine))[State.COMPLETED] == 1


async def redis_resume(engine: Engine) -> None:
    """Jobs that BullMQ 5 has moved aside come back in their order, before one is claimed."""
    await add(engine, *DEEP)
    with shared_redis().client() as client:
        base = base_of(engine)
        client.rename(base + "wait", base + "paused")
    await engine.pause(QUEUE, now_ms=NOW)
    await add(engine, "last")
    check_scripts(await commands_of(engine.resume(QUEUE, now_ms=NOW)), at_least=2)
    assert await take(engine, 2_001) == [*DEEP, "last"]


async def redis_obliterate(engine: Engine) -> None:
    """A queue may have many schedulers."""
    await add(engine, *DEEP[:300])
    with shared_redis().client() as client:
        base = base_of(engine)
        client.zadd(base + "repeat", dict.fromkeys(DEEP, 1))
        check_scripts(await commands_of(engine.obliterate(QUEUE)), at_least=9)
        assert list(client.scan_iter(base + "*", count=10_000)) == []


def base_of(engine: Engine) -> str:
    """Return the prefix of the keys of the queue."""
    assert isinstance(engine, RedisEngine)
    return engine._keys.queue_prefix(QUEUE)


def check_scripts(commands: Counter[str], *, at_least: int) -> None:
    """A script with 8,000 commands takes about 5 ms."""
    scripts = commands["cmdstat_evalsha"] + commands["cmdstat_eval"]
    assert scripts >= at_least
    assert commands.total() / scripts < 8_000


REDIS_WRITES: Final = (
    redis_requeue, redis_cancel, redis_remove, redis_page, redis_promote, redis_take_back,
    redis_renew_after_an_outage, redis_look_for_cancelled, redis_keep_less, redis_resume,
    redis_obliterate,
)  # fmt: skip


@pytest.mark.parametrize("verb", REDIS_WRITES, ids=lambda verb: verb.__name__)
async def test_a_script_runs_few_commands(redis: Engine, verb: Verb) -> None:
    await verb(redis)


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Engine]:
    with measured_connections():
        async with open_for_test("sqlite-file", tmp_path) as engine:
            yield engine


async def obliterate(engine: Engine) -> None:
    await engine.obliterate(QUEUE)


async def drain(engine: Engine) -> None:
    states = [State.WAITING, State.PRIORITIZED, State.DELAYED]
    await engine.purge(QUEUE, states, before_ms=None, limit=None, now_ms=NOW)


async def clean(engine: Engine) -> None:
    states = [State.WAITING, State.PRIORITIZED, State.DELAYED]
    await engine.purge(QUEUE, states, before_ms=NOW, limit=100_000, now_ms=NOW)


@pytest.mark.parametrize("empty", [obliterate, drain, clean])
async def test_a_transaction_deletes_few_jobs(sqlite: Engine, empty: Verb) -> None:
    await fill(sqlite, 4_000)
    measure()
    await empty(sqlite)
    assert sum(Measured.rows) > 12_000
    assert max(Measured.rows) < 2_200
    assert await counts(sqlite) == ({} if empty is obliterate else {State.FAILED: 1})


@pytest.mark.parametrize("empty", [obliterate, drain])
async def test_a_transaction_frees_few_pages(sqlite: Engine, empty: Verb) -> None:
    data = '{"text":"' + "x" * 1_000_000 + '"}'
    for _ in range(6):
        await sqlite.add([new_job(data=data) for _ in range(10)], now_ms=NOW)
    measure()
    await empty(sqlite)
    assert sum(Measured.pages) > 14_000
    assert max(Measured.pages) < 5_000
    assert await counts(sqlite) == {}


MANY: Final = [f"d{n}" for n in range(3_000)]


async def requeue(engine: Engine) -> None:
    assert await engine.requeue(QUEUE, MANY, {State.DELAYED}, now_ms=NOW) == [State.DELAYED] * 3_000


async def cancel(engine: Engine) -> None:
    assert await engine.cancel(QUEUE, MANY, now_ms=NOW) == [State.DELAYED] * 3_000


async def remove(engine: Engine) -> None:
    assert await engine.remove(QUEUE, MANY, now_ms=NOW) == [State.DELAYED] * 3_000


async def cancel_by_many_calls(engine: Engine) -> None:
    """Most of these calls share a transaction."""
    of_each = [MANY[first : first + 15] for first in range(0, 3_000, 15)]
    calls = (engine.cancel(QUEUE, ids, now_ms=NOW) for ids in of_each)
    assert list(await asyncio.gather(*calls)) == [[State.DELAYED] * 15] * 200


async def add_large_jobs_by_many_calls(engine: Engine) -> None:
    data = '"' + "x" * 400_000 + '"'
    calls = (engine.add([new_job(f"large{n}", data=data)], now_ms=NOW) for n in range(60))
    await asyncio.gather(*calls)
    assert len(Measured.rows) > 5


async def promote(engine: Engine) -> None:
    """The first claim after many jobs have become due."""
    assert len(await take(engine, now_ms=NOW + 1_000)) == 1


async def start_many(engine: Engine) -> None:
    for _ in range(6):
        assert len(await take(engine, 500, now_ms=NOW + 1_000)) == 500
    measure()


async def renew(engine: Engine) -> None:
    await start_many(engine)
    leases = dict.fromkeys(MANY, "t1")
    work = partial(engine.renew, QUEUE, leases, lease_ms=LEASE_MS, now_ms=NOW)
    assert await asyncio.to_thread(work) == set()


async def take_back(engine: Engine) -> None:
    await start_many(engine)
    later = NOW + 1_000 + LEASE_MS
    assert await engine.reclaim(QUEUE, crash_limit=3, now_ms=later) == MANY
    page = await engine.get_page(QUEUE, State.WAITING, offset=0, limit=3_000, newest_first=False)
    assert [record.id for record in page] == MANY


async def take_back_after_the_clock_was_set_back(engine: Engine) -> None:
    await start_many(engine)
    assert await engine.reclaim(QUEUE, crash_limit=3, now_ms=NOW - LEASE_MS) == []


async def keep_less(engine: Engine) -> None:
    await start_many(engine)
    await settled(engine, *(Completed(id, "t1", "1", KEEP_ALL) for id in MANY[:-2]))
    measure()
    await settled(engine, Completed("d2998", "t1", "1", KEEP_ONE))
    await settled(engine, Completed("d2999", "t1", "1", KEEP_ONE))
    assert await ids_in(engine, State.COMPLETED) == ["d2999"]


WRITES: Final = (
    requeue, cancel, cancel_by_many_calls, remove, add_large_jobs_by_many_calls, promote, renew,
    take_back, take_back_after_the_clock_was_set_back, keep_less,
)  # fmt: skip


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
async def test_a_transaction_changes_few_jobs(sqlite: Engine, write: Verb) -> None:
    await add(sqlite, *MANY, delay_ms=1_000)
    measure()
    await write(sqlite)
    assert 0 < max(Measured.rows) < 2_200


@pytest.mark.parametrize("age", [0, None])
async def test_one_transaction_frees_few_pages(sqlite: Engine, age: int | None) -> None:
    value = '"' + "x" * 1_000_000 + '"'
    for first in range(0, 40, 10):
        ids = [f"j{n}" for n in range(first, first + 10)]
        await start(sqlite, *ids)
        await settled(sqlite, *(Completed(id, "t1", value, KEEP_ALL) for id in ids))
    await start(sqlite, "last")
    measure()
    keep = Keep(count=1 if age is None else None, age=age)
    await settled(sqlite, Completed("last", "t1", value, keep), now_ms=NOW + 1)
    assert 0 < max(Measured.pages) < 5_000


async def test_a_transaction_that_removes_large_jobs_frees_few_pages(sqlite: Engine) -> None:
    data = '{"text":"' + "x" * 1_000_000 + '"}'
    ids = [f"j{n}" for n in range(40)]
    await sqlite.add([new_job(id, data=data) for id in ids], now_ms=NOW)
    measure()
    assert await sqlite.remove(QUEUE, ids, now_ms=NOW) == [State.WAITING] * 40
    assert sum(Measured.pages) > 9_000
    assert max(Measured.pages) < 5_000


@pytest.mark.parametrize("write", [obliterate, drain, requeue], ids=lambda write: write.__name__)
async def test_what_portions_wrote_is_flushed_once_before_the_last_commit(
    sqlite: Engine, write: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the commit would hold the lock during a long flush."""
    await add(sqlite, *MANY, delay_ms=1_000)
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(len(Measured.rows)))
    measure()
    await write(sqlite)
    # The flush is in a reading transaction, and one more follows.
    assert flushed == [len(Measured.rows) - 2]


async def test_an_obliteration_can_resume(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then no worker claims the remaining jobs."""
    await add(sqlite, *(str(n) for n in range(3_000)))

    def fail(*_: Any, **__: Any) -> bool:
        raise StoreUnavailable("it", "the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(administration, "obliterate_next_events", fail)
        with pytest.raises(StoreUnavailable):
            await sqlite.obliterate(QUEUE)
    await add(sqlite, "a")
    assert await take(sqlite) == []
    await sqlite.obliterate(QUEUE)
    assert await sqlite.queues() == []
    await add(sqlite, "b")
    assert await take(sqlite) == ["b"]


async def test_clean_spares_taken_jobs(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await add(sqlite, *"abcd")
    find = administration.find_purgeable

    def find_then_take(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(administration, "find_purgeable", find)
        found, place = find(*arguments, **options)
        return [*found[:1], (999, "taken"), *found[2:]], place

    monkeypatch.setattr(administration, "find_purgeable", find_then_take)
    purged = await sqlite.purge(QUEUE, [State.WAITING], before_ms=None, limit=2, now_ms=NOW)
    assert purged == ["a", "c"]
    assert await counts(sqlite) == {State.WAITING: 2}
