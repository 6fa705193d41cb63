"""One select of entities, cut into pages of the fields that were asked for.

What tells its rows apart is read off the entities; what is selected is columns. So a page needs no
object of the ORM, and a column that nobody asked for stays where it is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Enum, TypeDecorator, inspect, literal_column
from sqlalchemy.orm import Mapper

from hasten.errors import InvalidOption
from hasten.fields.sql.running import Call, Step
from hasten.fields.sql.shapes import Shape
from hasten.fields.sql.statements import entity_of
from hasten.pagination.counts import Capped, Count, CountFunction, Uncached
from hasten.pagination.order import Order
from hasten.pagination.sources import to_count
from hasten.pagination.sql.reading import (
    Keys,
    Reading,
    Selection,
    is_same,
    only,
    read,
    resolve,
)
from hasten.pagination.sql.running import Counted, Numbered, Steps, Stretch
from hasten.pagination.sql.running import numbered as _numbered
from hasten.pagination.sql.running import stretch as _stretch
from hasten.pagination.sql.running import total_of as _total_of

Row = dict[str, object]

Version: TypeAlias = ColumnElement[Any] | Sequence[ColumnElement[Any]]
"""What tells versions of the rows of a select apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is read, in which order, and what its rows become."""

    reading: Reading
    keys: Keys
    shape: Shape
    statement: Selection
    """As it came."""

    def numbered(
        self, dialect: str, *, limit: int, offset: int, count: Uncached
    ) -> Steps[Numbered]:
        """The page at an offset, its rows as what was asked for."""
        how, cap = _counted(count)
        found = yield from _numbered(
            self.reading,
            self.keys,
            limit=limit,
            offset=offset,
            dialect=dialect,
            count=how,
            cap=cap,
        )
        return replace(found, rows=(yield from self._read(found.rows, dialect)))

    def stretch(
        self,
        dialect: str,
        position: Sequence[object] | None,
        *,
        limit: int,
        backwards: bool,
    ) -> Steps[Stretch]:
        """The page at a position, its rows as what was asked for."""
        found = yield from _stretch(
            self.reading,
            self.keys,
            position and [_to_column(*each) for each in zip(self.keys, position, strict=True)],
            limit=limit,
            dialect=dialect,
            backwards=backwards,
        )
        return replace(found, rows=(yield from self._read(found.rows, dialect)))

    def total(self, dialect: str, count: Uncached) -> Steps[tuple[int, Any]]:
        how, cap = _counted(count)
        return (yield from _total_of(self.reading, dialect=dialect, count=how, cap=cap))

    def counted(self, function: CountFunction) -> Steps[Count]:
        """What a function of the application's counts."""
        return to_count((yield Call(lambda db: function(db, self.statement))))

    def version(self, expressions: Sequence[Any]) -> Steps[list[object]]:
        """What expressions come to, over all rows of the select."""
        reading = self.reading
        if reading.is_grouped or reading.is_distinct:
            raise InvalidOption(
                "etag", "an expression", "True, for a select that is grouped or DISTINCT"
            )
        result = yield Step(only(reading.statement, *expressions))
        return list(result.one())

    def check_shown(self, entity_columns: Iterable[Any]) -> None:
        """Raise `InvalidOption` if a cursor would show what no field does: it is not encrypted."""
        shown = list(entity_columns)
        for key in self.keys:
            if not any(is_same(key.column, each) for each in shown):
                raise InvalidOption(
                    "sort",
                    str(key.column),
                    "fields of the answer alone, because a client can read the values in a cursor: "
                    "show it as a field, or use mode='page'",
                )

    def parts(self) -> list[object]:
        """What tells this query from every other one, in plain values."""
        keys = [
            [str(key.column), key.descending, key.nullable, key.nulls, str(key.column.type)]
            for key in self.keys
        ]
        text, values = _filter_of(self)
        return [keys, text, values]

    def _read(self, rows: list[Any], dialect: str) -> Steps[list[Row]]:
        if self.reading.width == 1:
            rows = [(row,) for row in rows]
        return (yield from self.shape.read(rows, dialect))


