"""The events of the SQLite engine: one row for all that one verb did to one queue.

What happened to a hundred jobs at once is a few groups, `("active", [ids…])`, not a hundred rows;
so telling it costs next to nothing when nobody listens. A reader takes the groups apart. A cursor
is "row-place", counted from 1 within the row.

Old rows are deleted, all but the newest of them: that one becomes a mark, a group "missed", which a
reader that had not come so far finds in their place.
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
from hasten.jobs._engines.sqlite.rows import halving
from hasten.jobs._engines.sqlite.statements import execute
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
    """Events of one kind: the jobs, and what else is told, in the order of the jobs."""

    kind: str
    ids: list[str]
    values: list[str] | None = None  # "null" for one that is omitted
    omitted: list[int] | None = None  # how many bytes each value has that is too large; else 0
    errors: list[str] | None = None
    previous: str | None = None
    dues: list[int] | None = None
    count: int | None = None

    def unfold(self, row: int, place: int) -> Iterator[Event]:
        for index, id in enumerate(self.ids):
            omitted = None if self.omitted is None else self.omitted[index] or None
            yield Event(
                f"{row}-{place + index}",
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
    """Events with values. most tells, by the place, how many bytes each of them may have."""
    # A character has up to four bytes. Mostly all are far below the limit.
    if max(map(len, values), default=0) <= VALUE_BYTES // 4:
        return Group(kind, ids, values=values, previous=previous)
    sizes = [len(value.encode()) for value in values]
    omitted = [
        size if size > VALUE_BYTES and size > most(place) else 0 for place, size in enumerate(sizes)
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
    """Store what happened to a queue, and now and then delete what is too old.

    written is how many bytes of events the queue ever had. Returns how many it has had now.
    """
    amount = sum(len(group.ids) for group in groups)
    told = [group for group in groups if group.ids]
    body = _encoder.encode(told)
    size = len(body)
    execute(
        connection, "add_events", queue=queue, seq=seq, amount=amount, bytes=size,
        body=body.decode(),
    )  # fmt: skip
    # Tickets, of which seq is one, are used up about as fast as events come.
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
    row = execute(connection, "last_event", queue=queue).fetchone()
    return "0-0" if row is None else f"{row[0]}-{row[1]}"


def read_after(connection: Connection, queue: str, cursor: str) -> EventPage | None:
    """The events after a cursor; None if there are none yet."""
    row, _, place = cursor.partition("-")

    def read(limit: int, *, as_text: bool = False) -> tuple[int, str]:
        of = {"queue": queue, "first": int(row), "limit": limit, "as_text": as_text}
        return limit, execute(connection, "read_events", **of).fetchone()[0]

    limit, text = halving(read, ROWS_AT_ONCE)
    found: list[Event] = []
    try:
        rows = _rows.decode(text)
    except UNDECODABLE:  # one of them: see which
        limit, text = halving(partial(read, as_text=True), ROWS_AT_ONCE)
        rows = [(seq, _groups(seq, body)) for seq, body in _text_rows.decode(text)]
    for seq, groups in rows:
        seen = int(place) if seq == int(row) else 0
        if groups and groups[0].kind == MISSED:
            found.extend(_missed(seq, groups[0], seen))
        else:
            found.extend(_unfold(seq, groups)[seen:])
    if found:
        return EventPage(found, found[-1].cursor)
    # A page of rows that cannot be read is passed by, should there be so many.
    return EventPage([], f"{rows[-1][0] + 1}-0") if len(rows) == limit else None


def _groups(seq: int, body: str) -> list[Group]:
    try:
        return _group_decoder.decode(body)
    except UNDECODABLE as error:
        logger.warning("events %d cannot be read: %s", seq, why_undecodable(error))
        return []


def _missed(row: int, mark: Group, seen: int) -> list[Event]:
    """What a mark says to a reader that has seen so many of the events in whose place it is."""
    amount = mark.count or 0
    return [Event(f"{row}-{amount}", MISSED, "")] if seen < amount else []


def _unfold(row: int, groups: list[Group]) -> list[Event]:
    events: list[Event] = []
    for group in groups:
        events.extend(group.unfold(row, len(events) + 1))
    return events
