"""Calls that have to type-check, and the types that they have to have. Read by mypy, never run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar, assert_type

from hasten import Store
from hasten.jobs import (
    Arguments,
    Child,
    ChildProgress,
    Context,
    Event,
    Exponential,
    Fixed,
    Flow,
    Job,
    JobTree,
    Keep,
    Queue,
    Schedule,
    Slot,
    State,
    Task,
    Worker,
)

P = ParamSpec("P")
T = TypeVar("T")

mail = Queue("mail")
Queue("mail", "sqlite:///mail.db", max_size=10_000, attempts=3, backoff=Fixed(2))


@dataclass
class Address:
    name: str
    host: str


@mail.task
async def send(to: Address, locale: str = "en") -> int:
    return len(to.name + locale)


@mail.task
def send_in_thread(to: str, *, urgent: bool = False) -> str:
    return to if urgent else ""


@mail.task
async def send_with_context(ctx: Context, to: str) -> bytes:
    ctx.progress({"sent": 1})
    ctx.log(f"attempt {ctx.attempt} of {ctx.job.name}")
    return to.encode()


@mail.task
def send_in_thread_with_context(ctx: Context, to: str) -> float:
    return 0.5 if ctx.stopping else float(to)


@mail.task(name="bill", attempts=5, backoff="exponential", timeout=30, keep_completed=False)
async def charge(cents: int) -> None: ...


@mail.task(run_in="process", give_up_on=(LookupError, ValueError), expires=timedelta(hours=1))
def render(page: int) -> list[str]:
    return [str(page)]


@mail.task(
    backoff=lambda attempt, error: None if isinstance(error, LookupError) else attempt * 2.0,
    give_up_on=ValueError,
    keep_failed=Keep(count=10, age=timedelta(days=1)),
    priority=5,
    lifo=False,
)
async def report(ctx: Context, day: datetime, *, pages: int = 1) -> dict[str, int]:
    return {day.isoformat(): pages}


@mail.task
async def send_with_optional_context(ctx: Context | None, to: str) -> bytes:
    return to.encode() if ctx else b""


@mail.task
def send_with_context_at_the_end(to: str, *, ctx: Context | None = None) -> float:
    return 0.5 if ctx and ctx.stopping else float(to)


def logged(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return function(*args, **kwargs)

    return wrapper


@mail.task(name="wrapped")
@logged
async def wrapped(to: str, *, urgent: bool = False) -> int:
    return len(to) + urgent


@mail.task
def only_context(ctx: Context | None = None) -> bool:
    return ctx is not None


def deliver(host: str, to: str) -> str:
    return host + to


class Sender:
    def __init__(self, host: str) -> None:
        self.host = host

    async def __call__(self, to: str) -> int:
        return len(to)

    def send(self, to: str) -> str:
        return to


by_object = mail.task(name="by object")(Sender("localhost"))
by_method = mail.task(name="by method")(Sender("localhost").send)
by_partial = mail.task(name="by partial")(partial(deliver, "localhost"))


# A task has the type of its function, and can be called like it.

ada = Address("ada", "example.org")

task: Task[..., Coroutine[Any, Any, int], int] = send
assert_type(send_in_thread("ada", urgent=True), str)
assert_type(render(1), list[str])
assert_type(send.name, str)


async def calling(ctx: Context) -> None:
    assert_type(await send(ada), int)
    assert_type(await send(ada, locale="de"), int)
    assert_type(await send_with_context(ctx, "ada"), bytes)
    assert_type(send_in_thread_with_context(ctx, "1"), float)
    assert_type(await report(ctx, datetime.now(UTC), pages=2), dict[str, int])


# enqueue takes what the function takes; a context is the worker's to give.


async def enqueueing() -> None:
    assert_type(await send.enqueue(ada), Job[int])
    assert_type(await send.enqueue(to=ada, locale="de"), Job[int])
    assert_type(await send_in_thread.enqueue("ada", urgent=True), Job[str])
    assert_type(await send_with_context.enqueue("ada"), Job[bytes])
    assert_type(await send_with_context.enqueue(to="ada"), Job[bytes])
    assert_type(await send_in_thread_with_context.enqueue("1"), Job[float])
    assert_type(await charge.enqueue(cents=100), Job[None])
    assert_type(await render.enqueue(1), Job[list[str]])
    assert_type(await report.enqueue(datetime.now(UTC), pages=2), Job[dict[str, int]])
    calls = [send.args(to=ada), send.args(ada, locale="de")]
    assert_type(await send.enqueue_many(calls), list[Job[int]])
    assert_type(await charge.enqueue_many(map(charge.args, [1, 2])), list[Job[None]])
    with_context = send_with_context.args(to="ada")
    assert_type(await send_with_context.enqueue_many([with_context]), list[Job[bytes]])


async def enqueueing_to_what_is_no_plain_function(ctx: Context) -> None:
    assert_type(await send_with_optional_context.enqueue("ada"), Job[bytes])
    assert_type(await send_with_optional_context(ctx, "ada"), bytes)
    assert_type(await send_with_context_at_the_end.enqueue("1"), Job[float])
    assert_type(send_with_context_at_the_end("1", ctx=ctx), float)
    assert_type(await wrapped.enqueue("ada", urgent=True), Job[int])
    assert_type(await by_object.enqueue("ada"), Job[int])
    assert_type(await by_object("ada"), int)
    assert_type(await by_method.enqueue("ada"), Job[str])
    assert_type(await by_partial.enqueue("ada"), Job[str])
    assert_type(await only_context.enqueue(), Job[bool])


async def using() -> None:
    assert_type(await send.using(delay=60, priority=1).enqueue(ada), Job[int])
    assert_type(await send.using(at=datetime.now(UTC), job_id="welcome-ada").enqueue(ada), Job[int])
    assert_type(await send.using(delay=timedelta(days=1)).using(lifo=True).enqueue(ada), Job[int])
    assert_type(await send.using(timeout=None, expires=0.5).enqueue(ada), Job[int])
    assert_type(await send.using(attempts=3, backoff=Fixed(2)).enqueue(ada), Job[int])
    assert_type(await send.using(backoff=Exponential(1, cap=60)).enqueue(ada), Job[int])
    assert_type(await send.using(backoff=timedelta(seconds=2)).enqueue(ada), Job[int])
    assert_type(await send.using(keep_completed=False, keep_failed=100).enqueue(ada), Job[int])
    assert_type(await send.using(unique="ada").enqueue(ada), Job[int])
    assert_type(await send.using(latest=lambda to: f"{to}").enqueue(ada), Job[int])
    assert_type(await send.using(throttle=("ada", timedelta(hours=1))).enqueue(ada), Job[int])
    assert_type(await send.using(debounce=("ada", 5, "1m"), unique=None).enqueue(ada), Job[int])
    assert_type(await send_with_context.using(delay=1).enqueue("ada"), Job[bytes])
    assert_type(await report.using(delay=1).enqueue(datetime.now(UTC)), Job[dict[str, int]])
    assert_type(await send.using(delay=1).enqueue_many([send.args(ada)]), list[Job[int]])


def sync() -> None:
    assert_type(send.sync.enqueue(ada, locale="de"), Job[int])
    assert_type(send.sync.enqueue_many([send.args(to=ada)]), list[Job[int]])
    assert_type(send.using(delay=1).sync.enqueue(ada), Job[int])
    assert_type(send.sync.using(delay=1).enqueue(ada), Job[int])
    assert_type(send_with_context.sync.enqueue("ada"), Job[bytes])
    assert_type(send.sync.enqueue(ada).sync.result(timeout=1.5), int)
    assert_type(mail.sync.add("send", {"to": "ada"}, delay=1), Job[Any])
    assert_type(mail.sync.counts(), dict[State, int])
    assert_type(mail.sync.cancel("1", "2"), list[str])


async def results() -> None:
    job = await send.enqueue(ada)
    assert_type(await job.result(), int)
    assert_type(await job.result(timeout=30), int)
    assert_type(job.value, int | None)
    assert_type(await job.refresh(), Job[int])
    assert_type(job.state, State)
    assert_type(job.error, str | None)
    assert_type(job.finished_at, datetime | None)
    assert_type(await job.logs(), list[str])
    assert_type(await job.cancel(), bool)
    assert_type(await job.retry(), bool)
    assert_type(job.tracebacks, list[str])
    assert_type(job.started_at, datetime | None)
    bills: Job[None] = await charge.enqueue(1)
    anything: Job[object] = bills  # who only reads may read less
    print(anything)


async def queues() -> None:
    assert_type(await mail.add("send"), Job[Any])
    assert_type(await mail.add("send", {"to": "ada"}, priority=1, job_id="a"), Job[Any])
    assert_type(await mail.add_many([("send", {}), ("send", {}, {"delay": 1})]), list[Job[Any]])
    assert_type(await mail.get("1"), Job[Any] | None)
    assert_type(await mail.jobs(State.WAITING, offset=10, newest_first=True), list[Job[Any]])
    assert_type(await mail.jobs("failed"), list[Job[Any]])
    assert_type(await mail.counts(), dict[State, int])
    assert_type(await mail.clean("completed", older_than=timedelta(days=1)), list[str])
    assert_type(await mail.drain(delayed=True), int)
    assert_type(await mail.retry("1", "2"), list[str])
    assert_type(await mail.remove("1"), list[str])
    async with Queue("mail", Store("memory://"), max_size="2mb", check_arguments=False) as queue:
        assert_type(queue, Queue)
        assert_type(queue.store, Store)
    async for event in mail.events():
        assert_type(event, Event)


async def working() -> None:
    worker = Worker(mail, Queue("other"), concurrency=10, lease=timedelta(seconds=5), grace=0)
    async with worker as same:
        assert_type(same, Worker)
    await Worker(mail, keep_completed=Keep(age=60), keep_failed=True, handler_processes=2).run()


@mail.cron("0 7 * * mon-fri", tz="Europe/Madrid", missed="skip", overlap="queue", attempts=3)
@mail.every("10m", id="often", arguments={"to": "all"})
@mail.task
async def scheduled(to: str, slot: Slot | None = None) -> int:
    return 0 if slot is None else slot.missed


async def schedules() -> None:
    assert_type(await scheduled("x"), int)
    assert_type(await scheduled.enqueue("x"), Job[int])
    made = await mail.schedules.upsert("a", scheduled, every=60, arguments=scheduled.args("x"))
    assert_type(made, Schedule)
    await mail.schedules.upsert("a", "scheduled", cron="* * * * *", options={"attempts": 3})
    assert_type(await mail.schedules.list(), list[Schedule])
    assert_type(await mail.schedules.preview("a"), list[datetime])
    assert_type(mail.sync.schedules.get("a"), Schedule | None)


async def flows(ctx: Context) -> None:
    chunk, merge = render, charge
    nodes: list[Arguments[Any, list[str]]] = [chunk.args(0), *chunk.many(range(3))]
    assert_type(merge.args(1).after(nodes), Flow[None])
    flow = merge.args(3).after(chunk.many([1, 2]), on_failure="ignore")
    assert_type(flow, Flow[None])
    assert_type(chunk.args(1).after(flow), Flow[list[str]])
    job = await chunk.args(1).after([flow, send_in_thread.args("ada")]).enqueue()
    assert_type(job, Job[list[str]])
    assert_type(chunk.args(1).after([]).sync.enqueue(), Job[list[str]])
    hooked = flow.on_ended(send_in_thread.args("ada")).on_succeeded(chunk.args(1))
    assert_type(hooked.on_first_failure(chunk.args(1)), Flow[None])
    ctx.children.add(chunk.many([1]))
    ctx.children.add(flow, on_failure="wait")
    await ctx.children.wait()
    assert_type(await ctx.children.results(chunk), list[list[str]])
    assert_type(await ctx.children.results(send_with_context), list[bytes])
    assert_type(ctx.children.sync.results(send_in_thread), list[str])
    assert_type(await ctx.children.results(), list[Any])
    assert_type(await job.first_child_failure(), Child | None)
    assert_type(await job.children_ended(timeout="1m"), ChildProgress)
    assert_type(await job.tree(), JobTree)
    batch = await mail.batch(on_ended=charge.args(1))
    assert_type(await batch.add(chunk.many([1])), list[Job[Any]])
