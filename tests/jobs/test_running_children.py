"""`ctx.children`: handlers that add child jobs and wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hasten import Store
from hasten.errors import InvalidArgument, InvalidOption, StoreUnavailable
from hasten.jobs import (
    Context,
    Job,
    Queue,
    RetryAfter,
    RunCall,
    State,
    WaitForChildren,
    Worker,
    current_job,
)
from hasten.jobs._record import ChildCounts
from tests.jobs import flow_tasks
from tests.jobs.eventually import fails, result_of, until, until_state


class Square:
    """A queue with the task square, which records what it has run."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.runs: list[int] = []

        @queue.task
        async def square(number: int) -> int:
            self.runs.append(number)
            return number * number

        @queue.task
        async def broken(text: str) -> None:
            raise ValueError(text)

        self.task, self.broken = square, broken


@pytest.fixture
def square(queue: Queue) -> Square:
    return Square(queue)


async def test_a_handler_waits_for_children_that_it_adds(queue: Queue, square: Square) -> None:
    runs: list[int] = []

    @queue.task
    async def report(ctx: Context, count: int) -> int:
        runs.append(ctx.attempt)
        ctx.children.add(square.task.many(range(count)))
        await ctx.children.wait()
        assert (await ctx.children.progress()).completed == count
        return sum(await ctx.children.results(square.task))

    job = await report.enqueue(4)
    assert await result_of(queue, job, concurrency=1) == 14
    assert runs == [1, 1]
    assert sorted(square.runs) == [0, 1, 2, 3]
    assert [child.id for child in await job.children()] == [f"{job.id}-1-{n}" for n in range(4)]
    record = (await job.refresh()).record
    assert (record.attempts_made, record.attempts_started) == (1, 2)


async def test_a_plain_function(queue: Queue, square: Square) -> None:
    @queue.task
    def report(ctx: Context) -> list[int]:
        children = ctx.children.sync
        children.add(square.task.many([1, 2]))
        children.wait()
        assert children.failures() == []
        assert children.progress().total == 2
        assert children.results() == [1, 4]
        return children.results(square.task)

    assert await result_of(queue, await report.enqueue()) == [1, 4]


async def test_through_the_current_job(queue: Queue, square: Square) -> None:
    @queue.task
    async def report() -> list[int]:
        ctx = current_job()
        assert ctx is not None
        ctx.children.add(square.task.args(3))
        await ctx.children.wait()
        return await ctx.children.results(square.task)

    assert await result_of(queue, await report.enqueue()) == [9]


async def test_several_stages(queue: Queue, square: Square) -> None:
    @queue.task
    async def report(ctx: Context) -> list[int]:
        ctx.children.add(square.task.many([1, 2]))
        await ctx.children.wait()
        ctx.children.add(square.task.args(sum(await ctx.children.results(square.task))))
        await ctx.children.wait()
        return await ctx.children.results(square.task)

    job = await report.enqueue()
    assert await result_of(queue, job) == [1, 4, 25]
    assert (await job.refresh()).record.attempts_started == 3


async def test_flows_as_children(queue: Queue, square: Square, store: Store) -> None:
    other = Queue("other", store)

    @other.task
    async def total(ctx: Context) -> int:
        return sum(await ctx.children.results(square.task))

    @queue.task
    async def report(ctx: Context) -> list[int]:
        ctx.children.add([total.after(square.task.many([1, 2])), total.after(square.task.args(3))])
        await ctx.children.wait()
        return await ctx.children.results(total)

    job = await report.enqueue()
    async with Worker(queue, other):
        assert await job.result(timeout=30) == [5, 9]
    assert len((await job.tree()).walk()) == 6


async def test_children_of_a_flow_and_of_the_run(queue: Queue, square: Square) -> None:
    @queue.task
    async def report(ctx: Context) -> list[int]:
        ctx.children.add(square.task.args(3))
        await ctx.children.wait()
        return await ctx.children.results(square.task)

    job = await report.after(square.task.many([1, 2])).enqueue()
    assert await result_of(queue, job) == [1, 4, 9]


