"""Values that a store cannot hold: their call is refused as a whole, and no other call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hasten.errors import InvalidOption, StoreRejected
from hasten.jobs._engine import Engine
from hasten.jobs._options import Keep
from hasten.jobs._record import Completed, Failed, JobChange, LogLine, Postponed, Progress, Retry
from hasten.jobs._states import State
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    claim,
    counts,
    ids_in,
    job,
    new_job,
    settled,
    soon,
    start,
    take,
)

NO_TEXT = "\ud800"

OUTCOMES = [
    pytest.param(Completed("b", "t1", f'"{NO_TEXT}"'), id="result"),
    pytest.param(Failed("b", "t1", NO_TEXT), id="error"),
    pytest.param(Failed("b", "t1", "no", NO_TEXT), id="trace"),
    pytest.param(Retry("b", "t1", NO_TEXT, "trace", 0), id="reason of a retry"),
    pytest.param(Retry("b", "t1", "no", "trace", 2**70), id="delay of a retry"),
    pytest.param(Postponed("b", "t1", 2**70), id="delay"),
]

CALLS: dict[str, Callable[[Engine], Awaitable[object]]] = {
    "add": lambda engine: engine.add([new_job(data=f'"{NO_TEXT}"')], now_ms=NOW),
    "add of a number": lambda engine: engine.add([new_job("b", priority=2**70)], now_ms=NOW),
    "claim": lambda engine: engine.claim(QUEUE, claim(1, NO_TEXT), now_ms=NOW),
    "change": lambda engine: engine.update(QUEUE, [JobChange("a", priority=2**70)], now_ms=NOW),
    "log": lambda engine: engine.update(QUEUE, [LogLine("a", NO_TEXT, 5)], now_ms=NOW),
    "get": lambda engine: engine.get(QUEUE, [NO_TEXT]),
    "logs": lambda engine: engine.logs(QUEUE, NO_TEXT),
    "cancel": lambda engine: engine.cancel(QUEUE, [NO_TEXT], now_ms=NOW),
    "remove": lambda engine: engine.remove(QUEUE, [NO_TEXT], now_ms=NOW),
    "requeue": lambda engine: engine.requeue(QUEUE, [NO_TEXT], {State.FAILED}, now_ms=NOW),
    "reclaim": lambda engine: engine.reclaim(QUEUE, crash_limit=3, now_ms=2**70),
    "renew": lambda engine: asyncio.to_thread(
        engine.renew, QUEUE, {"a": NO_TEXT}, lease_ms=10, now_ms=NOW
    ),
}


class TestSettle:
    @pytest.mark.parametrize("bad", OUTCOMES)
    async def test_writes_nothing_of_a_refused_batch(self, engine: Engine, bad: Any) -> None:
        """The leases are still valid, so each outcome can be settled alone."""
        await start(engine, "a", "b")
        await add(engine, "c")
        batch = [Completed("a", "t1", "1"), bad]
        with pytest.raises(StoreRejected):
            await engine.settle(QUEUE, batch, claim(1, "t2"), now_ms=NOW)
        assert sorted(await ids_in(engine, State.ACTIVE)) == ["a", "b"]
        await settled(engine, Completed("a", "t1", "1"))
        with pytest.raises(StoreRejected):
            await engine.settle(QUEUE, [bad], None, now_ms=NOW)
        await settled(engine, Failed("b", "t1", "its outcome could not be stored"))
        assert await counts(engine) == {
            State.COMPLETED: 1, State.FAILED: 1, State.WAITING: 1,
        }  # fmt: skip

    async def test_takes_the_largest_rules_of_keeping(self, engine: Engine) -> None:
        await start(engine, "a", "b")
        keep = Keep(count=2**53 - 1, age=100 * 366 * 24 * 3600)
        await settled(engine, Completed("a", "t1", "1", keep), Failed("b", "t1", "no", None, keep))
        assert await counts(engine) == {State.COMPLETED: 1, State.FAILED: 1}


class TestCalls:
    @pytest.mark.parametrize("call", list(CALLS.values()), ids=list(CALLS))
    async def test_are_refused_beside_others_that_are_not(
        self, engine: Engine, call: Callable[[Engine], Awaitable[object]]
    ) -> None:
        """Concurrent calls may share a transaction."""
        await start(engine, "a")
        answers = await asyncio.gather(
            engine.update(QUEUE, [Progress("a", "1")], now_ms=NOW),
            call(engine),
            engine.update(QUEUE, [LogLine("a", "line", 5)], now_ms=NOW),
            return_exceptions=True,
        )
        assert [answers[0], answers[2]] == [[State.ACTIVE], [State.ACTIVE]]
        if not isinstance(answers[1], list):  # an engine that can store it is right, too
            assert isinstance(answers[1], StoreRejected)
        assert (await job(engine, "a")).progress == "1"
        assert await engine.logs(QUEUE, "a") == ["line"]
        assert await take(engine, 2, "t2") == []


class TestCursors:
    @pytest.mark.parametrize("after", ["", "x", "1", "-", "1-x", "$", "9" * 30 + "-0", "1-0\n"])
    async def test_that_are_none_are_refused(self, engine: Engine, after: str) -> None:
        """Callers that wait at the same time are not affected."""
        await start(engine, "a")
        waits = asyncio.create_task(engine.wait_for_jobs(QUEUE, next_due_ms=None))
        with pytest.raises(InvalidOption, match="must be the cursor of an event"):
            await soon(engine.events(QUEUE, after=after))
        await add(engine, "b")
        await soon(waits)
