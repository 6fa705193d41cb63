"""The events of the SQLite engine: one row for everything that one verb did to one queue.

Events of a hundred jobs are a few groups, `("active", [ids…])`, not a hundred rows, so emitting
them costs little when nobody reads them. Readers unfold the groups. A cursor is "row-index", and
the index counts events from 1 within the row.

Old rows are deleted, except the newest of them. That row becomes a mark, a group "missed", which
readers that are behind find in place of the deleted events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from sqlite3 import Connection
from typing import Final

import msgspec

from hasten._logs import get_logger
from hasten.jobs._encoding import UNDECODABLE, why_undecodable
from hasten.jobs._engine import EVENT_BYTES, VALUE_BYTES
from hasten.jobs._engines.sqlite.job_rows import halving
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._record import MISSED, Event, EventPage

logger = get_logger("hasten.sqlite")

KEPT: Final = 10_000  # the newest events of a queue that are kept at least, as in BullMQ
ROWS_AT_ONCE: Final = 100
TRIM_EVERY: Final = 1_000
TRIM_EVERY_BYTES: Final = EVENT_BYTES // 8


STORED_NAMES: Final = {
    "kind": "k", "ids": "i", "values": "v", "omitted": "o", "errors": "r", "previous": "p",
    "dues": "d", "count": "c",
}  # fmt: skip


class Group(msgspec.Struct, omit_defaults=True, rename=STORED_NAMES):
    """Events of one kind. The lists have an item for each job, in the order of `ids`."""

    kind: str
    ids: list[str]
    values: list[str] | None = None  # "null" for one that is omitted
    omitted: list[int] | None = None  # the size in bytes of a value that is too large, else 0
    errors: list[str] | None = None
    previous: str | None = None
    dues: list[int] | None = None
    count: int | None = None

    def unfold(self, row: int, first: int) -> Iterator[Event]:
        """Yield the events of the group. first is the index of its first event within the row."""
        for index, id in enumerate(self.ids):
            omitted = None if self.omitted is None else self.omitted[index] or None
            yield Event(
                f"{row}-{first + index}",
                self.kind,
                id,
                value=None if self.values is None or omitted else self.values[index],
                error=None if self.errors is None else self.errors[index],
                previous=self.previous,
                due_ms=None if self.dues is None else self.dues[index],
                count=self.count,
                omitted_bytes=omitted,
            )


def with_values(
    kind: str,
    ids: list[str],
    values: list[str],
    most: Callable[[int], int],
    previous: str | None = None,
) -> Group:
    """Make a group with values. most returns, by index, how many bytes a value may have."""
    # A character has up to four bytes. Most values are far below the limit.
    if max(map(len, values), default=0) <= VALUE_BYTES // 4:
        return Group(kind, ids, values=values, previous=previous)
    sizes = [len(value.encode()) for value in values]
    omitted = [
        size if size > VALUE_BYTES and size > most(index) else 0 for index, size in enumerate(sizes)
    ]
    if not any(omitted):
        return Group(kind, ids, values=values, previous=previous)
    left = ["null" if size else value for size, value in zip(omitted, values, strict=True)]
    return Group(kind, ids, values=left, omitted=omitted, previous=previous)


_rows: Final = msgspec.json.Decoder(list[tuple[int, list[Group]]])
_text_rows: Final = msgspec.json.Decoder(list[tuple[int, str]])
_group_decoder: Final = msgspec.json.Decoder(list[Group])
_encoder: Final = msgspec.json.Encoder()


def write(
    connection: Connection, queue: str, seq: int, groups: Sequence[Group], written: int
) -> int:
    """Store the events of a verb, and delete old ones from time to time.

    written is how many bytes of events were ever stored for the queue. Returns the new number.
    """
    amount = sum(len(group.ids) for group in groups)
    body = _encoder.encode([group for group in groups if group.ids])
    size = len(body)
    execute(
        connection, "add_events", queue=queue, seq=seq, amount=amount, bytes=size,
        body=body.decode(),
    )  # fmt: skip
    # Sequence numbers, of which seq is one, grow about as fast as the number of events.
    if seq % TRIM_EVERY < amount or written % TRIM_EVERY_BYTES + size >= TRIM_EVERY_BYTES:
        _trim(connection, queue)
    return written + size


def _trim(connection: Connection, queue: str) -> None:
    last = execute(
        connection, "last_old_event", queue=queue, keep=KEPT, bytes=EVENT_BYTES
    ).fetchone()
    if last is not None:
        seq, amount = last
        mark = _encoder.encode([Group(MISSED, [""], count=amount)]).decode()
        execute(connection, "trim_events", queue=queue, last=seq)
        execute(connection, "mark_events", queue=queue, seq=seq, body=mark)


def newest_cursor(connection: Connection, queue: str) -> str:
    """Return the cursor behind the newest event."""
    row = execute(connection, "last_event", queue=queue).fetchone()
    return "0-0" if row is None else f"{row[0]}-{row[1]}"


def read_after(connection: Connection, queue: str, cursor: str) -> EventPage | None:
    """Return the events after a cursor; None if there are none yet."""
    row, _, index = cursor.partition("-")

    def read(limit: int, *, as_text: bool = False) -> tuple[int, str]:
        of = {"queue": queue, "first": int(row), "limit": limit, "as_text": as_text}
        return limit, execute(connection, "read_events", **of).fetchone()[0]

    limit, text = halving(read, ROWS_AT_ONCE)
    found: list[Event] = []
    try:
        rows = _rows.decode(text)
    except UNDECODABLE:  # in one of the rows: find out which
        limit, text = halving(partial(read, as_text=True), ROWS_AT_ONCE)
        rows = [(seq, _groups(seq, body)) for seq, body in _text_rows.decode(text)]
    for seq, groups in rows:
        seen = int(index) if seq == int(row) else 0
        if groups and groups[0].kind == MISSED:
            found.extend(_missed(seq, groups[0], seen))
        else:
            found.extend(_unfold(seq, groups)[seen:])
    if found:
        return EventPage(found, found[-1].cursor)
    # Skip a full page of unreadable rows.
    return EventPage([], f"{rows[-1][0] + 1}-0") if len(rows) == limit else None


def _groups(seq: int, body: str) -> list[Group]:
    try:
        return _group_decoder.decode(body)
    except UNDECODABLE as error:
        logger.warning("events %d cannot be read: %s", seq, why_undecodable(error))
        return []


def _missed(row: int, mark: Group, seen: int) -> list[Event]:
    """Return the event for a reader that has seen only some of the deleted events."""
    amount = mark.count or 0
    return [Event(f"{row}-{amount}", MISSED, "")] if seen < amount else []


def _unfold(row: int, groups: list[Group]) -> list[Event]:
    events: list[Event] = []
    for group in groups:
        events.extend(group.unfold(row, len(events) + 1))
    return events
