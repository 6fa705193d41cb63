"""Deleting the finished jobs that the keep rules do not keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._engines.sqlite.portions import DELETED_AT_ONCE, MOST_IN_STATEMENT, Portion
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._options import Keep
from hasten.jobs._states import State

Rules = set[tuple[State, Keep]]


class Retention:
    """Deletes finished jobs, one portion in each transaction.

    It remembers when the oldest job of each state finished: until that job is too old, there is
    nothing to look for. The remembered time may be too early. It may be too late only after a
    rollback, and the next finished job corrects that.
    """

    def __init__(self) -> None:
        self._oldest_ms: dict[tuple[str, State], int] = {}
        self._first: dict[str, int] = {}  # how many jobs of a queue to delete first: small jobs

    def apply(self, unit: UnitOfWork, ledger: Ledger, rules: Iterable[tuple[State, Keep]]) -> None:
        """Delete a portion of what the rules do not keep."""
        trim = _Trim(unit, ledger, self._first.get(ledger.name, 1))
        for state, keep in rules:
            if keep.age_ms is not None:
                self._by_age(trim, state, keep.age_ms)
            if keep.count is not None and (excess := ledger.finished[state] - keep.count) > 0:
                trim.run("trim_by_count", state, excess)
        if trim.portion is not None and trim.portion.rows:
            is_small = trim.portion.freed <= trim.portion.rows
            self._first[ledger.name] = MOST_IN_STATEMENT if is_small else 1

    def _by_age(self, trim: _Trim, state: State, age_ms: int) -> None:
        key, now_ms = (trim.ledger.name, state), trim.unit.now_ms
        cut_off_ms = now_ms - age_ms
        # A time in the future is from before the clock was set back: check the others then.
        if cut_off_ms < self._oldest_ms.get(key, cut_off_ms) <= now_ms:
            return
        trim.run("trim_by_age", state, cut_off=cut_off_ms)
        of = {"queue": trim.ledger.name, "state": state}
        oldest = execute(trim.unit.connection, "oldest_finished", **of).fetchone()
        if oldest is not None:
            self._oldest_ms[key] = min(oldest[0], now_ms)


class _Trim:
    """The deletions of one call, which are one portion together."""

    def __init__(self, unit: UnitOfWork, ledger: Ledger, first: int) -> None:
        self.unit = unit
        self.ledger = ledger
        self.portion: Portion | None = None  # nothing has been deleted
        self._first = first

    def run(
        self, statement: str, state: State, most: int = DELETED_AT_ONCE, **parameters: Any
    ) -> None:
        left = most

        def delete(count: int) -> int:
            nonlocal left
            limit = min(count, left)
            deleted = execute(
                self.unit.connection, statement, queue=self.ledger.name, state=state, limit=limit,
                **parameters,
            ).rowcount  # fmt: skip
            left -= deleted
            self.ledger.count(state, -deleted)
            return deleted if left else 0

        if self.portion is None:
            self.portion = Portion(self.unit.connection)
        self.portion.delete(delete, first=self._first)