async def test_nothing_to_wait_for(queue: Queue) -> None:
    @queue.task
    async def report(ctx: Context) -> str:
        await ctx.children.wait()
        ctx.children.add([])
        await ctx.children.wait()
        return "done"

    job = await report.enqueue()
    assert await result_of(queue, job) == "done"
    assert (await job.refresh()).record.attempts_started == 1


async def test_a_new_attempt_does_not_add_them_again(queue: Queue, square: Square) -> None:
    failed = False

    @queue.task(attempts=2)
    async def report(ctx: Context) -> list[int]:
        nonlocal failed
        ctx.children.add(square.task.many([1, 2]))
        await ctx.children.wait()
        if not failed:
            failed = True
            raise ValueError("after the children")
        return await ctx.children.results(square.task)

    job = await report.enqueue()
    assert await result_of(queue, job) == [1, 4]
    assert sorted(square.runs) == [1, 2]
    assert (await job.refresh()).attempts_made == 2


async def test_an_error_before_waiting_adds_none(queue: Queue, square: Square) -> None:
    @queue.task
    async def report(ctx: Context) -> None:
        ctx.children.add(square.task.args(1))
        raise ValueError("before")

    job = await report.enqueue()
    async with Worker(queue):
        assert await fails(job.result(timeout=30)) == "ValueError: before"
    assert await job.children() == []


class TestPolicies:
    async def test_a_failed_child_fails_the_job(self, queue: Queue, square: Square) -> None:
        @queue.task(attempts=3)
        async def report(ctx: Context) -> None:
            ctx.children.add(square.broken.args("no"))
            await ctx.children.wait()

        job = await report.enqueue()
        async with Worker(queue):
            assert (await fails(job.result(timeout=30))).startswith("child ")

    async def test_ignored_failures_can_be_read(self, queue: Queue, square: Square) -> None:
        @queue.task
        async def report(ctx: Context) -> list[str | None]:
            ctx.children.add([square.broken.args("no"), square.task.args(1)], on_failure="ignore")
            await ctx.children.wait()
            assert await ctx.children.results() == [1]
            return [child.error for child in await ctx.children.failures()]

        assert await result_of(queue, await report.enqueue()) == ["ValueError: no"]

    async def test_continue_returns_while_others_are_pending(
        self, queue: Queue, square: Square
    ) -> None:
        @queue.task
        async def report(ctx: Context) -> int:
            late = square.task.using(delay=3600).args(1)
            ctx.children.add([square.broken.args("no"), late], on_failure="continue")
            await ctx.children.wait()
            return (await ctx.children.progress()).pending

        assert await result_of(queue, await report.enqueue()) == 1


