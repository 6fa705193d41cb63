"""The events of the SQLite engine: one row for all events that one operation emits for a queue.

A row holds groups, such as `("active", [ids…])`. The events of a hundred jobs are a few groups and
not a hundred rows, so emitting events costs little when nobody reads them. Readers convert the
groups to single events. A cursor is "ROW-INDEX": the row's sequence number, and the index of the
event within the row, from 1.

Rows are deleted when a queue has too many events. The newest deleted row is replaced by a mark, a
group of the kind "missed". A reader that has not read the deleted events finds the mark and reports
the event "missed".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from sqlite3 import Connection
from typing import Final

import msgspec

from hasten._logs import get_logger
from hasten.jobs._encoding import UNDECODABLE, describe_decoding_error
from hasten.jobs._engine import EVENT_BYTES, VALUE_BYTES
from hasten.jobs._engines.sqlite.job_rows import read_with_shrinking_count
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._record import MISSED, Event, EventPage

logger = get_logger("hasten.sqlite")

KEPT: Final = 10_000  # how many events of a queue are kept, at least; BullMQ's default
ROWS_AT_ONCE: Final = 100  # how many rows one read returns, at most
TRIM_EVERY: Final = 1_000  # old events are deleted after about this many new ones
TRIM_EVERY_BYTES: Final = EVENT_BYTES // 8  # or after this many bytes of new ones


TotalBytes = int
"""How many bytes of events have been stored for a queue, including deleted ones."""

STORED_NAMES: Final = {
    "kind": "k", "ids": "i", "values": "v", "omitted": "o", "errors": "r", "previous": "p",
    "dues": "d", "count": "c", "details": "x",
}  # fmt: skip


class EventGroup(msgspec.Struct, omit_defaults=True, rename=STORED_NAMES):
    """Events of the same kind for several jobs. Each list has one item per job, in order."""

    kind: str
    ids: list[str]
    values: list[str] | None = None  # as JSON; "null" for an omitted value
    omitted: list[int] | None = None  # sizes in bytes of omitted values, 0 for the others
    errors: list[str] | None = None
    previous: str | None = None
    dues: list[int] | None = None
    count: int | None = None
    details: list[dict[str, str]] | None = None

    def to_events(self, row_seq: int, first_index: int) -> Iterator[Event]:
        """Yield the single events of the group. first_index is that of the first one in its row."""
        for index, id in enumerate(self.ids):
            omitted = None if self.omitted is None else self.omitted[index] or None
            yield Event(
                f"{row_seq}-{first_index + index}",
                self.kind,
                id,
                value=None if self.values is None or omitted else self.values[index],
                error=None if self.errors is None else self.errors[index],
                previous=self.previous,
                due_ms=None if self.dues is None else self.dues[index],
                count=self.count,
                omitted_bytes=omitted,
                details={} if self.details is None else self.details[index],
            )


def make_event_group_with_values(
    kind: str,
    ids: list[str],
    values: list[str],
    max_bytes_at: Callable[[int], int],
    previous_state: str | None = None,
) -> EventGroup:
    """Make a group of events that have a value, such as a result. Large values are omitted.

    max_bytes_at is called with the index of a value, and returns how many bytes it may have.
    """
    # A character has up to four bytes, so in most groups the lengths show that no value is too
    # large.
    if max(map(len, values), default=0) <= VALUE_BYTES // 4:
        return EventGroup(kind, ids, values=values, previous=previous_state)
    sizes = [len(value.encode()) for value in values]
    omitted = [
        size if size > VALUE_BYTES and size > max_bytes_at(index) else 0
        for index, size in enumerate(sizes)
    ]
    if not any(omitted):
        return EventGroup(kind, ids, values=values, previous=previous_state)
    left = ["null" if size else value for size, value in zip(omitted, values, strict=True)]
    return EventGroup(kind, ids, values=left, omitted=omitted, previous=previous_state)


_row_decoder: Final = msgspec.json.Decoder(list[tuple[int, list[EventGroup]]])
_undecoded_row_decoder: Final = msgspec.json.Decoder(list[tuple[int, str]])
_group_decoder: Final = msgspec.json.Decoder(list[EventGroup])
_encoder: Final = msgspec.json.Encoder()


def write_events(
    connection: Connection, queue: str, seq: int, groups: Sequence[EventGroup], bytes_before: int
) -> TotalBytes:
    """Store the events of one operation as a row, and delete old rows from time to time.

    seq is the sequence number of the row. bytes_before is how many bytes of events have been stored
    for the queue before this call; returns the new total.
    """
    amount = sum(len(group.ids) for group in groups)
    body = _encoder.encode([group for group in groups if group.ids])
    size = len(body)
    execute(
        connection, "add_events", queue=queue, seq=seq, amount=amount, bytes=size,
        body=body.decode(),
    )  # fmt: skip
    # Sequence numbers grow about as fast as the number of events.
    if seq % TRIM_EVERY < amount or bytes_before % TRIM_EVERY_BYTES + size >= TRIM_EVERY_BYTES:
        _trim_events(connection, queue)
    return bytes_before + size


def _trim_events(connection: Connection, queue: str) -> None:
    """Delete the oldest rows if there are too many events. Leaves a mark for readers."""
    last = execute(
        connection, "last_old_event", queue=queue, keep=KEPT, bytes=EVENT_BYTES
    ).fetchone()
    if last is not None:
        seq, amount = last
        mark = _encoder.encode([EventGroup(MISSED, [""], count=amount)]).decode()
        execute(connection, "trim_events", queue=queue, last=seq)
        execute(connection, "mark_events", queue=queue, seq=seq, body=mark)


def newest_cursor(connection: Connection, queue: str) -> str:
    """Return the cursor of the newest event; "0-0" if there is none."""
    row = execute(connection, "last_event", queue=queue).fetchone()
    return "0-0" if row is None else f"{row[0]}-{row[1]}"


def read_events_after(connection: Connection, queue: str, cursor: str) -> EventPage | None:
    """Return the next events after a cursor; None if there are none yet."""
    row, _, index = cursor.partition("-")

    def read_rows(limit: int, *, as_text: bool = False) -> tuple[int, str]:
        of = {"queue": queue, "first": int(row), "limit": limit, "as_text": as_text}
        return limit, execute(connection, "read_events", **of).fetchone()[0]

    limit, text = read_with_shrinking_count(read_rows, ROWS_AT_ONCE)
    found: list[Event] = []
    try:
        rows = _row_decoder.decode(text)
    except UNDECODABLE:  # decode each row on its own, and skip those that cannot be decoded
        limit, text = read_with_shrinking_count(partial(read_rows, as_text=True), ROWS_AT_ONCE)
        rows = [
            (seq, _decode_groups(queue, seq, body))
            for seq, body in _undecoded_row_decoder.decode(text)
        ]
    for seq, groups in rows:
        seen = int(index) if seq == int(row) else 0
        if groups and groups[0].kind == MISSED:
            found.extend(_make_missed_events(seq, groups[0], seen))
        else:
            found.extend(_to_events(seq, groups)[seen:])
    if found:
        return EventPage(found, found[-1].cursor)
    # If none of the rows could be decoded and more may follow, continue after them.
    return EventPage([], f"{rows[-1][0] + 1}-0") if len(rows) == limit else None


def _decode_groups(queue: str, seq: int, body: str) -> list[EventGroup]:
    """Decode the groups in a row. Logs a warning and returns none if they cannot be decoded."""
    try:
        return _group_decoder.decode(body)
    except UNDECODABLE as error:
        reason = describe_decoding_error(error)
        logger.warning(
            "queue %s: row %d of events skipped, cannot decode it: %s", queue, seq, reason
        )
        return []


def _make_missed_events(row: int, mark: EventGroup, seen_count: int) -> list[Event]:
    """Return the event "missed", unless the reader has read all of the deleted events.

    The list is empty then. mark is the group that has replaced the last deleted row. seen_count is
    how many events of that row the reader has read before.
    """
    amount = mark.count or 0
    return [Event(f"{row}-{amount}", MISSED, "")] if seen_count < amount else []


def _to_events(row: int, groups: list[EventGroup]) -> list[Event]:
    """Return the events of all groups of a row."""
    events: list[Event] = []
    for group in groups:
        events.extend(group.to_events(row, len(events) + 1))
    return events
