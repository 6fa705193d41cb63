"""Changing jobs from outside, and adding to their logs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hasten.errors import InvalidArgument, InvalidOption, JobNotFound, PayloadTooLarge, WrongState
from hasten.jobs import Context, Queue, State, Worker
from hasten.testing import ManualClock
from tests.jobs.eventually import result_of, until_longer, until_state


class TestUpdate:
    async def test_changes_what_is_given(self, queue: Queue, clock: ManualClock) -> None:
        job = await queue.add("send", {"to": "ada"}, delay=60, priority=3)
        await job.update(data={"to": "bob"}, delay=5, progress={"of": 2})
        await job.refresh()
        assert (job.data, job.progress, job.priority) == ({"to": "bob"}, {"of": 2}, 3)
        assert job.record.due_ms == clock.now_ms() + 5000
        await queue.update(job.id, priority=0, progress=None)
        await job.refresh()
        assert (job.priority, job.progress, job.data) == (0, None, {"to": "bob"})

    async def test_is_what_a_worker_goes_by(self, queue: Queue, clock: ManualClock) -> None:
        order: list[str] = []

        @queue.task
        async def send(to: str) -> None:
            order.append(to)

        first, second, third = [await send.using(priority=2).enqueue(to) for to in ("a", "b", "c")]
        later = await send.using(delay=3600).enqueue("d")
        await third.update(priority=1)
        await first.update(data={"to": "A"}, priority=3)
        await later.update(delay=0)
        async with Worker(queue, concurrency=1):
            await until_longer(order, 3)
        assert order == ["d", "c", "b", "A"]
        assert (await second.refresh()).state is State.COMPLETED

    async def test_of_data_is_for_the_next_attempt(self, queue: Queue) -> None:
        seen: list[int] = []
        go_on = asyncio.Event()

        @queue.task(attempts=2)
        async def count(n: int) -> int:
            seen.append(n)
            await go_on.wait()
            if len(seen) == 1:
                raise ValueError("again")
            return n

        job = await count.enqueue(1)
        async with Worker(queue):
            await until_state(job, State.ACTIVE)
            await job.update(data={"n": 2})
            go_on.set()
            assert await job.result(timeout=30) == 2
        assert seen == [1, 2]

    async def test_of_nothing_finds_out_whether_there_is_a_job(self, queue: Queue) -> None:
        job = await queue.add("send")
        await job.update()
        await job.remove()
        with pytest.raises(JobNotFound):
            await job.update()

    @pytest.mark.parametrize(
        "changes", [{"data": {}}, {"priority": 1}, {"delay": 5}, {"progress": 1}]
    )
    async def test_of_an_unknown_job_says_so(self, queue: Queue, changes: dict[str, Any]) -> None:
        with pytest.raises(JobNotFound, match="has no job 'gone'"):
            await queue.update("gone", **changes)

    async def test_of_a_delay_needs_a_delayed_job(self, queue: Queue) -> None:
        """The whole call is refused."""
        job = await queue.add("send", {"to": "ada"})
        with pytest.raises(WrongState, match=r"is waiting: must be delayed$"):
            await job.update(delay=5, data={"to": "bob"}, priority=1)
        await job.refresh()
        assert (job.data, job.priority) == ({"to": "ada"}, 0)

    async def test_of_a_priority_needs_an_unfinished_job(self, queue: Queue) -> None:
        @queue.task
        async def end() -> None: ...

        job = await end.enqueue()
        await result_of(queue, job)
        await job.update(data={}, progress=100)
        with pytest.raises(WrongState, match="is completed: must be waiting or "):
            await job.update(priority=1)

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"priority": -1}, "priority=-1: must be a whole number from 0 to 2,097,151"),
            ({"priority": 2**21}, "priority=2097152: must be a whole number from 0 to 2,097,151"),
            ({"priority": 10**400}, "must be a whole number from 0 to 2,097,151"),
            ({"priority": True}, "priority=True: must be a whole number"),
            ({"delay": -1}, "delay=-1: must be at least 0 seconds"),
            ({"delay": 1e300}, r"delay=1e\+300: must be less than a hundred years"),
            ({"delay": "soon"}, "delay='soon': must be seconds"),
            ({"progress": {1, object()}}, "must be a value that can be stored as JSON"),
            (
                {"progress": float("nan")},
                "progress=<float>: must be a value that can be stored as JSON",
            ),
            ({"progress": "x" * 2000}, "^progress=<str>: must be at most 1,000 bytes of JSON"),
        ],
    )
    async def test_refuses_misuse(self, url: str, changes: dict[str, Any], complaint: str) -> None:
        queue = Queue("mail", url, max_size=1000)
        job = await queue.add("send", {"to": "ada"}, delay=60)
        with pytest.raises(InvalidOption, match=complaint):
            await job.update(data={"to": "bob"}, **changes)
        assert (await job.refresh()).data == {"to": "ada"}
        await queue.aclose()

    async def test_checks_data_as_add_does(self, url: str) -> None:
        queue = Queue("mail", url, max_size=1000)
        job = await queue.add("send", {"to": "ada"})
        with pytest.raises(InvalidArgument, match=r"^send: argument 'data' cannot be stored"):
            await job.update(data=object())
        with pytest.raises(PayloadTooLarge):
            await job.update(data="x" * 2000)
        await job.update(data=None)
        assert (await job.refresh()).data == {}
        await queue.aclose()

    def test_has_a_twin_without_an_event_loop(self, url: str) -> None:
        queue = Queue("mail", url)
        job = queue.sync.add("send", {"to": "ada"}, delay=60)
        job.sync.update(data={"to": "bob"}, delay=30)
        queue.sync.update(job.id, priority=2, progress=5)
        job.sync.log("one")
        queue.sync.log(job.id, "two")
        job.sync.refresh()
        assert (job.data, job.priority, job.progress) == ({"to": "bob"}, 2, 5)
        assert job.record.delay_ms == 30_000
        assert job.sync.logs() == ["one", "two"]
        queue.sync.close()


class TestLog:
    async def test_adds_a_line_whatever_the_state(self, queue: Queue) -> None:
        job = await queue.add("send")
        await job.log("by hand")
        await job.cancel()
        await queue.log(job.id, "\ud800 and more")
        assert await job.logs() == ["by hand", "? and more"]

    async def test_of_an_unknown_job_says_so(self, queue: Queue) -> None:
        with pytest.raises(JobNotFound):
            await queue.log("gone", "line")

    @pytest.mark.parametrize("where", ["loop", "thread"])
    async def test_keeps_as_many_lines_as_the_job_says(self, queue: Queue, where: str) -> None:
        def say(ctx: Context) -> None:
            for n in range(5):
                ctx.log(str(n))

        async def say_in_loop(ctx: Context) -> None:
            say(ctx)

        queue.task(name="say", keep_logs=3)(say_in_loop if where == "loop" else say)
        job = await queue.add("say")
        other = await queue.add("say", keep_logs=4)
        async with Worker(queue):
            await job.result(timeout=30)
            await other.result(timeout=30)
        assert await job.logs() == ["2", "3", "4"]
        assert await other.logs() == ["1", "2", "3", "4"]
        await job.log("by hand")
        assert await job.logs() == ["3", "4", "by hand"]

    async def test_cuts_a_line_of_too_many_bytes(self, queue: Queue) -> None:
        """A thousand lines must not fill the store. The line says that it was cut."""

        @queue.task
        async def say(ctx: Context) -> None:
            ctx.log("x" * 65_536)
            ctx.log("x" + "ü" * 40_000)

        job = await say.enqueue()
        await result_of(queue, job)
        await job.log("y" * 1_000_000)
        assert await job.logs() == [
            "x" * 65_536,
            "x" + "ü" * 32_767 + "… (cut: it had 80,001 bytes)",
            "y" * 65_536 + "… (cut: it had 1,000,000 bytes)",
        ]

    async def test_keeps_a_thousand_lines_where_the_job_says_nothing(self, queue: Queue) -> None:
        @queue.task
        async def say(ctx: Context) -> None:
            for n in range(1001):
                ctx.log(str(n))

        job = await say.enqueue()
        await result_of(queue, job)
        logs = await job.logs()
        assert (len(logs), logs[0]) == (1000, "1")
