"""`hasten jobs`: how many there are and how they are, once more or no more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hasten.cli.target import load, load_one
from hasten.errors import JobNotFound, WrongState
from hasten.jobs import Job, Queue, State

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at jobs, run them again, cancel them."
)

OneQueue = Annotated[str, typer.Argument(metavar="MODULE:QUEUE")]


@app.command()
def counts(
    targets: Annotated[list[str], typer.Argument(metavar="MODULE[:QUEUE]")],
) -> None:
    """Show how many jobs are in each state."""
    queues = load(targets)
    counted = [_run(queue, queue.counts()) for queue in queues]
    table = Table("state")
    for queue in queues:
        table.add_column(Text(queue.name), justify="right")
    for state in State:
        table.add_row(str(state), *(f"{of_queue[state]:,}" for of_queue in counted))
    Console().print(table)


@app.command(name="list")
def list_jobs(
    target: OneQueue,
    state: Annotated[State, typer.Option(help="Those in this state.")] = State.FAILED,
    count: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
) -> None:
    """Show jobs, the newest first."""
    queue = load_one(target)
    found = _run(queue, queue.jobs(state, count=count, newest_first=True))
    table = Table("id", "task", "attempts", "since", "reason" if state is State.FAILED else "data")
    for job in found:
        told = job.failed_reason if state is State.FAILED else job.record.data
        columns = job.id, job.name, str(job.attempts_made), _since(job), told or ""
        table.add_row(*map(Text, columns))  # not markup: the words are other people's
    Console().print(table)


def _since(job: Job[Any]) -> str:
    time: datetime = job.finished_at or job.processed_at or job.created_at
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


@app.command()
def retry(
    target: OneQueue,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID")] = None,
    all_failed: Annotated[
        bool, typer.Option("--all", help="All that have failed, in place of ids.")
    ] = False,
) -> None:
    """Run finished jobs again, with a full set of attempts."""
    if bool(ids) is all_failed:
        raise typer.BadParameter("expected the ids of jobs, or --all")
    queue = load_one(target)
    again = _run(queue, _retry(queue, ids))
    typer.echo(f"{again} jobs run again")


async def _retry(queue: Queue, ids: list[str] | None) -> int:
    if ids:
        await queue.retry(*ids)
        return len(set(ids))
    # Found first, as some may have failed again before the last is found.
    failed: list[str] = []
    while page := await queue.jobs(State.FAILED, start=len(failed), count=1000):
        failed += [job.id for job in page]
    again = 0
    for id in failed:
        try:
            await queue.retry(id)
        except (JobNotFound, WrongState):
            continue  # somebody else was faster
        again += 1
    return again


@app.command()
def cancel(target: OneQueue, ids: Annotated[list[str], typer.Argument(metavar="ID")]) -> None:
    """Let jobs end, wherever they wait or run."""
    queue = load_one(target)
    ids = list(dict.fromkeys(ids))
    cancelled = _run(queue, _cancel(queue, ids))
    for id, done in zip(ids, cancelled, strict=True):
        typer.echo(
            f"{id}: {'cancelled' if done else 'not cancelled, it has finished or never was'}"
        )
    if not all(cancelled):
        raise typer.Exit(1)


async def _cancel(queue: Queue, ids: list[str]) -> list[bool]:
    return [await queue.cancel(id) for id in ids]


def _run(queue: Queue, work: Coroutine[Any, Any, T]) -> T:
    async def run() -> T:
        try:
            return await work
        finally:
            await queue.close()

    return asyncio.run(run())
