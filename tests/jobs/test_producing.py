"""Adding jobs: by tasks and by name, one or many, with and without an event loop."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from hasten import Store
from hasten.errors import (
    AddedInPart,
    InvalidArgument,
    InvalidOption,
    InvalidTask,
    JobFailed,
    PayloadTooLarge,
    StoreError,
    StoreFull,
    StoreRejected,
    UsageError,
)
from hasten.jobs import Job, Queue, State, Worker
from hasten.jobs._options import Options
from hasten.jobs._record import AddResult, NewJob
from hasten.testing import ManualClock
from tests.jobs.eventually import result_of
from tests.patience import DEADLINE_SECONDS


async def send(address: str, subject: str = "Hello") -> str:
    return f"{subject}, {address}"


async def waiting(queue: Queue) -> list[Any]:
    """Return the data of all waiting jobs."""
    return [job.data for job in await queue.jobs(State.WAITING, limit=1000)]


class TestEnqueue:
    async def test_stores_the_arguments_by_parameter_name(self, queue: Queue) -> None:
        """Producers in other languages can write them. Default values stay in the code."""
        task = queue.task(send)
        await task.enqueue("ada@example.org")
        await task.enqueue("bob@example.org", "Hi")
        await task.enqueue(subject="Hey", address="eve@example.org")
        assert await waiting(queue) == [
            {"address": "ada@example.org"},
            {"address": "bob@example.org", "subject": "Hi"},
            {"subject": "Hey", "address": "eve@example.org"},
        ]

    async def test_returns_the_job_as_it_was_stored(self, queue: Queue, clock: ManualClock) -> None:
        job = await queue.task(send).using(priority=3).enqueue("ada@example.org")
        assert (job.name, job.state, job.priority) == ("send", "prioritized", 3)
        assert job.data == {"address": "ada@example.org"}
        assert (job.created_at, job.started_at, job.finished_at) == (clock.now(), None, None)
        assert (job.value, job.error, job.progress) == (None, None, None)
        assert repr(job) == f"<Job {job.id} send of mail, prioritized>"
        told = job.record
        assert (await job.refresh()).record == told

    @pytest.mark.parametrize(
        ("args", "kwargs", "complaint"),
        [
            ((), {}, "missing a required argument: 'address'"),
            (("a", "b", "c"), {}, "too many positional arguments"),
            (("a",), {"topic": "x"}, "got an unexpected keyword argument 'topic'"),
            (("a",), {"address": "b"}, "multiple values for argument 'address'"),
        ],
    )
    async def test_refuses_arguments_that_do_not_fit(
        self, queue: Queue, args: Any, kwargs: Any, complaint: str
    ) -> None:
        """The error is raised at the call and names the task."""
        with pytest.raises(InvalidArgument, match=f"^send: .*{complaint}"):
            await queue.task(send).enqueue(*args, **kwargs)
        assert await waiting(queue) == []

    async def test_a_task_is_still_the_function_that_it_was(self, queue: Queue) -> None:
        """Tests can call it without a worker."""
        task = queue.task(send)
        assert await task("Ada", subject="Hi") == "Hi, Ada"
        assert (task.name, repr(task)) == ("send", "<Task send of mail>")
        assert inspect.unwrap(task) is send


BAD: dict[str, tuple[object, str]] = {
    "object": (object(), "objects of type object have no JSON form"),
    "function": (len, "have no JSON form"),
    "NaN": (float("nan"), "'second' is nan, which JSON cannot store"),
    "infinity": ([{"a": float("-inf")}], "'second[0].a' is -inf, which JSON cannot store"),
    "lone surrogate": ("\ud800", "surrogates not allowed"),
    "keys that are no text": ({(1, 2): 3}, ""),
    "circle": (circle := [], ""),  # type: ignore[var-annotated]
}
circle.append(circle)


class TestArgumentsThatCannotBeStored:
    @pytest.mark.parametrize("kind", BAD)
    async def test_are_refused_by_name_and_nothing_is_stored(self, queue: Queue, kind: str) -> None:
        value, why = BAD[kind]

        @queue.task
        async def keep(first: Any, second: Any) -> None: ...

        with pytest.raises(InvalidArgument, match=r"^keep: argument 'second") as caught:
            await keep.enqueue(1, value)
        assert (caught.value.task, caught.value.argument) == ("keep", "second")
        assert why in str(caught.value)
        with pytest.raises(InvalidArgument, match="argument 'second"):
            await keep.enqueue_many(
                [keep.args(first=1, second=2), keep.args(first=1, second=value)]
            )
        with pytest.raises(InvalidArgument, match=r"^keep: argument 'data"):
            await queue.add("keep", {"first": 1, "second": value})
        assert await waiting(queue) == []

    async def test_too_large_ones_name_the_largest(self, clock: ManualClock) -> None:
        """The largest argument is probably the one that should be a reference."""
        queue = Queue("small", Store("memory://", clock=clock), max_size=1000)

        @queue.task
        async def keep(first: str, second: str) -> None: ...

        with pytest.raises(PayloadTooLarge, match=r"1,225 bytes .*maximum is 1,000") as caught:
            await keep.enqueue("x" * 600, "y" * 601)
        assert caught.value.argument == "second"
        with pytest.raises(PayloadTooLarge, match="argument 'data' makes the job too large"):
            await queue.add("keep", {"first": "x" * 1000})
        assert await waiting(queue) == []
        await keep.enqueue("x" * 600, "y" * 300)
        assert len(await waiting(queue)) == 1
        await queue.aclose()

    async def test_one_bad_job_does_not_spoil_its_neighbours(self, queue: Queue) -> None:
        """Concurrent calls share a transaction, but not their errors."""
        task = queue.task(send)
        bad: Any = object()
        answers = await asyncio.gather(
            task.enqueue("a"), task.enqueue(bad), task.enqueue("b"), return_exceptions=True
        )
        assert isinstance(answers[1], InvalidArgument)
        assert [data["address"] for data in await waiting(queue)] == ["a", "b"]


class TestMany:
    async def test_takes_keywords(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        """The jobs keep their order and are added in one transaction."""
        task = queue.task(send)
        sizes = count_adds(queue, monkeypatch)
        jobs = await task.enqueue_many(task.args(address=str(n)) for n in range(300))
        assert sizes == [300]
        assert [job.id for job in jobs] == [
            job.id for job in await queue.jobs("waiting", limit=999)
        ]
        assert [data["address"] for data in await waiting(queue)] == [str(n) for n in range(300)]

    async def test_enqueue_many_refuses_all_if_one_does_not_fit(self, queue: Queue) -> None:
        task: Any = queue.task(send)
        with pytest.raises(InvalidArgument, match="send: missing a required argument: 'address'"):
            task.args()
        with pytest.raises(InvalidArgument, match="send: got an unexpected keyword argument 'to'"):
            task.args("a", to="a")
        with pytest.raises(InvalidArgument, match="send: argument 'address' does not fit"):
            await task.enqueue_many([task.args("a"), task.args(1)])
        with pytest.raises(InvalidOption, match=r"calls=<dict>: .* created with send\.args\(…\)"):
            await task.enqueue_many([task.args("a"), {"address": "b"}])
        assert await waiting(queue) == []

    async def test_arguments_are_bound_like_those_of_a_call(self, queue: Queue) -> None:
        @queue.task
        async def keep(first: int, /, second: int = 2, *, third: int = 3) -> None: ...

        assert repr(keep.args(1, third=4)) == "Arguments(first=1, third=4)"
        await keep.enqueue_many([keep.args(1), keep.args(1, 5), *map(keep.args, range(2))])
        assert await waiting(queue) == [
            {"first": 1}, {"first": 1, "second": 5}, {"first": 0}, {"first": 1},
        ]  # fmt: skip

    async def test_of_nothing_is_nothing(self, queue: Queue) -> None:
        assert await queue.task(send).enqueue_many([]) == []
        assert await queue.add_many([]) == []

    async def test_add_many_takes_names_data_and_options(self, queue: Queue) -> None:
        jobs = await queue.add_many(
            [
                ("resize", {"width": 3}),
                ("resize", {"width": 4}, {"priority": 1}),
                ("send", None, {"delay": 60}),
            ]
        )
        assert [job.state for job in jobs] == ["waiting", "prioritized", "delayed"]
        assert [job.data for job in jobs] == [{"width": 3}, {"width": 4}, {}]

    @pytest.mark.parametrize("spec", ["send", ("send",), ("send", {}, 3), (1, {})])
    async def test_add_many_refuses_what_is_no_job(self, queue: Queue, spec: Any) -> None:
        with pytest.raises(InvalidOption, match=r"\(name, data\) or \(name, data, options\)"):
            await queue.add_many([("send", {}), spec])
        assert await waiting(queue) == []

    async def test_calls_share_commits(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two hundred concurrent calls flush the disk once."""
        task = queue.task(send)
        await task.enqueue("first")
        sizes = count_adds(queue, monkeypatch)
        jobs = await asyncio.gather(*(task.enqueue(str(n)) for n in range(200)))
        assert sizes == [200]
        assert len({job.id for job in jobs}) == 200
        assert [data["address"] for data in await waiting(queue)][1:] == [
            str(n) for n in range(200)
        ]


