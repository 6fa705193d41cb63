from __future__ import annotations

import asyncio

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._record import Completed, Failed, JobEnd
from hasten.jobs._states import State
from tests.contract.steps import NOW, QUEUE, add, ids_in, new_job, settled, start, take


class TestGet:
    async def test_answers_in_order_with_gaps(self, engine: Engine) -> None:
        """One result for each id, also for a repeated one."""
        await add(engine, "a", "b")
        ids = ["b", "gone", "a", "17", "b", ""]
        found = await engine.get(QUEUE, ids)
        assert [record and record.id for record in found] == ["b", None, "a", None, "b", None]

    async def test_of_nothing_is_nothing(self, engine: Engine) -> None:
        assert await engine.get(QUEUE, []) == []

    @pytest.mark.parametrize("id", ["0", "-1", "01", "1.0", "99999999999999999999999", " 1", "١"])
    async def test_knows_ids_by_their_text(self, engine: Engine, id: str) -> None:
        """`01` is not the job `1`, and numbers of any size can be requested."""
        await engine.add([new_job() for _ in range(3)], now_ms=NOW)
        assert await engine.get(QUEUE, [id]) == [None]

    async def test_takes_tens_of_thousands_of_ids(self, engine: Engine) -> None:
        answers = await engine.add([new_job() for _ in range(10)], now_ms=NOW)
        ids = [f"no such {n}" for n in range(40_000)] + [answer.id for answer in answers]
        found = await engine.get(QUEUE, ids)
        assert [record.id for record in found if record] == ids[40_000:]


class TestEnds:
    async def test_have_the_result_or_the_error_of_finished_jobs(self, engine: Engine) -> None:
        await start(engine, *"abc")
        await settled(engine, Completed("a", "t1", "[1]"), Failed("b", "t1", "no"))
        await add(engine, "d", delay_ms=1000)
        await add(engine, "e")
        await add(engine, "elsewhere", queue="other")
        ids = ["e", "b", "none", "a", "c", "elsewhere", "a", "d"]
        assert await engine.get_ends(QUEUE, ids) == [
            JobEnd(State.WAITING), JobEnd(State.FAILED, "no"), None, JobEnd(State.COMPLETED, "[1]"),
            JobEnd(State.ACTIVE), None, JobEnd(State.COMPLETED, "[1]"), JobEnd(State.DELAYED),
        ]  # fmt: skip

    async def test_are_in_order_for_more_jobs_than_are_read_at_once(self, engine: Engine) -> None:
        ids = [f"j{n}" for n in range(900)]
        await start(engine, *ids)
        await settled(engine, *(Completed(id, "t1", f'"{id}"') for id in ids))
        ends = await engine.get_ends(QUEUE, ids)
        assert [end and end.value for end in ends] == [f'"{id}"' for id in ids]


