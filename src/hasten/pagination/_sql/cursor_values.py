"""Values of columns in cursors, and values of filters in fingerprints."""

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


def check_fits_in_cursor(mapper: Mapper[Any], attributes: Collection[str], option: str) -> None:
    """Raise `InvalidOption` for a column whose values a cursor cannot hold."""
    for attribute in attributes:
        column = mapper.columns.get(attribute)
        if column is None:
            continue
        try:
            kind = _stored(column.type).python_type
        except NotImplementedError:
            continue
        if not issubclass(kind, _IN_CURSOR):
            raise InvalidOption(
                option, attribute, f"a column whose values a cursor can hold, not {column.type!r}"
            )


def _stored(kind: Any) -> Any:
    """Return the type that a TypeDecorator of the application is based on."""
    return _stored(kind.impl) if isinstance(kind, TypeDecorator) else kind


_IN_CURSOR: Final = (
    bool, int, str, date, UUID, float, Decimal, bytes, time, timedelta, enum.Enum,
)  # fmt: skip


def is_nullable(mapper: Mapper[Any], attribute: str) -> bool:
    """Return whether a column may be NULL. For hybrids this is unknown: True."""
    column = mapper.columns.get(attribute)
    return column is None or bool(getattr(column, "nullable", True))


def to_column_value(key: SortColumn, value: object) -> object:
    """Return a value of a cursor as the column expects it: the member of an enumeration.

    Raises `InvalidParameter` if the enumeration has no such member any more.
    """
    kind = key.column.type
    if value is not None and isinstance(kind, Enum) and kind.enum_class is not None:
        try:
            return kind.enum_class(value)
        except ValueError:
            raise expired_cursor_error() from None
    return value


def plain_value(value: object) -> object:
    """Return a value of a filter in types that a fingerprint can hold."""
    match value:
        case enum.Enum():
            return [type(value).__qualname__, value.name]
        case None | bool() | int() | str() | date() | UUID() | float() | Decimal() | bytes():
            return value
        case time() | timedelta():
            return value
        case list() | tuple():
            return [plain_value(each) for each in value]
        case set() | frozenset():
            return sorted((plain_value(each) for each in value), key=repr)
        case Mapping():
            return sorted(([plain_value(k), plain_value(v)] for k, v in value.items()), key=repr)
    if type(value).__repr__ is not object.__repr__:
        return [type(value).__qualname__, repr(value)]
    raise InvalidOption(
        "statement",
        f"a filter by a value of type {type(value).__qualname__}",
        "a filter by values with a unique repr(), because cursors are bound to it",
    )
