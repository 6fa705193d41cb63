"""Calls that must not type-check. Read by mypy, never run.

Each one has its error ignored, by code; mypy calls an ignored error that is none an error itself
(`warn_unused_ignores`), so a wrong call that it lets through is found.
"""

from __future__ import annotations

from datetime import datetime
from typing import assert_type

from hasten.jobs import Context, Fixed, Job, Keep, Queue, Worker

mail = Queue("mail")


@mail.task
async def send(to: str, locale: str = "en") -> int:
    return len(to + locale)


@mail.task(attempts=3)
async def send_with_options(to: str, *, urgent: bool) -> int:
    return len(to) + urgent


@mail.task
async def send_with_context(ctx: Context, to: str) -> int:
    return ctx.attempt + len(to)


@mail.task(timeout=1)
def send_in_thread(ctx: Context, to: str) -> int:
    return ctx.attempt + len(to)


@mail.task
async def send_with_optional_context(ctx: Context | None, to: str) -> int:
    return len(to)


class Sender:
    async def __call__(self, to: str) -> int:
        return len(to)


by_object = mail.task(name="by object")(Sender())


async def enqueueing(ctx: Context) -> None:
    await send.enqueue()  # type: ignore[call-arg]
    await send.enqueue(1)  # type: ignore[arg-type]
    await send.enqueue(b"ada")  # type: ignore[arg-type]
    await send.enqueue("ada", "en", "more")  # type: ignore[call-arg]
    await send.enqueue("ada", language="en")  # type: ignore[call-arg]
    await send.enqueue("ada", locale=None)  # type: ignore[arg-type]
    await send.enqueue("ada", delay=60)  # type: ignore[call-arg]  # options go to using()
    await send_with_options.enqueue("ada")  # type: ignore[call-arg]
    await send_with_options.enqueue("ada", True)  # type: ignore[call-arg]
    await send_with_options.enqueue("ada", urgent="yes")  # type: ignore[arg-type]
    await send_with_context.enqueue(ctx, "ada")  # type: ignore[call-arg, arg-type]
    await send_with_context.enqueue()  # type: ignore[call-arg]
    await send_in_thread.enqueue(ctx, "ada")  # type: ignore[call-arg, arg-type]
    await send_in_thread.enqueue(1)  # type: ignore[arg-type]
    await send_with_optional_context.enqueue(None, "ada")  # type: ignore[call-arg, arg-type]
    await by_object.enqueue()  # type: ignore[call-arg]
    await by_object.enqueue(1)  # type: ignore[arg-type]
    await send.enqueue_many(send.args("ada"))  # type: ignore[arg-type]  # one call, not a list
    await send.enqueue_many([{"to": "ada"}])  # type: ignore[list-item]
    await send.enqueue_many([send_with_context.args("ada")])  # type: ignore[list-item]
    send_with_context.args("ada", 1)  # type: ignore[call-arg]
    send.args(1)  # type: ignore[arg-type]
    send.args()  # type: ignore[call-arg]
    await send.enqueue_many(["ada"])  # type: ignore[list-item]


async def using() -> None:
    send.using(dealy=60)  # type: ignore[call-arg]
    send.using(delay=[60])  # type: ignore[arg-type]
    send.using(at=60)  # type: ignore[arg-type]
    send.using(unique=5)  # type: ignore[arg-type]
    send.using(debounce=("ada", 5))  # type: ignore[arg-type]
    send.using(priority=1.5)  # type: ignore[arg-type]
    send.using(attempts=None)  # type: ignore[arg-type]
    send.using(job_id=7)  # type: ignore[arg-type]
    send.using(backoff=b"exponential")  # type: ignore[arg-type]
    send.using(backoff=lambda: 1)  # type: ignore[arg-type, misc]
    send.using(keep_completed=Keep)  # type: ignore[arg-type]
    await send.using(delay=1).enqueue(1)  # type: ignore[arg-type]
    await send.using(delay=1).enqueue()  # type: ignore[call-arg]
    await send_with_context.using(delay=1).enqueue()  # type: ignore[call-arg]


def sync() -> None:
    send.sync.enqueue(1)  # type: ignore[arg-type]
    send.sync.using(delay=[1])  # type: ignore[arg-type]
    send.using(delay=1).sync.enqueue()  # type: ignore[call-arg]
    mail.sync.add("send", dealy=1)  # type: ignore[call-arg]


async def results(job: Job[int]) -> None:
    text: str = await job.result()  # type: ignore[assignment]
    narrow: Job[bool] = job  # type: ignore[assignment]
    number: int = job.value  # type: ignore[assignment]  # None until it has completed
    await job.result(timeout=[1])  # type: ignore[arg-type]
    job.state = "completed"  # type: ignore[misc, assignment]
    print(text, narrow, number)


async def calling(ctx: Context) -> None:
    await send(1)  # type: ignore[arg-type]
    await send_with_context("ada")  # type: ignore[call-arg, arg-type]
    assert_type(await send("ada"), str)  # type: ignore[assert-type]
    send_with_context(ctx).close()  # type: ignore[call-arg]


async def queues() -> None:
    Queue()  # type: ignore[call-arg]
    Queue("mail", max_size=1.5)  # type: ignore[arg-type]
    Queue("mail", clock=None)  # type: ignore[call-arg]
    Queue("mail", 7)  # type: ignore[arg-type]
    Queue("mail", atempts=1)  # type: ignore[call-arg]
    await mail.add(send)  # type: ignore[arg-type]
    await mail.add("send", at="tomorrow")  # type: ignore[arg-type]
    await mail.add_many([("send",)])  # type: ignore[list-item]
    await mail.add_many([("send", {}, {"dealy": 1})])  # type: ignore[typeddict-unknown-key]
    await mail.clean("failed", older_than=datetime.now())  # type: ignore[arg-type]  # noqa: DTZ005
    await mail.clean("failed")  # type: ignore[call-arg]
    await mail.cancel(["1"])  # type: ignore[arg-type]
    mail.task(run_in="thread pool")  # type: ignore[call-overload]
    mail.task(delay=[1])  # type: ignore[call-overload]
    mail.task(job_id="a")  # type: ignore[call-overload]  # of one job, not of all
    mail.task(7)  # type: ignore[call-overload]
    Fixed([2])  # type: ignore[arg-type]


async def working() -> None:
    Worker("mail")  # type: ignore[arg-type]
    Worker(mail, concurrency="10")  # type: ignore[arg-type]
    Worker(mail, workers=10)  # type: ignore[call-arg]


async def schedules() -> None:
    mail.every("10m")(len)  # type: ignore[type-var]
    mail.cron("* * * * *", delay=[1])  # type: ignore[arg-type]
    await mail.schedules.upsert("a", "send", every=60, missed="some")  # type: ignore[arg-type]
    await mail.schedules.upsert("a", "send", every=60, options={"x": 1})  # type: ignore[arg-type]


async def flows(ctx: Context) -> None:
    await send.after(7).enqueue()  # type: ignore[arg-type]
    send.args(7).after([])  # type: ignore[arg-type]
    flow = send.args("ada").after([], on_failure="retry")  # type: ignore[arg-type]
    flow.on_ended(flow)  # type: ignore[arg-type]
    ctx.children.add("send")  # type: ignore[arg-type]
    await ctx.children.results(print)  # type: ignore[call-overload]
    await mail.batch(on_ended=send)  # type: ignore[arg-type]
