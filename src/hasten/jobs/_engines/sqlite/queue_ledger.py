"""The ledgers of queues, which hold their counters, and the unit of work, which writes them.

A ledger is the row of a queue in the table `hasten_queues`. An operation reads it at the beginning
and writes it at the end. Meanwhile the ledger issues sequence numbers, counts finished jobs and
collects events in memory, so these cost two statements however many jobs the operation changes.
"""

from __future__ import annotations

from sqlite3 import Connection
from types import TracebackType
from typing import Self

from hasten._sqlite import too_new_error
from hasten.jobs._engines.sqlite import event_rows
from hasten.jobs._engines.sqlite.job_statements import MIGRATIONS, execute
from hasten.jobs._states import State


class UnitOfWork:
    """One operation on any number of queues. Use it with `with`, inside a transaction.

    Within the block, `get_ledger` returns the ledger of a queue: its counters and new events. If
    the block ends without an error, these ledgers are written. Otherwise the caller rolls the
    transaction back, and nothing is stored.
    """

    __slots__ = ("_ledgers", "connection", "now_ms")

    def __init__(self, connection: Connection, now_ms: int = 0) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self._ledgers: dict[str, Ledger] = {}

    def get_ledger(self, queue: str) -> Ledger:
        """Return the ledger of a queue. It is read on the first call for that queue."""
        ledger = self._ledgers.get(queue)
        if ledger is None:
            ledger = self._ledgers[queue] = Ledger(self.connection, queue, self.now_ms)
        return ledger

    @property
    def queues(self) -> list[str]:
        """The names of the queues whose ledgers were opened."""
        return list(self._ledgers)

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
    """The counters of one queue, and the events that the current operation emits.

    finished is the number of jobs in each finished state, sequence the last sequence number that
    was issued, event_bytes the size of all events ever stored, linked whether the queue has ever
    had a job that is connected with other jobs (see `links`), and has_due whether a delayed job is
    due at now_ms.
    """

    __slots__ = (
        "_events",
        "_stored",
        "event_bytes",
        "finished",
        "has_due",
        "linked",
        "name",
        "paused",
        "sequence",
    )

    def __init__(self, connection: Connection, name: str, now_ms: int) -> None:
        """Read the ledger. Raises `StoreTooNew` if a later version has migrated the database."""
        row = execute(connection, "read_ledger", queue=name, now=now_ms).fetchone()
        schema, has_due, *counters = row
        if schema > len(MIGRATIONS):
            # The file was open while another process migrated it.
            raise too_new_error(_url_of(connection), schema, len(MIGRATIONS))
        self._stored = None if counters[0] is None else tuple(counters)
        paused, completed, failed, sequence, event_bytes, linked = self._stored or (0,) * 6
        self.name = name
        self.paused = bool(paused)
        self.finished = {State.COMPLETED: completed, State.FAILED: failed}
        self.sequence: int = sequence
        self.event_bytes: int = event_bytes
        self.linked = bool(linked)
        self.has_due = bool(has_due)
        self._events: list[event_rows.EventGroup] = []

    @property
    def cursor_before_new_events(self) -> str:
        """A cursor after all events that are stored, and before those that will be emitted."""
        return f"{self.sequence + 1}-0"

    def next_sequence(self) -> int:
        """Return a new sequence number, larger than all earlier ones of this queue."""
        self.sequence += 1
        return self.sequence

    def next_sequences(self, count: int) -> range:
        """Return count new sequence numbers; see `next_sequence`."""
        first = self.sequence + 1
        self.sequence += count
        return range(first, first + count)

    def adjust_count(self, state: State, change: int) -> None:
        """Add change to the number of jobs in a finished state. Other states are not counted."""
        if state in self.finished:
            self.finished[state] += change

    def emit(self, *groups: event_rows.EventGroup) -> None:
        """Collect events, which `write` stores. Groups without ids are ignored."""
        self._events.extend(groups)

    def write(self, connection: Connection) -> None:
        """Store the collected events, and the counters if they have changed."""
        if any(group.ids for group in self._events):
            self.event_bytes = event_rows.write_events(
                connection, self.name, self.next_sequence(), self._events, self.event_bytes
            )
        row = (
            self.paused, *self.finished.values(), self.sequence, self.event_bytes, self.linked
        )  # fmt: skip
        if row != self._stored:
            paused, completed, failed, sequence, event_bytes, linked = row
            execute(
                connection, "write_ledger", queue=self.name, paused=paused, completed=completed,
                failed=failed, sequence=sequence, event_bytes=event_bytes, linked=linked,
            )  # fmt: skip


def _url_of(connection: Connection) -> str:
    """Return the URL of the database of a connection, for messages."""
    (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
    return f"sqlite:///{path}"