def plan(
    statement: Selection,
    mapper: Mapper[Any],
    shape_of: Callable[[Selection], Shape],
    order: Order,
    attributes: Mapping[str, str],
) -> tuple[Plan, list[Any]]:
    """Make a plan; with it, the columns that attributes (by public name) stand for.

    Raises `InvalidOption` for a select that cannot be paged.
    """
    entity = entity_of(statement, mapper)
    columns = {name: _clause(getattr(entity, attribute)) for name, attribute in attributes.items()}
    whole = read(statement)
    keys = resolve(whole, order, columns)
    shape = shape_of(whole.statement)
    narrow = shape.statement(whole.statement)
    reading = replace(
        whole,
        statement=narrow,
        width=len(narrow.column_descriptions),
        holds_entities=False,
    )
    return Plan(reading, keys, shape, statement), list(columns.values())


def mapper_of(model: type) -> Mapper[Any]:
    """Raises `InvalidOption`."""
    mapper: object = inspect(model, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise InvalidOption("model", model, "a class that is mapped to a table")
    return mapper


def is_nullable(mapper: Mapper[Any], attribute: str) -> bool:
    """Of a hybrid nobody knows, so it may be."""
    column = mapper.columns.get(attribute)
    return column is None or bool(getattr(column, "nullable", True))


def check_in_cursor(mapper: Mapper[Any], attributes: Collection[str], option: str) -> None:
    """Raise `InvalidOption` for a column whose values no cursor can hold."""
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
    """The type below one of the application's own, which tells nothing of its values."""
    return _stored(kind.impl) if isinstance(kind, TypeDecorator) else kind


_IN_CURSOR: Final = (
    bool, int, str, date, UUID, float, Decimal, bytes, time, timedelta, enum.Enum,
)  # fmt: skip


def _clause(attribute: Any) -> Any:
    return attribute.__clause_element__() if hasattr(attribute, "__clause_element__") else attribute


def _counted(count: Uncached) -> tuple[Counted, int | None]:
    return ("capped", count.limit) if isinstance(count, Capped) else (count, None)


def _to_column(key: Any, value: object) -> object:
    """A value of a token as the column takes it: of a member of an enumeration it has the value."""
    kind = key.column.type
    if value is not None and isinstance(kind, Enum) and kind.enum_class is not None:
        return kind.enum_class(value)
    return value


# Filters ------------------------------------------------------------------------------------------


def _filter_of(plan: Plan) -> tuple[str, list[object]]:
    """The text of what is selected from, and its values: the same in every process."""
    key = plan.statement._generate_cache_key()
    if key is None:
        compiled = only(plan.reading.statement, literal_column("1")).compile()
        return str(compiled), [_plain(value) for _, value in sorted(compiled.params.items())]
    text = _text_of(_ByKey(key.key, plan.reading))
    return text, [_plain(each.effective_value) for each in key.bindparams]


class _ByKey:
    """A select, for a cache: two that differ in their values alone are equal."""

    __slots__ = ("key", "reading")

    def __init__(self, key: Any, reading: Reading) -> None:
        self.key = key
        self.reading = reading

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByKey) and bool(self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(256)
def _text_of(cached: _ByKey) -> str:
    return str(only(cached.reading.statement, literal_column("1")).compile())


def _plain(value: object) -> object:
    """A value of a filter in the types that can be told apart for good."""
    match value:
        case enum.Enum():
            return [type(value).__qualname__, value.name]
        case None | bool() | int() | str() | date() | UUID() | float() | Decimal() | bytes():
            return value
        case time() | timedelta():
            return value
        case list() | tuple():
            return [_plain(each) for each in value]
        case set() | frozenset():
            return sorted((_plain(each) for each in value), key=repr)
        case Mapping():
            return sorted(([_plain(k), _plain(v)] for k, v in value.items()), key=repr)
    if type(value).__repr__ is not object.__repr__:
        return [type(value).__qualname__, repr(value)]
    raise InvalidOption(
        "statement",
        f"a filter by a value of type {type(value).__qualname__}",
        "values whose repr() tells them apart, so that a cursor can be bound to them",
    )
