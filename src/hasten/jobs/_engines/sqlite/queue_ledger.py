"""The ledger of a queue, and the unit of work that opens the ledgers of one transaction.

A ledger is the row of a queue in `hasten_queues`, read when a verb begins and written when it ends.
It hands out sequence numbers, counts the finished jobs and collects the events, so a verb pays for
these once, however many jobs it moves.
"""

from __future__ import annotations

from sqlite3 import Connection
from types import TracebackType
from typing import Self

from hasten.jobs._engines.sqlite import event_rows
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._states import State


class UnitOfWork:
    """What one verb does, to any number of queues: all of it is stored, or none.

    The block of `with` runs inside one transaction. The ledgers that were opened are written when
    it ends without an error.
    """

    __slots__ = ("_ledgers", "connection", "now_ms")

    def __init__(self, connection: Connection, now_ms: int = 0) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self._ledgers: dict[str, Ledger] = {}

    def open(self, queue: str) -> Ledger:
        """Return the ledger of a queue: the same one at each call."""
        ledger = self._ledgers.get(queue)
        if ledger is None:
            ledger = self._ledgers[queue] = Ledger(self.connection, queue, self.now_ms)
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            for ledger in self._ledgers.values():
                ledger.write(self.connection)


class Ledger:
    """The counters of one queue: whether it is paused, its finished jobs, its sequence number.

    has_due tells whether a delayed job is due at `now_ms`.
    """

    __slots__ = (
        "_events",
        "_stored",
        "event_bytes",
        "finished",
        "has_due",
        "name",
        "paused",
        "sequence",
    )

    def __init__(self, connection: Connection, name: str, now_ms: int) -> None:
        row = execute(connection, "read_ledger", queue=name, now=now_ms).fetchone()
        self._stored = row and row[:5]
        paused, completed, failed, sequence, event_bytes, has_due = row or (0, 0, 0, 0, 0, 0)
        self.name = name
        self.paused = bool(paused)
        self.finished = {State.COMPLETED: completed, State.FAILED: failed}
        self.sequence: int = sequence
        self.event_bytes: int = event_bytes
        self.has_due = bool(has_due)
        self._events: list[event_rows.Group] = []

    @property
    def cursor(self) -> str:
        """A cursor before all events that are emitted from now on, and after all others."""
        return f"{self.sequence + 1}-0"

    def next_sequence(self) -> int:
        """Return a number that is larger than all before it. It is never handed out again."""
        self.sequence += 1
        return self.sequence

    def next_sequences(self, count: int) -> range:
        """Return several numbers; see `next_sequence`."""
        first = self.sequence + 1
        self.sequence += count
        return range(first, first + count)

    def count(self, state: State, change: int) -> None:
        """Add to the number of jobs in a finished state. Other states are not counted."""
        if state in self.finished:
            self.finished[state] += change

    def emit(self, *groups: event_rows.Group) -> None:
        """Add events. Groups without jobs are dropped."""
        self._events.extend(groups)

    def write(self, connection: Connection) -> None:
        """Store the events and the changed counters."""
        if any(group.ids for group in self._events):
            self.event_bytes = event_rows.write(
                connection, self.name, self.next_sequence(), self._events, self.event_bytes
            )
        row = self.paused, *self.finished.values(), self.sequence, self.event_bytes
        if row != self._stored:
            paused, completed, failed, sequence, event_bytes = row
            execute(
                connection, "write_ledger", queue=self.name, paused=paused, completed=completed,
                failed=failed, sequence=sequence, event_bytes=event_bytes,
            )  # fmt: skip
