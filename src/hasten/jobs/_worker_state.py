"""The state of a worker process, as plain data that one process can send to another."""

from __future__ import annotations

from typing import Final

import msgspec

from hasten.jobs._run_totals import Totals


class ServedQueue(msgspec.Struct, frozen=True):
    """What a worker does for one of its queues. Durations are in seconds."""

    queue: str
    fetch_age: float | None  # since the last successful fetch; None before the first
    running: int  # jobs that the worker holds
    running_seconds: float  # for how long they have run, in total
    average_run_seconds: float | None  # how long a run takes on average; None if not known
    store_error: str | None  # the last error while the store is failing, else None
    failing_seconds: float  # for how long the store has been failing


class WorkerState(msgspec.Struct, frozen=True):
    """What a worker does at present. Durations are in seconds."""

    name: str
    is_running: bool
    is_stopping: bool
    failure: str | None  # the internal error that has ended the worker
    blocked_seconds: float  # for how long the event loop has been blocked; 0 if it is not
    lag_seconds: float  # how late the event loop was at worst in the last seconds
    slots: int
    slots_used: int
    memory: int | None  # of the process, in bytes
    queues: list[ServedQueue]


class WorkerProcessReport(msgspec.Struct, frozen=True):
    """The workers of one process and its totals.

    number distinguishes the processes of a supervisor, from 1. problem says why the process has
    not reported; then totals are those of its last report.
    """

    number: int
    workers: list[WorkerState]
    totals: Totals
    problem: str | None = None


decode_report: Final = msgspec.json.Decoder(WorkerProcessReport).decode
encode_report: Final = msgspec.json.Encoder().encode
