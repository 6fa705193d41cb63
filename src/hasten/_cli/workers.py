"""The command `hasten workers`: show the running workers of queues."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from hasten._cli.output import is_stdout_terminal, print_json, print_tab_separated, print_table
from hasten._cli.run_in_store import run_in_existing_store
from hasten._cli.target import load_queues
from hasten._escapes import escape_unprintable
from hasten.jobs import WorkerInfo


def workers(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:QUEUE]",
            help="Queues, such as app:mail. A module stands for all its queues.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
) -> None:
    """Show the workers that run, in all processes.

    On a terminal, the output is a table. In a pipe or file, each line has these fields, separated
    by tabs: queue, worker, host, process id, release, running jobs of the queue, used slots, all
    slots, lag of the event loop in seconds, memory in bytes, and the time of the last report (UTC).
    Unknown values are empty. With --json, there is an object with all facts for each worker and
    queue.
    """
    queues = load_queues(targets)
    found = [info for queue in queues for info in run_in_existing_store(queue, queue.workers)]
    if as_json:
        print_json([_to_json_object(info) for info in found])
    elif not is_stdout_terminal():
        print_tab_separated(_to_tab_separated_fields(info) for info in found)
    elif found:
        print_table(
            ["worker", "queue", "release", "jobs", "slots", "lag", "memory"],
            [_to_table_cells(info) for info in found],
        )
    else:
        names = ", ".join(escape_unprintable(queue.name) for queue in queues)
        typer.echo(f"no worker of hasten takes jobs of {names}", err=True)


def _to_tab_separated_fields(info: WorkerInfo) -> Sequence[str]:
    """Return the fields of a tab-separated line, which programs read."""
    return (
        info.queue,
        info.name,
        info.host,
        str(info.pid),
        info.release or "",
        str(info.running),
        str(info.slots_used),
        str(info.slots),
        f"{info.loop_lag:.3f}",
        "" if info.memory is None else str(info.memory),
        _to_iso(info.last_seen_at),
    )


def _to_table_cells(info: WorkerInfo) -> Sequence[str]:
    """Return the cells of a table row, which people read."""
    return (
        info.name,
        info.queue,
        info.release or "",
        f"{info.running:,}",
        f"{info.slots_used:,} of {info.slots:,}{', stopping' if info.stopping else ''}",
        f"{info.loop_lag:.2f} s",
        "" if info.memory is None else f"{info.memory / 2**20:,.0f} MiB",
    )


def _to_json_object(info: WorkerInfo) -> dict[str, object]:
    return {
        "queue": info.queue,
        "name": info.name,
        "id": info.id,
        "host": info.host,
        "pid": info.pid,
        "version": info.version,
        "release": info.release,
        "started_at": _to_iso(info.started_at),
        "tasks": info.tasks,
        "slots": info.slots,
        "slots_used": info.slots_used,
        "running": info.running,
        "lease": info.lease,
        "stopping": info.stopping,
        "loop_lag": info.loop_lag,
        "memory": info.memory,
        "last_fetch_at": info.last_fetch_at and _to_iso(info.last_fetch_at),
        "last_seen_at": _to_iso(info.last_seen_at),
    }


def _to_iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
