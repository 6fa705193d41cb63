"""Queue one job and run it: `python examples/quickstart.py`."""

import asyncio

from hasten.jobs import Queue, Worker

mail = Queue("mail")  # stored in the file hasten.db


@mail.task(attempts=5, backoff="exponential", timeout=30)
async def send_welcome(to: str) -> str:
    await asyncio.sleep(3)  # the mail provider takes 3 seconds
    return f"sent to {to}"


async def main() -> None:
    async with mail, Worker(mail):
        job = await send_welcome.enqueue("ada@example.org")  # returns when it is stored
        print("queued as job", job.id)
        print(await job.result(timeout=10))


if __name__ == "__main__":
    asyncio.run(main())
