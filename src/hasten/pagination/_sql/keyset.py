"""Selects of the rows before or after a position, each of them a range of an index.

For the keys k1 … kn at the values v1 … vn, the rows that come after are in these ranges, the
nearest first:

    k1 = v1 AND … AND k(n-1) = v(n-1) AND kn > vn
    …
    k1 > v1

(`<` where a key descends, `IS NULL` for a value that is NULL, one more range where NULLs come
after.) Each range is a contiguous piece of an index on the keys, whatever their directions. As one
condition with OR, the same rows take a scan from the start of the index. As one row value, they
need keys of one direction without NULLs, and a database that seeks on all of them: PostgreSQL does,
SQLite seeks on the first key only. So ranges are the rule, and the row value is the exception.

The ranges do not overlap and follow one another, so the nearest one usually fills the page and the
others are not read. They can be executed one after the other, which keeps what the ORM knows about
the select (entities, loader options). Or they are one statement (UNION ALL of common table
expressions, each executed only if those before it were short), which takes one round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    CTE,
    REAL,
    BindParameter,
    Double,
    Enum,
    Float,
    and_,
    cast,
    func,
    literal,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.sql.elements import ColumnElement

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.selects import Expression, Selection, copy_orm_filters
from hasten._sqlalchemy.sort_columns import (
    WITHOUT_NULLS_SYNTAX,
    SortColumn,
    SortColumns,
    order_by,
)
from hasten.errors import InvalidOption
from hasten.pagination._sql.indexes import find_index
from hasten.pagination._sql.infinities import finite_or_infinite

HIDDEN: Final = "hasten_key_"
"""The prefix of columns that are selected for the position and not shown."""

Condition: TypeAlias = ColumnElement[bool]

Amount: TypeAlias = int | BindParameter[int]
"""A number, or the parameter that holds it."""


def after(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    position: Sequence[object] | None,
    *,
    limit: Amount,
    dialect: str,
    backwards: bool = False,
    in_turn: bool | None = None,
) -> list[Selection]:
    """Return the statements that read up to limit rows after a position, or before it if backwards.

    position holds one value per key, or the parameter that holds it; None is the start (backwards:
    the end). Rows of backward statements come in reverse order. Several statements have to be
    executed one after the other, until there are limit rows; in_turn allows that. By default it is
    not allowed on PostgreSQL, where a round trip takes long, unless a row holds entities. On SQLite
    two short statements are faster than one that joins the ranges. Each row ends with the keys that
    are not among its own elements (`layout`). Raises `InvalidOption` for a key that the database
    does not compare as it sorts.
    """
    _check_kinds(keys, dialect)
    if position is not None:
        check_position(position, keys)
    if in_turn is None:
        in_turn = analyzed.holds_entities or dialect != "postgresql"
    keys = _reversed(keys, dialect) if backwards else keys
    source = with_keys(analyzed, keys)
    ranges = _ranges(keys, position, dialect)
    statements = [
        _restrict(source, analyzed, conditions).order_by(*order_by(rest, dialect)).limit(limit)
        for conditions, rest in ranges
    ]
    if len(statements) == 1 or in_turn:
        return statements
    return [_chain(statements, analyzed, keys, limit=limit, dialect=dialect)]


def check_position(position: Sequence[object], keys: SortColumns) -> None:
    """Raise `InvalidOption` unless there is a value for each key, NULL only where it may be."""
    if len(position) != len(keys):
        raise InvalidOption("position", list(position), f"{len(keys)} values, one per key")
    for value, key in zip(position, keys, strict=True):
        if value is None and not key.nullable:
            raise InvalidOption(
                "position",
                list(position),
                f"a list with a value for {key.column}, a column that is not nullable",
            )


def layout(analyzed: AnalyzedSelect, keys: SortColumns) -> list[int]:
    """Return the indexes of the values of the keys in a row of `with_keys`."""
    places = []
    end = analyzed.width
    for key in keys:
        place = analyzed.find(key.column)
        if place is None:
            place, end = end, end + 1
        places.append(place)
    return places


def with_keys(analyzed: AnalyzedSelect, keys: SortColumns) -> Selection:
    """Return the select with the keys that it does not select, after its own columns."""
    check_distinct(analyzed, keys)
    hidden = _hidden(analyzed, keys)
    return analyzed.statement.add_columns(
        *(key.column.label(f"{HIDDEN}{number}") for number, key in enumerate(hidden))
    )


def check_distinct(analyzed: AnalyzedSelect, keys: SortColumns) -> None:
    """Raise `InvalidOption` if a DISTINCT select does not select a key."""
    hidden = _hidden(analyzed, keys) if analyzed.is_distinct else ()
    if hidden:
        raise InvalidOption(
            "sort", str(hidden[0].column), "a column that the select with DISTINCT returns"
        )


def _hidden(analyzed: AnalyzedSelect, keys: SortColumns) -> list[SortColumn]:
    return [key for key in keys if analyzed.find(key.column) is None]


def _check_kinds(keys: SortColumns, dialect: str) -> None:
    """MySQL sorts an ENUM by position but compares it as text, and rounds a FLOAT."""
    if dialect not in WITHOUT_NULLS_SYNTAX:
        return
    for key in keys:
        kind = key.column.type
        remedy = None
        if isinstance(kind, Enum) and kind.native_enum:
            remedy = "Enum(…, native_enum=False)"
        elif isinstance(kind, Float) and _is_single(kind):
            remedy = "Double or Numeric"
        if remedy is not None:
            raise InvalidOption(
                "sort",
                str(key.column),
                f"a column of a type that MySQL compares as it sorts: {remedy}",
            )


def _is_single(kind: Float[Any]) -> bool:
    """Return whether a MySQL type has single precision: REAL and FLOAT(25) do not."""
    return not isinstance(kind, Double | REAL) and (kind.precision or 0) <= 24


def _reversed(keys: SortColumns, dialect: str) -> SortColumns:
    return tuple(key.reversed(dialect) for key in keys)


# Ranges -------------------------------------------------------------------------------------------

_Range: TypeAlias = tuple[list[Condition], SortColumns]
"""The conditions of its rows, and the remaining keys to sort them by."""


def _ranges(keys: SortColumns, position: Sequence[object] | None, dialect: str) -> list[_Range]:
    if position is None:
        return _start(keys, dialect)
    if dialect == "postgresql" and _is_row_value(keys):
        return [([_row_value(keys, position, dialect)], keys)]
    ranges: list[_Range] = []
    for index in reversed(range(len(keys))):
        prefix, values = keys[:index], position[:index]
        for condition, rest in _beyond(keys[index:], position[index], dialect):
            at, order = _within(prefix, values, rest, dialect)
            ranges.append(([*at, condition], order))
    return ranges


def _start(keys: SortColumns, dialect: str) -> list[_Range]:
    """Return the ranges of the first page: one of all rows, or two.

    NULLs are a range of their own if no plain index has them at the requested end.
    """
    key = keys[0]
    if key.has_native_nulls(dialect) or _is_indexed(keys, dialect):
        return [([], keys)]
    settled = (_settled(key), *keys[1:])
    with_value: _Range = ([key.column.is_not(None)], settled)
    without: _Range = ([key.column.is_(None)], settled)
    return [without, with_value] if key.nulls_first(dialect) else [with_value, without]


def _is_indexed(keys: SortColumns, dialect: str) -> bool:
    found = find_index((), keys, dialect)
    return found is not None and found[0].nulls_first(dialect) == keys[0].nulls_first(dialect)


def _beyond(keys: SortColumns, value: object, dialect: str) -> list[tuple[Condition, SortColumns]]:
    """Return conditions for the rows after a value of the first key: at most two ranges."""
    key, rest = keys[0], keys[1:]
    settled = (_settled(key), *rest)
    if value is None:
        return [(key.column.is_not(None), settled)] if key.nulls_first(dialect) else []
    bound = _bind(key, value, dialect)
    found: list[tuple[Condition, SortColumns]] = [
        (key.column < bound if key.descending else key.column > bound, settled)
    ]
    if key.nullable and not key.nulls_first(dialect):
        found.append((key.column.is_(None), settled))
    return found


def _within(
    prefix: SortColumns, values: Sequence[object], rest: SortColumns, dialect: str
) -> tuple[list[Condition], SortColumns]:
    """Return the condition that the keys of prefix equal the values, and the keys to sort by.

    Constant keys need not be sorted by. But if PostgreSQL knows that a key is constant, it may scan
    the primary key instead of the index on all keys and discard the rows outside of the range. It
    assumes that rows of the range are spread evenly; if they are not, it reads most of the table.
    So where an index is known, the condition is `k >= v AND k <= v`, and k stays in the ORDER BY,
    written as in the index.
    """
    pairs = list(zip(prefix, values, strict=True))
    words = find_index(prefix, rest, dialect) if dialect == "postgresql" else None
    if words is not None:
        number = len(prefix) + 1
        return [_is_between(*pair, dialect) for pair in pairs], (*words[:number], *rest[1:])
    # PostgreSQL does not treat a key that IS NULL as constant, so the ORDER BY has to name it.
    is_named = dialect == "postgresql"
    named = [_settled(key) for key, value in pairs if value is None and is_named]
    return [_is_at(*pair, dialect) for pair in pairs], (*named, *rest)


def _is_at(key: SortColumn, value: object, dialect: str) -> Condition:
    return key.column.is_(None) if value is None else key.column == _bind(key, value, dialect)


def _is_between(key: SortColumn, value: object, dialect: str) -> Condition:
    if value is None:
        return key.column.is_(None)
    bound = _bind(key, value, dialect)
    return and_(key.column >= bound, key.column <= bound)


def _settled(key: SortColumn) -> SortColumn:
    """Return the key for a range in which it is NULL in all rows or in none."""
    return replace(key, nullable=False)


def _is_row_value(keys: SortColumns) -> bool:
    is_one_way = len({key.descending for key in keys}) == 1
    return is_one_way and not any(key.nullable for key in keys)


def _row_value(keys: SortColumns, position: Sequence[object], dialect: str) -> Condition:
    columns: Any = tuple_(*(key.column for key in keys))
    values: Any = tuple_(
        *(_bind(key, value, dialect) for key, value in zip(keys, position, strict=True))
    )
    if len(keys) == 1:
        columns, values = keys[0].column, _bind(keys[0], position[0], dialect)
    condition: Condition = columns < values if keys[0].descending else columns > values
    return condition


def _bind(key: SortColumn, value: object, dialect: str) -> Expression:
    """Bind a value with the type of its column.

    PostgreSQL would compare an untyped value as another type.
    """
    if isinstance(value, BindParameter):
        bound: Expression = value
    else:
        if dialect == "postgresql" and (exact := finite_or_infinite(key, value)) is not None:
            return exact
        bound = literal(value, key.column.type)
    if dialect == "postgresql" and isinstance(key.column.type, Float):
        # A `real` converted to double precision differs from the decimal fraction it was read as.
        return cast(bound, key.column.type)
    return bound


def _restrict(
    source: Selection, analyzed: AnalyzedSelect, conditions: list[Condition]
) -> Selection:
    if not conditions:
        return source
    # Keys may be aggregates. PostgreSQL tests the others before it groups.
    add: Callable[[Condition], Selection] = source.having if analyzed.is_grouped else source.where
    return add(and_(*conditions))


def _chain(
    statements: list[Selection],
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    *,
    limit: Amount,
    dialect: str,
) -> Selection:
    """Return one statement that reads a range only if the ranges before it do not fill the page."""
    parts: list[CTE] = []
    for number, statement in enumerate(statements):
        counts = [select(func.count()).select_from(part).scalar_subquery() for part in parts]
        found: Expression = sum(counts, literal(0))
        # PostgreSQL evaluates a condition without columns once. (A LIMIT from a sub-query has the
        # same effect, but gets worse plans.)
        near = statement.where(found < limit) if counts else statement
        parts.append(near.cte(f"hasten_range_{number}"))
    rows = union_all(*(select(part) for part in parts)).subquery("hasten_ranges")
    columns = list(rows.c)
    names = [column.name for column in statements[0].selected_columns]
    places = layout(analyzed, keys)
    moved = tuple(
        SortColumn(columns[place], key.descending, key.nullable, key.nulls)
        for place, key in zip(places, keys, strict=True)
    )
    named = [column.label(name) for column, name in zip(columns, names, strict=True)]
    chained = select(*named).order_by(*order_by(moved, dialect)).limit(limit)
    return copy_orm_filters(analyzed.statement, chained)
