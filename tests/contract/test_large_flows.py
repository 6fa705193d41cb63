"""Flows with many children: few calls, and the end of a child costs the same in each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._options import KEEP_ALL
from hasten.jobs._record import Completed, Failed, NewJob, Outcome, ParentLink
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.measured import Measured, measure, measured_connections
from tests.contract.steps import NOW, QUEUE, claim, counts, new_job, start, take
from tests.contract.test_deep_queues import check_scripts, commands_of

CHILDREN = "images"


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_for_test("redis", tmp_path) as engine:
        yield engine


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Engine]:
    with measured_connections():
        async with open_for_test("sqlite-file", tmp_path) as engine:
            yield engine


def flow(size: int, name: str = "flow") -> list[NewJob]:
    """A parent with so many children, with ids as the queue makes them."""
    template = new_job().template
    link = ParentLink(QUEUE, f"{name}-0")
    children = [
        NewJob(CHILDREN, template, f'{{"n":{n}}}', f"{name}-{n}", link) for n in range(1, size + 1)
    ]
    return [new_job(f"{name}-0"), *children]


async def run_all_but_one(engine: Engine, size: int) -> str:
    """Start all children of a flow, and complete all but the last one. Returns its id."""
    ids: list[str] = []
    for done in range(0, size, 200):
        batch = await engine.claim(CHILDREN, claim(200, "t1"), now_ms=NOW)
        ids = [lease.job.id for lease in batch.leases]
        ends = [Completed(id, "t1", '"ok"', KEEP_ALL) for id in ids[: size - 1 - done]]
        await engine.settle(CHILDREN, ends, None, now_ms=NOW)
    return ids[-1]


async def end_last_child_and_claim_parent(engine: Engine, id: str, parent: str) -> None:
    """The two calls after which a worker runs the parent."""
    last = Completed(id, "t1", '"ok"', KEEP_ALL)
    await engine.settle(CHILDREN, [last], None, now_ms=NOW)
    assert await take(engine, 1, "t2") == [parent]


class TestRedis:
    async def test_one_script_adds_a_thousand_children(self, redis: Engine) -> None:
        commands = await commands_of(redis.add_flow(flow(1_000), now_ms=NOW))
        assert commands["cmdstat_evalsha"] + commands["cmdstat_eval"] <= 2  # unknown, and sent
        assert commands.total() < 6 * 1_000  # per job: exists, hash, two events
        assert await counts(redis, CHILDREN) == {State.WAITING: 1_000}

    async def test_the_last_child_costs_the_same_in_any_flow(self, redis: Engine) -> None:
        seen: list[Counter[str]] = []
        for size in (10, 1_000):
            await redis.obliterate(QUEUE)
            await redis.obliterate(CHILDREN)
            await redis.add_flow(flow(size, f"f{size}"), now_ms=NOW)
            last = await run_all_but_one(redis, size)
            work = end_last_child_and_claim_parent(redis, last, f"f{size}-0")
            seen.append(await commands_of(work))
        assert seen[0] == seen[1]
        assert seen[0].total() < 80

    async def test_a_tree_is_removed_by_short_scripts(self, redis: Engine) -> None:
        await redis.add_flow(flow(2_500), now_ms=NOW)
        commands = await commands_of(redis.remove(QUEUE, ["flow-0"], now_ms=NOW))
        check_scripts(commands, at_least=10)
        assert await counts(redis, CHILDREN) == {}


class TestSqlite:
    async def test_one_transaction_adds_a_thousand_children(self, sqlite: Engine) -> None:
        await sqlite.count(QUEUE)
        measure()
        await sqlite.add_flow(flow(1_000), now_ms=NOW)
        assert len(Measured.rows) == 1
        assert Measured.statements < 40

    async def test_the_last_child_costs_the_same_in_any_flow(self, sqlite: Engine) -> None:
        seen: list[Any] = []
        for size in (10, 1_000):
            await sqlite.add_flow(flow(size, f"f{size}"), now_ms=NOW)
            last = await run_all_but_one(sqlite, size)
            measure()
            await end_last_child_and_claim_parent(sqlite, last, f"f{size}-0")
            seen.append((Measured.statements, list(Measured.rows)))
        assert seen[0] == seen[1]
        assert seen[0][0] < 50

    async def test_many_children_end_in_few_statements(self, sqlite: Engine) -> None:
        await sqlite.add_flow(flow(400), now_ms=NOW)
        batch = await sqlite.claim(CHILDREN, claim(400, "t1"), now_ms=NOW)
        ends = [Completed(lease.job.id, "t1", '"ok"', KEEP_ALL) for lease in batch.leases]
        measure()
        await sqlite.settle(CHILDREN, ends, None, now_ms=NOW)
        assert Measured.statements < 40

    async def test_a_tree_is_removed_in_short_transactions(self, sqlite: Engine) -> None:
        await sqlite.add_flow(flow(5_000), now_ms=NOW)
        measure()
        await sqlite.remove(QUEUE, ["flow-0"], now_ms=NOW)
        assert len(Measured.rows) >= 3
        assert await counts(sqlite, CHILDREN) == {}

    async def test_queues_without_flows_look_for_no_children(self, sqlite: Engine) -> None:
        await start(sqlite, "a", "b", "c")
        measure()
        ends: list[Outcome] = [Completed("a", "t1", "1"), Failed("b", "t1", "no")]
        await sqlite.settle(QUEUE, ends, None, now_ms=NOW)
        await sqlite.remove(QUEUE, ["b"], now_ms=NOW)
        assert not any("hasten_children" in text for text in Measured.texts)
