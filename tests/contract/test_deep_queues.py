"""No script and no transaction does more work where more jobs wait."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from hasten.errors import StoreUnavailable
from hasten.jobs.engine import Engine
from hasten.jobs.engines.sqlite import administration
from hasten.jobs.record import Completed, Failed
from hasten.jobs.states import State
from tests.contract.engines import open_for_test
from tests.contract.steps import NOW, QUEUE, add, counts, new_job, settled, start, take
from tests.servers.redis import shared_redis

Verb = Callable[[Engine], Awaitable[Any]]

VERBS: Final[dict[str, Verb]] = {
    "get": lambda engine: engine.get(QUEUE, ["first", "middle", "last", "ended", "none"]),
    "ends": lambda engine: engine.ends(QUEUE, ["first", "middle", "last", "ended", "none"]),
    "cancel": lambda engine: engine.cancel(QUEUE, ["middle"], now_ms=NOW),
    "remove": lambda engine: engine.remove(QUEUE, ["middling"], now_ms=NOW),
    "retry": lambda engine: engine.requeue(QUEUE, ["ended"], State.FAILED, now_ms=NOW),
    "promote": lambda engine: engine.requeue(QUEUE, ["later"], State.DELAYED, now_ms=NOW),
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
    """Jobs in the states that many jobs are in: "middle" is in the middle of those that wait."""
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
    """How often each command was called by scripts and clients."""
    with shared_redis().client() as client:
        client.config_resetstat()
        await work
        stats: dict[str, Any] = client.info("commandstats")
    ours = {"cmdstat_config|resetstat", "cmdstat_info"}
    return Counter({name: of["calls"] for name, of in stats.items() if name not in ours})


async def test_a_script_runs_the_same_commands_at_any_depth(tmp_path: Path) -> None:
    """None searches the list of those that wait, but for what is to be removed from its middle."""
    at_depth: list[dict[str, Counter[str]]] = []
    for turn, depth in enumerate((50, 50, 10_000)):  # the first one loads the scripts
        async with open_for_test("redis", tmp_path / str(turn)) as engine:
            await fill(engine, depth)
            at_depth.append({verb: await commands_of(run(engine)) for verb, run in VERBS.items()})
    _, shallow, deep = at_depth
    assert deep == shallow
    for verb, commands in deep.items():
        assert commands["cmdstat_lpos"] == 0, verb
        assert commands["cmdstat_lrem"] == (verb in {"cancel", "remove"}), verb
        assert commands.total() < 150, verb


@pytest.mark.parametrize("verb", ["cancel", "remove"])
async def test_a_script_searches_a_long_list_for_few_jobs(redis: Engine, verb: str) -> None:
    """The others are for the next script."""
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
        found.extend(await (redis.get if verb == "get" else redis.ends)(QUEUE, ids))

    commands = await commands_of(read())
    assert commands["cmdstat_evalsha"] == 3
    assert [one.result if verb == "get" else one.value for one in found] == [value] * 12


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


class Measured(sqlite3.Connection):
    """Notes of each transaction how many rows it has changed, and how many pages it has freed."""

    rows: list[int] = []  # noqa: RUF012
    pages: list[int] = []  # noqa: RUF012

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith("BEGIN"):
            self.begun = self.total_changes, self._free()
        elif sql == "COMMIT":
            changes, free = self.begun
            Measured.rows.append(self.total_changes - changes)
            Measured.pages.append(self._free() - free)
        return super().execute(sql, *parameters)

    def _free(self) -> int:
        (pages,) = super().execute("PRAGMA freelist_count").fetchone()
        return int(pages)


@pytest.fixture
async def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    connect = sqlite3.connect

    def connect_measured(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Measured, **options)

    monkeypatch.setattr(sqlite3, "connect", connect_measured)
    async with open_for_test("sqlite-file", tmp_path) as engine:
        yield engine


def measure() -> None:
    Measured.rows.clear()
    Measured.pages.clear()


async def obliterate(engine: Engine) -> None:
    await engine.forget(QUEUE)


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


async def test_an_obliteration_that_was_broken_off_can_be_repeated(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then no worker takes what is left."""
    await add(sqlite, *(str(n) for n in range(3_000)))

    def fail(*_: Any, **__: Any) -> bool:
        raise StoreUnavailable("it", "the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(administration, "forget_events", fail)
        with pytest.raises(StoreUnavailable):
            await sqlite.forget(QUEUE)
    await add(sqlite, "a")
    assert await take(sqlite) == []
    await sqlite.forget(QUEUE)
    assert await sqlite.queues() == []
    await add(sqlite, "b")
    assert await take(sqlite) == ["b"]


async def test_a_clean_deletes_no_job_that_was_taken_meanwhile(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
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
