"""Steps that the verbs share: JSON in and out of statements, and finding jobs by id."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any, Final, TypeVar

import msgspec

from hasten._logs import get_logger
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._options import MAX_PRIORITY
from hasten.jobs._record import JobRecord
from hasten.jobs._states import State

T = TypeVar("T")

logger = get_logger("hasten.sqlite")

TRACEBACKS: Final = JobRecord.__struct_fields__.index("tracebacks")

_decode: Final = msgspec.json.Decoder().decode
_numbered_records: Final = msgspec.json.Decoder(list[tuple[int, JobRecord]])


def encode(value: object) -> str:
    """Encode a parameter of a statement as JSON."""
    return msgspec.json.encode(value).decode()


def read_json(connection: Connection, statement: str, **parameters: Any) -> Any:
    """Run a statement that returns one row of JSON, and decode it."""
    (text,) = execute(connection, statement, **parameters).fetchone()
    return _decode(text)


def is_number(id: str) -> bool:
    """Return whether the engine generated an id: such an id is the seq of the job."""
    return id.isdecimal() and id.isascii() and len(id) < 19


def seqs_of(connection: Connection, queue: str, ids: Sequence[str]) -> list[int]:
    """Return the seqs of jobs by their ids; 0, which no job has, for an unknown id.

    A number is not looked up. The job with this seq may not exist, be in another queue or have
    another id: callers compare queue and id, or the token.
    """
    chosen = [id for id in ids if not is_number(id)]
    if not chosen:
        return list(map(int, ids))
    found: dict[str, int] = dict(
        read_json(connection, "find_custom", queue=queue, ids=encode(chosen))
    )
    return [int(id) if is_number(id) else found.get(id, 0) for id in ids]


def ready_place(priority: int, sequence: int, *, front: bool = False) -> tuple[State, int]:
    """Return state and rank of a ready job: behind all others with its priority, or in front."""
    if priority:
        place = min(priority, MAX_PRIORITY) << 41  # a larger number does not fit the column
        return State.PRIORITIZED, place + (0 if front else sequence)
    return State.WAITING, -sequence if front else sequence


def halving(read: Callable[[int], T], count: int) -> T:
    """Read up to count rows as one text; fewer, if the text would be too long for SQLite.

    The limit is 1,000,000,000 bytes: a few jobs with the largest data or results.
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
    """Return the jobs with these seqs, in this order. Missing jobs are left out.

    Jobs that cannot be read are logged and left out, and so are tracebacks that are nested too
    deeply.
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
    # Only tracebacks are decoded here; all other fields are texts and numbers.
    return read_jobs(connection, seqs, tracebacks=False)


def _decode_jobs(text: str) -> dict[int, JobRecord]:
    try:
        return dict(_numbered_records.decode(text))
    except msgspec.ValidationError:
        found = ((seq, _record_of(fields)) for seq, fields in _decode(text))
        return {seq: record for seq, record in found if record is not None}


def _record_of(fields: list[Any]) -> JobRecord | None:
    """Decode a single job, after a list with a job that somebody wrote by hand has failed."""
    found = fields[TRACEBACKS]
    found = found if isinstance(found, list) else []
    fields[TRACEBACKS] = [traceback for traceback in found if isinstance(traceback, str)]
    try:
        return msgspec.convert(fields, JobRecord)
    except msgspec.ValidationError as error:
        logger.warning("job %s of queue %s cannot be read: %s", fields[1], fields[0], error)
        return None