class TestLargeCalls:
    """Each transaction adds a limited number of jobs, however many a call has."""

    async def add_single(self, queue: Queue, jobs: Sequence[Any]) -> list[Job[Any]]:
        return await asyncio.gather(*(queue.add(*job[:2], **dict(*job[2:])) for job in jobs))

    async def add_many(self, queue: Queue, jobs: Sequence[Any]) -> list[Job[Any]]:
        return await queue.add_many(jobs)

    async def add(self, how: str, queue: Queue, jobs: Sequence[Any]) -> list[Job[Any]]:
        return await getattr(self, how)(queue, jobs)  # type: ignore[no-any-return]

    @pytest.mark.parametrize("how", ["add_single", "add_many"])
    @pytest.mark.parametrize(("count", "sizes"), [(1000, [1000]), (2500, [1000, 1000, 500])])
    async def test_go_in_portions_and_in_order(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch, how: str, count: int, sizes: list[int]
    ) -> None:
        counted = count_adds(queue, monkeypatch)
        jobs = await self.add(how, queue, [("send", {"n": n}) for n in range(count)])
        assert counted == sizes
        stored = await queue.jobs(State.WAITING, limit=count + 1)
        assert [job.data["n"] for job in stored] == list(range(count))
        assert [job.id for job in jobs] == [job.id for job in stored]

    @pytest.mark.parametrize("how", ["add_single", "add_many"])
    @pytest.mark.parametrize(
        ("data", "options", "sizes"),
        [
            ({}, {"delay": 60}, [500, 500, 100]),
            ({}, {"priority": 7}, [500, 500, 100]),
            ("x" * 1990, {}, [1000, 100]),
            ("x" * 19_990, {}, [100] * 11),
            ("ж" * 9_990, {}, [100] * 11),
        ],
    )
    async def test_go_in_smaller_portions_where_a_job_costs_more(
        self,
        queue: Queue,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
        data: Any,
        options: dict[str, Any],
        sizes: list[int],
    ) -> None:
        counted = count_adds(queue, monkeypatch)
        await self.add(how, queue, [("send", data, options)] * 1100)
        assert counted == sizes

    @pytest.mark.parametrize("how", ["add_single", "add_many"])
    async def test_take_a_job_that_is_larger_than_a_portion(
        self, monkeypatch: pytest.MonkeyPatch, url: str, how: str
    ) -> None:
        queue = Queue("mail", url, max_size=8_000_000)
        sizes = count_adds(queue, monkeypatch)
        large = ("send", "x" * 4_000_000)
        await self.add(how, queue, [("send", 1), large, large, ("send", 2)])
        assert sizes == [1, 1, 1, 1]
        await queue.aclose()

    async def test_single_ones_that_come_meanwhile_come_behind(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are added after the earlier ones, in as few transactions as possible."""
        sizes = count_adds(queue, monkeypatch)
        early = [asyncio.ensure_future(queue.add("send", n)) for n in range(1500)]
        while not sizes:
            await asyncio.sleep(0)
        late = [asyncio.ensure_future(queue.add("send", n)) for n in range(1500, 1510)]
        await asyncio.sleep(0)
        late += [asyncio.ensure_future(queue.add("send", n)) for n in range(1510, 1520)]
        await asyncio.gather(*early, *late)
        assert sizes == [1000, 500, 20]
        stored = await queue.jobs(State.WAITING, limit=9999)
        assert [job.data for job in stored] == list(range(1520))

    async def test_leave_no_more_events_than_are_kept(self, queue: Queue) -> None:
        """Even without a worker. Each job adds two events."""
        await queue.add_many([("send", None)] * 9_000)
        read = partial(queue.engine.events, queue.name, wait=False)
        left, page = 0, await read(after="0-0")
        while page.events:
            left, page = left + len(page.events), await read(after=page.cursor)
        assert 10_000 <= left <= 13_000

    async def test_of_many_say_what_was_stored_when_the_store_fails(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The caller can add the rest."""
        specs = [("send", {"n": n}) for n in range(2500)]
        fail_adds(queue, monkeypatch, after=2, error=StoreFull(queue.engine.url, "no space left"))
        with pytest.raises(AddedInPart, match=r"first 2,000 of 2,500 jobs .*: no space") as caught:
            await queue.add_many(specs)
        assert isinstance(caught.value.__cause__, StoreFull)
        monkeypatch.undo()
        stored = await queue.jobs(State.WAITING, limit=9999)
        assert caught.value.ids == [job.id for job in stored]
        await queue.add_many(specs[len(caught.value.ids) :])
        stored = await queue.jobs(State.WAITING, limit=9999)
        assert [job.data["n"] for job in stored] == list(range(2500))

    async def test_of_many_that_store_nothing_say_why(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fail_adds(queue, monkeypatch, after=0, error=StoreFull(queue.engine.url, "no space left"))
        with pytest.raises(StoreFull):
            await queue.add_many([("send", {})] * 2500)

    async def test_of_many_are_checked_before_the_first_is_stored(self, queue: Queue) -> None:
        with pytest.raises(InvalidArgument):
            await queue.add_many([*([("send", {})] * 2500), ("send", object())])
        assert await waiting(queue) == []

    async def test_of_single_ones_fail_together_when_the_store_fails(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They do not wait for one time-out after another."""
        fail_adds(queue, monkeypatch, after=1, error=StoreFull(queue.engine.url, "no space left"))
        calls = [queue.add("send", n) for n in range(3500)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, Job) for answer in answers[:1000])
        assert all(isinstance(answer, StoreFull) for answer in answers[1000:])
        monkeypatch.undo()
        assert len(await waiting(queue)) == 1000
        await queue.add("send", "afterwards")

    async def test_of_single_ones_lose_one_that_the_store_refuses(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other jobs are added."""
        add = queue.engine.add

        async def picky(jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
            if any(job.data == "1200" for job in jobs):
                raise StoreRejected(queue.engine.url, "not this one")
            return await add(jobs, now_ms=now_ms)

        monkeypatch.setattr(queue.engine, "add", picky)
        calls = [queue.add("send", n) for n in range(1000, 3200)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [n for n, answer in enumerate(answers, 1000) if not isinstance(answer, Job)] == [
            1200
        ]
        stored = await queue.jobs(State.WAITING, limit=9999)
        assert [job.data for job in stored] == [*range(1000, 1200), *range(1201, 3200)]

    async def test_of_single_ones_end_with_the_tasks_that_are_cancelled(self, queue: Queue) -> None:
        """No caller waits for ever after all tasks were cancelled."""
        jobs = [asyncio.ensure_future(queue.add("send", n)) for n in range(1500)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        jobs.append(asyncio.ensure_future(queue.add("send", "late")))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()} - set(jobs):
            task.cancel()
        async with asyncio.timeout(DEADLINE_SECONDS):
            answers = await asyncio.gather(*jobs, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[1000:])
        assert (await queue.add("send", "afterwards")).id


def fail_adds(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, *, after: int, error: StoreError
) -> None:
    """Let the store fail after this number of calls."""
    add, calls = queue.engine.add, itertools.count()

    async def failing(jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        if next(calls) >= after:
            raise error
        return await add(jobs, now_ms=now_ms)

    monkeypatch.setattr(queue.engine, "add", failing)


def count_adds(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of the number of jobs of each later call of the engine."""
    add, sizes = queue.engine.add, []

    async def counted(jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        sizes.append(len(jobs))
        return await add(jobs, now_ms=now_ms)

    monkeypatch.setattr(queue.engine, "add", counted)
    return sizes


class TestJobId:
    async def test_adding_it_again_gives_the_existing_job(self, queue: Queue) -> None:
        """So a request that is sent twice adds one job."""
        task = queue.task(send)
        first = await task.using(job_id="order-7").enqueue("a")
        again = await task.using(job_id="order-7").enqueue("b")
        assert first.id == again.id == "order-7"
        assert await waiting(queue) == [{"address": "a"}]

    async def test_an_existing_job_has_stored_data(self, queue: Queue, clock: ManualClock) -> None:
        """All methods that add jobs return it as a duplicate."""
        once = queue.task(send).using(job_id="a", priority=3)
        added = await once.enqueue("first")
        assert not added.is_duplicate
        clock.advance(60)
        other = once.using(priority=5, delay=7)
        found = [
            await other.enqueue("second"),
            *await other.enqueue_many([other.args(address="second"), other.args(address="third")]),
            await queue.add("other", {"n": 1}, job_id="a"),
            *await queue.add_many([("other", {}, {"job_id": "a"}), ("other", {}, {"job_id": "a"})]),
            await asyncio.to_thread(other.sync.enqueue, "second"),
            *await asyncio.to_thread(other.sync.enqueue_many, [other.args("second")]),
            await asyncio.to_thread(lambda: queue.sync.add("other", job_id="a")),
        ]
        assert [job.is_duplicate for job in found] == [True] * 9
        assert [job.record for job in found] == [added.record] * 9
        assert (found[0].data, found[0].state) == ({"address": "first"}, State.PRIORITIZED)

    async def test_a_job_that_was_there_shows_how_it_stands(self, queue: Queue) -> None:
        task = queue.task(send)
        await result_of(queue, await task.using(job_id="a").enqueue("first"))
        again = await task.using(job_id="a").enqueue("second")
        assert (again.state, again.value) == (State.COMPLETED, "Hello, first")

    async def test_of_two_concurrent_calls_the_second_is_the_duplicate(self, queue: Queue) -> None:
        """Other jobs of the same transaction are no duplicates."""
        task = queue.task(send)
        jobs = await asyncio.gather(
            task.enqueue("x"),
            task.using(job_id="a").enqueue("first"),
            task.using(job_id="a").enqueue("second"),
            task.enqueue("y"),
        )
        assert [job.is_duplicate for job in jobs] == [False, False, True, False]
        addresses = [job.data["address"] for job in jobs]
        assert addresses == ["x", "first", "first", "y"]

    async def test_an_existing_job_of_another_task_has_its_own_result(self, queue: Queue) -> None:
        @queue.task
        async def first() -> timedelta:
            return timedelta(seconds=1)

        @queue.task
        async def second() -> str:
            return "second"

        await first.using(job_id="a").enqueue()
        job = await second.using(job_id="a").enqueue()
        assert await result_of(queue, job) == timedelta(seconds=1)

    async def test_no_job_that_was_read_is_a_duplicate(self, queue: Queue) -> None:
        await queue.add("send", job_id="a")
        job = await queue.get("a")
        assert job is not None
        assert not job.is_duplicate
        assert not (await queue.jobs("waiting"))[0].is_duplicate

    async def test_needs_one_call_only(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        """The existing job could be deleted before a second call reads it."""
        monkeypatch.setattr(queue.engine, "get", None)
        await queue.add("send", 1, job_id="a")
        assert (await queue.add("send", 2, job_id="a")).data == 1

    async def test_it_is_the_id_of_one_queue(self, queue: Queue) -> None:
        other = Queue("other", queue.store)
        await queue.add("send", job_id="a")
        await other.add("send", job_id="a")
        assert len(await queue.jobs("waiting")) == len(await other.jobs("waiting")) == 1

    async def test_a_finished_job_still_counts(self, queue: Queue) -> None:
        """As long as it is kept."""
        task = queue.task(send)
        job = await task.using(job_id="once").enqueue("a")
        async with Worker(queue):
            assert await job.result(timeout=30) == "Hello, a"
            again = await task.using(job_id="once").enqueue("b")
            assert await again.result(timeout=30) == "Hello, a"

    async def test_concurrent_calls_make_one_job(self, queue: Queue) -> None:
        once = queue.task(send).using(job_id="once")
        jobs = await asyncio.gather(*(once.enqueue(str(n)) for n in range(20)))
        assert {job.id for job in jobs} == {"once"}
        assert await waiting(queue) == [{"address": "0"}]


class TestSync:
    def test_works_without_an_event_loop(self, clock: ManualClock) -> None:
        """As in Flask, a script or a shell."""
        queue = Queue("mail", Store("memory://", clock=clock))
        task = queue.task(send)
        job = task.sync.enqueue("a")
        many = task.sync.enqueue_many([task.args(address="b"), task.args(address="c")])
        later = task.sync.using(delay=60).enqueue("d")
        added = queue.sync.add("send", {"address": "e"}, priority=1)
        more = queue.sync.add_many([("send", {"address": "f"})])
        assert job.sync.refresh().data == {"address": "a"}
        found = queue.sync.get(later.id)
        assert found is not None
        assert found.state == "delayed"
        assert queue.sync.counts()[State.WAITING] == 4
        later.sync.promote()
        queue.sync.pause()
        assert queue.sync.is_paused()
        queue.sync.resume()
        assert queue.sync.cancel(added.id)
        queue.sync.retry(added.id)
        assert job.sync.cancel()
        job.sync.retry()
        assert job.sync.remove()
        assert queue.sync.remove(more[0].id)
        assert many[0].sync.logs() == []
        assert [one.data["address"] for one in queue.sync.jobs("waiting")] == ["b", "c", "d"]
        assert queue.sync.drain() == 4
        assert queue.sync.clean("failed", older_than=0) == []
        queue.sync.obliterate()
        asyncio.run(queue.store.aclose())

    async def test_works_inside_a_running_loop_and_warns(self, queue: Queue) -> None:
        """A plain function that is called from an `async def` blocks its event loop."""
        with pytest.warns(RuntimeWarning, match=r"use 'await task\.enqueue\(") as caught:
            job = queue.task(send).sync.enqueue("a")
        assert [warning.filename for warning in caught] == [__file__]
        assert (await job.refresh()).data == {"address": "a"}
        with pytest.warns(RuntimeWarning, match=r"use 'await queue\.counts\("):
            assert queue.sync.counts()[State.WAITING] == 1
        with pytest.warns(RuntimeWarning, match=r"use 'await job\.cancel\("):
            assert job.sync.cancel()

    async def test_warns_once_for_each_place_in_the_code(self, queue: Queue) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(3):
                queue.sync.counts()
            queue.sync.counts()
        assert len(caught) == 2

    async def test_does_nothing_where_the_warning_is_an_error(self, queue: Queue) -> None:
        with pytest.raises(RuntimeWarning, match="blocks the running event loop"):
            queue.sync.add("send")
        assert (await queue.counts())[State.WAITING] == 0

    async def test_never_waits_inside_a_running_loop(self, queue: Queue) -> None:
        """The result may depend on that event loop, which the wait would block."""
        job = await queue.task(send).enqueue("a")
        with pytest.raises(UsageError, match=r"use 'await job\.result\("):
            job.sync.result()
        with pytest.raises(UsageError, match=r"use 'await queue\.aclose\("):
            queue.sync.close()

    async def test_never_waits_in_an_async_handler_but_in_a_thread(self, queue: Queue) -> None:
        greet = queue.task(send)

        @queue.task
        async def in_loop() -> str:
            return (await greet.enqueue("loop")).sync.result()

        @queue.task
        def in_thread() -> str:
            return greet.sync.enqueue("thread").sync.result(timedelta(seconds=10))

        async with Worker(queue):
            job = await in_loop.enqueue()
            with pytest.raises(JobFailed, match=r"UsageError: .* use 'await job\.result\("):
                await job.result(timeout=30)
            assert await (await in_thread.enqueue()).result(timeout=30) == "Hello, thread"

    async def test_waits_for_a_result_beside_a_worker(self, queue: Queue) -> None:
        """A thread waits while the event loop runs the worker."""
        task = queue.task(send)
        async with Worker(queue):
            job = await asyncio.to_thread(task.sync.enqueue, "a")
            assert await asyncio.to_thread(job.sync.result, 5) == "Hello, a"

    def test_works_from_many_threads(self, clock: ManualClock) -> None:
        queue = Queue("mail", Store("memory://", clock=clock))
        task = queue.task(send)
        ids: list[str] = []

        def add() -> None:
            ids.extend(task.sync.enqueue(str(n)).id for n in range(20))

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(ids)) == 160 == queue.sync.counts()[State.WAITING]
        asyncio.run(queue.store.aclose())


class TestDeclaring:
    async def test_a_task_takes_its_function_s_name_or_its_own(self, queue: Queue) -> None:
        named = queue.task(name="mails:send")(send)
        assert (queue.task(send).name, named.name) == ("send", "mails:send")
        assert (await named.enqueue("a")).name == "mails:send"

    def test_two_functions_cannot_have_one_name(self, queue: Queue) -> None:
        """Otherwise both would run the jobs of that name."""
        queue.task(send)

        async def other() -> None: ...

        with pytest.raises(InvalidOption, match="must be unique in queue 'mail'"):
            queue.task(name="send")(other)

    def test_the_same_function_can_be_declared_again(self, queue: Queue) -> None:
        """A reloader imports a module twice."""
        queue.task(send)
        queue.task(send)

    @pytest.mark.parametrize("star", [lambda *values: None, lambda **values: None])
    def test_nameless_arguments_are_refused(self, queue: Queue, star: Callable[..., None]) -> None:
        with pytest.raises(InvalidTask, match=r"\*values is not supported: use a list or a dict"):
            queue.task(name="star")(star)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"run_in": "thread"}, "'loop' or 'process' for the task 'send'"),
            ({"run_in": "fibre"}, "'loop' or 'process' for the task 'send'"),
            ({"give_up_on": ValueError("no class")}, "exception classes"),
            ({"attempts": 0}, "attempts=0: must be a whole number from 1"),
            ({"job_id": "a"}, "one of the options attempts, backoff"),
            ({"colour": "red"}, "colour='red': must be one of the options"),
            ({"name": "a\0b"}, "task name=.*without control"),
        ],
    )
    def test_wrong_options_are_refused_at_once(
        self, queue: Queue, options: dict[str, Any], complaint: str
    ) -> None:
        """The error is raised when the module is imported."""
        with pytest.raises(InvalidOption, match=complaint):
            queue.task(**options)(send)


async def test_options_of_a_call_win_over_those_of_task_and_queue(clock: ManualClock) -> None:
    queue = Queue("mail", Store("memory://", clock=clock), priority=5, delay=10)
    task = queue.task(priority=6)(send)
    assert (await task.enqueue("a")).priority == 6
    assert (await queue.add("unknown")).priority == 5
    given = task.using(priority=7)
    assert (await given.enqueue("b")).priority == 7
    both = await given.using(delay=0).enqueue("c")
    assert (both.priority, both.state) == (7, "prioritized")
    await queue.store.aclose()


async def test_using_checks_its_options_at_once(queue: Queue) -> None:
    """The error is raised where the wrong option is given."""
    task = queue.task(send)
    with pytest.raises(InvalidOption, match="priority=-1"):
        task.using(priority=-1)
    with pytest.raises(InvalidOption, match="given without delay=: use either at or delay"):
        task.using(delay=1).using(at=ManualClock().now())
    with pytest.raises(InvalidOption, match="a function cannot be stored with a job"):
        task.using(backoff=lambda attempt, error: 1)


class TestCallsOfOneTick:
    async def test_one_that_the_store_refuses_fails_alone(self, queue: Queue) -> None:
        """The store refuses a whole transaction, so the jobs are then added one by one."""
        template = queue.producer.make_template("keep", Options())
        answers: list[object] = await asyncio.gather(
            queue.add("keep", 1),
            queue.producer.submit(template, '"\ud800"'),
            queue.add("keep", 3),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [Job, StoreRejected, Job]
        assert [job.data for job in await queue.jobs("waiting")] == [1, 3]
