"""Selects that read the rows after (or before) a position by seeking in an index.

Let the rows be sorted by the keys k1 … kn, and let the position be the values v1 … vn. The rows
after the position are divided into these ranges, the nearest first:

    k1 = v1 AND … AND k(n-1) = v(n-1) AND kn > vn
    …
    k1 > v1

(For a descending key, `<` replaces `>`. For a value that is NULL, `IS NULL` replaces `= v`. If
NULLs are sorted last, they are one more range.)

Each range is a contiguous part of an index on the keys, whatever the directions of the keys. There
are two alternatives:

- One condition that combines the ranges with OR: databases then scan the index from its start.
- One comparison of row values, `(k1, …, kn) > (v1, …, vn)`: this works only if all keys have the
  same direction and none is NULL. PostgreSQL then seeks with all keys, but SQLite only with the
  first one. So it is used on PostgreSQL, where it is possible.

The ranges do not overlap, and each continues where the one before ends. So usually the nearest
range fills the page, and the others are not read. There are two ways to read them:

- Several statements, executed one after the other. This way can load ORM objects.
- One statement, which saves round trips: a UNION ALL of common table expressions, each of which
  reads rows only if the ones before it did not fill the page.
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
from hasten._sqlalchemy.selects import Expression, Selection, copy_orm_filters_to_outer
from hasten._sqlalchemy.sort_columns import (
    WITHOUT_NULLS_SYNTAX,
    SortColumn,
    SortColumns,
    make_order_by_terms,
)
from hasten.errors import InvalidOption
from hasten.pagination._sql.indexes import find_index_for_order
from hasten.pagination._sql.infinities import make_date_or_infinity_expression

HIDDEN: Final = "hasten_key_"
"""The prefix of the labels of sort keys that are added to a select to compute positions."""

Condition: TypeAlias = ColumnElement[bool]

Amount: TypeAlias = int | BindParameter[int]
"""A LIMIT or OFFSET: a number, or a parameter for it."""


def select_rows_after(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    position: Sequence[object] | None,
    *,
    limit: Amount,
    dialect: str,
    backwards: bool = False,
    allow_several_statements: bool | None = None,
) -> list[Selection]:
    """Return the statements that read up to limit rows after a position, or before it if backwards.

    position has a value, or a parameter for it, for each key; None stands for the start of all rows
    (backwards: for their end). Backward statements return rows in reverse order. The sort keys that
    the select does not contain are appended to each row (see `find_key_indexes`).

    If several statements are returned, execute them one after the other until there are limit rows.
    allow_several_statements=False returns one statement. That is the default on PostgreSQL, to save
    round trips, unless rows contain ORM objects. (On SQLite, two short statements are faster than
    one.)

    Raises `InvalidOption` for a column whose comparison does not match its sort order on MySQL.
    """
    _check_comparable(keys, dialect)
    if position is not None:
        check_position_matches_keys(position, keys)
    if allow_several_statements is None:
        allow_several_statements = analyzed.holds_entities or dialect != "postgresql"
    keys = _reverse_order(keys, dialect) if backwards else keys
    source = append_sort_keys(analyzed, keys)
    ranges = _make_ranges_after(keys, position, dialect)
    statements = [
        _add_where_or_having(source, analyzed, conditions)
        .order_by(*make_order_by_terms(rest, dialect))
        .limit(limit)
        for conditions, rest in ranges
    ]
    if len(statements) == 1 or allow_several_statements:
        return statements
    return [_combine_with_union_all(statements, analyzed, keys, limit=limit, dialect=dialect)]


def check_position_matches_keys(position: Sequence[object], keys: SortColumns) -> None:
    """Raise `InvalidOption` unless a position has one value per key, and NULL only if nullable."""
    if len(position) != len(keys):
        raise InvalidOption("position", list(position), f"{len(keys)} values, one per sort key")
    for value, key in zip(position, keys, strict=True):
        if value is None and not key.nullable:
            raise InvalidOption(
                "position",
                list(position),
                f"a list without NULL for {key.column}, which is not nullable",
            )


def find_key_indexes(analyzed: AnalyzedSelect, keys: SortColumns) -> list[int]:
    """Return the index of each sort key's value in a result row of `append_sort_keys`."""
    places = []
    end = analyzed.width
    for key in keys:
        place = analyzed.find_column_index(key.column)
        if place is None:
            place, end = end, end + 1
        places.append(place)
    return places


