"""Flows: jobs that wait for other jobs, added by programs and run by workers."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hasten import Store
from hasten.errors import InvalidArgument, InvalidOption, JobFailed, UsageError
from hasten.jobs import (
    Carry,
    Context,
    EnqueueCall,
    Job,
    Queue,
    RunCall,
    State,
    Worker,
)
from hasten.jobs._flow import MAX_FLOW_JOBS
from tests.jobs.eventually import fails, result_of, until_state


class Tasks:
    """The tasks of these tests."""

    def __init__(self, queue: Queue) -> None:
        self.ran: list[str] = []
        self.queue = queue

        @queue.task
        async def square(number: int) -> int:
            self.ran.append(f"square {number}")
            return number * number

        @queue.task
        async def fail(text: str = "no") -> None:
            self.ran.append(f"fail {text}")
            raise ValueError(text)

        @queue.task
        async def total(ctx: Context, start: int = 0) -> int:
            self.ran.append("total")
            return start + sum(await ctx.children.results(square))

        @queue.task
        async def report(ctx: Context) -> list[Any]:
            self.ran.append("report")
            failed = [child.error for child in await ctx.children.failures()]
            return [await ctx.children.results(), failed]

        self.square, self.fail, self.total, self.report = square, fail, total, report


@pytest.fixture
def tasks(queue: Queue) -> Tasks:
    return Tasks(queue)


class TestEnqueue:
    async def test_a_parent_runs_after_its_children_with_their_results(self, tasks: Tasks) -> None:
        job = await tasks.total.args(100).after(tasks.square.many([1, 2, 3])).enqueue()
        assert job.state is State.WAITING_CHILDREN
        assert await result_of(tasks.queue, job) == 114
        assert tasks.ran == ["square 1", "square 2", "square 3", "total"]

    async def test_a_task_without_arguments_needs_no_args(self, tasks: Tasks) -> None:
        job = await tasks.total.after(tasks.square.many([2])).enqueue()
        assert await result_of(tasks.queue, job) == 4

    async def test_a_chain_runs_in_order(self, tasks: Tasks) -> None:
        first = tasks.square.args(1)
        second = tasks.square.args(2).after(first)
        job = await tasks.square.args(3).after(second).enqueue()
        assert await result_of(tasks.queue, job, concurrency=5) == 9
        assert tasks.ran == ["square 1", "square 2", "square 3"]

    async def test_trees_span_queues_of_a_store(self, tasks: Tasks, store: Store) -> None:
        other = Queue("other", store)

        @other.task
        async def outside(ctx: Context, number: int) -> int:
            return number + sum(await ctx.children.results(tasks.square))

        job = await tasks.total.after(
            [outside.args(10).after(tasks.square.args(3)), outside.args(1)]
        ).enqueue()
        async with Worker(tasks.queue, other):
            assert await job.result(timeout=30) == 20

    async def test_no_children_is_an_ordinary_job(self, tasks: Tasks) -> None:
        job = await tasks.total.after([]).enqueue()
        assert job.state is State.WAITING
        assert await result_of(tasks.queue, job) == 0

    async def test_sync(self, tasks: Tasks) -> None:
        flow = tasks.total.after(tasks.square.many([1, 2]))
        job = await asyncio.to_thread(flow.sync.enqueue)
        assert await result_of(tasks.queue, job) == 5
        twin = tasks.total.sync.after(tasks.square.sync.many([3]))
        assert await result_of(tasks.queue, await asyncio.to_thread(twin.enqueue)) == 9

    async def test_ids_have_a_common_part_and_a_number(self, tasks: Tasks) -> None:
        job = await tasks.total.after(tasks.square.many([1, 2])).enqueue()
        group, _, number = job.id.rpartition("-")
        assert (len(group), number) == (32, "0")
        assert [child.id for child in await job.children()] == [f"{group}-1", f"{group}-2"]
        assert {child.queue for child in await job.children()} == {"mail"}

    async def test_options_and_given_ids(self, tasks: Tasks) -> None:
        child = tasks.square.using(priority=3, job_id="mine").args(4)
        job = await tasks.total.using(delay=5).after(child).enqueue()
        found = await tasks.queue.get("mine")
        assert found is not None
        assert (found.priority, found.state) == (3, State.PRIORITIZED)
        assert found.parent is not None
        assert (found.parent.queue, found.parent.id) == ("mail", job.id)
        assert job.state is State.WAITING_CHILDREN
        assert job.parent is None

    async def test_each_enqueue_adds_new_jobs(self, tasks: Tasks) -> None:
        flow = tasks.total.after(tasks.square.many([1]))
        assert await flow.enqueue() != await flow.enqueue()

    async def test_a_flow_is_not_changed_by_its_methods(self, tasks: Tasks) -> None:
        flow = tasks.total.after(tasks.square.args(1))
        more = flow.after(tasks.square.args(2), on_failure="ignore").on_ended(tasks.square.args(3))
        assert (len(flow.children), len(more.children)) == (1, 2)
        assert (len(flow.hooks), len(more.hooks)) == (0, 1)


class TestPolicies:
    async def test_fail_is_the_default(self, tasks: Tasks) -> None:
        job = await tasks.total.after([tasks.fail.args(), *tasks.square.many([1])]).enqueue()
        async with Worker(tasks.queue):
            error = await fails(job.result(timeout=30))
        assert error.startswith("child ")
        assert "total" not in tasks.ran

    async def test_ignore(self, tasks: Tasks) -> None:
        children = [tasks.fail.args("broken"), *tasks.square.many([2])]
        job = await tasks.report.after(children, on_failure="ignore").enqueue()
        assert await result_of(tasks.queue, job) == [[4], ["ValueError: broken"]]

    async def test_remove(self, tasks: Tasks) -> None:
        children = [tasks.fail.args("broken"), *tasks.square.many([2])]
        job = await tasks.report.after(children, on_failure="remove").enqueue()
        assert await result_of(tasks.queue, job) == [[4], []]

    async def test_continue_runs_the_parent_at_once(self, tasks: Tasks) -> None:
        late = tasks.square.using(delay=3600).args(1)
        job = await tasks.report.after(
            [tasks.fail.args("early"), late], on_failure="continue"
        ).enqueue()
        assert await result_of(tasks.queue, job) == [[], ["ValueError: early"]]

    async def test_wait_continues_when_the_child_succeeds(self, tasks: Tasks) -> None:
        broken = True

        @tasks.queue.task
        async def repair() -> str:
            if broken:
                raise ValueError("broken")
            return "fine"

        job = await tasks.report.after(
            repair.using(job_id="child").args(), on_failure="wait"
        ).enqueue()
        child = await tasks.queue.get("child")
        assert child is not None
        async with Worker(tasks.queue):
            await until_state(child, State.FAILED)
            assert (await job.refresh()).state is State.WAITING_CHILDREN
            assert "has failed" in str(await job.why())
            broken = False
            await child.retry()
            assert await job.result(timeout=30) == [["fine"], []]

    async def test_groups_have_policies_of_their_own(self, tasks: Tasks) -> None:
        flow = tasks.report.after(tasks.square.many([1])).after(
            tasks.fail.args("ok"), on_failure="ignore"
        )
        assert await result_of(tasks.queue, await flow.enqueue()) == [[1], ["ValueError: ok"]]


class TestRefusals:
    """Nothing is added if a flow is refused."""

    @pytest.fixture(autouse=True)
    async def _nothing_is_added(self, tasks: Tasks) -> Any:
        yield
        assert not any((await tasks.queue.counts()).values())

    async def test_arguments_are_checked(self, tasks: Tasks) -> None:
        flow = tasks.total.after([tasks.square.args("x")])  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="number"):
            await flow.enqueue()

    def test_what_is_no_node(self, tasks: Tasks) -> None:
        for wrong in ("text", 7, [tasks.square.args(1), None]):
            with pytest.raises(InvalidOption, match=r"children=<.*>: must be jobs as task.args"):
                tasks.total.after(wrong)  # type: ignore[arg-type]

    def test_an_unknown_policy(self, tasks: Tasks) -> None:
        with pytest.raises(InvalidOption, match="on_failure='retry': must be one of 'fail', "):
            tasks.total.after([], on_failure="retry")  # type: ignore[arg-type]

    async def test_a_node_used_twice(self, tasks: Tasks) -> None:
        node = tasks.square.args(1)
        flow = tasks.total.after([node, tasks.square.args(2).after(node)])
        with pytest.raises(InvalidOption, match="used once in a flow"):
            await flow.enqueue()

    async def test_too_many_jobs(self, tasks: Tasks) -> None:
        with pytest.raises(InvalidOption, match="at most 10,000 items"):
            tasks.square.many(range(10**9))
        flow = tasks.total.after(tasks.square.many(range(MAX_FLOW_JOBS)))
        with pytest.raises(InvalidOption, match="at most 10,000 jobs in one flow"):
            await flow.enqueue()

    async def test_queues_of_other_stores(self, tasks: Tasks) -> None:
        other = Queue("other", "memory://")

        @other.task
        async def outside() -> None: ...

        with pytest.raises(InvalidOption, match=r"'mail' and 'other'.*must be jobs of one store"):
            await tasks.total.after(outside.args()).enqueue()

    async def test_jobs_with_a_deduplication_key(self, tasks: Tasks) -> None:
        @tasks.queue.task(unique="number")
        async def once(number: int) -> None: ...

        expected = r"unique='number': cannot be combined with a flow: .*once\.using\(unique=None\)"
        with pytest.raises(InvalidOption, match=expected):
            await tasks.total.after(once.args(1)).enqueue()
        with pytest.raises(InvalidOption, match=expected):
            await once.args(1).after(tasks.square.args(1)).enqueue()
        with pytest.raises(InvalidOption, match="latest='a': cannot be combined with a flow"):
            await tasks.total.after(tasks.square.using(latest="a").args(1)).enqueue()
        job = await tasks.total.after(once.using(unique=None).args(1)).enqueue()
        assert job.state is State.WAITING_CHILDREN
        await job.remove()

    async def test_hooks_of_a_child(self, tasks: Tasks) -> None:
        child = tasks.total.after([]).on_ended(tasks.square.args(1))
        with pytest.raises(InvalidOption, match="only the outermost flow may have them"):
            await tasks.total.after(child).enqueue()

    def test_a_hook_with_children(self, tasks: Tasks) -> None:
        flow = tasks.total.after([])
        with pytest.raises(InvalidOption, match="one job without children"):
            flow.on_ended(flow)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="called once for each flow"):
            flow.on_ended(tasks.square.args(1)).on_ended(tasks.square.args(2))


async def test_a_known_id_is_refused(tasks: Tasks) -> None:
    await tasks.square.using(job_id="known").enqueue(1)
    flow = tasks.total.after([tasks.square.args(3), tasks.square.using(job_id="known").args(2)])
    with pytest.raises(InvalidOption, match="job_id='known'"):
        await flow.enqueue()
    assert (await tasks.queue.counts())[State.WAITING] == 1


class TestMiddlewares:
    async def test_see_each_job_and_may_change_it(self, tasks: Tasks, store: Store) -> None:
        calls: list[tuple[str, str]] = []
        tenant = contextvars.ContextVar[str]("tenant")
        tasks.queue.use(Carry(tenant))
        other = Queue("other", store)

        @other.task
        async def outside() -> None: ...

        @other.use
        async def prioritize(
            call: EnqueueCall | RunCall, call_next: Callable[[Any], Awaitable[Any]]
        ) -> Any:
            if isinstance(call, EnqueueCall):
                calls.append((call.queue, call.task))
                call.options["priority"] = 4
            return await call_next(call)

        tenant.set("acme")
        job = await tasks.total.after([*tasks.square.many([1]), outside.args()]).enqueue()
        first, second = await job.children()
        child = await tasks.queue.get(first.id)
        assert child is not None
        assert (child.metadata, job.metadata) == ({"tenant": "acme"}, {"tenant": "acme"})
        found = await other.get(second.id)
        assert found is not None
        assert (found.priority, found.metadata, calls) == (4, {}, [("other", "outside")])

    async def test_cannot_skip_a_job(self, tasks: Tasks) -> None:
        present = await tasks.square.enqueue(1)

        @tasks.queue.use
        async def skip(
            call: EnqueueCall | RunCall, call_next: Callable[[Any], Awaitable[Any]]
        ) -> Any:
            return present if call.task == "square" else await call_next(call)

        with pytest.raises(UsageError, match="did not call call_next"):
            await tasks.total.after(tasks.square.many([1])).enqueue()
        assert (await tasks.queue.counts())[State.WAITING_CHILDREN] == 0


class TestReading:
    async def test_tree(self, tasks: Tasks) -> None:
        flow = tasks.report.after(
            [tasks.total.args().after(tasks.square.many([1, 2])), tasks.fail.args("bad")],
            on_failure="ignore",
        )
        job = await flow.enqueue()
        await result_of(tasks.queue, job)
        tree = await job.tree()
        assert not tree.is_cut
        group = job.id[:-2]
        assert str(tree).splitlines() == [
            f"report {group}-0 completed",
            f"  total {group}-1 completed",
            f"    square {group}-2 completed",
            f"    square {group}-3 completed",
            f"  fail {group}-4 failed: ValueError: bad",
        ]
        assert [each.outcome for each in tree.walk()] == [
            None, "completed", "completed", "completed", "ignored",
        ]  # fmt: skip

    async def test_a_tree_says_where_it_was_cut(self, tasks: Tasks) -> None:
        inner = [tasks.total.args(n).after(tasks.square.many(range(3))) for n in range(3)]
        job = await tasks.total.after(inner).enqueue()
        shallow = await job.tree(max_depth=1)
        assert [child.hidden for child in shallow.children] == [3, 3, 3]
        small = await job.tree(max_jobs=5)
        assert len(small.walk()) == 5
        assert small.is_cut
        assert sum(each.hidden for each in small.walk()) == 8
        assert (await job.tree(max_jobs=1)).hidden == 3
        assert (await job.tree(max_depth=0)).hidden == 3
        assert len((await job.tree()).walk()) == 13

    async def test_pages_of_children(self, tasks: Tasks) -> None:
        job = await tasks.total.after(tasks.square.many(range(5))).enqueue()
        await result_of(tasks.queue, job)
        page = await job.children(offset=1, limit=2)
        assert [(child.value, child.outcome, child.state) for child in page] == [
            (1, "completed", State.COMPLETED), (4, "completed", State.COMPLETED),
        ]  # fmt: skip
        progress = await job.child_progress()
        assert (progress.completed, progress.total) == (5, 5)


class TestCancel:
    async def test_cancels_all_jobs_below(self, tasks: Tasks) -> None:
        inner = tasks.total.args().after(tasks.square.many([1, 2]))
        job = await tasks.report.after([inner, tasks.square.args(3)]).enqueue()
        assert await job.cancel(children=True)
        assert [each.state for each in (await job.tree()).walk()] == [State.FAILED] * 5

    async def test_without_children_these_still_run(self, tasks: Tasks) -> None:
        job = await tasks.report.after(tasks.square.many([1])).enqueue()
        assert await job.cancel()
        async with Worker(tasks.queue):
            assert (await job.children_ended(timeout=30)).completed == 1


class TestMoments:
    async def test_children_ended(self, tasks: Tasks, elsewhere: Queue) -> None:
        children = [tasks.fail.args("a"), *tasks.square.many([1, 2])]
        job = await tasks.report.after(children, on_failure="ignore").enqueue()
        seen = await elsewhere.get(job.id)
        assert seen is not None
        waiting = asyncio.create_task(seen.children_ended(timeout=30))
        async with Worker(tasks.queue):
            progress = await waiting
        assert (progress.pending, progress.completed, progress.failed) == (0, 2, 1)

    async def test_first_child_failure(self, tasks: Tasks) -> None:
        late = tasks.square.using(delay=3600).args(1)
        job = await tasks.report.after([late, tasks.fail.args("a")], on_failure="ignore").enqueue()
        waiting = asyncio.create_task(job.first_child_failure(timeout=30))
        async with Worker(tasks.queue):
            child = await waiting
        assert child is not None
        assert (child.error, child.outcome) == ("ValueError: a", "ignored")

    async def test_no_failure(self, tasks: Tasks) -> None:
        job = await tasks.report.after(tasks.square.many([1, 2])).enqueue()
        async with Worker(tasks.queue):
            assert await job.first_child_failure(timeout=30) is None
            assert (await job.children_succeeded(timeout=30)).completed == 2

    async def test_success_raises_the_failure(self, tasks: Tasks) -> None:
        job = await tasks.report.after([tasks.fail.args("a")], on_failure="wait").enqueue()
        async with Worker(tasks.queue):
            with pytest.raises(JobFailed, match="ValueError: a"):
                await job.children_succeeded(timeout=30)

    async def test_children_in_other_queues(self, tasks: Tasks, store: Store) -> None:
        other = Queue("other", store)

        @other.task
        async def outside() -> None: ...

        job = await tasks.report.after(outside.args()).enqueue()
        waiting = asyncio.create_task(job.children_ended(timeout=30))
        async with Worker(other):
            assert (await waiting).completed == 1

    async def test_time_out_and_missing_job(self, tasks: Tasks) -> None:
        job: Job[Any] = await tasks.report.after(tasks.square.many([1])).enqueue()
        with pytest.raises(TimeoutError, match=r"has not finished within 0\.05 s"):
            await job.children_ended(timeout=0.05)
        await job.remove()
        with pytest.raises(LookupError):
            await job.children_ended(timeout=5)
