"""The application whose processes are killed: its tasks, and a program to work or to produce.

    python -m tests.acceptance.app work --lease 1
    python -m tests.acceptance.app enqueue --count 1000

The store is HASTEN_URL. What happens is written to the file LEDGER, a line at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hasten.errors import HastenError
from hasten.jobs import Context, Queue, Worker

QUEUE: Final = "acceptance"
BATCH: Final = 100
MEMBERS: Final = 3
"""How many children a flow has, and members a batch."""

queue = Queue(QUEUE, keep_completed=True, keep_failed=True)


def record(job_id: str, what: str) -> None:
    """Append a line in one write, so that processes do not mix their lines."""
    line = f"{job_id} {os.getpid()} {os.getppid()} {what} {time.monotonic_ns()}\n"
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


@contextmanager
def recorded(ctx: Context) -> Iterator[None]:
    """Record the start and the end: `end` if the block completes, otherwise `cut`."""
    record(ctx.job.id, "start")
    how = "cut"
    try:
        yield
        how = "end"
    finally:
        record(ctx.job.id, how)


@queue.task
async def step(ctx: Context, seconds: float = 0.0, number: int = 0) -> int:
    with recorded(ctx):
        await asyncio.sleep(seconds)
    return os.getpid()


@queue.task
def step_in_thread(ctx: Context, seconds: float = 0.0) -> int:
    with recorded(ctx):
        time.sleep(seconds)
    return os.getpid()


@queue.task(run_in="process")
def step_in_process(ctx: Context, seconds: float = 0.0) -> int:
    with recorded(ctx):
        time.sleep(seconds)
    return os.getpid()


@queue.task
async def hold(ctx: Context, gate: str) -> int:
    """Run until a file exists."""
    with recorded(ctx):
        while not Path(gate).exists():
            await asyncio.sleep(0.02)
    return os.getpid()


@queue.task
def hold_in_thread(ctx: Context, gate: str) -> int:
    with recorded(ctx):
        _wait_for(gate)
    return os.getpid()


@queue.task(run_in="process")
def hold_in_process(ctx: Context, gate: str) -> int:
    with recorded(ctx):
        _wait_for(gate)
    return os.getpid()


def _wait_for(gate: str) -> None:
    while not Path(gate).exists():
        time.sleep(0.02)


@queue.task
async def block_sleeping(ctx: Context, seconds: float) -> None:
    """Block the event loop, and let other threads run."""
    with recorded(ctx):
        time.sleep(seconds)


@queue.task
async def block_spinning(ctx: Context, seconds: float) -> None:
    """Block the event loop and, as far as possible, all other threads."""
    with recorded(ctx):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass


@queue.task
async def kill_worker(ctx: Context) -> None:
    with recorded(ctx):
        os.kill(os.getpid(), signal.SIGKILL)


@queue.task(run_in="process", attempts=2)
def kill_own_process(ctx: Context) -> str:
    """Kill the process of the first attempt."""
    with recorded(ctx):
        if ctx.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return "second attempt"


@queue.task(run_in="process")
def spin_in_process(ctx: Context) -> None:
    """Loop without a call that a signal could interrupt."""
    with recorded(ctx):
        while True:
            pass


# The program ------------------------------------------------------------------------------------


async def work(options: argparse.Namespace) -> None:
    worker = Worker(
        queue,
        concurrency=options.concurrency,
        lease=options.lease,
        grace=options.grace,
        crash_limit=options.crash_limit,
    )
    await worker.run()
    await queue.aclose()


async def enqueue(options: argparse.Namespace) -> None:
    """Add jobs one by one, and print the id of each accepted one."""
    for number in range(options.count):
        job = await step.enqueue(number=number)
        print(job.id, flush=True)


async def enqueue_together(options: argparse.Namespace) -> None:
    """Add jobs by many concurrent callers, so that they share transactions."""

    async def one(number: int) -> None:
        job = await step.enqueue(number=number)
        print(job.id, flush=True)

    for start in range(0, options.count, BATCH):
        await asyncio.gather(*(one(start + number) for number in range(BATCH)))


async def enqueue_many(options: argparse.Namespace) -> None:
    """Add batches, and print the number of each accepted one."""
    for batch in range(options.count):
        await step.enqueue_many(step.args(number=batch) for _ in range(BATCH))
        print(batch, flush=True)


async def enqueue_flows(options: argparse.Namespace) -> None:
    """Add flows and batches with a job for their end, and print the ids of both kinds.

    The jobs for their end are not kept: a second one with the same id would be a new job.
    """
    passing = step.using(keep_completed=False)
    for number in range(options.count):
        flow = step.args(number=number).after(step.many([0.02] * MEMBERS))
        root = await flow.on_ended(passing.args(number=number)).enqueue()
        print(root.id, flush=True)
        batch = await queue.batch(on_ended=passing.args(number=number))
        await batch.add(step.many([0.02] * MEMBERS))
        await batch.close()
        print(batch.id, flush=True)


ROLES: Final = {
    "work": work,
    "enqueue": enqueue,
    "enqueue-together": enqueue_together,
    "enqueue-many": enqueue_many,
    "enqueue-flows": enqueue_flows,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--lease", type=float, default=10)
    parser.add_argument("--grace", type=float, default=20)
    parser.add_argument("--crash-limit", type=int, default=3)
    parser.add_argument("--uid", type=int, help="give up the rights of root first")
    options = parser.parse_args()
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    if options.uid is not None:
        os.setuid(options.uid)
    try:
        asyncio.run(ROLES[options.role](options))
    except HastenError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
