"""Middlewares of a queue, around enqueueing and around runs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hasten.errors import InvalidOption, JobFailed, StoreUnavailable, UsageError
from hasten.jobs import (
    CallNext,
    Carry,
    EnqueueCall,
    JobOptions,
    Queue,
    RetryAfter,
    RunCall,
    State,
    Unrecoverable,
    Worker,
    _middleware,
)
from hasten.jobs._options import MAX_METADATA_BYTES
from tests.jobs import observed_tasks
from tests.jobs.eventually import until, until_state
from tests.patience import DEADLINE_SECONDS

Kinds = pytest.mark.parametrize("kind", ["loop", "thread"])


def make_task(queue: Queue, kind: str, function: Callable[..., Any], **options: Any) -> Any:
    """Make a plain function a task that runs in a thread, or in the event loop."""

    async def in_loop(number: int = 0) -> Any:
        return function(number)

    def in_thread(number: int = 0) -> Any:
        return function(number)

    return queue.task(name="count", **options)(in_loop if kind == "loop" else in_thread)


class TestOrder:
    @Kinds
    async def test_the_first_one_is_the_outermost_on_both_sides(
        self, queue: Queue, kind: str
    ) -> None:
        seen: list[str] = []

        def middleware(name: str) -> Any:
            async def record(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
                side = "enqueue" if isinstance(call, EnqueueCall) else "run"
                seen.append(f"{name} before {side}")
                result = await call_next(call)
                seen.append(f"{name} after {side}")
                return result

            return record

        queue.use(middleware("outer"))
        queue.use(middleware("inner"))
        task = make_task(queue, kind, lambda _: seen.append("handler"))
        job = await task.enqueue()
        async with Worker(queue):
            await job.result(timeout=30)
        assert seen == [
            "outer before enqueue", "inner before enqueue",
            "inner after enqueue", "outer after enqueue",
            "outer before run", "inner before run", "handler",
            "inner after run", "outer after run",
        ]  # fmt: skip

    async def test_it_sees_the_call_and_its_outcome(self, queue: Queue) -> None:
        seen: list[tuple[object, ...]] = []

        @queue.use
        async def look(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            facts: tuple[object, ...] = call.queue, call.task, call.data
            if isinstance(call, EnqueueCall):
                seen.append((*facts, dict(call.options)))
                return await call_next(call)
            result = await call_next(call)
            seen.append((*facts, call.job.id, call.attempt, result))
            return result

        @queue.task(attempts=3)
        async def double(number: int) -> int:
            return number * 2

        job = await double.using(priority=7).enqueue(4)
        async with Worker(queue):
            assert await job.result(timeout=30) == 8
        assert seen == [
            ("mail", "double", {"number": 4}, {"priority": 7}),
            ("mail", "double", {"number": 4}, job.id, 1, 8),
        ]


class TestEnqueue:
    @pytest.mark.parametrize("way", ["enqueue", "add", "enqueue_many", "add_many", "sync"])
    async def test_every_way_to_add_passes_it(self, queue: Queue, way: str) -> None:
        @queue.task
        async def count(number: int) -> int:
            return number

        @queue.use
        async def mark(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            if isinstance(call, EnqueueCall):
                call.metadata["seen"] = str(call.data["number"])
                call.options["priority"] = 5
            return await call_next(call)

        match way:
            case "enqueue":
                job = await count.enqueue(1)
            case "add":
                job = await queue.add("count", {"number": 1})
            case "enqueue_many":
                (job,) = await count.enqueue_many([count.args(1)])
            case "add_many":
                (job,) = await queue.add_many([("count", {"number": 1})])
            case _:
                job = await asyncio.to_thread(count.sync.enqueue, 1)
        found = await queue.get(job.id)
        assert found is not None
        assert (found.metadata, found.priority) == ({"seen": "1"}, 5)

    async def test_an_existing_job_may_be_returned_instead(self, queue: Queue) -> None:
        @queue.task
        async def count(number: int) -> int:
            return number

        first = await count.enqueue(1)

        @queue.use
        async def reuse(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            return first if isinstance(call, EnqueueCall) else await call_next(call)

        assert (await count.enqueue(2)) is first
        assert await count.enqueue_many([count.args(3), count.args(4)]) == [first, first]
        assert (await queue.counts())[State.WAITING] == 1

    async def test_it_must_return_a_job(self, queue: Queue) -> None:
        @queue.use
        async def forget(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            await call_next(call)

        with pytest.raises(UsageError, match="returned None: it must return a Job"):
            await queue.add("count")

    async def test_an_error_adds_nothing(self, queue: Queue) -> None:
        @queue.task
        async def count(number: int) -> int:
            return number

        @queue.use
        async def refuse(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            await asyncio.sleep(0)
            if call.data["number"] == 2:
                raise PermissionError("no twos")
            return await call_next(call)

        with pytest.raises(PermissionError):
            await count.enqueue(2)
        with pytest.raises(PermissionError):
            await count.enqueue_many(map(count.args, range(5)))
        assert (await queue.counts())[State.WAITING] == 0

    async def test_many_jobs_keep_their_order_and_get_their_own_results(self, queue: Queue) -> None:
        @queue.task
        async def count(number: int) -> int:
            return number

        @queue.use
        async def wait_unevenly(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            for _ in range(call.data["number"] % 3):
                await asyncio.sleep(0)
            return await call_next(call)

        jobs = await count.enqueue_many(map(count.args, range(20)))
        assert [job.data["number"] for job in jobs] == list(range(20))
        ids = [int(job.id) for job in jobs]
        assert ids == list(range(ids[0], ids[0] + 20))

    async def test_none_at_all(self, queue: Queue) -> None:
        queue.use(Carry(observed_tasks.request_id))
        assert await queue.add_many([]) == []

    @pytest.mark.parametrize(
        ("metadata", "error"),
        [
            ({"n": 1}, "a dict of strings"),
            ({"n": "\ud800"}, "valid Unicode"),
            ({"n": "x" * MAX_METADATA_BYTES}, "at most 4,096 bytes"),
        ],
    )
    async def test_wrong_metadata_is_refused(
        self, queue: Queue, metadata: dict[str, Any], error: str
    ) -> None:
        @queue.use
        async def mark(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            assert isinstance(call, EnqueueCall)
            call.metadata.update(metadata)
            return await call_next(call)

        with pytest.raises(InvalidOption, match=error):
            await queue.add("count")

    async def test_wrong_options_are_refused(self, queue: Queue) -> None:
        @queue.use
        async def change(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            assert isinstance(call, EnqueueCall)
            call.options = JobOptions(priority=-1)
            return await call_next(call)

        with pytest.raises(InvalidOption, match="priority"):
            await queue.add("count")

    async def test_an_error_of_the_store_reaches_each_middleware_and_the_caller(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        caught: list[BaseException] = []

        @queue.use
        async def look(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            try:
                return await call_next(call)
            except StoreUnavailable as error:
                caught.append(error)
                raise

        async def fail(*_: object, **__: object) -> Any:
            raise StoreUnavailable("store", "it is down")

        monkeypatch.setattr(type(queue.engine), "add", fail)
        with pytest.raises(StoreUnavailable):
            await queue.add_many([("count", None)] * 3)
        assert len(caught) == 3

    @pytest.mark.parametrize("way", ["enqueue", "enqueue_many"])
    async def test_another_call_object_may_be_passed_on(self, queue: Queue, way: str) -> None:
        @queue.task
        async def count(number: int) -> int:
            return number

        @queue.use
        async def replace_call(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            assert isinstance(call, EnqueueCall)
            return await call_next(
                dataclasses.replace(call, options={"priority": 3}, metadata={"k": "v"})
            )

        if way == "enqueue":
            job = await count.enqueue(1)
        else:
            _, job = await count.enqueue_many([count.args(1), count.args(2)])
        assert (job.priority, job.metadata) == (3, {"k": "v"})

    async def test_a_call_that_is_given_up_does_not_stop_the_others(self, queue: Queue) -> None:
        other = await queue.add("other")
        arrived = asyncio.Event()

        @queue.task
        async def count(number: int) -> int:
            return number

        @queue.use
        async def give_up(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            if call.data["number"] == 1:
                waiting = asyncio.ensure_future(call_next(call))
                await asyncio.sleep(0)
                waiting.cancel()
                arrived.set()
                return other
            await arrived.wait()
            return await call_next(call)

        async with asyncio.timeout(DEADLINE_SECONDS):
            first, second = await count.enqueue_many([count.args(1), count.args(2)])
        assert first is other
        assert second.data == {"number": 2}
        assert (await queue.counts())[State.WAITING] == 2

    async def test_one_error_ends_the_others_of_a_bulk(
        self, queue: Queue, caplog: pytest.LogCaptureFixture
    ) -> None:
        @queue.use
        async def hang(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            if call.data["number"] == 1:
                raise PermissionError
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError("in its clean-up")

        with pytest.raises(PermissionError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await queue.add_many([("count", {"number": number}) for number in range(3)])
        gc.collect()
        assert "never retrieved" not in caplog.text
        assert (await queue.counts())[State.WAITING] == 0

    @pytest.mark.parametrize("failing", ["store", "middleware", "middleware after the store"])
    async def test_one_that_hangs_does_not_hold_up_an_error(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        """Neither in its `except` block nor by ignoring the cancellation."""
        monkeypatch.setattr(_middleware, "CLEAN_UP_SECONDS", 0.01)
        released = asyncio.Event()
        hanging: list[asyncio.Task[Any] | None] = []

        @queue.use
        async def hang(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            if call.data["number"] == 1 and failing == "middleware":
                raise PermissionError
            try:
                job = await call_next(call)
                if call.data["number"] == 1:
                    raise PermissionError
                return job
            finally:
                if call.data["number"] == 2:
                    hanging.append(asyncio.current_task())
                    while not released.is_set():
                        with contextlib.suppress(asyncio.CancelledError):
                            await released.wait()

        async def fail(*_: object, **__: object) -> Any:
            raise StoreUnavailable("store", "it is down")

        if failing == "store":
            monkeypatch.setattr(type(queue.engine), "add", fail)
        with pytest.raises(StoreUnavailable if failing == "store" else PermissionError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await queue.add_many([("count", {"number": number}) for number in range(3)])
        released.set()
        (task,) = hanging
        await until(lambda: task is not None and task.done())

    async def test_each_runs_in_a_task_and_a_context_of_its_own(self, queue: Queue) -> None:
        variable = contextvars.ContextVar("variable", default=0)
        tasks: dict[int, set[asyncio.Task[Any] | None]] = {}

        @queue.use
        async def look(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            number = call.data["number"]
            assert variable.get() == 0
            variable.set(number)
            tasks[number] = {asyncio.current_task()}
            job = await call_next(call)
            tasks[number].add(asyncio.current_task())
            assert variable.get() == number
            return job

        await queue.add_many([("count", {"number": number}) for number in range(3)])
        assert [len(each) for each in tasks.values()] == [1, 1, 1]
        assert len(set.union(*tasks.values())) == 3

    async def test_a_changed_task_is_checked(self, queue: Queue) -> None:
        @queue.use
        async def rename(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            assert isinstance(call, EnqueueCall)
            call.task = ""
            return await call_next(call)

        with pytest.raises(InvalidOption, match="task name"):
            await queue.add("count")

    async def test_a_cancelled_bulk_cancels_its_middlewares(self, queue: Queue) -> None:
        cancelled: list[int] = []

        @queue.use
        async def hang(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(1)
                raise

        bulk = asyncio.create_task(queue.add_many([("count", None)] * 3))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        bulk.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bulk
        await until(lambda: len(cancelled) == 3)


class TestRun:
    @Kinds
    async def test_metadata_comes_back(self, queue: Queue, kind: str) -> None:
        seen: list[dict[str, str]] = []

        @queue.use
        async def mark(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            if isinstance(call, EnqueueCall):
                call.metadata["tenant"] = "ada"
            else:
                seen.append(dict(call.metadata))
            return await call_next(call)

        job = await make_task(queue, kind, lambda number: number).enqueue()
        async with Worker(queue):
            await job.result(timeout=30)
        assert seen == [{"tenant": "ada"}]

    @Kinds
    async def test_it_may_replace_the_run(self, queue: Queue, kind: str) -> None:
        runs: list[int] = []

        @queue.use
        async def skip(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            return await call_next(call) if isinstance(call, EnqueueCall) else "cached"

        job = await make_task(queue, kind, runs.append).enqueue()
        async with Worker(queue):
            assert await job.result(timeout=30) == "cached"
        assert runs == []

    @Kinds
    @pytest.mark.parametrize("place", ["before", "after"])
    async def test_its_error_fails_the_attempt(
        self, queue: Queue, kind: str, place: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        @queue.use
        async def fail(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            result = await call_next(call) if place == "after" else None
            if isinstance(call, RunCall) and call.attempt < 3:
                raise LookupError(f"attempt {call.attempt}")
            return await call_next(call) if place == "before" else result

        job = await make_task(queue, kind, lambda number: number, attempts=3).enqueue()
        async with Worker(queue):
            await job.result(timeout=30)
        failed = [r for r in caplog.records if "LookupError: attempt" in r.getMessage()]
        assert len(failed) == 2

    @Kinds
    async def test_it_sees_errors_of_the_handler_and_may_change_them(
        self, queue: Queue, kind: str
    ) -> None:
        @queue.use
        async def give_up(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            try:
                return await call_next(call)
            except ZeroDivisionError as error:
                raise Unrecoverable("do not divide") from error

        job = await make_task(queue, kind, lambda number: 1 // number, attempts=5).enqueue()
        async with Worker(queue):
            with pytest.raises(JobFailed, match="do not divide"):
                await job.result(timeout=30)
        assert (await job.refresh()).attempts_made == 1

    async def test_it_may_postpone_a_job(self, queue: Queue) -> None:
        @queue.use
        async def wait(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            if isinstance(call, RunCall):
                raise RetryAfter(60)
            return await call_next(call)

        job = await make_task(queue, "loop", lambda number: number).enqueue()
        async with Worker(queue):
            await until_state(job, State.DELAYED)
        assert job.attempts_made == 0

    async def test_data_that_does_not_fit_fails_for_good_through_it(
        self, queue: Queue, elsewhere: Queue
    ) -> None:
        seen: list[str] = []

        @queue.use
        async def look(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            try:
                return await call_next(call)
            except JobFailed as error:
                seen.append(error.error)
                raise

        @queue.task(attempts=5)
        async def count(number: int) -> int:
            return number

        job = await elsewhere.add("count", {"number": "two"})
        async with Worker(queue):
            await until_state(job, State.FAILED)
        assert seen == [job.error]
        assert job.attempts_made == 1

    @Kinds
    async def test_the_time_out_includes_it(self, queue: Queue, kind: str) -> None:
        @queue.use
        async def hang(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            result = await call_next(call)
            if isinstance(call, RunCall):
                await asyncio.Event().wait()
            return result

        job = await make_task(queue, kind, lambda number: number, timeout=0.05).enqueue()
        async with Worker(queue, grace=0):
            with pytest.raises(JobFailed, match=r"0\.05 s"):
                await job.result(timeout=30)

    @Kinds
    async def test_a_stopped_worker_hands_the_job_back(self, queue: Queue, kind: str) -> None:
        arrived = asyncio.Event()

        @queue.use
        async def hang(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            result = await call_next(call)
            if isinstance(call, RunCall):
                arrived.set()
                await asyncio.Event().wait()
            return result

        job = await make_task(queue, kind, lambda number: number).enqueue()
        async with Worker(queue, grace=0):
            await arrived.wait()
        assert (await job.refresh()).state is State.WAITING

    async def test_a_result_is_stored_as_the_handler_returned_it(self, queue: Queue) -> None:
        """Not as its return type, which may have fewer fields."""

        @dataclasses.dataclass
        class Base:
            x: int

        @dataclasses.dataclass
        class Derived(Base):
            y: int

        @queue.use
        async def pass_on(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            return await call_next(call)

        def make(_: int) -> Base:
            return Derived(1, 2)

        job = await make_task(queue, "loop", make).enqueue()
        async with Worker(queue):
            await until_state(job, State.COMPLETED)
        assert job.record.result == '{"x":1,"y":2}'

    @Kinds
    async def test_a_stopped_run_is_cancelled_in_the_middleware(
        self, queue: Queue, kind: str
    ) -> None:
        """However its handler is stopped, so that nobody catches it as an error."""
        seen: list[type[BaseException]] = []
        started = threading.Event()

        @queue.use
        async def fall_back(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            try:
                return await call_next(call)
            except BaseException as error:
                seen.append(type(error))
                raise

        async def in_loop() -> None:
            started.set()
            await asyncio.Event().wait()

        def in_thread() -> None:
            started.set()
            while True:
                time.sleep(0.001)

        task: Any = queue.task(name="hang")(in_loop if kind == "loop" else in_thread)
        job = await task.enqueue()
        async with Worker(queue):
            await until(started.is_set)
            await job.cancel()
            await until_state(job, State.FAILED)
        assert seen == [asyncio.CancelledError]

    async def test_metadata_of_a_run_cannot_be_changed(self, queue: Queue) -> None:
        """Jobs with equal options share it."""

        @queue.use
        async def mark(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            call.metadata["leak"] = "x"  # type: ignore[index]
            return await call_next(call)

        job = await make_task(queue, "loop", lambda number: number).enqueue()
        async with Worker(queue):
            with pytest.raises(JobFailed, match="TypeError"):
                await job.result(timeout=30)

    async def test_next_may_be_called_once(self, queue: Queue) -> None:
        @queue.use
        async def twice(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            await call_next(call)
            return await call_next(call)

        with pytest.raises(UsageError, match="twice"):
            await queue.add("count")

    async def test_next_takes_the_call(self, queue: Queue) -> None:
        @queue.use
        async def wrong(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            return await call_next(None)

        with pytest.raises(UsageError, match="pass the call"):
            await queue.add("count")


class TestProcess:
    @pytest.fixture
    async def queue(self) -> AsyncIterator[Queue]:
        before = observed_tasks.queue.producer.middlewares
        async with observed_tasks.queue as queue:
            yield queue
        queue.producer.middlewares = before

    async def test_a_middleware_runs_around_the_process(self, queue: Queue) -> None:
        @queue.use
        async def wrap(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            result = await call_next(call)
            return result if isinstance(call, EnqueueCall) else [result]

        async with Worker(queue, handler_processes=1):
            job = await observed_tasks.carried.enqueue()
            result: Any = await job.result(timeout=60)
            assert result == [None]

    async def test_a_time_out_after_the_run_kills_no_other_job(self, queue: Queue) -> None:
        """The process may have begun another job by then."""
        hanging = asyncio.Event()

        @queue.use
        async def hang(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            result = await call_next(call)
            if isinstance(call, RunCall) and call.job.data != "{}":
                raise AssertionError
            if isinstance(call, RunCall) and not hanging.is_set():
                hanging.set()
                await asyncio.Event().wait()
            return result

        async with Worker(queue, handler_processes=1, grace=0):
            first = await observed_tasks.carried.using(timeout=20).enqueue()
            await asyncio.wait_for(hanging.wait(), 60)
            await first.cancel()
            second = await observed_tasks.carried.enqueue()
            assert await second.result(timeout=60) is None

    async def test_a_middleware_that_hangs_before_the_process_is_timed_out(
        self, queue: Queue
    ) -> None:
        @queue.use
        async def hang(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
            if isinstance(call, RunCall):
                await asyncio.Event().wait()
            return await call_next(call)

        async with Worker(queue, handler_processes=1, grace=0):
            job = await observed_tasks.carried.using(timeout=0.05).enqueue()
            with pytest.raises(JobFailed, match=r"0\.05 s"):
                await job.result(timeout=60)

    async def test_a_decorated_task_is_found(self, queue: Queue) -> None:
        async with Worker(queue, handler_processes=1):
            job = await queue.add("decorated")
            assert await job.result(timeout=60) == 5

    async def test_context_variables_are_carried_into_it(self, queue: Queue) -> None:
        observed_tasks.request_id.set("r-1")
        async with Worker(queue, handler_processes=1):
            job = await observed_tasks.carried.enqueue()
            assert await job.result(timeout=60) == "r-1"
        assert job.metadata == {"request_id": "r-1"}


class TestCarry:
    @Kinds
    async def test_values_reach_the_handler_and_the_jobs_that_it_enqueues(
        self, queue: Queue, kind: str
    ) -> None:
        tenant = contextvars.ContextVar[str]("tenant")
        request_id = contextvars.ContextVar[str | None]("request_id", default=None)
        queue.use(Carry(tenant, request_id))

        other = Queue("other", queue.store)
        other.use(Carry(tenant))

        def first(_: int) -> list[str | None]:
            if kind == "thread":
                other.sync.add("second")
            return [tenant.get(), request_id.get()]

        task = make_task(queue, kind, first)
        tenant.set("ada")
        job = await task.enqueue()
        tenant.set("other")
        async with Worker(queue):
            assert await job.result(timeout=30) == ["ada", None]
        assert job.metadata == {"tenant": "ada"}
        inner = [each.metadata for each in await other.jobs(State.WAITING)]
        assert inner == ([{"tenant": "ada"}] if kind == "thread" else [])

    async def test_values_of_the_code_that_starts_the_worker_do_not_reach_jobs(
        self, queue: Queue
    ) -> None:
        tenant = contextvars.ContextVar[str | None]("tenant", default=None)
        queue.use(Carry(tenant))
        task = make_task(queue, "loop", lambda _: tenant.get())
        tenant.set("acme")
        async with Worker(queue):
            tenant.set(None)
            job = await task.enqueue()
            assert await job.result(timeout=30) is None

    async def test_other_values_than_strings_are_refused(self, queue: Queue) -> None:
        number: contextvars.ContextVar[Any] = contextvars.ContextVar("number")
        queue.use(Carry(number))
        number.set(1)
        with pytest.raises(InvalidOption, match="a dict of strings"):
            await queue.add("count")

    def test_it_needs_variables_with_different_names(self) -> None:
        one, other = contextvars.ContextVar[str]("a"), contextvars.ContextVar[str]("a")
        with pytest.raises(InvalidOption, match="different names"):
            Carry(one, other)
        with pytest.raises(InvalidOption, match="one ContextVar or more"):
            Carry()


class TestChecks:
    @pytest.mark.parametrize(
        "wrong",
        [None, "log", lambda call, call_next: None, Carry, logging.getLogger],
        ids=["none", "text", "sync", "class", "other"],
    )
    def test_a_wrong_middleware_is_refused_when_it_is_added(
        self, memory: Queue, wrong: Any
    ) -> None:
        with pytest.raises(InvalidOption, match=r"async function of two parameters"):
            memory.use(wrong)

    def test_so_is_one_with_other_parameters(self, memory: Queue) -> None:
        async def one(call: object) -> None: ...

        wrong: Any = one

        with pytest.raises(InvalidOption, match="too many positional arguments"):
            memory.use(wrong)
