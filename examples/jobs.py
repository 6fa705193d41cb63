"""Retry, postpone, reject, delay and cancel jobs: `python examples/jobs.py`.

The jobs are stored in memory, and are lost when the program ends. Use the URL of a file or a Redis
server to keep them, and to run them in workers in other processes. The worker logs to stderr.
"""

import asyncio

from hasten.errors import JobFailed
from hasten.jobs import Context, Job, Queue, RetryAfter, Unrecoverable, Worker

mail = Queue("mail", "memory://")


@mail.task(attempts=3, backoff="100ms", timeout="30s")
async def send(ctx: Context, to: str) -> str:
    if "@" not in to:
        raise Unrecoverable(f"{to!r} is not an address")  # fails at once, without a retry
    if to.startswith("busy@") and ctx.job.attempts_started == 1:
        raise RetryAfter("200ms")  # runs again later, without using up an attempt
    if to.startswith("flaky@") and ctx.attempt < 3:
        raise ConnectionError("the provider closed the connection")  # is retried
    return f"sent to {to} in attempt {ctx.attempt}"


async def sign_up(to: str) -> Job[str]:
    await send.using(delay="1d", job_id=f"tips-{to}").enqueue(to)  # one job for each address
    return await send.enqueue(to)  # a wrong argument is a type error, and InvalidArgument


async def main() -> None:
    async with mail, Worker(mail):
        for name in ("ada", "busy", "flaky"):
            job = await sign_up(f"{name}@example.org")
            print(await job.result(timeout=10))

        wrong = await send.enqueue("nobody")
        try:
            await wrong.result(timeout=10)
        except JobFailed as error:
            print("failed:", error.error)

        tips = await mail.get("tips-ada@example.org")
        print("cancelled:", tips and await tips.cancel())
        print({str(state): count for state, count in (await mail.counts()).items() if count})


if __name__ == "__main__":
    asyncio.run(main())
