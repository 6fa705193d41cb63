"""What is read for a page, as steps: `hasten.fields._sql.running` has what drives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from hasten.fields._sql.running import (
    AsyncExecutor,
    Executor,
    Found,
    Step,
    Steps,
    run,
    run_async,
)
from hasten.fields._sql.running import dialect_of as _dialect_of
from hasten.pagination._sql import counting, paging
from hasten.pagination._sql.reading import Reading
from hasten.pagination._sql.statements import Statements, bounds, numbers

__all__ = [
    "Counted",
    "Numbered",
    "Statements",
    "Steps",
    "Stretch",
    "database_of",
    "dialect_of",
    "numbered",
    "run",
    "run_async",
    "schemas_of",
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


def schemas_of(
    executor: Executor | AsyncExecutor, reading: Reading, own: Mapping[str, Any]
) -> list[list[str | None]]:
    """The schemas that a statement with these options of its own would find its tables in.

    They are those of ``schema_translate_map``, by the name that the mapping has for each; empty
    where nothing is translated. What a listener of the session changes is not seen.
    """
    if isinstance(executor, Connection | AsyncConnection):
        found = _translated(executor)
    else:
        session = _session_of(executor)
        bind = session.get_bind(mapper=reading.mapper, clause=reading.statement)
        # The connection that it has for this transaction, or else what it would take it of.
        known = getattr(session.get_transaction(), "_connections", {}).get(bind)
        found = _translated(bind if known is None else known[0])
        if _TRANSLATE not in own:
            # In SQLAlchemy 2.1 a session has some, too: they come before those of its connection.
            found = getattr(session, "execution_options", {}).get(_TRANSLATE) or found
    found = found or own.get(_TRANSLATE)
    return sorted(([k, v] for k, v in found.items()), key=repr) if found else []


_TRANSLATE: Final = "schema_translate_map"


def database_of(
    executor: Executor | AsyncExecutor, reading: Reading
) -> tuple[list[str | None], int]:
    """The database that a statement would be executed on.

    First what any process calls it: the name of the database, that of the user (who may have tables
    of its own) and the options of the URL. Then a number of its engine, within this process:
    databases with one name may be on several servers.
    """
    if isinstance(executor, Connection | AsyncConnection):
        bind: Any = executor
    else:
        bind = _session_of(executor).get_bind(mapper=reading.mapper, clause=reading.statement)
    bind = getattr(bind, "sync_connection", None) or bind
    engine = bind.engine
    url = engine.url
    options = sorted(f"{name}={value}" for name, value in url.query.items())
    number = _numbers.setdefault(engine.pool, next(_counter))
    return [url.database, url.username, *options], number


_numbers: Final[WeakKeyDictionary[Any, int]] = WeakKeyDictionary()
# By pool, which an engine shares with those that execution_options() has made of it.
_counter: Final = count(1)


def _session_of(executor: Any) -> Session:
    """The session inside of one that waits, or of one that is scoped."""
    if hasattr(executor, "registry"):
        executor = executor.registry()
    session: Session = getattr(executor, "sync_session", executor)
    return session


def _translated(connection: Any) -> Mapping[str | None, str | None] | None:
    sync = getattr(connection, "sync_connection", None) or connection
    found: Mapping[str | None, str | None] | None = sync.get_execution_options().get(_TRANSLATE)
    return found


# What can be done ---------------------------------------------------------------------------------


def stretch(
    statements: Statements,
    position: Sequence[object] | None,
    *,
    limit: int,
    dialect: str,
    backwards: bool = False,
) -> Steps[Stretch]:
    """Read up to limit rows after a position, or before it if backwards."""
    rows: list[Any] = []
    for statement in statements.after(dialect, position, backwards=backwards):
        missing = limit + 1 - len(rows)
        result = yield Step(statement, bounds(position, limit=missing))
        rows += _unique(statements.reading, result).all()
        if len(rows) > limit:
            break
    has_more = len(rows) > limit
    del rows[limit:]
    if backwards:
        rows.reverse()
    ends = [tuple([row[place] for place in statements.places]) for row in (rows[:1] + rows[-1:])]
    first, last = ends or (None, None)
    return Stretch(_own(statements.reading, rows), has_more, first, last)


def numbered(
    statements: Statements,
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
    defer = offset >= paging.DEFER_FROM
    if count == "none":
        rows = yield from _page(statements, limit, offset, dialect, defer)
        return Numbered(rows[:limit], len(rows) > limit)
    cap = cap if count != "exact" else None
    if count != "estimated" and not defer:
        return (yield from _together(statements, limit, offset, dialect, cap))
    total, relation = yield from total_of(statements, dialect=dialect, count=count, cap=cap)
    if relation == "eq":
        if offset >= total:
            return Numbered([], has_more=False, total=total, relation=relation)
        turned = paging.from_end(limit=limit, offset=offset, total=total)
        if turned is not None:
            rows = yield from _tail(statements, *turned, dialect)
            return Numbered(rows, offset + limit < total, total, relation)
    rows = yield from _page(statements, limit, offset, dialect, defer)
    return Numbered(rows[:limit], len(rows) > limit, total, relation)


def total_of(
    statements: Statements, *, dialect: str, count: Counted = "exact", cap: int | None = None
) -> Steps[counting.Total]:
    """Count, or ask the planner. What has no estimate is counted."""
    if count == "estimated" and dialect == "postgresql":
        result = yield Step(statements.estimate())
        found = counting.read_estimate(result.scalar())
        if found is not None:
            return found
    cap = cap if count != "exact" else None
    result = yield Step(statements.count(dialect, cap))
    return counting.as_total(int(result.scalar_one()), cap)


def _page(
    statements: Statements, limit: int, offset: int, dialect: str, defer: bool
) -> Steps[list[Any]]:
    """One row more than asked for, which tells whether there are more."""
    statement = statements.page(dialect, defer=defer)
    result = yield Step(statement, numbers(limit=limit + 1, offset=offset))
    return _own(statements.reading, list(_unique(statements.reading, result).all()))


def _tail(statements: Statements, limit: int, offset: int, dialect: str) -> Steps[list[Any]]:
    """The same rows read from the end."""
    statement = statements.page(dialect, defer=offset >= paging.DEFER_FROM, backwards=True)
    result = yield Step(statement, numbers(limit=limit, offset=offset))
    return _own(statements.reading, list(_unique(statements.reading, result).all()))[::-1]


def _together(
    statements: Statements, limit: int, offset: int, dialect: str, cap: int | None
) -> Steps[Numbered]:
    statement = statements.page_and_count(dialect, cap)
    result = yield Step(statement, numbers(limit=limit + 1, offset=offset, cap=cap))
    rows = list(_unique(statements.reading, result).all())
    if not rows and offset:
        result = yield Step(statements.count(dialect, cap))
        number = int(result.scalar_one())  # past the end: no row came that could have brought it
    else:
        number = int(rows[0][-1]) if rows else 0
    if statements.is_lateral(dialect) and rows[0][-2] is None:
        rows = []
    total, relation = counting.as_total(number, cap)
    has_more = len(rows) > limit
    return Numbered(_own(statements.reading, rows[:limit]), has_more, total, relation)


# Results ------------------------------------------------------------------------------------------


def _unique(reading: Reading, result: Found) -> Found:
    """A collection that is loaded by a join repeats its owner, within the page."""
    return result.unique() if reading.holds_entities else result


def _own(reading: Reading, rows: list[Any]) -> list[Any]:
    """Without what was selected for the work. What is selected alone comes without a row around."""
    width = reading.width
    if width == 1:
        return [row[0] for row in rows]
    if not rows or len(rows[0]) == width:
        return rows
    return [row[:width] for row in rows]
