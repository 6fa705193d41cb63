"""Tasks that add children in child processes, which import this module."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hasten.jobs import Context, Queue

VARIABLE: Final = "FLOW_TASKS_DATABASE"

queue = Queue("flows", f"sqlite:///{os.environ.get(VARIABLE, 'unused.db')}")


def use_file(path: Path) -> None:
    """Let the queue use this file, here and in child processes that are started later."""
    os.environ[VARIABLE] = str(path)
    queue.shared_store = Queue("flows", f"sqlite:///{path}").shared_store


@queue.task
async def square(number: int) -> int:
    return number * number


@queue.task(run_in="process")
async def report(ctx: Context, count: int) -> int:
    ctx.children.add(square.many(range(count)))
    await ctx.children.wait()
    return sum(await ctx.children.results(square))


@queue.task(run_in="process")
def plain_report(ctx: Context, count: int) -> int:
    ctx.children.sync.add(square.many(range(count)))
    ctx.children.sync.wait()
    return sum(ctx.children.sync.results(square))


@queue.task(run_in="process")
async def careless(ctx: Context) -> None:
    ctx.children.add(square.args(1))
