"""One select of entities, cut into pages of the fields that were asked for.

What tells its rows apart is read off the entities; what is selected is columns. So a page needs no
object of the ORM, and a column that nobody asked for stays where it is.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from sqlalchemy import ColumnElement, Enum, Select, TypeDecorator, inspect, literal_column
from sqlalchemy.orm import Mapper

from hasten.errors import InvalidOption
from hasten.fields._allowed import AllowedFields, FieldSet, is_shown
from hasten.fields._sql.running import Call, Step
from hasten.fields._sql.shapes import Shape, is_hybrid, state_of
from hasten.fields._sql.statements import entity_of
from hasten.fields._sql.templates import Own, Templates, filters
from hasten.pagination._counts import Capped, Count, CountFunction, Relation, Uncached
from hasten.pagination._cursor import expired, in_cursor
from hasten.pagination._order import Order
from hasten.pagination._sources import to_count
from hasten.pagination._sql.advice import Advisor
from hasten.pagination._sql.reading import (
    Expression,
    Reading,
    Selection,
    SortColumn,
    SortColumns,
    is_same,
    only,
    read,
    resolve,
)
from hasten.pagination._sql.running import Counted, Numbered, Statements, Steps, Stretch
from hasten.pagination._sql.running import numbered as _numbered
from hasten.pagination._sql.running import stretch as _stretch
from hasten.pagination._sql.running import total_of as _total_of

Row = dict[str, object]

_MAX_LISTS: Final = 16
"""For so many lists of allowed fields it is remembered whether they show the keys of an order."""

Version: TypeAlias = ColumnElement[Any] | Sequence[ColumnElement[Any]]
"""What tells versions of the rows of a select apart."""


class Shaping(Protocol):
    """How the columns follow from the fields that are asked for: `hasten.fields.FieldSelector`."""

    def _shape(self, statement: Selection, fields: FieldSet, *, apart: bool) -> Shape: ...
    def _context(self, fields: FieldSet) -> Hashable: ...


MAX_ADVISED: Final = 100
"""So many different queries are looked at for what a developer should know of them."""


class Outline:
    """What selects of one structure have in common, without their values."""

    def __init__(
        self,
        reading: Reading,
        keys: SortColumns,
        shape: Shape,
        columns: Mapping[str, Expression],
        order: Order,
    ) -> None:
        """columns are those of the plain fields, order is what was asked for by name."""
        self.order: Final = order
        self.advisor: Advisor | None = None
        self.reading: Final = reading
        self.keys: Final = keys
        self.shape: Final = shape
        self.statements: Final = Statements(reading, keys)
        self._columns = dict(columns)
        self.hidden: Final = lru_cache(_MAX_LISTS)(self._hidden)

    def _hidden(self, allowed: AllowedFields) -> SortColumn | None:
        """A key that not every row of this list may show, if there is one."""
        shown = [each for name, each in self._columns.items() if is_shown(name, allowed)]
        for key in self.keys:
            if not any(is_same(key.column, each) for each in shown):
                return key
        return None

    @cached_property
    def sorting(self) -> list[list[object]]:
        """The keys in plain values."""
        return [
            [str(key.column), key.descending, key.nullable, key.nulls, str(key.column.type)]
            for key in self.keys
        ]

    def text(self, own: Own) -> str:
        """The text of what is selected from: the same in every process."""
        # Options are the same in all selects of this structure, but for their values.
        if self._text is None:
            self._text = str(self.from_only(own).compile())
        return self._text

    _text: str | None = None

    def from_only(self, own: Own) -> Selection:
        return only(self.reading.statement.options(*own.options), literal_column("1"))


class Plans:
    """How selects of one mapped class are cut into pages. What is planned is kept."""

    def __init__(
        self,
        mapper: Mapper[Any],
        fields: Shaping,
        attributes: Mapping[str, str],
        *,
        ruled: Collection[str] = (),
        advise: bool = False,
    ) -> None:
        """attributes are those that may be sorted by, by public name.

        ruled are the names of which somebody has said where NULLs stand. advise is to warn of what
        a developer should know, once for each of the first `MAX_ADVISED` outlines that are kept.
        """
        self._ruled = ruled
        self._mapper = mapper
        self._fields = fields
        self._attributes = attributes
        self._hybrids = {
            name: attribute
            for name, attribute in attributes.items()
            if is_hybrid(mapper, attribute)
        }
        self.advise = advise
        # What is planned anew for each request is not advised on: it would be for each of them.
        self._outlines: Templates[Outline] = Templates(self._outline, kept=self._appoint)
        self._advised = 0

    def of(self, statement: Selection, chosen: FieldSet, order: Order) -> Plan:
        """The plan of a select. Raises `InvalidOption` for one that cannot be paged."""
        given: object = statement
        if not isinstance(given, Select):
            entity_of(statement, self._mapper)  # says what is expected
        is_filtered = bool(filters(statement))
        context = self._context(chosen, order)
        return Plan(*self._outlines.of(statement, chosen, order, is_filtered, context))

    @property
    def count(self) -> int:
        """How many are kept."""
        return self._outlines.count

    def _appoint(self, outline: Outline) -> None:
        if not self.advise:
            return
        # Clients choose orders, and Python keeps the text of each warning for good.
        self._advised += 1
        if self._advised > MAX_ADVISED:
            return
        outline.advisor = Advisor(
            self._mapper, outline.reading, outline.keys, outline.order, self._ruled
        )

    def _context(self, chosen: FieldSet, order: Order) -> Hashable:
        hybrids = [self._hybrids[key.name] for key in order if key.name in self._hybrids]
        sorted_by = [state_of(getattr(self._mapper.class_, name)) for name in hybrids]
        return (self._fields._context(chosen), *sorted_by)

    def _outline(
        self,
        statement: Selection,
        chosen: FieldSet,
        order: Order,
        is_filtered: bool,
        _: Hashable,
    ) -> Outline:
        entity = entity_of(statement, self._mapper)
        columns = {
            name: _clause(getattr(entity, attribute))
            for name, attribute in self._attributes.items()
        }
        whole = read(statement)
        keys = resolve(whole, order, columns)
        shape = self._fields._shape(whole.statement, chosen, apart=True)
        narrow = shape.statement(whole.statement)
        reading = replace(
            whole,
            statement=narrow,
            width=len(narrow.column_descriptions),
            holds_entities=False,
            table=None if is_filtered else whole.table,
        )
        return Outline(reading, keys, shape, columns, order)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is read, in which order, and what its rows become."""

    outline: Outline
    own: Own

    @property
    def reading(self) -> Reading:
        return self.outline.reading

    @property
    def keys(self) -> SortColumns:
        return self.outline.keys

    def numbered(
        self, dialect: str, *, limit: int, offset: int, count: Uncached
    ) -> Steps[Numbered]:
        """The page at an offset, its rows as what was asked for."""
        self._advise(dialect)
        how, cap = _counted(count)
        found = yield from self.own.bind(
            _numbered(
                self.outline.statements,
                limit=limit,
                offset=offset,
                dialect=dialect,
                count=how,
                cap=cap,
            )
        )
        self._advise_on_count(found.total, found.relation)
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
        self._advise(dialect)
        if position is not None:
            position = [_to_column(*each) for each in zip(self.keys, position, strict=True)]
        found = yield from self.own.bind(
            _stretch(
                self.outline.statements,
                position,
                limit=limit,
                dialect=dialect,
                backwards=backwards,
            )
        )
        return replace(found, rows=(yield from self._read(found.rows, dialect)))

    def total(self, dialect: str, count: Uncached) -> Steps[tuple[int, Any]]:
        how, cap = _counted(count)
        total, relation = yield from self.own.bind(
            _total_of(self.outline.statements, dialect=dialect, count=how, cap=cap)
        )
        self._advise_on_count(total, relation)
        return total, relation

    def version(self, expressions: Sequence[Any]) -> Steps[list[object]]:
        """What expressions come to, over all rows of the select."""
        reading = self.reading
        if reading.is_grouped or reading.is_distinct:
            raise InvalidOption(
                "version", "an expression", "etag=True for a select that is grouped or DISTINCT"
            )
        return self.own.bind(_version(reading, expressions))

    def check_shown(self, allowed: AllowedFields) -> None:
        """Raise `InvalidOption` if a cursor would show what no field of this list does."""
        hidden = self.outline.hidden(allowed)
        if hidden is not None:
            raise in_cursor(str(hidden.column))

    def parts(self) -> list[object]:
        """What tells this query from every other one, in plain values."""
        return [self.outline.sorting, *self._filter()]

    def _filter(self) -> tuple[str, list[object]]:
        """The text of what is selected from, and its values: the same in every process."""
        if self.own.parameters is None:
            compiled = self.outline.from_only(self.own).compile()
            return str(compiled), [_plain(value) for _, value in sorted(compiled.params.items())]
        found = [each.effective_value for each in self.own.parameters]
        if self.outline.advisor is not None:
            self.outline.advisor.on_filter(found)
        values = [_plain(each) for each in found]
        return self.outline.text(self.own), values

    def _advise(self, dialect: str) -> None:
        if self.outline.advisor is not None:
            self.outline.advisor.on_query(dialect)

    def _advise_on_count(self, total: int | None, relation: Relation | None) -> None:
        if self.outline.advisor is not None and total is not None and relation == "eq":
            self.outline.advisor.on_count(total)

    def _read(self, rows: list[Any], dialect: str) -> Steps[list[Row]]:
        if self.reading.width == 1:
            rows = [(row,) for row in rows]
        return (yield from self.own.mark(self.outline.shape.read(rows, dialect)))


def counted(function: CountFunction, statement: Selection) -> Steps[Count]:
    """What a function of the application's counts."""
    return to_count((yield Call(lambda db: function(db, statement))))


def _version(reading: Reading, expressions: Sequence[Any]) -> Steps[list[object]]:
    result = yield Step(only(reading.statement, *expressions))
    return list(result.one())


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
        try:
            return kind.enum_class(value)
        except ValueError:  # the token is older than the enumeration is now
            raise expired() from None
    return value


# Values -------------------------------------------------------------------------------------------


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