def append_sort_keys(analyzed: AnalyzedSelect, keys: SortColumns) -> Selection:
    """Return the select with the sort keys that it does not contain, appended as columns."""
    check_keys_selected_if_distinct(analyzed, keys)
    hidden = _find_unselected_keys(analyzed, keys)
    return analyzed.statement.add_columns(
        *(key.column.label(f"{HIDDEN}{number}") for number, key in enumerate(hidden))
    )


def check_keys_selected_if_distinct(analyzed: AnalyzedSelect, keys: SortColumns) -> None:
    """Raise `InvalidOption` if a select with DISTINCT does not contain a sort key.

    Adding the key to its columns would change which rows are distinct.
    """
    hidden = _find_unselected_keys(analyzed, keys) if analyzed.is_distinct else ()
    if hidden:
        raise InvalidOption(
            "sort", str(hidden[0].column), "a column that the select with DISTINCT returns"
        )


def _find_unselected_keys(analyzed: AnalyzedSelect, keys: SortColumns) -> list[SortColumn]:
    """Return the sort keys that are not among the columns of the select."""
    return [key for key in keys if analyzed.find_column_index(key.column) is None]


def _check_comparable(keys: SortColumns, dialect: str) -> None:
    """Raise `InvalidOption` for a column whose values MySQL does not compare as it sorts them.

    MySQL sorts an ENUM by the position of its values in the definition, but compares it as text.
    It rounds a FLOAT when it is read, so the value in a position does not equal the stored one.
    """
    if dialect not in WITHOUT_NULLS_SYNTAX:
        return
    for key in keys:
        kind = key.column.type
        remedy = None
        if isinstance(kind, Enum) and kind.native_enum:
            remedy = "Enum(…, native_enum=False)"
        elif isinstance(kind, Float) and _is_mysql_single_precision(kind):
            remedy = "Double or Numeric"
        if remedy is not None:
            raise InvalidOption(
                "sort",
                str(key.column),
                "a column of another type, because MySQL sorts and compares values of this type "
                f"differently: use {remedy}",
            )


def _is_mysql_single_precision(float_type: Float[Any]) -> bool:
    """Return whether MySQL stores a type with 4 bytes: FLOAT, but not DOUBLE, REAL or FLOAT(25)."""
    return not isinstance(float_type, Double | REAL) and (float_type.precision or 0) <= 24


def _reverse_order(keys: SortColumns, dialect: str) -> SortColumns:
    return tuple(key.reverse(dialect) for key in keys)


# Ranges -------------------------------------------------------------------------------------------

_KeysToSortBy: TypeAlias = SortColumns

_Range: TypeAlias = tuple[list[Condition], _KeysToSortBy]
"""A range of rows: the conditions that select them, and the keys to sort them by."""


def _make_ranges_after(
    keys: SortColumns, position: Sequence[object] | None, dialect: str
) -> list[_Range]:
    """Return the ranges that contain the rows after a position, the nearest first."""
    if position is None:
        return _make_ranges_of_all_rows(keys, dialect)
    if dialect == "postgresql" and _can_compare_row_values(keys):
        return [([_make_row_value_comparison(keys, position, dialect)], keys)]
    ranges: list[_Range] = []
    for index in reversed(range(len(keys))):
        prefix, values = keys[:index], position[:index]
        for condition, rest in _make_conditions_after_value(keys[index:], position[index], dialect):
            at, order = _make_prefix_equalities(prefix, values, rest, dialect)
            ranges.append(([*at, condition], order))
    return ranges


