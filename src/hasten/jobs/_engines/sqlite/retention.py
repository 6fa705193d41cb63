"""Retention: deleting finished jobs that are more or older than the keep rules allow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hasten.jobs._engines.sqlite.flows import unlink
from hasten.jobs._engines.sqlite.job_statements import SQL, execute
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.transaction_limits import (
    DELETED_AT_ONCE,
    MOST_IN_STATEMENT,
    DeletionBudget,
)
from hasten.jobs._options import Keep
from hasten.jobs._states import State

Rules = set[tuple[State, Keep]]
"""The finished states in which jobs were just stored, with the keep rules of these jobs."""


class Retention:
    """Deletes finished jobs by their keep rules, a limited number in each transaction.

    For each queue and state it remembers when the oldest job finished, and does not search for old
    jobs before that job is too old. If the remembered time is too early, the search finds nothing.
    It can be too late only after a rollback; the next finished job corrects that.
    """

    def __init__(self) -> None:
        self._oldest_ms: dict[tuple[str, State], int] = {}
        # By queue: how many jobs to delete in the first statement.
        self._first_counts: dict[str, int] = {}

    def apply(self, unit: UnitOfWork, ledger: Ledger, rules: Iterable[tuple[State, Keep]]) -> None:
        """Delete finished jobs that the rules do not keep, up to the limits of one transaction."""
        deleter = _FinishedJobDeleter(unit, ledger, self._first_counts.get(ledger.name, 1))
        for state, keep in rules:
            if keep.age_ms is not None:
                self._apply_age_limit(deleter, state, keep.age_ms)
            if keep.count is not None and (excess := ledger.finished[state] - keep.count) > 0:
                deleter.delete_finished("trim_by_count", state, excess)
        if deleter.budget is not None and deleter.budget.rows:
            is_small = deleter.budget.freed_pages <= deleter.budget.rows
            self._first_counts[ledger.name] = MOST_IN_STATEMENT if is_small else 1

    def _apply_age_limit(self, deleter: _FinishedJobDeleter, state: State, age_ms: int) -> None:
        """Delete jobs that finished longer ago than age_ms, if the oldest one may be that old."""
        key, now_ms = (deleter.ledger.name, state), deleter.unit.now_ms
        cut_off_ms = now_ms - age_ms
        # If the time is in the future, the clock was set back, and the time is not trusted.
        if cut_off_ms < self._oldest_ms.get(key, cut_off_ms) <= now_ms:
            return
        deleter.delete_finished("trim_by_age", state, cut_off=cut_off_ms)
        of = {"queue": deleter.ledger.name, "state": state}
        oldest = execute(deleter.unit.connection, "oldest_finished", **of).fetchone()
        if oldest is not None:
            self._oldest_ms[key] = min(oldest[0], now_ms)


class _FinishedJobDeleter:
    """Deletes finished jobs in one call of `Retention.apply`, up to the limits of a transaction.

    first_count is how many jobs the first statement deletes.
    """

    def __init__(self, unit: UnitOfWork, ledger: Ledger, first_count: int) -> None:
        self.unit = unit
        self.ledger = ledger
        self.budget: DeletionBudget | None = None  # None before the first deletion
        self._first_count = first_count

    def delete_finished(
        self, statement: str, state: State, most: int = DELETED_AT_ONCE, **parameters: Any
    ) -> None:
        """Run a DELETE statement until it finds no more jobs or a limit is reached.

        statement is the name of the SQL file. most is the largest number of jobs to delete.
        """
        left = most

        def delete(count: int) -> int:
            nonlocal left
            of = {"queue": self.ledger.name, "state": state, "limit": min(count, left)}
            if self.ledger.linked and state is State.FAILED:
                deleted = self._delete_and_unlink(statement, {**of, **parameters})
            else:
                deleted = execute(self.unit.connection, statement, **of, **parameters).rowcount
            left -= deleted
            self.ledger.adjust_count(state, -deleted)
            return deleted if left else 0

        if self.budget is None:
            self.budget = DeletionBudget(self.unit.connection)
        self.budget.delete_until_exhausted(delete, first_count=self._first_count)

    def _delete_and_unlink(self, statement: str, parameters: dict[str, Any]) -> int:
        """Run a DELETE statement for failed jobs, whose parents then no longer wait for them."""
        rows = self.unit.connection.execute(f"{SQL[statement]} RETURNING seq", parameters)
        seqs = [seq for (seq,) in rows]
        unlink(self.unit, self.ledger, seqs)
        return len(seqs)
