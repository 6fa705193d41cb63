"""`hasten jobs`: show jobs, run them again, cancel them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import typer

from hasten._cli.output import is_terminal, print_json, print_lines, print_table
from hasten._cli.target import load, load_one
from hasten._escapes import printable
from hasten.jobs import Job, Queue, State
from hasten.jobs._encoding import UNDECODABLE

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show jobs, run them again, or cancel them."
)

OneQueue = Annotated[str, typer.Argument(metavar="MODULE:QUEUE", help="The queue, as app:mail.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")]


@app.command()
def counts(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="MODULE[:QUEUE]", help="Queues; a module means all queues in it."),
    ],
    as_json: AsJson = False,
) -> None:
    """Show how many jobs are in each state.

    The output is a table on a terminal. Elsewhere it is a line for each queue and state: the queue,
    the state and the number, separated by tabs. With --json, an object has "queue" and "counts".
    """
    queues = load(targets)
    counted = [_run(queue, queue.counts) for queue in queues]
    if as_json:
        print_json(
            [
                {"queue": queue.name, "counts": of_queue}
                for queue, of_queue in zip(queues, counted, strict=True)
            ]
        )
    elif is_terminal():
        print_table(
            ["state", *(queue.name for queue in queues)],
            [[state, *(f"{of_queue[state]:,}" for of_queue in counted)] for state in State],
            numeric=True,
        )
    else:
        print_lines(
            [queue.name, state, str(of_queue[state])]
            for queue, of_queue in zip(queues, counted, strict=True)
            for state in State
        )


@app.command(name="list")
def list_jobs(
    target: OneQueue,
    state: Annotated[State, typer.Option(help="The state of the jobs to show.")] = State.FAILED,
    limit: Annotated[int, typer.Option(min=1, help="How many jobs to show at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the jobs in a state, the newest first.

    The output is a table on a terminal. Elsewhere it is a line for each job: id, task, attempts,
    time of the last change (UTC), and the error if it has failed, else the data, separated by tabs.
    With --json, an object has the attributes of a Job, and "queue", "worker" and "due_at".
    """
    queue = load_one(target)
    jobs = _run(queue, partial(queue.jobs, state, limit=limit, newest_first=True))
    if as_json:
        print_json([_describe(job) for job in jobs])
    elif not is_terminal():
        print_lines(_row(job, _iso(_changed_at(job))) for job in jobs)
    elif jobs:
        last = "error" if state is State.FAILED else "data"
        print_table(
            ["id", "task", "attempts", "since", last], [_row(job, _since(job)) for job in jobs]
        )
    else:
        typer.echo(f"queue {printable(queue.name)} has no {state} jobs", err=True)


def _row(job: Job[Any], time: str) -> Sequence[str]:
    text = job.error if job.state is State.FAILED else job.record.data
    return job.id, job.name, str(job.attempts_made), time, text or ""


def _changed_at(job: Job[Any]) -> datetime:
    return job.finished_at or job.started_at or job.created_at


def _since(job: Job[Any]) -> str:
    return _changed_at(job).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _describe(job: Job[Any]) -> dict[str, object]:
    record = job.record
    return {
        "queue": record.queue,
        "id": record.id,
        "name": record.name,
        "state": record.state,
        "data": _from_json(record.data),
        "priority": record.priority,
        "attempts_made": record.attempts_made,
        "progress": _from_json(record.progress),
        "value": _from_json(record.result),
        "error": record.error,
        "tracebacks": record.tracebacks,
        "worker": record.worker,
        "created_at": _iso(job.created_at),
        "due_at": job.due_at and _iso(job.due_at),
        "started_at": job.started_at and _iso(job.started_at),
        "finished_at": job.finished_at and _iso(job.finished_at),
    }


def _from_json(text: str | None) -> object:
    try:
        return None if text is None else json.loads(text)
    except UNDECODABLE:
        return text  # another program stored something else there


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


@app.command()
def retry(
    target: OneQueue,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of jobs.")] = None,
    all_failed: Annotated[
        bool, typer.Option("--all", help="Run all failed jobs again, instead of naming ids.")
    ] = False,
) -> None:
    """Run finished jobs again, with a full set of attempts.

    The exit status is 1 if one of the ids could not be queued again.
    """
    if bool(ids) is all_failed:
        raise typer.BadParameter("name the ids of jobs, or use --all (not both)")
    queue = load_one(target)
    again = _run(queue, partial(queue.retry, *ids) if ids else partial(_retry_all, queue))
    typer.echo(f"{len(again)} {'job' if len(again) == 1 else 'jobs'} queued again")
    left = [id for id in dict.fromkeys(ids or ()) if id not in again]
    for id in left:
        typer.echo(f"{printable(id)}: not queued again: not finished, or no such job", err=True)
    if left:
        raise typer.Exit(1)


async def _retry_all(queue: Queue) -> list[str]:
    failed: list[str] = []
    # All are listed first: some may fail again before the last one is listed.
    while page := await queue.jobs(State.FAILED, offset=len(failed), limit=1000):
        failed += [job.id for job in page]
    return await queue.retry(*failed)


@app.command()
def cancel(
    target: OneQueue,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of jobs.")],
) -> None:
    """Cancel waiting and running jobs.

    Prints a line for each job. The exit status is 1 if one of them could not be cancelled.
    """
    queue = load_one(target)
    ids = list(dict.fromkeys(ids))
    cancelled = _run(queue, partial(queue.cancel, *ids))
    for id in ids:
        how = "cancelled" if id in cancelled else "not cancelled: already finished, or no such job"
        typer.echo(f"{printable(id)}: {how}")
    if len(cancelled) < len(ids):
        raise typer.Exit(1)


def _run(queue: Queue, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a call of a queue, if its store exists: these commands create no store."""

    async def run() -> T:
        try:
            queue.engine.require_existing()
            return await work()
        finally:
            await queue.aclose()

    return asyncio.run(run())