def _make_ranges_of_all_rows(keys: SortColumns, dialect: str) -> list[_Range]:
    """Return the ranges that contain all rows: one or two.

    If no index sorts the NULLs of the first key as requested, the rows with NULL are a range of
    their own, so that an index can be used for both ranges.
    """
    key = keys[0]
    if key.matches_default_null_order(dialect) or _has_index_for_keys(keys, dialect):
        return [([], keys)]
    order = (_as_not_nullable(key), *keys[1:])
    with_value: _Range = ([key.column.is_not(None)], order)
    without: _Range = ([key.column.is_(None)], order)
    return [without, with_value] if key.sorts_nulls_first(dialect) else [with_value, without]


def _has_index_for_keys(keys: SortColumns, dialect: str) -> bool:
    """Return whether an index has the order of the keys, including the NULLs of the first key."""
    found = find_index_for_order((), keys, dialect)
    return found is not None and found[0].sorts_nulls_first(dialect) == keys[0].sorts_nulls_first(
        dialect
    )


def _make_conditions_after_value(
    keys: SortColumns, value: object, dialect: str
) -> list[tuple[Condition, _KeysToSortBy]]:
    """Return the conditions for rows whose first key is sorted after a value.

    There are up to two: for greater (or lower) values, and for NULLs if they are sorted last. Each
    comes with the keys to sort its rows by.
    """
    key, rest = keys[0], keys[1:]
    order = (_as_not_nullable(key), *rest)
    if value is None:
        return [(key.column.is_not(None), order)] if key.sorts_nulls_first(dialect) else []
    bound = _bind_value(key, value, dialect)
    found: list[tuple[Condition, _KeysToSortBy]] = [
        (key.column < bound if key.descending else key.column > bound, order)
    ]
    if key.nullable and not key.sorts_nulls_first(dialect):
        found.append((key.column.is_(None), order))
    return found


def _make_prefix_equalities(
    prefix_keys: SortColumns, values: Sequence[object], remaining_keys: SortColumns, dialect: str
) -> tuple[list[Condition], _KeysToSortBy]:
    """Return the conditions that prefix_keys equal these values, and the keys to sort by.

    A key that equals one value need not be in ORDER BY. But if PostgreSQL knows that, it may scan
    the primary key instead of the index on all keys, and discard the rows outside of the range. It
    assumes that the rows of the range are spread evenly over the table; if they are not, it reads
    most of the table. So if an index on the keys is declared, the condition is written as
    ``k >= v AND k <= v``, and k stays in ORDER BY, with the direction that it has in the index.
    """
    pairs = list(zip(prefix_keys, values, strict=True))
    indexed = (
        find_index_for_order(prefix_keys, remaining_keys, dialect)
        if dialect == "postgresql"
        else None
    )
    if indexed is not None:
        number = len(prefix_keys) + 1
        return [_make_equality_as_range(*pair, dialect) for pair in pairs], (
            *indexed[:number],
            *remaining_keys[1:],
        )
    # PostgreSQL does not notice that a key with IS NULL has one value. Without this key in ORDER
    # BY, it would not use an index that contains the key.
    is_named = dialect == "postgresql"
    named = [_as_not_nullable(key) for key, value in pairs if value is None and is_named]
    return [_make_equality(*pair, dialect) for pair in pairs], (*named, *remaining_keys)


def _make_equality(key: SortColumn, value: object, dialect: str) -> Condition:
    return key.column.is_(None) if value is None else key.column == _bind_value(key, value, dialect)


def _make_equality_as_range(key: SortColumn, value: object, dialect: str) -> Condition:
    """Return the condition ``k >= v AND k <= v``, or ``k IS NULL``."""
    if value is None:
        return key.column.is_(None)
    bound = _bind_value(key, value, dialect)
    return and_(key.column >= bound, key.column <= bound)


