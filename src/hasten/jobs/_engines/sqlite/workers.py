"""The running workers of a queue: one row for each, which the worker writes every few seconds."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Final

from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._engines.sqlite.queue_ledger import Ledger
from hasten.jobs._epoch import to_datetime
from hasten.jobs._worker_info import WorkerInfo, decode_worker_info

# No queue has this name, so a report wakes none of those who wait for a change of a queue.
TOPIC: Final = ""


def report(
    connection: Connection, queue: str, id: str, encoded_info: str, lifetime_ms: int, now_ms: int
) -> bool:
    """Store what a worker reports, and delete dead workers; see `Engine.report_worker`."""
    execute(connection, "delete_dead_workers", queue=queue, now=now_ms)
    execute(
        connection, "write_worker", queue=queue, id=id, seen=now_ms, expires=now_ms + lifetime_ms,
        info=encoded_info,
    )  # fmt: skip
    return Ledger(connection, queue, now_ms=now_ms).paused


def read(connection: Connection, queue: str, now_ms: int) -> list[WorkerInfo]:
    """Return the running workers of a queue; see `Engine.workers`."""
    rows = execute(connection, "read_workers", queue=queue, now=now_ms).fetchall()
    found = [decode_worker_info(text, to_datetime(seen_ms)) for seen_ms, text in rows]
    return [info for info in found if info is not None]


def count_running(connection: Connection, queue: str, now_ms: int) -> int:
    """Return how many workers of a queue are running, also those that `read` cannot decode."""
    return len(execute(connection, "read_workers", queue=queue, now=now_ms).fetchall())


def delete(connection: Connection, queue: str, id: str) -> None:
    """Delete a worker that has stopped; see `Engine.unregister_worker`."""
    execute(connection, "delete_worker", queue=queue, id=id)
