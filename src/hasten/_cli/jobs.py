"""The commands of `hasten jobs`: show jobs, run them again, and cancel them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer

from hasten._cli.output import is_stdout_terminal, print_json, print_tab_separated, print_table
from hasten._cli.run_in_store import run_in_existing_store
from hasten._cli.target import load_queue, load_queues
from hasten._escapes import escape_unprintable
from hasten.errors import JobNotFound
from hasten.jobs import Job, Queue, State, Why
from hasten.jobs._encoding import UNDECODABLE

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show jobs, run them again, or cancel them."
)

OneQueue = Annotated[str, typer.Argument(metavar="MODULE:QUEUE", help="A queue, such as app:mail.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")]


@app.command()
def counts(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:QUEUE]",
            help="Queues, such as app:mail. A module stands for all its queues.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show how many jobs are in each state.

    On a terminal, the output is a table. In a pipe or file, each line has a queue, a state and the
    number of jobs, separated by tabs. With --json, there is an object with "queue" and "counts" for
    each queue.
    """
    queues = load_queues(targets)
    counted = [run_in_existing_store(queue, queue.counts) for queue in queues]
    if as_json:
        print_json(
            [
                {"queue": queue.name, "counts": of_queue}
                for queue, of_queue in zip(queues, counted, strict=True)
            ]
        )
    elif is_stdout_terminal():
        print_table(
            ["state", *(queue.name for queue in queues)],
            [[state, *(f"{of_queue[state]:,}" for of_queue in counted)] for state in State],
            right_align_after_first=True,
        )
    else:
        print_tab_separated(
            [queue.name, state, str(of_queue[state])]
            for queue, of_queue in zip(queues, counted, strict=True)
            for state in State
        )


