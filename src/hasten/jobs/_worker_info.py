"""What a running worker reports: see `WorkerInfo`."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A running worker and what it does for one queue.

    `Queue.workers` returns the latest reports of the workers of a queue, in all processes. A worker
    reports every few seconds, from a thread, so that it also reports while its event loop is
    blocked. `Worker.info` returns the present values of a worker in this process, one object for
    each of its queues.

    - queue: the name of the queue.
    - name, id: the name of the worker, which others may have, and its unique id.
    - host, pid: the machine and the process.
    - version, release: the version of hasten, and the release of your code; see `Worker`.
    - started_at: when the worker started.
    - tasks: the names of the tasks of this queue that the worker can run, sorted.
    - slots: how many jobs the worker runs at once, of all its queues (`concurrency`).
    - slots_used: how many jobs of all its queues the worker holds: they run, or their outcome is
      about to be stored.
    - running: how many jobs of this queue the worker holds.
    - lease: for how many seconds the worker leases jobs; see `Worker`.
    - stopping: whether the worker takes no more jobs, because it is about to stop.
    - loop_lag: by how many seconds the event loop was late, at worst in the last 5 seconds. It
      grows for as long as the event loop is blocked.
    - memory: the resident memory of the process in bytes; None if the system has no /proc.
    - last_fetch_at: when the worker last claimed jobs of this queue and the store responded, even
      if there were none. It does so at least every 5 seconds, except while all slots are used.
    - last_seen_at: when the worker reported, by the clock of the store.
    """

    queue: str
    name: str
    id: str
    host: str
    pid: int
    version: str
    release: str | None
    started_at: datetime
    tasks: list[str]
    slots: int
    slots_used: int
    running: int
    lease: float
    stopping: bool
    loop_lag: float
    memory: int | None
    last_fetch_at: datetime | None
    last_seen_at: datetime


_decode: Final = msgspec.json.Decoder(WorkerInfo).decode
_encode: Final = msgspec.json.Encoder().encode


def encode_worker_info(info: WorkerInfo) -> str:
    """Encode what a worker reports, to store it."""
    return _encode(info).decode()


def decode_worker_info(text: str | bytes, seen_at: datetime) -> WorkerInfo | None:
    """Decode what a worker has reported at a time of the store's clock.

    Returns None if it cannot be decoded: a later version of hasten, or another program, wrote it.
    """
    try:
        info = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.structs.replace(info, last_seen_at=seen_at)
