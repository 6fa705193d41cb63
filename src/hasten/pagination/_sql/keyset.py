"""The rows before or after a position, in index ranges only.

For the keys k1 … kn at the values v1 … vn, the rows that come after are these ranges, the nearest
first:

    k1 = v1 AND … AND k(n-1) = v(n-1) AND kn > vn
    …
    k1 > v1

(`<` where a key descends, `IS NULL` for a value that is NULL, one range more where NULLs come
after.) Each one is a contiguous piece of an index over the keys, whatever their directions.
Written as one condition with OR, the same rows cost a scan from the start of the index; written
as one row value they need keys of one direction without NULLs, and a database that seeks on all
of them: PostgreSQL does, SQLite on the first one alone. So ranges are the rule, and the row value
is the exception.

The ranges do not overlap and follow one another, so the nearest one mostly fills the page, and the
others need not be looked into. They can be read in turn, which keeps what the ORM knows of a select
(entities, loader options); or be one statement (UNION ALL of common table expressions, each only
executed if those before it were short), which never needs a second round trip.
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

from hasten.errors import InvalidOption
from hasten.pagination._sql.edges import at_edge
from hasten.pagination._sql.indexes import find_index
from hasten.pagination._sql.reading import (
    Expression,
    Reading,
    Selection,
    SortColumn,
    SortColumns,
    around,
)

HIDDEN: Final = "hasten_key_"
"""What the columns are called that are selected for the work and not for the caller."""

Condition: TypeAlias = ColumnElement[bool]

Amount: TypeAlias = int | BindParameter[int]
"""A number, or the parameter that it will be given by."""


def after(
    reading: Reading,
    keys: SortColumns,
    position: Sequence[object] | None,
    *,
    limit: Amount,
    dialect: str,
    backwards: bool = False,
    in_turn: bool | None = None,
) -> list[Selection]:
    """The statements that read up to limit rows after a position, or before it if backwards.

    position holds one value per key, or the parameter that it will be given by; None stands for the
    start (backwards: the end). The rows of backward statements come last one first: turn them
    round. More than one statement is to be read in turn, until limit rows have come; in_turn says
    whether that may be. By default it is not on PostgreSQL, where a way over the network is dear,
    unless a row holds entities. On SQLite two short statements are done sooner than one that joins
    the ranges. Each row has the keys behind its own elements (`layout`). Raises `InvalidOption` for
    a key that the database does not compare as it sorts.
    """
    _check_kinds(keys, dialect)
    if position is not None:
        check_position(position, keys)
    if in_turn is None:
        in_turn = reading.holds_entities or dialect != "postgresql"
    keys = _reversed(keys, dialect) if backwards else keys
    source = with_keys(reading, keys)
    ranges = _ranges(keys, position, dialect)
    statements = [
        _restrict(source, reading, conditions).order_by(*order_by(rest, dialect)).limit(limit)
        for conditions, rest in ranges
    ]
    if len(statements) == 1 or in_turn:
        return statements
    return [_chain(statements, reading, keys, limit=limit, dialect=dialect)]


def check_position(position: Sequence[object], keys: SortColumns) -> None:
    """Raise `InvalidOption` unless there is a value for each key, NULL only where it may be."""
    if len(position) != len(keys):
        raise InvalidOption("position", list(position), f"{len(keys)} values, one per key")
    for value, key in zip(position, keys, strict=True):
        if value is None and not key.nullable:
            raise InvalidOption(
                "position", list(position), f"a value for {key.column}, which is never NULL"
            )


def layout(reading: Reading, keys: SortColumns) -> list[int]:
    """Where in a row of `with_keys` the values of the keys stand."""
    places = []
    end = reading.width
    for key in keys:
        place = reading.find(key.column)
        if place is None:
            place, end = end, end + 1
        places.append(place)
    return places


def with_keys(reading: Reading, keys: SortColumns) -> Selection:
    """The select with the keys that it does not hold behind its own columns."""
    check_distinct(reading, keys)
    hidden = _hidden(reading, keys)
    return reading.statement.add_columns(
        *(key.column.label(f"{HIDDEN}{number}") for number, key in enumerate(hidden))
    )


def check_distinct(reading: Reading, keys: SortColumns) -> None:
    """Raise `InvalidOption` for a key that rows which are told apart by what they hold lack."""
    hidden = _hidden(reading, keys) if reading.is_distinct else ()
    if hidden:
        raise InvalidOption(
            "sort", str(hidden[0].column), "one of the columns that the DISTINCT select holds"
        )


def _hidden(reading: Reading, keys: SortColumns) -> list[SortColumn]:
    return [key for key in keys if reading.find(key.column) is None]


def order_by(keys: SortColumns, dialect: str) -> list[Expression]:
    """The terms of ORDER BY, which name NULLs only where the database would put them elsewhere."""
    terms: list[Expression] = []
    for key in keys:
        term = key.column.desc() if key.descending else key.column.asc()
        if not key.is_native(dialect):
            first = key.nulls_first(dialect)
            if dialect in WITHOUT_NULLS_SYNTAX:
                is_null = key.column.is_(None)
                terms.append(is_null.desc() if first else is_null.asc())
            else:
                term = term.nulls_first() if first else term.nulls_last()
        terms.append(term)
    return terms


WITHOUT_NULLS_SYNTAX: Final = frozenset({"mysql", "mariadb"})


def _check_kinds(keys: SortColumns, dialect: str) -> None:
    """MySQL sorts an ENUM by place and compares it as text; of a FLOAT it tells six digits."""
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
    """REAL is double there, and so is FLOAT(25)."""
    return not isinstance(kind, Double | REAL) and (kind.precision or 0) <= 24


def _reversed(keys: SortColumns, dialect: str) -> SortColumns:
    return tuple(key.reversed(dialect) for key in keys)


# Ranges -------------------------------------------------------------------------------------------

_Range: TypeAlias = tuple[list[Condition], SortColumns]
"""What its rows have in common, and what is left to sort them by."""


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
    """All rows. Where no plain index has the NULLs on the side asked for, they are a range."""
    key = keys[0]
    if key.is_native(dialect) or _is_indexed(keys, dialect):
        return [([], keys)]
    settled = (_settled(key), *keys[1:])
    with_value: _Range = ([key.column.is_not(None)], settled)
    without: _Range = ([key.column.is_(None)], settled)
    return [without, with_value] if key.nulls_first(dialect) else [with_value, without]


def _is_indexed(keys: SortColumns, dialect: str) -> bool:
    found = find_index((), keys, dialect)
    return found is not None and found[0].nulls_first(dialect) == keys[0].nulls_first(dialect)


def _beyond(keys: SortColumns, value: object, dialect: str) -> list[tuple[Condition, SortColumns]]:
    """What comes after a value of the first of these keys, in at most two ranges."""
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
    """The condition that the keys of prefix are at their values, and what to sort by under it.

    By what is constant nothing has to be sorted. But PostgreSQL, told that it is constant, may walk
    the primary key instead of the index over all keys, and discard what is not of the range, in the
    belief that rows of it come evenly; where they do not, that is most of the table. So it is not
    told where we know the index: `k >= v AND k <= v`, and k in the ORDER BY, in the index's words.
    """
    pairs = list(zip(prefix, values, strict=True))
    words = find_index(prefix, rest, dialect) if dialect == "postgresql" else None
    if words is not None:
        number = len(prefix) + 1
        return [_is_between(*pair, dialect) for pair in pairs], (*words[:number], *rest[1:])
    # A key that IS NULL is no constant to PostgreSQL: not named, an index would not be in order.
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
    """The key where it is NULL in all rows or in none, so that NULLs need no place."""
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
    """A value of the column's own type. An untyped one would be compared as something else."""
    if isinstance(value, BindParameter):
        bound: Expression = value
    else:
        if dialect == "postgresql" and (edge := at_edge(key, value)) is not None:
            return edge
        bound = literal(value, key.column.type)
    if dialect == "postgresql" and isinstance(key.column.type, Float):
        # A `real` widened to double precision equals no decimal fraction that it came from.
        return cast(bound, key.column.type)
    return bound


