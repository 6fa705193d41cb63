"""Convert values of cursors for their columns, and values of filters for query fingerprints."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Enum, TypeDecorator
from sqlalchemy.orm import Mapper

from hasten._sqlalchemy.sort_columns import SortColumn
from hasten.errors import InvalidOption
from hasten.pagination._cursor import expired_cursor_error


def check_types_allowed_in_cursor(
    mapper: Mapper[Any], attributes: Collection[str], option: str
) -> None:
    """Raise `InvalidOption` for an attribute whose column has a type that cursors cannot contain.

    option is the name of the option that the attributes were passed in.
    """
    for attribute in attributes:
        column = mapper.columns.get(attribute)
        if column is None:
            continue
        try:
            kind = _unwrap_type_decorator(column.type).python_type
        except NotImplementedError:
            continue
        if not issubclass(kind, _IN_CURSOR):
            raise InvalidOption(
                option,
                attribute,
                f"a column of a type that a cursor can contain, not {column.type!r}",
            )


def _unwrap_type_decorator(sql_type: Any) -> Any:
    """Return the SQLAlchemy type that a `TypeDecorator` wraps; any other type unchanged."""
    return (
        _unwrap_type_decorator(sql_type.impl) if isinstance(sql_type, TypeDecorator) else sql_type
    )


_IN_CURSOR: Final = (
    bool, int, str, date, UUID, float, Decimal, bytes, time, timedelta, enum.Enum,
)  # fmt: skip


def is_nullable(mapper: Mapper[Any], attribute: str) -> bool:
    """Return whether an attribute may be NULL; True for a hybrid property, where it is unknown."""
    column = mapper.columns.get(attribute)
    return column is None or bool(getattr(column, "nullable", True))


def cursor_value_to_column_value(key: SortColumn, value: object) -> object:
    """Convert a value from a cursor for comparison with the column of a sort key.

    If the column has the type of an Enum, the result is a member of it. Other values are returned
    unchanged. Raises `InvalidParameter` if the Enum no longer has a
    member with this value.
    """
    kind = key.column.type
    if value is not None and isinstance(kind, Enum) and kind.enum_class is not None:
        try:
            return kind.enum_class(value)
        except ValueError:
            raise expired_cursor_error() from None
    return value


def to_fingerprint_value(value: object) -> object:
    """Convert a value in a filter to types that a fingerprint can contain.

    Raises `InvalidOption` for an object of another type without its own ``repr()``.
    """
    match value:
        case enum.Enum():
            return [type(value).__qualname__, value.name]
        case None | bool() | int() | str() | date() | UUID() | float() | Decimal() | bytes():
            return value
        case time() | timedelta():
            return value
        case list() | tuple():
            return [to_fingerprint_value(each) for each in value]
        case set() | frozenset():
            return sorted((to_fingerprint_value(each) for each in value), key=repr)
        case Mapping():
            return sorted(
                ([to_fingerprint_value(k), to_fingerprint_value(v)] for k, v in value.items()),
                key=repr,
            )
    if type(value).__repr__ is not object.__repr__:
        return [type(value).__qualname__, repr(value)]
    raise InvalidOption(
        "statement",
        f"a select with a value of type {type(value).__qualname__} in a filter",
        "a select whose values have a repr() that identifies them, because cursors and ETags "
        "depend on the values",
    )