class TestMistakes:
    async def test_returning_without_waiting(self, queue: Queue, square: Square) -> None:
        @queue.task(attempts=3)
        async def report(ctx: Context) -> None:
            ctx.children.add(square.task.many([1, 2]))

        job = await report.enqueue()
        async with Worker(queue):
            error = await fails(job.result(timeout=30))
        assert error == (
            "UnawaitedChildren: the handler has returned without storing 2 child jobs of "
            "ctx.children.add(): call `await ctx.children.wait()` after it"
        )
        assert square.runs == []

    async def test_adding_after_the_last_wait(self, queue: Queue, square: Square) -> None:
        @queue.task
        async def report(ctx: Context) -> None:
            ctx.children.add(square.task.args(1))
            await ctx.children.wait()
            ctx.children.add(square.task.args(2))

        job = await report.enqueue()
        async with Worker(queue):
            assert "without storing 1 child jobs" in await fails(job.result(timeout=30))
        assert square.runs == [1]

    async def test_catching_the_exception(self, queue: Queue, square: Square) -> None:
        @queue.task
        async def report(ctx: Context) -> None:
            ctx.children.add(square.task.args(1))
            try:
                await ctx.children.wait()
            except BaseException:  # noqa: BLE001  # the mistake
                return

        job = await report.enqueue()
        async with Worker(queue):
            assert "has caught the exception" in await fails(job.result(timeout=30))
        assert square.runs == []

    async def test_except_exception_does_not_catch_it(self, queue: Queue, square: Square) -> None:
        @queue.task
        async def report(ctx: Context) -> list[int]:
            try:
                ctx.children.add(square.task.args(2))
                await ctx.children.wait()
            except Exception:  # noqa: BLE001  # it lets the exception of wait pass
                return []
            return await ctx.children.results(square.task)

        assert await result_of(queue, await report.enqueue()) == [4]

    async def test_raising_it_without_children(self, queue: Queue) -> None:
        @queue.task
        async def report() -> None:
            raise WaitForChildren

        job = await report.enqueue()
        async with Worker(queue):
            assert "WaitForChildren" in await fails(job.result(timeout=30))

    async def test_wrong_arguments_fail_the_job(self, queue: Queue, square: Square) -> None:
        @queue.task
        async def report(ctx: Context) -> str:
            with pytest.raises(InvalidOption, match="nodes"):
                ctx.children.add("text")  # type: ignore[arg-type]
            ctx.children.add(square.task.args("x"))  # type: ignore[arg-type]
            try:
                await ctx.children.wait()
            except InvalidArgument as error:
                return str(error)
            return ""

        assert "number" in await result_of(queue, await report.enqueue())

    async def test_a_known_id_fails_the_job(self, queue: Queue, square: Square) -> None:
        await square.task.using(job_id="known", delay=3600).enqueue(1)

        @queue.task
        async def report(ctx: Context) -> None:
            ctx.children.add(square.task.using(job_id="known").args(1))
            await ctx.children.wait()

        job = await report.enqueue()
        async with Worker(queue):
            error = await fails(job.result(timeout=30))
        assert "its child 'known' cannot be added" in error

    async def test_in_a_group_only_if_there_is_no_other_error(
        self, queue: Queue, square: Square
    ) -> None:
        others: list[Exception] = []

        @queue.task
        async def report(ctx: Context) -> list[int]:
            async def fail() -> None:
                if others:
                    raise others[0]

            ctx.children.add(square.task.args(2))
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.children.wait())
                group.create_task(fail())
            return await ctx.children.results(square.task)

        async with Worker(queue):
            assert await (await report.enqueue()).result(timeout=30) == [4]
            others.append(ValueError("also"))
            job = await report.enqueue()
            assert "ValueError: also" in await fails(job.result(timeout=30))


async def test_retry_after_before_waiting_adds_none(queue: Queue, square: Square) -> None:
    postponed = asyncio.Event()

    @queue.task
    async def report(ctx: Context) -> None:
        ctx.children.add(square.task.args(2))
        postponed.set()
        raise RetryAfter(3600)

    job = await report.enqueue()
    async with Worker(queue):
        await postponed.wait()
        await until_state(job, State.DELAYED)
    assert await job.children() == []


async def test_parking_is_not_a_failure(
    queue: Queue, square: Square, caplog: pytest.LogCaptureFixture
) -> None:
    @queue.task
    async def report(ctx: Context) -> None:
        ctx.children.add(square.task.args(2))
        await ctx.children.wait()

    caplog.set_level("DEBUG", logger="hasten.worker")
    async with Worker(queue) as worker:
        counters = worker.start_counting_runs()
        job = await report.enqueue()
        await job.result(timeout=30)
        outcomes = {
            each.outcome: each.count for each in counters.run_totals() if each.task == "report"
        }
    assert outcomes == {"parked": 1, "completed": 1}
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []
    assert any(": parked" in record.getMessage() for record in caplog.records)
    assert (await job.refresh()).error is None