class TestList:
    async def test_is_in_the_order_in_which_jobs_are_taken(self, engine: Engine) -> None:
        await add(engine, "b", "c")
        await add(engine, "a", lifo=True)
        await add(engine, "q2", priority=2)
        await add(engine, "q1", priority=1)
        assert await ids_in(engine, State.WAITING) == ["a", "b", "c"]
        assert await ids_in(engine, State.PRIORITIZED) == ["q1", "q2"]

    async def test_has_delayed_jobs_by_their_time(self, engine: Engine) -> None:
        for id, delay_ms in [("c", 300), ("a", 100), ("b", 200)]:
            await add(engine, id, delay_ms=delay_ms)
        assert await ids_in(engine, State.DELAYED) == ["a", "b", "c"]

    async def test_has_active_jobs_by_their_start(self, engine: Engine) -> None:
        await add(engine, "b", priority=1)
        await add(engine, "c", priority=2)
        await add(engine, "a")
        for n in range(3):
            await take(engine, 1, f"t{n}", now_ms=NOW + n)
        assert await ids_in(engine, State.ACTIVE) == ["a", "b", "c"]

    @pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED])
    async def test_has_finished_jobs_by_their_finish(self, engine: Engine, state: State) -> None:
        await start(engine, *"abc")
        for n, id in enumerate("cab"):
            done = Completed(id, "t1", "1")
            outcome = done if state is State.COMPLETED else Failed(id, "t1", "no")
            await settled(engine, outcome, now_ms=NOW + n)
        assert await ids_in(engine, state) == ["c", "a", "b"]

    @pytest.mark.parametrize(
        ("first", "count", "expected"),
        [(0, 2, "ab"), (2, 2, "cd"), (4, 2, "e"), (5, 2, ""), (0, 100, "abcde"), (1, 0, "")],
    )
    async def test_is_paged(self, engine: Engine, first: int, count: int, expected: str) -> None:
        await add(engine, *"abcde")
        page = await engine.get_page(
            QUEUE, State.WAITING, offset=first, limit=count, newest_first=False
        )
        assert [record.id for record in page] == list(expected)

    @pytest.mark.parametrize(
        ("first", "count", "expected"), [(0, 2, "ed"), (2, 2, "cb"), (4, 2, "a"), (0, 9, "edcba")]
    )
    async def test_can_be_read_from_its_end(
        self, engine: Engine, first: int, count: int, expected: str
    ) -> None:
        """In reverse order."""
        await add(engine, *"abcde")
        page = await engine.get_page(
            QUEUE, State.WAITING, offset=first, limit=count, newest_first=True
        )
        assert [record.id for record in page] == list(expected)

    @pytest.mark.parametrize("state", State)
    async def test_of_an_empty_queue_is_empty(self, engine: Engine, state: State) -> None:
        assert await ids_in(engine, state) == []

    async def test_has_whole_records(self, engine: Engine) -> None:
        """The same records as `get`."""
        await start(engine, "a", data='"x"')
        await settled(engine, Failed("a", "t1", "no", "trace"))
        page = await engine.get_page(QUEUE, State.FAILED, offset=0, limit=1, newest_first=True)
        assert page == await engine.get(QUEUE, ["a"])
        assert page[0].tracebacks == ["trace"]

    async def test_stays_within_its_queue(self, engine: Engine) -> None:
        await add(engine, "a")
        await add(engine, "b", queue="other")
        assert await ids_in(engine, State.WAITING) == ["a"]


class TestCount:
    async def test_has_a_number_for_every_state(self, engine: Engine) -> None:
        assert await engine.count(QUEUE) == dict.fromkeys(State, 0)

    async def test_counts_each_job_where_it_is(self, engine: Engine) -> None:
        await start(engine, "a1", "c1", "c2", "f1")
        await settled(
            engine, Completed("c1", "t1", "1"), Completed("c2", "t1", "1"), Failed("f1", "t1", "no")
        )
        await add(engine, "w1", "w2", "w3")
        await add(engine, "p1", "p2", priority=1)
        await add(engine, "d1", delay_ms=10)
        await add(engine, "x", queue="other")
        assert await engine.count(QUEUE) == {
            State.WAITING: 3,
            State.PRIORITIZED: 2,
            State.DELAYED: 1,
            State.WAITING_CHILDREN: 0,
            State.ACTIVE: 1,
            State.COMPLETED: 2,
            State.FAILED: 1,
        }


class TestQueues:
    async def test_are_named_in_alphabetical_order(self, engine: Engine) -> None:
        for queue in ("mail", "billing", "zebra", "audit"):
            await engine.add([new_job(queue=queue)], now_ms=NOW)
        assert await engine.queues() == ["audit", "billing", "mail", "zebra"]

    async def test_count_while_they_have_jobs_in_any_state(self, engine: Engine) -> None:
        await start(engine, "a")
        assert await engine.queues() == [QUEUE]
        await settled(engine, Completed("a", "t1", "1"))
        assert await engine.queues() == [QUEUE]
        await engine.remove(QUEUE, ["a"], now_ms=NOW)
        assert await engine.queues() == []

    async def test_count_while_they_are_paused(self, engine: Engine) -> None:
        """So that the pause can be found and ended."""
        await engine.pause(QUEUE, now_ms=NOW)
        assert await engine.queues() == [QUEUE]
        await engine.resume(QUEUE, now_ms=NOW)
        assert await engine.queues() == []


class TestTogether:
    async def test_many_readers_get_their_own_answers(self, engine: Engine) -> None:
        """Concurrent reads may share a transaction."""
        await add(engine, *(f"j{n}" for n in range(50)))
        found = await asyncio.gather(*(engine.get(QUEUE, [f"j{n}"]) for n in range(50)))
        assert [record.id for (record,) in found if record] == [f"j{n}" for n in range(50)]
