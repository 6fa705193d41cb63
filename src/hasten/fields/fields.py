"""Answers with the fields that a client asked for, out of a database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from hasten._queries import Query, pairs_of
from hasten.errors import InvalidOption, RowNotFound
from hasten.fields.allowed import Allowed, Field, FieldSet, moved
from hasten.fields.items import Items
from hasten.fields.mask import MAX_NAMES
from hasten.fields.partial import Partial

if TYPE_CHECKING:
    from hasten.fields.sql import AsyncExecutor, Executor, Selection, Shape, Shapes, Steps

T = TypeVar("T")

Row: TypeAlias = dict[str, object]
"""What was asked for of one row, as in `Partial`."""

MAX_DEPTH: Final = 2
MAX_MANY: Final = 20

MAX_MOVED: Final = 256
"""So many sets of lists that `Fields.without` made are remembered."""


class Options(TypedDict, total=False):
    """What may be said of any source. See `Fields`."""

    model: type | None
    default: Iterable[str] | None
    needs: Mapping[str, Sequence[str]] | None
    expand: Mapping[str, object] | None
    opaque: Collection[str]
    wildcard: bool
    compute: Mapping[str, Callable[..., object]] | None
    max_depth: int
    max_names: int
    many: int | Mapping[str, int]
    more: str
    parameter: str
    etag: bool


class Fields(Generic[T]):
    """Which fields a client may ask for, and how they are read.

    ``Fields(UserOut, model=User, default=("id", "name", "email"))``

    - source: the model of the answer, names, or an `Allowed` that has its options already.
    - model: the mapped class; None for what is in memory.
    - default, needs, opaque, wildcard: as for `Allowed`. expand takes models, too.
    - compute: functions that make a field of what it needs (its ``needs``, in their order), by
      path: ``{"initials": make, "author.initials": make}``. What a pydantic model computes needs
      none.
    - max_depth, max_names: how much may be asked for at once.
    - many: how many rows a relation to many shows at most, or that by path; 20 where nothing is
      said. A row that has more says so: ``{"posts": [...], "posts_has_more": true}``.
    - more: the end of the name of that marker.
    - parameter: the name of the parameter.
    - etag: give the answer for one row an ETag, made of its bytes.

    Raises `InvalidOption` when it is made, for a field that is not mapped and for all else that
    could not be kept when a request comes.
    """

    @overload
    def __init__(self, source: type[T], **options: Unpack[Options]) -> None: ...

    @overload
    def __init__(self: Fields[Any], source: object, **options: Unpack[Options]) -> None: ...

    def __init__(
        self,
        source: object,
        *,
        model: type | None = None,
        default: Iterable[str] | None = None,
        needs: Mapping[str, Sequence[str]] | None = None,
        expand: Mapping[str, object] | None = None,
        opaque: Collection[str] = (),
        wildcard: bool = False,
        compute: Mapping[str, Callable[..., object]] | None = None,
        max_depth: int = MAX_DEPTH,
        max_names: int = MAX_NAMES,
        many: int | Mapping[str, int] = MAX_MANY,
        more: str = "_has_more",
        parameter: str = "fields",
        etag: bool = False,
    ) -> None:
        _check_from_one("max_depth", max_depth)
        _check_from_one("max_names", max_names)
        if not isinstance(source, Allowed):
            source = Allowed(
                source,
                default=default,
                needs=needs,
                expand={name: _as_allowed(to) for name, to in (expand or {}).items()},
                opaque=opaque,
                wildcard=wildcard,
            )
        elif default is not None or needs or expand or opaque or wildcard:
            raise InvalidOption("source", source, "the other options of an Allowed in itself")
        self.model: Final = model
        self.max_depth: Final = max_depth
        self.max_names: Final = max_names
        self.parameter: Final = parameter
        self.etag: Final = etag
        self._more = more
        self._compute = dict(compute or {})
        self._many = many if isinstance(many, int) else dict(many)
        self._fill(source)

    def _fill(self, allowed: Allowed, *, strict: bool = True) -> None:
        self.allowed = allowed
        self._moved = lru_cache(MAX_MOVED)(partial(moved, allowed=allowed))
        caps = self._caps(strict)
        compute = dict(_by_path("compute", allowed, self._compute, strict=strict))
        _check_markers(allowed, self._more)
        self._shapes: Shapes | None = None
        if self.model is None:
            self._items = Items(allowed, cap=caps, more=self._more, compute=compute)
            return
        # Here and no earlier: who has no model needs no SQLAlchemy.
        from hasten.fields import sql  # noqa: PLC0415

        self._sql = sql
        self._shapes = sql.Shapes(allowed, self.model, cap=caps, more=self._more, compute=compute)

    @cached_property
    def _items(self) -> Items:
        """What some model cannot do for items in memory, it may well do for its own rows."""
        compute = dict(_by_path("compute", self.allowed, self._compute, strict=False))
        return Items(self.allowed, cap=self._caps(strict=False), more=self._more, compute=compute)

    def _caps(self, strict: bool) -> Callable[[Field], int]:
        if isinstance(self._many, int):
            usual, caps = self._many, {}
        else:
            usual, caps = MAX_MANY, dict(_by_path("many", self.allowed, self._many, strict=strict))
        for value in (usual, *caps.values()):
            _check_from_one("many", value)
        return lambda field: caps.get(field, usual)

    def without(self, *paths: str) -> Self:
        """The same without these fields, as if there were none: for a role that sees less.

        To be made when the application starts, once for each role: what it parses may be given to
        these fields, and to pages that have them. Raises `InvalidOption` for one that is not there.
        """
        less = Fields.__new__(type(self))
        # What was worked out from the fields has to be worked out again.
        less.__dict__.update(
            (name, value)
            for name, value in self.__dict__.items()
            if not isinstance(getattr(type(self), name, None), cached_property)
        )
        less._fill(self.allowed.without(*paths), strict=False)
        return less

    def own(self, fields: FieldSet) -> FieldSet:
        """The same set in the fields of this list.

        Raises `InvalidOption` unless it is of this list, or of one that `without` made from it.
        """
        if fields.allowed is self.allowed:
            return fields
        if not fields.allowed.is_made_from(self.allowed):
            raise InvalidOption(
                "fields",
                str(fields),
                "a set that was parsed by the same Fields, or by what its without() made",
            )
        return self._moved(fields)

    def parse(self, query: Query) -> FieldSet:
        """What a request asks for; the default if it does not choose. Raises `InvalidParameter`.

        query is the query of the URL: its text, its pairs, or what a framework made of it.
        """
        texts = [value for name, value in pairs_of(query) if name == self.parameter]
        return self.allowed.parse(
            texts, parameter=self.parameter, max_depth=self.max_depth, max_names=self.max_names
        )

    async def one(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> Partial[T]:
        """The one row that the select finds. Raises `RowNotFound` if there is none.

        statement selects the mapped class: ``select(User).where(User.id == id)``. An error rather
        than None, so that a handler that forgets about it answers 404, not 200 and null.
        """
        return self._only(await self._sql.run_async(db, self._fetch(db, statement, fields, 2)))

    def one_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> Partial[T]:
        """The same on a session or connection that does not wait."""
        return self._only(self._sql.run(db, self._fetch(db, statement, fields, 2)))

    async def many(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> list[Row]:
        """All rows that the select finds, in its order. Its LIMIT is kept."""
        return await self._sql.run_async(db, self._fetch(db, statement, fields))

    def many_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> list[Row]:
        """The same on a session or connection that does not wait."""
        return self._sql.run(db, self._fetch(db, statement, fields))

    def of(self, item: object, fields: FieldSet) -> Partial[T]:
        """The row of an item in memory: a dict by public name, or an object by attribute."""
        return self._partial(self._items.row(item, self.own(fields)))

    def items(self, items: Iterable[object], fields: FieldSet) -> list[Row]:
        """The rows of several items in memory."""
        own = self.own(fields)
        return [self._items.row(item, own) for item in items]

    def shape(self, statement: Selection, fields: FieldSet, *, apart: bool = False) -> Shape:
        """What is selected for a set, and how its rows are read: for who runs it on their own.

        apart is without any join, so that the select can be cut into pages: what it leads to is
        read by further statements.
        """
        return self._table().of(statement, self.own(fields), apart=apart)

    def context(self, fields: FieldSet) -> Hashable:
        """What a shape depends on besides its set: it is for as long as this stays equal."""
        return self._table().context(self.own(fields))

    def _fetch(
        self,
        db: Executor | AsyncExecutor,
        statement: Selection,
        fields: FieldSet,
        most: int | None = None,
    ) -> Steps[list[Row]]:
        table = self._table()
        dialect = self._sql.dialect_of(db, table.mapper)
        return table.fetch(statement, self.own(fields), dialect, most=most)

    def _table(self) -> Shapes:
        if self._shapes is None:
            raise InvalidOption("model", None, "a mapped class, to read from a database")
        return self._shapes

    def _partial(self, row: Row) -> Partial[T]:
        partial: Partial[T] = Partial(row)
        if self.etag:
            partial.has_etag = True
        return partial

    def _only(self, rows: list[Row]) -> Partial[T]:
        if not rows:
            assert self.model is not None
            raise RowNotFound(self.model.__name__.lower())
        if len(rows) > 1:
            raise InvalidOption(
                "statement", "a select of several rows", "a WHERE that finds one; for more, many()"
            )
        return self._partial(rows[0])


# Options ------------------------------------------------------------------------------------------


def _as_allowed(to: object) -> Allowed:
    return to if isinstance(to, Allowed) else Allowed(to)


def _check_from_one(option: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidOption(option, value, "a whole number from 1")


def _by_path(
    option: str, allowed: Allowed, said: Mapping[str, Any], *, strict: bool
) -> Iterator[tuple[Field, Any]]:
    """What is said of paths, by field. Without strict, one that is not there is passed over."""
    for path, value in said.items():
        *through, name = path.split(".")
        where: Allowed | None = allowed
        for step in through:
            field = where.fields.get(step) if where else None
            where = field.relation if field else None
        if where is not None and name in where.fields:
            yield where.fields[name], value
        elif strict:
            raise InvalidOption(option, path, "a field that exists")


def _check_markers(allowed: Allowed, more: str) -> None:
    """No marker has the name of a field."""
    seen: set[Allowed] = set()
    rest = [allowed]
    while rest:
        one = rest.pop()
        if one in seen:
            continue
        seen.add(one)
        for field in one.fields.values():
            if field.relation is not None:
                rest.append(field.relation)
                if field.many and field.name + more in one.fields:
                    raise InvalidOption("more", more, f"another end than {field.name + more!r} has")