def _as_not_nullable(key: SortColumn) -> SortColumn:
    """Return the key as not nullable, for a range in which all values are NULL or none is.

    Then the place of NULLs does not matter, and ORDER BY needs no NULLS FIRST or LAST.
    """
    return replace(key, nullable=False)


def _can_compare_row_values(keys: SortColumns) -> bool:
    """Return whether all keys have one direction and none is nullable."""
    has_one_direction = len({key.descending for key in keys}) == 1
    return has_one_direction and not any(key.nullable for key in keys)


def _make_row_value_comparison(
    keys: SortColumns, position: Sequence[object], dialect: str
) -> Condition:
    """Return the condition ``(k1, …, kn) > (v1, …, vn)``, or ``<`` for descending keys."""
    columns: Any = tuple_(*(key.column for key in keys))
    values: Any = tuple_(
        *(_bind_value(key, value, dialect) for key, value in zip(keys, position, strict=True))
    )
    if len(keys) == 1:
        columns, values = keys[0].column, _bind_value(keys[0], position[0], dialect)
    condition: Condition = columns < values if keys[0].descending else columns > values
    return condition


def _bind_value(key: SortColumn, value: object, dialect: str) -> Expression:
    """Return an SQL expression for a value of a position, with the type of its column.

    PostgreSQL might compare a value without a type as a value of another type.
    """
    if isinstance(value, BindParameter):
        bound: Expression = value
    else:
        if (
            dialect == "postgresql"
            and (exact := make_date_or_infinity_expression(key, value)) is not None
        ):
            return exact
        bound = literal(value, key.column.type)
    if dialect == "postgresql" and isinstance(key.column.type, Float):
        # A column of type real holds 0.1 as 0.100000001…, which differs from a 0.1 that is sent
        # as double precision. So the parameter is cast to the type of the column.
        return cast(bound, key.column.type)
    return bound


def _add_where_or_having(
    source: Selection, analyzed: AnalyzedSelect, conditions: list[Condition]
) -> Selection:
    """Add the conditions of a range to a select: in HAVING if it has GROUP BY, else in WHERE."""
    if not conditions:
        return source
    # Sort keys of a grouped select may be aggregates, which only HAVING can compare. PostgreSQL
    # moves the conditions without aggregates to WHERE.
    add: Callable[[Condition], Selection] = source.having if analyzed.is_grouped else source.where
    return add(and_(*conditions))


def _combine_with_union_all(
    statements: list[Selection],
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    *,
    limit: Amount,
    dialect: str,
) -> Selection:
    """Combine the statements of several ranges into one.

    It reads a range only if the ranges before it do not fill the page.
    """
    parts: list[CTE] = []
    for number, statement in enumerate(statements):
        counts = [select(func.count()).select_from(part).scalar_subquery() for part in parts]
        found: Expression = sum(counts, literal(0))
        # PostgreSQL evaluates a condition without columns once, before it reads rows. (A LIMIT
        # that a sub-query computes has the same effect, but leads to worse query plans.)
        near = statement.where(found < limit) if counts else statement
        parts.append(near.cte(f"hasten_range_{number}"))
    rows = union_all(*(select(part) for part in parts)).subquery("hasten_ranges")
    columns = list(rows.c)
    names = [column.name for column in statements[0].selected_columns]
    places = find_key_indexes(analyzed, keys)
    moved = tuple(
        SortColumn(columns[place], key.descending, key.nullable, key.nulls)
        for place, key in zip(places, keys, strict=True)
    )
    named = [column.label(name) for column, name in zip(columns, names, strict=True)]
    combined = select(*named).order_by(*make_order_by_terms(moved, dialect)).limit(limit)
    return copy_orm_filters_to_outer(analyzed.statement, combined)