async def test_middlewares_see_the_end_of_the_run(queue: Queue, square: Square) -> None:
    seen: list[str] = []

    @queue.task
    async def report(ctx: Context) -> list[int]:
        ctx.children.add(square.task.args(2))
        await ctx.children.wait()
        return await ctx.children.results(square.task)

    @queue.use
    async def watch(call: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        if not isinstance(call, RunCall) or call.task != "report":
            return await call_next(call)
        try:
            result = await call_next(call)
            seen.append("returned")
            return result
        except WaitForChildren:
            seen.append("parked")
            raise

    assert await result_of(queue, await report.enqueue()) == [4]
    assert seen == ["parked", "returned"]


async def test_a_stopping_worker(queue: Queue, square: Square) -> None:
    """A run that the worker has stopped is handed back. The next run adds the children."""
    is_waiting = asyncio.Event()

    @queue.task
    async def report(ctx: Context) -> list[int]:
        ctx.children.add(square.task.args(2))
        if not is_waiting.is_set():
            is_waiting.set()
            try:
                await asyncio.sleep(3600)
            finally:
                await ctx.children.wait()
        await ctx.children.wait()
        return await ctx.children.results(square.task)

    job = await report.enqueue()
    async with Worker(queue, grace=0):
        await is_waiting.wait()
    assert (await job.refresh()).state is State.WAITING
    assert await job.children() == []
    assert await result_of(queue, job) == [4]


async def test_cancelling_a_parked_job_with_its_children(queue: Queue, square: Square) -> None:
    @queue.task
    async def report(ctx: Context) -> None:
        ctx.children.add(square.task.using(delay=3600).many([1, 2]))
        await ctx.children.wait()

    job = await report.enqueue()
    async with Worker(queue):
        await until_state(job, State.WAITING_CHILDREN)
        assert await job.cancel(children=True)
    assert {each.state for each in (await job.tree()).walk()} == {State.FAILED}


class TestProcesses:
    @pytest.fixture
    async def tasks(self, tmp_path: Path) -> Any:
        """Queues of the module flow_tasks in a file, which the child process opens, too."""
        flow_tasks.use_file(tmp_path / "jobs.db")
        yield flow_tasks
        await flow_tasks.queue.aclose()

    async def test_coroutines_and_plain_functions(self, tasks: Any) -> None:
        for task in (tasks.report, tasks.plain_report):
            job: Job[Any] = await task.enqueue(3)
            assert await result_of(tasks.queue, job, handler_processes=1) == 5
            assert (await job.refresh()).record.attempts_started == 2

    async def test_returning_without_waiting(self, tasks: Any) -> None:
        job = await tasks.careless.enqueue()
        async with Worker(tasks.queue, handler_processes=1):
            assert "UnawaitedChildren" in await fails(job.result(timeout=60))


async def test_many_children_at_once(queue: Queue, square: Square) -> None:
    @queue.task
    async def report(ctx: Context) -> int:
        ctx.children.add(square.task.many(range(1_000)))
        await ctx.children.wait()
        return len(await ctx.children.results(square.task))

    job = await report.enqueue()
    assert await result_of(queue, job, concurrency=100) == 1_000
    await until(lambda: len(square.runs) == 1_000)


async def test_an_outage_while_waiting_uses_up_no_attempt(
    queue: Queue, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages = 1
    count_children = queue.engine.count_children

    async def fail_once(queue: str, id: str) -> ChildCounts:
        nonlocal outages
        if outages:
            outages -= 1
            raise StoreUnavailable("the store", "no answer")
        return await count_children(queue, id)

    @queue.task
    async def report(ctx: Context) -> list[int]:
        ctx.children.add(square.task.args(2))
        await ctx.children.wait()
        return await ctx.children.results(square.task)

    monkeypatch.setattr(queue.engine, "count_children", fail_once)
    job = await report.enqueue()
    async with Worker(queue):
        await until_state(job, State.DELAYED)
        await job.promote()
        assert await job.result(timeout=30) == [4]
    assert (await job.refresh()).attempts_made == 1


async def test_an_outage_while_a_built_in_job_runs(
    queue: Queue, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_children = queue.engine.count_children
    is_down = True

    async def fail_while_down(queue: str, id: str) -> ChildCounts:
        if is_down:
            raise StoreUnavailable("the store", "no answer")
        return await count_children(queue, id)

    batch = await queue.batch(on_ended=square.task.args(7))
    await batch.close()
    monkeypatch.setattr(queue.engine, "count_children", fail_while_down)
    job = await queue.get(batch.id)
    assert job is not None
    async with Worker(queue):
        await until_state(job, State.DELAYED)
        is_down = False
        await job.promote()
        await until(lambda: square.runs == [7])
