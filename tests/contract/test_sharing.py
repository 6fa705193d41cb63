"""One engine that is used by several threads and event loops, and closed."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hasten.errors import StoreError
from hasten.jobs._engine import Engine
from hasten.jobs._engines.sqlite import SqliteEngine
from hasten.jobs._record import Completed, Failed, LogLine, Postponed
from hasten.jobs._states import State
from tests.contract.engines import DURABLE, open_for_test
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    claim,
    counts,
    cursor,
    ids_in,
    job,
    new_job,
    settled,
    soon,
    start,
    take,
    taken,
    waiting,
)


class TestThreadsAndLoops:
    async def test_share_one_engine(self, engine: Engine) -> None:
        """Each thread of a web server has its own event loop, and every job runs once."""

        async def work(name: int) -> list[str]:
            done: list[str] = []
            for n in range(10):
                await engine.add([new_job() for _ in range(3)], now_ms=NOW)
                token = f"t{name}-{n}"
                ids = taken((await engine.claim(QUEUE, claim(3, token), now_ms=NOW)).leases)
                outcomes = [Completed(id, token, "1") for id in ids]
                batch = await engine.settle(QUEUE, outcomes, None, now_ms=NOW)
                assert batch.lost == []
                done += ids
            return done

        with ThreadPoolExecutor(4) as threads:
            runs = [threads.submit(lambda n=n: asyncio.run(work(n))) for n in range(4)]  # type: ignore[misc]
            ids = [id for run in runs for id in await asyncio.wrap_future(run)]
        assert (len(ids), len(set(ids))) == (120, 120)
        assert await counts(engine) == {State.COMPLETED: 120}

    async def test_wake_each_other(self, engine: Engine) -> None:
        """A producer in a thread wakes a worker in this loop."""
        async with waiting(engine) as task:
            await asyncio.to_thread(lambda: asyncio.run(add(engine, "a")))
            await soon(task)

    async def test_may_go_before_their_answers_come(self, engine: Engine) -> None:
        """An event loop that ends during a call does not affect others."""

        async def leave() -> None:
            waits = asyncio.create_task(engine.wait_for_jobs("nothing", next_due_ms=None))
            adds = asyncio.create_task(add(engine, "a"))
            await asyncio.sleep(0)
            assert not waits.done()
            assert not adds.done()

        await asyncio.to_thread(lambda: asyncio.run(leave()))
        await add(engine, "b")
        assert "b" in await ids_in(engine, State.WAITING)

    async def test_may_renew_from_any_thread(self, engine: Engine) -> None:
        await start(engine, "a")
        found: list[set[str]] = []

        def renew() -> None:
            found.append(engine.renew(QUEUE, {"a": "t1"}, lease_ms=1000, now_ms=NOW))

        threads = [threading.Thread(target=renew) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert found == [set()] * 8


class TestCancelledCalls:
    async def test_are_applied_completely_or_not_at_all(self, engine: Engine) -> None:
        """A cancelled call adds all of its jobs or none."""
        adds = engine.add([new_job() for _ in range(10)], now_ms=NOW)
        call: asyncio.Task[object] = asyncio.create_task(adds)
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert await counts(engine) in ({}, {State.WAITING: 10})

    async def test_do_not_disturb_their_neighbours(self, engine: Engine) -> None:
        calls = [asyncio.create_task(add(engine, f"a{n}")) for n in range(10)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert {f"a{n}" for n in range(1, 10, 2)} <= set(await ids_in(engine, State.WAITING))

    @pytest.mark.parametrize("kind", ["sqlite-memory", "sqlite-file"], indirect=True)
    async def test_leave_no_job_leased_where_a_lease_was_lost(
        self, engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLite settles such a batch in two steps. The call is cancelled during the second one."""
        await add(engine, "a")
        database, steps = engine._database, 0
        run = database.run

        async def cancel_in_second_step(work: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == 2:
                current = asyncio.current_task()
                assert current is not None
                current.cancel()
            return await run(work, **options)

        monkeypatch.setattr(database, "run", cancel_in_second_step)
        outcomes = [Completed("gone", "t0", "1")]
        call: asyncio.Task[object] = asyncio.create_task(
            engine.settle(QUEUE, outcomes, claim(1, "t1"), now_ms=NOW)
        )
        await asyncio.gather(call, return_exceptions=True)
        assert call.cancelled()
        assert await ids_in(engine, State.WAITING) == ["a"]


class TestClose:
    async def test_is_safe_to_call_twice(self, engine: Engine) -> None:
        await add(engine, "a")
        await engine.aclose()
        await engine.aclose()

    async def test_may_come_before_the_first_use(self, engine: Engine) -> None:
        await engine.aclose()

    async def test_makes_later_calls_raise_a_clear_error(self, engine: Engine) -> None:
        await engine.aclose()
        with pytest.raises(StoreError, match=r"closed"):
            await engine.count(QUEUE)
        with pytest.raises(StoreError, match=r"closed"):
            engine.renew(QUEUE, {"a": "t1"}, lease_ms=10, now_ms=NOW)

    async def test_ends_waiting_calls(self, engine: Engine) -> None:
        """Otherwise they would wait for ever."""
        now = await cursor(engine)
        reading = asyncio.create_task(engine.events(QUEUE, after=now))
        async with waiting(engine) as task:
            await engine.aclose()
            for waiter in (task, reading):
                with pytest.raises(StoreError, match=r"closed"):
                    await soon(waiter)

    async def test_finishes_the_calls_in_progress(self, kind: str, tmp_path: Path) -> None:
        async with open_for_test(kind, tmp_path) as engine:
            calls = [asyncio.create_task(add(engine, f"a{n}")) for n in range(20)]
            await asyncio.sleep(0)
            await engine.aclose()
            await soon(asyncio.gather(*calls))
        if kind in DURABLE:
            async with open_for_test(kind, tmp_path) as engine:
                assert await counts(engine) == {State.WAITING: 20}


@pytest.mark.parametrize("kind", sorted(DURABLE))
class TestOpenedAgain:
    async def test_still_has_all_jobs(self, kind: str, tmp_path: Path) -> None:
        async with open_for_test(kind, tmp_path) as engine:
            await start(engine, *"abcd")
            await engine.update(QUEUE, [LogLine("a", "line", 10)], now_ms=NOW)
            await settled(
                engine,
                Completed("a", "t1", "1"),
                Failed("b", "t1", "no", "trace"),
                Postponed("c", "t1", 100),
            )
            await engine.pause("other", now_ms=NOW)
            before = await engine.get(QUEUE, list("abcd"))
            now = await cursor(engine)
        async with open_for_test(kind, tmp_path) as engine:
            assert await engine.get(QUEUE, list("abcd")) == before
            assert await engine.logs(QUEUE, "a") == ["line"]
            assert await engine.is_paused("other")
            assert await cursor(engine) == now
            await settled(engine, Completed("d", "t1", "1"))
            assert (await job(engine, "d")).state is State.COMPLETED

    async def test_assigns_no_id_twice(self, kind: str, tmp_path: Path) -> None:
        async with open_for_test(kind, tmp_path) as engine:
            (first,) = await engine.add([new_job()], now_ms=NOW)
            await engine.remove(QUEUE, [first.id], now_ms=NOW)
        async with open_for_test(kind, tmp_path) as engine:
            (second,) = await engine.add([new_job()], now_ms=NOW)
            assert second.id != first.id

    async def test_may_be_open_twice(self, kind: str, tmp_path: Path) -> None:
        """Two engines on one store see each other's jobs, and no job is claimed twice."""
        async with open_for_test(kind, tmp_path) as ours, open_for_test(kind, tmp_path) as theirs:
            async with waiting(theirs) as task:
                await add(ours, *(f"a{n}" for n in range(20)))
                await soon(task)
            both = [take(ours, 2, f"o{n}") for n in range(6)]
            both += [take(theirs, 2, f"t{n}") for n in range(6)]
            ids = [id for some in await asyncio.gather(*both) for id in some]
            assert sorted(ids) == sorted(f"a{n}" for n in range(20))


class TestUrl:
    async def test_shows_the_url_of_the_store(self, engine: Engine, kind: str) -> None:
        """Error messages show it. It starts with the scheme."""
        scheme = "memory" if kind == "sqlite-memory" else kind.partition("-")[0]
        assert engine.url.startswith(scheme)
