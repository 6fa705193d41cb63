"""Steps that verbs share: JSON in and out of statements, and jobs by their ids."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any, Final, TypeVar

import msgspec

from hasten._logs import get_logger
from hasten.jobs._engines.sqlite.statements import execute
from hasten.jobs._options import MAX_PRIORITY
from hasten.jobs._record import JobRecord
from hasten.jobs._states import State

T = TypeVar("T")

logger = get_logger("hasten.sqlite")

TRACEBACKS: Final = JobRecord.__struct_fields__.index("tracebacks")

_decode: Final = msgspec.json.Decoder().decode
_numbered_records: Final = msgspec.json.Decoder(list[tuple[int, JobRecord]])


def encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def read_json(connection: Connection, statement: str, **parameters: Any) -> Any:
    """Run a statement that returns one row of JSON."""
    (text,) = execute(connection, statement, **parameters).fetchone()
    return _decode(text)


def is_number(id: str) -> bool:
    """Whether an id is one of ours: the number of the job's row."""
    return id.isdecimal() and id.isascii() and len(id) < 19


def seqs_of(connection: Connection, queue: str, ids: Sequence[str]) -> list[int]:
    """The numbers of jobs by their ids; 0, which no job has, for an id that cannot be.

    An id of ours is the number itself and is not looked up: the job may be gone, or be another
    queue's, or have another id. Who uses the number compares queue and id, or the token.
    """
    chosen = [id for id in ids if not is_number(id)]
    if not chosen:
        return list(map(int, ids))
    found: dict[str, int] = dict(
        read_json(connection, "find_custom", queue=queue, ids=encode(chosen))
    )
    return [int(id) if is_number(id) else found.get(id, 0) for id in ids]


def ready_place(priority: int, ticket: int, *, front: bool = False) -> tuple[State, int]:
    """State and rank of a ready job: behind all that wait with its priority, or in front."""
    if priority:
        place = min(priority, MAX_PRIORITY) << 41  # more would not fit a column
        return State.PRIORITIZED, place + (0 if front else ticket)
    return State.WAITING, -ticket if front else ticket


def halving(read: Callable[[int], T], count: int) -> T:
    """Read up to count rows as one text. Fewer, if they are more than the largest text holds.

    That is 1,000,000,000 bytes: some jobs with the largest data or results.
    """
    while True:
        try:
            return read(count)
        except sqlite3.DataError:
            if count < 2:
                raise
        count //= 2


def read_jobs(
    connection: Connection, seqs: Sequence[int], *, tracebacks: bool = True
) -> dict[int, JobRecord]:
    """The jobs with these numbers, in this order; without those that there are not.

    And without those that cannot be read, which a log tells of. Traces that are nested too deeply
    are left out.
    """
    try:
        (text,) = execute(
            connection, "read_jobs", seqs=encode(seqs), tracebacks=tracebacks
        ).fetchone()
        return _decode_jobs(text)
    except (sqlite3.DataError, RecursionError, MemoryError) as error:  # see `halving`
        if len(seqs) > 1:
            middle = len(seqs) // 2
            return read_jobs(connection, seqs[:middle]) | read_jobs(connection, seqs[middle:])
        if not tracebacks or isinstance(error, sqlite3.DataError):
            raise
    # All but the traces are texts, which are not decoded here.
    return read_jobs(connection, seqs, tracebacks=False)


def _decode_jobs(text: str) -> dict[int, JobRecord]:
    try:
        return dict(_numbered_records.decode(text))
    except msgspec.ValidationError:
        found = ((seq, _record_of(fields)) for seq, fields in _decode(text))
        return {seq: record for seq, record in found if record is not None}


def _record_of(fields: list[Any]) -> JobRecord | None:
    """A job one by one, where a listing has met one that somebody has written by hand."""
    traces = fields[TRACEBACKS]
    traces = traces if isinstance(traces, list) else []
    fields[TRACEBACKS] = [trace for trace in traces if isinstance(trace, str)]
    try:
        return msgspec.convert(fields, JobRecord)
    except msgspec.ValidationError as error:
        logger.warning("job %s of queue %s cannot be read: %s", fields[1], fields[0], error)
        return None