@app.command(name="list")
def list_jobs(
    target: OneQueue,
    state: Annotated[State, typer.Option(help="The state of the jobs to show.")] = State.FAILED,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of jobs to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the jobs that are in one state, the newest first.

    On a terminal, the output is a table. In a pipe or file, each line has these fields, separated
    by tabs: id, task, attempts, time of the last change (UTC), and the error of a failed job or the
    data of any other job. With --json, there is an object with all attributes for each job.
    """
    queue = load_queue(target)
    jobs = run_in_existing_store(queue, partial(queue.jobs, state, limit=limit, newest_first=True))
    if as_json:
        print_json([_to_json_object(job) for job in jobs])
    elif not is_stdout_terminal():
        print_tab_separated(
            _to_row(job, _format_iso_time(_finished_started_or_created_at(job))) for job in jobs
        )
    elif jobs:
        last = "error" if state is State.FAILED else "data"
        print_table(
            ["id", "task", "attempts", "since", last],
            [
                _to_row(job, _format_local_time(_finished_started_or_created_at(job)))
                for job in jobs
            ],
        )
    else:
        typer.echo(f"queue {escape_unprintable(queue.name)} has no {state} jobs", err=True)


def _to_row(job: Job[Any], formatted_time: str) -> Sequence[str]:
    """Return the columns of a job in a list: id, task, attempts, time, and error or data."""
    text = job.error if job.state is State.FAILED else job.record.data
    return job.id, job.name, str(job.attempts_made), formatted_time, text or ""


def _finished_started_or_created_at(job: Job[Any]) -> datetime:
    """Return when a job has finished, or else when it was last started or created."""
    return job.finished_at or job.started_at or job.created_at


def _format_local_time(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _to_json_object(job: Job[Any]) -> dict[str, object]:
    record = job.record
    return {
        "queue": record.queue,
        "id": record.id,
        "name": record.name,
        "state": record.state,
        "data": _parse_json_or_keep_text(record.data),
        "priority": record.priority,
        "attempts_made": record.attempts_made,
        "progress": _parse_json_or_keep_text(record.progress),
        "value": _parse_json_or_keep_text(record.result),
        "error": record.error,
        "tracebacks": record.tracebacks,
        "worker": record.worker,
        "created_at": _format_iso_time(job.created_at),
        "due_at": job.due_at and _format_iso_time(job.due_at),
        "started_at": job.started_at and _format_iso_time(job.started_at),
        "finished_at": job.finished_at and _format_iso_time(job.finished_at),
    }


def _parse_json_or_keep_text(text: str | None) -> object:
    """Return the value of a JSON text. A text that is not JSON is returned unchanged."""
    try:
        return None if text is None else json.loads(text)
    except UNDECODABLE:
        return text  # other programs may store anything


def _format_iso_time(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


@app.command()
def why(
    target: OneQueue,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of jobs.")],
    as_json: AsJson = False,
) -> None:
    """Explain why jobs do not run now, or how they have ended.

    On a terminal, the output is a sentence for each job. In a pipe or file, each line has these
    fields, separated by tabs: id, code of the reason, and the sentence. With --json, there is an
    object with the code, the sentence and the facts in it for each job. The exit status is 1 if one
    of the jobs does not exist.
    """
    queue = load_queue(target)
    ids = list(dict.fromkeys(ids))
    explained = run_in_existing_store(queue, partial(_explain, queue, ids))
    if as_json:
        print_json([_reason_to_json_object(reason) for reason in explained.values()])
    elif is_stdout_terminal():
        for reason in explained.values():
            typer.echo(escape_unprintable(reason.text))
    else:
        print_tab_separated([id, reason.code, reason.text] for id, reason in explained.items())
    for id in (id for id in ids if id not in explained):
        typer.echo(
            f"{escape_unprintable(id)}: no such job in queue {escape_unprintable(queue.name)}",
            err=True,
        )
    if len(explained) < len(ids):
        raise typer.Exit(1)


def _reason_to_json_object(why: Why) -> dict[str, object]:
    return {
        "queue": why.queue,
        "id": why.id,
        "task": why.task,
        "state": why.state,
        "code": why.code,
        "text": why.text,
        "until": why.until and _format_iso_time(why.until),
        "worker": why.worker,
        "error": why.error,
        "child": why.child,
        "child_queue": why.child_queue,
        "ahead": why.ahead,
        "since": why.since,
    }


async def _explain(queue: Queue, ids: Sequence[str]) -> dict[str, Why]:
    """Return why jobs do not run, by id, without those that do not exist."""
    explained = {}
    for id in ids:
        with contextlib.suppress(JobNotFound):
            explained[id] = await queue.why(id)
    return explained


@app.command()
def retry(
    target: OneQueue,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of jobs.")] = None,
    all_failed: Annotated[
        bool,
        typer.Option("--all", help="Run all failed jobs again. Pass no ids then."),
    ] = False,
) -> None:
    """Run completed or failed jobs again. Their attempts are counted from zero.

    The exit status is 1 if a job with one of the ids could not be queued again.
    """
    if bool(ids) is all_failed:
        raise typer.BadParameter("pass either ids of jobs or --all")
    queue = load_queue(target)
    retry_jobs = partial(queue.retry, *ids) if ids else partial(_retry_all, queue)
    retried = run_in_existing_store(queue, retry_jobs)
    typer.echo(f"{len(retried)} {'job' if len(retried) == 1 else 'jobs'} queued again")
    not_retried = [id for id in dict.fromkeys(ids or ()) if id not in retried]
    for id in not_retried:
        typer.echo(
            f"{escape_unprintable(id)}: not queued again: not finished, or no such job", err=True
        )
    if not_retried:
        raise typer.Exit(1)


async def _retry_all(queue: Queue) -> list[str]:
    """Queue all failed jobs again, and return their ids."""
    failed: list[str] = []
    # List all jobs before the first retry: a job that fails again meanwhile would be retried twice.
    while page := await queue.jobs(State.FAILED, offset=len(failed), limit=1000):
        failed += [job.id for job in page]
    return await queue.retry(*failed)


@app.command()
def cancel(
    target: OneQueue,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of jobs.")],
) -> None:
    """Cancel jobs that have not finished.

    Prints a line for each job. The exit status is 1 if one of the jobs could not be cancelled.
    """
    queue = load_queue(target)
    ids = list(dict.fromkeys(ids))
    cancelled = run_in_existing_store(queue, partial(queue.cancel, *ids))
    for id in ids:
        how = "cancelled" if id in cancelled else "not cancelled: already finished, or no such job"
        typer.echo(f"{escape_unprintable(id)}: {how}")
    if len(cancelled) < len(ids):
        raise typer.Exit(1)
