"""What is read for a page, as steps: `hasten.fields.sql.running` has what drives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from hasten.fields.sql.running import (
    AsyncExecutor,
    Executor,
    Found,
    Step,
    Steps,
    run,
    run_async,
)
from hasten.fields.sql.running import dialect_of as _dialect_of
from hasten.pagination.sql import counting, keyset, paging
from hasten.pagination.sql.reading import Keys, Reading

__all__ = [
    "Counted",
    "Numbered",
    "Steps",
    "Stretch",
    "dialect_of",
    "numbered",
    "run",
    "run_async",
    "stretch",
    "total_of",
]

Counted: TypeAlias = Literal["exact", "capped", "estimated", "none"]


@dataclass(frozen=True, slots=True)
class Numbered:
    """A page by its number."""

    rows: list[Any]
    has_more: bool
    total: int | None = None
    relation: counting.Relation | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A page by its position, in the order asked for."""

    rows: list[Any]
    has_more: bool
    """Whether there are rows beyond, in the direction of reading."""
    first: tuple[object, ...] | None
    """The position of its first row, None if it has none."""
    last: tuple[object, ...] | None


def dialect_of(executor: Executor | AsyncExecutor, reading: Reading) -> str:
    """The name of the dialect that a statement would meet."""
    return _dialect_of(executor, reading.mapper, reading.statement)


# What can be done ---------------------------------------------------------------------------------


def stretch(
    reading: Reading,
    keys: Keys,
    position: Sequence[object] | None,
    *,
    limit: int,
    dialect: str,
    backwards: bool = False,
) -> Steps[Stretch]:
    """Read up to limit rows after a position, or before it if backwards."""
    rows: list[Any] = []
    positions: list[tuple[object, ...]] = []
    for statement in keyset.after(
        reading, keys, position, limit=limit + 1, dialect=dialect, backwards=backwards
    ):
        result = yield Step(statement.limit(limit + 1 - len(rows)))
        more, where = _split(reading, keys, result)
        rows += more
        positions += where
        if len(rows) > limit:
            break
    has_more = len(rows) > limit
    del rows[limit:], positions[limit:]
    if backwards:
        rows.reverse()
        positions.reverse()
    ends = (positions[0], positions[-1]) if positions else (None, None)
    return Stretch(rows, has_more, *ends)


def numbered(
    reading: Reading,
    keys: Keys,
    *,
    limit: int,
    offset: int,
    dialect: str,
    count: Counted = "exact",
    cap: int | None = None,
) -> Steps[Numbered]:
    """Read up to limit rows at an offset, and how many there are.

    Near the start, page and total are one statement. Further on they are two: what is saved by
    knowing the total first is worth more than the way.
    """
    if count == "none":
        rows = yield from _page(reading, keys, limit=limit, offset=offset, dialect=dialect)
        return Numbered(rows[:limit], len(rows) > limit)
    cap = cap if count != "exact" else None
    if count != "estimated" and offset < paging.DEFER_FROM:
        return (yield from _together(reading, keys, limit, offset, dialect, cap))
    total, relation = yield from total_of(reading, dialect=dialect, count=count, cap=cap)
    if relation == "eq" and offset >= total:
        return Numbered([], has_more=False, total=total, relation=relation)
    if relation == "eq":
        statement = paging.tail(
            reading, keys, limit=limit, offset=offset, total=total, dialect=dialect
        )
        if statement is not None:
            found, _ = _split(reading, keys, (yield Step(statement)))
            return Numbered(found[::-1], offset + limit < total, total, relation)
    rows = yield from _page(reading, keys, limit=limit, offset=offset, dialect=dialect)
    return Numbered(rows[:limit], len(rows) > limit, total, relation)


def total_of(
    reading: Reading, *, dialect: str, count: Counted = "exact", cap: int | None = None
) -> Steps[counting.Total]:
    """Count, or ask the planner. What has no estimate is counted."""
    if count == "estimated" and dialect == "postgresql":
        result = yield Step(counting.estimate(reading))
        found = counting.read_estimate(result.scalar())
        if found is not None:
            return found
    cap = cap if count != "exact" else None
    result = yield Step(counting.count(reading, cap=cap, dialect=dialect))
    return counting.as_total(int(result.scalar_one()), cap)


def _page(
    reading: Reading, keys: Keys, *, limit: int, offset: int, dialect: str
) -> Steps[list[Any]]:
    """One row more than asked for, which tells whether there are more."""
    statement = paging.page(reading, keys, limit=limit + 1, offset=offset, dialect=dialect)
    rows, _ = _split(reading, keys, (yield Step(statement)))
    return rows


def _together(
    reading: Reading, keys: Keys, limit: int, offset: int, dialect: str, cap: int | None
) -> Steps[Numbered]:
    page = paging.page(reading, keys, limit=limit + 1, offset=offset, dialect=dialect, defer=False)
    counted = counting.count(reading, cap=cap, dialect=dialect)
    # A count that ended at the cap tells nothing about what is beyond it.
    known = offset if cap is None else min(offset, cap)
    is_lateral = dialect == "postgresql" and not reading.holds_entities
    if is_lateral:
        page = counting.lateral(reading, page, counted, keys, offset=known, dialect=dialect)
    elif dialect == "postgresql":
        page = counting.beside_skipping(page, counted, offset=known)
    else:
        page = counting.beside(page, counted)
    frozen = _unique(reading, (yield Step(page))).freeze()
    ends = [(row[-2], row[-1]) for row in frozen().all()]
    if not ends and offset:
        result = yield Step(counted)  # past the end: no row came that could have brought it
        number = int(result.scalar_one())
    else:
        number = int(ends[0][1]) if ends else 0
    is_empty = is_lateral and ends[0][0] is None
    rows = [] if is_empty else _own(reading, frozen)
    total, relation = counting.as_total(number, cap)
    return Numbered(rows[:limit], len(rows) > limit, total, relation)


# Results ------------------------------------------------------------------------------------------


def _unique(reading: Reading, result: Found) -> Found:
    """A collection that is loaded by a join repeats its owner, within the page."""
    return result.unique() if reading.holds_entities else result


def _split(
    reading: Reading, keys: Keys, result: Found
) -> tuple[list[Any], list[tuple[object, ...]]]:
    """The rows as they were selected, and their positions."""
    places = keyset.layout(reading, keys)
    result = _unique(reading, result)
    if reading.width > 1 and max(places) < reading.width:
        rows = result.all()
        return list(rows), [tuple(row[place] for place in places) for row in rows]
    frozen = result.freeze()
    positions = [tuple(row[place] for place in places) for row in frozen().all()]
    return _own(reading, frozen), positions


def _own(reading: Reading, frozen: Any) -> list[Any]:
    """Without what was selected for the work. What is selected alone comes without a row around."""
    if reading.width == 1:
        return list(frozen().scalars(0).all())
    return list(frozen().columns(*range(reading.width)).all())
