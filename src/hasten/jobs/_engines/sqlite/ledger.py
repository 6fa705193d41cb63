"""A queue's ledger: its row, read when a verb begins and written when it ends.

It gives out tickets, counts the finished jobs and gathers the events; so a verb pays for these
once, however many jobs it moves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from sqlite3 import Connection

from hasten.jobs._engines.sqlite import events
from hasten.jobs._engines.sqlite.statements import execute
from hasten.jobs._states import State


class Ledger:
    """paused, the numbers of finished jobs, and whether a delayed job is due, as of the opening."""

    __slots__ = (
        "_before",
        "_connection",
        "_happened",
        "event_bytes",
        "finished",
        "has_due",
        "name",
        "paused",
        "ticket",
    )

    def __init__(self, connection: Connection, name: str, now_ms: int) -> None:
        row = execute(connection, "read_ledger", queue=name, now=now_ms).fetchone()
        self._before = row and row[:5]
        paused, completed, failed, ticket, event_bytes, has_due = row or (0, 0, 0, 0, 0, 0)
        self._connection = connection
        self.name = name
        self.paused = bool(paused)
        self.finished = {State.COMPLETED: completed, State.FAILED: failed}
        self.ticket: int = ticket
        self.event_bytes: int = event_bytes
        self.has_due = bool(has_due)
        self._happened: list[events.Group] = []

    @property
    def cursor(self) -> str:
        """A place in the events: what is told from now on comes behind it, all else before it."""
        return f"{self.ticket + 1}-0"

    def take(self, count: int) -> range:
        """Tickets that nobody else has or will have."""
        first = self.ticket + 1
        self.ticket += count
        return range(first, first + count)

    def take_one(self) -> int:
        self.ticket += 1
        return self.ticket

    def count(self, state: State, change: int) -> None:
        """Add to the number of jobs in a finished state; other states are not counted."""
        if state in self.finished:
            self.finished[state] += change

    def tell(self, *groups: events.Group) -> None:
        """Say what happened. Groups without jobs are dropped."""
        self._happened.extend(groups)

    def write(self) -> None:
        if any(group.ids for group in self._happened):
            self.event_bytes = events.write(
                self._connection, self.name, self.take_one(), self._happened, self.event_bytes
            )
        row = self.paused, *self.finished.values(), self.ticket, self.event_bytes
        if row != self._before:
            paused, completed, failed, ticket, event_bytes = row
            execute(
                self._connection, "write_ledger", queue=self.name, paused=paused,
                completed=completed, failed=failed, ticket=ticket, event_bytes=event_bytes,
            )  # fmt: skip


@contextlib.contextmanager
def open_ledger(connection: Connection, name: str, now_ms: int = 0) -> Iterator[Ledger]:
    """Open a queue's ledger, and write it when the block ends well."""
    ledger = Ledger(connection, name, now_ms)
    yield ledger
    ledger.write()
