"""How many rows there are, and how sure that is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from hasten._clock import Clock, check_clock
from hasten._durations import Duration, to_us
from hasten.errors import InvalidOption

Relation = Literal["eq", "gte", "estimate"]
"""What a total says of the true number: it is it, it is not above it, or it is a guess of it."""

CountName = Literal["exact", "estimated", "none"]


@dataclass(frozen=True, slots=True)
class Capped:
    """Count up to so many rows, and say "or more" beyond: what that costs does not grow."""

    limit: int

    def __post_init__(self) -> None:
        limit: object = self.limit
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise InvalidOption("Capped(limit)", limit, "a whole number, at least 1")

    def _counted(self, found: int) -> Count:
        """Of the rows that were found when one more than the limit was looked for."""
        return Count(self.limit, "gte") if found > self.limit else Count(found)


CountFunction: TypeAlias = "Callable[[Any, Any], int | Count | Awaitable[int | Count]]"
"""Counts by itself: it is given the session (or connection) and the select."""


@dataclass(frozen=True, slots=True)
class Cached:
    """Count in this way, and reuse the total until its ttl ends: ``Cached("exact", ttl=30)``.

    Each process has its own cache: one total for each database, select, values and scope. If a
    setting of the session decides which rows are visible (row-level security), pass ``scope=`` to
    say whose they are. A page that shows more rows than the cached total corrects it.

    The ttl goes by a monotonic timer, or by clock: ``Cached("exact", ttl=30, clock=store.clock)``
    uses the clock of a `hasten.Store`, which tests can move.
    """

    count: CountName | Capped | CountFunction
    ttl: Duration
    max_entries: int = 1024
    """How many totals to keep. The least recently used one is removed first."""
    clock: Clock | None = None

    def __post_init__(self) -> None:
        count: object = self.count
        if isinstance(count, Cached):
            raise InvalidOption("Cached(count)", count, "what is not cached already")
        to_counting(count)
        to_us("Cached(ttl)", self.ttl, at_least_us=1)
        most: object = self.max_entries
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise InvalidOption("max_entries", most, "a whole number from 1")
        if self.clock is not None:
            check_clock(self.clock)


Uncached: TypeAlias = CountName | Capped
"""What one of our statements counts."""

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
        """The count, corrected by a page that was read: so many rows from the offset on.

        What stands on the page is never denied, and where the page shows the end, the end is
        known. That also mends what other clients wrote between the count and the page.
        """
        if self.total is None:
            return self
        if has_more:
            return Count(max(self.total, offset + rows + 1), self.relation)
        if rows or not offset:
            return Count(offset + rows)
        # Past the end: there are at most as many as were skipped.
        return Count(max(0, min(self.total, offset)), self.relation)

    def last_page(self, limit: int) -> int | None:
        """The number of the last page, from 1; None if the count is not exact."""
        if self.total is None or self.relation != "eq":
            return None
        return max(1, -(-self.total // limit))


NOT_COUNTED: Final = Count(None)


def to_counting(value: object) -> Counting:
    """Raises `InvalidOption`."""
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
