"""Total row counts, and the options that choose how to count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from hasten._checks import check_whole_number, is_int_not_bool
from hasten._clock import Clock, check_clock
from hasten._durations import Duration, to_nearest_us
from hasten.errors import InvalidOption

Relation = Literal["eq", "gte", "estimate"]
"""How a reported total relates to the real number of rows.

"eq": they are equal. "gte": the real number is the total or greater. "estimate": the total is an
estimate of the database.
"""

CountName = Literal["exact", "estimated", "none"]


@dataclass(frozen=True, slots=True)
class Capped:
    """Count at most this many rows, so that counting a large table stays fast.

    If there are more rows, the total is the limit and its relation is "gte".
    """

    limit: int

    def __post_init__(self) -> None:
        check_whole_number("Capped(limit)", self.limit, 1)

    def _to_capped_count(self, counted_rows: int) -> Count:
        """Return the `Count` for a number of rows that was counted up to limit + 1."""
        return Count(self.limit, "gte") if counted_rows > self.limit else Count(counted_rows)


CountFunction: TypeAlias = "Callable[[Any, Any], int | Count | Awaitable[int | Count]]"
"""A function that counts rows. It is called with the session (or connection) and the select."""


@dataclass(frozen=True, slots=True)
class Cached:
    """Cache the total for ttl seconds: ``Cached("exact", ttl=30)``.

    Each process has its own cache, with one total for each combination of database, select, values
    in the select, and scope. If a setting of the session decides which rows are visible (row-level
    security), pass ``scope=`` to the paginator to keep the totals of different users apart. If a
    page shows more rows than its cached total, the response contains the higher number.

    The ttl is measured by a monotonic timer. With ``clock=store.clock`` it is measured by the clock
    of a `hasten.Store`, which tests can move.
    """

    count: CountName | Capped | CountFunction
    """How to count when there is no cached total."""
    ttl: Duration
    """How long to reuse a total: seconds, a `timedelta`, or a text such as "5m"."""
    max_entries: int = 1024
    """How many totals to cache. The least recently used one is removed first."""
    clock: Clock | None = None

    def __post_init__(self) -> None:
        count: object = self.count
        if isinstance(count, Cached):
            raise InvalidOption("Cached(count)", count, "a way to count other than Cached")
        check_count_option(count)
        to_nearest_us("Cached(ttl)", self.ttl, at_least_us=1)
        check_whole_number("max_entries", self.max_entries, 1)
        if self.clock is not None:
            check_clock(self.clock)


UncachedCounting: TypeAlias = CountName | Capped
"""The ways to count that need no cache and no function of the application."""

Counting: TypeAlias = CountName | Capped | Cached | CountFunction
"""How to count: ``"exact"``, ``"estimated"`` (by the query planner of the database), ``"none"``,
`Capped`, `Cached`, or a function of yours."""


@dataclass(frozen=True, slots=True)
class Count:
    """The total number of rows, and how exact it is."""

    total: int | None
    """The number; None if the rows were not counted."""
    relation: Relation = "eq"

    def _correct_total_by_page(self, offset: int, row_count: int, *, has_more: bool) -> Count:
        """Return the count, corrected by what a page at an offset shows.

        row_count is the number of rows on the page. The total is raised to at least the rows that
        exist up to this page, and it becomes exact on the last page. This also corrects a total
        that is out of date because rows were inserted or deleted after it was counted.
        """
        if self.total is None:
            return self
        if has_more:
            return Count(max(self.total, offset + row_count + 1), self.relation)
        if row_count or not offset:
            return Count(offset + row_count)
        # An empty page: there are at most as many rows as the offset skips.
        return Count(max(0, min(self.total, offset)), self.relation)

    def last_page(self, limit: int) -> int | None:
        """Return the number of the last page; None if the count is not exact. The first is 1."""
        if self.total is None or self.relation != "eq":
            return None
        return max(1, -(-self.total // limit))


NOT_COUNTED: Final = Count(None)


def to_checked_count(result: object) -> Count:
    """Convert the result of a count function or a source to a `Count`.

    Raises `InvalidOption` unless it is a `Count` or an int of at least 0.
    """
    if isinstance(result, Count):
        return result
    if is_int_not_bool(result) and result >= 0:
        return Count(result)
    raise InvalidOption("count", result, "a function that returns an int of at least 0, or a Count")


def check_count_option(value: object) -> Counting:
    """Check the value of a ``count=`` option, and return it. Raises `InvalidOption`."""
    if isinstance(value, Capped | Cached) or (callable(value) and not isinstance(value, type)):
        return value
    for name in get_args(CountName):
        if value == name:
            plain: CountName = name
            return plain
    raise InvalidOption(
        "count",
        value,
        "'exact', 'estimated', 'none' (no total), Capped(10_000), Cached(\"exact\", ttl=30) or a "
        "function",
    )
