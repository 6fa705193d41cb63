"""Totals, and how to count them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from hasten._checks import check_whole_number, is_whole_number
from hasten._clock import Clock, check_clock
from hasten._durations import Duration, to_us
from hasten.errors import InvalidOption

Relation = Literal["eq", "gte", "estimate"]
"""How a total relates to the number of rows: equal, at most that number, or an estimate."""

CountName = Literal["exact", "estimated", "none"]


@dataclass(frozen=True, slots=True)
class Capped:
    """Count up to this many rows; more rows are reported as "at least". The cost has a bound."""

    limit: int

    def __post_init__(self) -> None:
        check_whole_number("Capped(limit)", self.limit, 1)

    def _counted(self, found: int) -> Count:
        """Return the count for the number of rows found by a query with LIMIT limit + 1."""
        return Count(self.limit, "gte") if found > self.limit else Count(found)


CountFunction: TypeAlias = "Callable[[Any, Any], int | Count | Awaitable[int | Count]]"
"""A function that counts. It gets the session (or connection) and the select."""


@dataclass(frozen=True, slots=True)
class Cached:
    """Count in this way, and reuse the total until its ttl expires: ``Cached("exact", ttl=30)``.

    Each process has its own cache: one total for each database, select, values and scope. If a
    setting of the session decides which rows are visible (row-level security), pass ``scope=`` to
    identify whose they are. A page that shows more rows than the cached total corrects it.

    The ttl is measured by a monotonic timer. ``Cached("exact", ttl=30, clock=store.clock)`` uses
    the clock of a `hasten.Store`, which tests can move.
    """

    count: CountName | Capped | CountFunction
    ttl: Duration
    max_entries: int = 1024
    """How many totals to keep. The least recently used one is removed first."""
    clock: Clock | None = None

    def __post_init__(self) -> None:
        count: object = self.count
        if isinstance(count, Cached):
            raise InvalidOption("Cached(count)", count, "a count that is not cached")
        to_counting(count)
        to_us("Cached(ttl)", self.ttl, at_least_us=1)
        check_whole_number("max_entries", self.max_entries, 1)
        if self.clock is not None:
            check_clock(self.clock)


Uncached: TypeAlias = CountName | Capped
"""The ways to count by one statement."""

Counting: TypeAlias = CountName | Capped | Cached | CountFunction
"""How to count: ``"exact"``, ``"estimated"`` by the database's planner, ``"none"``, `Capped`,
`Cached`, or a function of yours."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows."""

    total: int | None
    """None if they were not counted."""
    relation: Relation = "eq"

    def _with_page(self, offset: int, rows: int, *, has_more: bool) -> Count:
        """Return the count, corrected by a page of this many rows at an offset.

        The total is never below the rows that the page shows, and it is exact where the page shows
        the end. That also corrects what other clients wrote between the count and the page.
        """
        if self.total is None:
            return self
        if has_more:
            return Count(max(self.total, offset + rows + 1), self.relation)
        if rows or not offset:
            return Count(offset + rows)
        # Past the end: there are at most as many rows as were skipped.
        return Count(max(0, min(self.total, offset)), self.relation)

    def last_page(self, limit: int) -> int | None:
        """Return the number of the last page, from 1; None if the count is not exact."""
        if self.total is None or self.relation != "eq":
            return None
        return max(1, -(-self.total // limit))


NOT_COUNTED: Final = Count(None)


def checked_count(found: object) -> Count:
    """Return a number of rows as a `Count`. Raises `InvalidOption` for other values."""
    if isinstance(found, Count):
        return found
    if is_whole_number(found) and found >= 0:
        return Count(found)
    raise InvalidOption("count", found, "a function that returns an int of at least 0, or a Count")


def to_counting(value: object) -> Counting:
    """Return the value of a count= option. Raises `InvalidOption` if it is not a way to count."""
    if isinstance(value, Capped | Cached) or (callable(value) and not isinstance(value, type)):
        return value
    for name in get_args(CountName):
        if value == name:
            plain: CountName = name
            return plain
    raise InvalidOption(
        "count",
        value,
        "'none' to not count, 'exact', 'estimated', Capped(10_000), Cached(\"exact\", ttl=30) or a "
        "function",
    )
