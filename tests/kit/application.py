"""An application whose queues and limits are made at import, in several stores."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime
from pathlib import Path

from hasten import Store
from hasten.compression import CompressionCache
from hasten.jobs import Context, Queue, RetryAfter, Worker
from hasten.ratelimit import Limiter

NO_SERVER = "redis://localhost:1/0"
FILE = Path("hasten-of-the-kit-tests.db")  # never created

mail = Queue("kit-mail")
orders = Queue("orders", NO_SERVER)
in_file = Queue("in-file", f"sqlite:///{FILE}")
foreign = Queue("foreign", NO_SERVER)  # its jobs run in another program
worker = Worker(mail)

logins = Limiter("1/h", name="logins")
shared_logins = Limiter("1/h", name="logins", store=NO_SERVER)
file_logins = Limiter("1/h", name="logins", store=Store(f"sqlite:///{FILE}"))
cache = CompressionCache()

sent: list[str] = []
failures: list[BaseException] = []
threads: list[threading.Thread] = []


@mail.task
async def send(to: str, locale: str = "en") -> str:
    sent.append(to)
    return f"sent to {to}"


@mail.task(attempts=3, backoff=60)
async def send_flaky(to: str) -> str:
    if failures:
        raise failures.pop()
    sent.append(to)
    return to


@mail.task
def send_plain(to: str) -> str:
    threads.append(threading.current_thread())
    sent.append(to)
    return to


@mail.task(run_in="process")
def send_in_process(to: str) -> str:
    sent.append(to)
    return to


@mail.task
async def remind(at: datetime) -> datetime:
    return at


@mail.task
async def report(ctx: Context) -> str:
    ctx.log("half")
    ctx.progress(0.5)
    return f"attempt {ctx.attempt}"


@mail.task
async def postpone(ctx: Context) -> str:
    if ctx.job.attempts_started == 1:
        raise RetryAfter(30)
    return "done"


@mail.task
async def repeat_without_end() -> None:
    await repeat_without_end.enqueue()


@mail.task
async def wait_for_other(to: str) -> str:
    job = await send.enqueue(to)
    return await job.result(timeout=10)


@mail.task
async def log_in_twice() -> None:
    await logins.wait("ada")
    await logins.wait("ada")


@orders.task
async def order(number: int) -> str:
    await send.enqueue(f"customer {number}")
    return f"order {number}"


class Gateway:
    """A test double: its methods never really wait."""

    def __init__(self) -> None:
        self.charges: list[str] = []

    async def charge(self, order_id: str) -> None:
        self.charges.append(order_id)

    async def charge_once(self, order_id: str) -> None:
        if order_id not in self.charges:
            self.charges.append(order_id)

    def charge_now(self, order_id: str) -> None:
        self.charges.append(order_id)


gateway = Gateway()


@orders.task
async def charge(order_id: str) -> str:
    await gateway.charge(order_id)
    return "charged"


@orders.task
async def charge_once(order_id: str) -> str:
    await gateway.charge_once(order_id)
    await send.using(job_id=f"receipt-{order_id}").enqueue("ada")
    await asyncio.sleep(0)
    return "charged"


@orders.task
def charge_in_thread(order_id: str) -> str:
    gateway.charge_now(order_id)
    send.using(job_id="receipt").sync.enqueue("ada")
    return "charged"