def _restrict(source: Selection, reading: Reading, conditions: list[Condition]) -> Selection:
    if not conditions:
        return source
    # SortColumns may be aggregates; those that are not, PostgreSQL tests before it groups.
    add: Callable[[Condition], Selection] = source.having if reading.is_grouped else source.where
    return add(and_(*conditions))


def _chain(
    statements: list[Selection], reading: Reading, keys: SortColumns, *, limit: Amount, dialect: str
) -> Selection:
    """One statement in which a range is not looked into if those before it fill the page."""
    parts: list[CTE] = []
    for number, statement in enumerate(statements):
        counts = [select(func.count()).select_from(part).scalar_subquery() for part in parts]
        found: Expression = sum(counts, literal(0))
        # PostgreSQL tests a condition without columns once. (A LIMIT that it does not know at first
        # would do as well, but it plans badly for one.)
        near = statement.where(found < limit) if counts else statement
        parts.append(near.cte(f"hasten_range_{number}"))
    rows = union_all(*(select(part) for part in parts)).subquery("hasten_ranges")
    columns = list(rows.c)
    names = [column.name for column in statements[0].selected_columns]
    places = layout(reading, keys)
    moved = tuple(
        SortColumn(columns[place], key.descending, key.nullable, key.nulls)
        for place, key in zip(places, keys, strict=True)
    )
    named = [column.label(name) for column, name in zip(columns, names, strict=True)]
    chained = select(*named).order_by(*order_by(moved, dialect)).limit(limit)
    return around(chained, reading.statement)
