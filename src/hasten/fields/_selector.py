"""Rows of a database or in memory, with the fields that a client requests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from hasten._checks import check_whole_number
from hasten._coroutines import run_without_loop
from hasten._queries import Pairs, QueryLike, to_query_pairs
from hasten.errors import InvalidOption, RowNotFound, UsageError
from hasten.fields._allowed import AllowedFields, Field, FieldSet, moved
from hasten.fields._items import Items
from hasten.fields._mask import MAX_NAMES
from hasten.fields._names import Unknown, check_names, to_unknown
from hasten.fields._partial import Partial, Row

if TYPE_CHECKING:
    from hasten._sqlalchemy.execution import AsyncExecutor, Database, Executor
    from hasten._sqlalchemy.selects import Selection
    from hasten.fields._sql.shapes import Shapes

T = TypeVar("T")

MAX_DEPTH: Final = 2
MAX_RELATED: Final = 20

MAX_MOVED: Final = 256
"""How many sets of lists that `FieldSelector.without` made are cached."""


class FieldSelectorOptions(TypedDict, total=False):
    """The options of every schema, for ``**options: Unpack[FieldSelectorOptions]``.

    See `FieldSelector`.
    """

    model: type | None
    default: Iterable[str] | None
    needs: Mapping[str, Sequence[str]] | None
    expand: Mapping[str, object] | None
    opaque: Collection[str]
    wildcard: bool
    compute: Mapping[str, Callable[..., object]] | None
    max_depth: int
    max_names: int
    max_related: int | Mapping[str, int]
    more_suffix: str
    parameter: str
    etag: bool
    unknown: Unknown


class FieldSelector(Generic[T]):
    """Which fields a client may request, and how they are read.

    ``FieldSelector(UserOut, model=User, default=("id", "name", "email"))``

    - schema: the model of the response, names of fields, or `AllowedFields`, which have the options
      from default to wildcard already.
    - model: the mapped class; None for objects in memory.
    - default, needs, opaque, wildcard: as for `AllowedFields`. expand takes models, too.
    - compute: functions that compute a field from its ``needs``, in their order, by path:
      ``{"initials": function, "author.initials": function}``. Computed fields of pydantic need no
      function.
    - max_depth, max_names: the depth and the number of names in one request.
    - max_related: the maximum number of related rows of a row, or a mapping from paths to that; 20
      by default. A marker shows that there are more: ``{"posts": [...], "posts_has_more": true}``.
    - more_suffix: the suffix of the name of that marker.
    - parameter: the name of the query parameter.
    - etag: add an ETag of its bytes to the response for one row.
    - unknown: "refuse" rejects unknown query parameters, such as ``?field=id``, with 422.

    Raises `InvalidOption` for a field that is not mapped and for every other wrong option.
    """

    @overload
    def __init__(self, schema: type[T], **options: Unpack[FieldSelectorOptions]) -> None: ...

    @overload
    def __init__(
        self: FieldSelector[Any], schema: object, **options: Unpack[FieldSelectorOptions]
    ) -> None: ...

    def __init__(
        self,
        schema: object,
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
        max_related: int | Mapping[str, int] = MAX_RELATED,
        more_suffix: str = "_has_more",
        parameter: str = "fields",
        etag: bool = False,
        unknown: Unknown = "ignore",
    ) -> None:
        check_whole_number("max_depth", max_depth, 1)
        check_whole_number("max_names", max_names, 1)
        if not isinstance(schema, AllowedFields):
            schema = AllowedFields(
                schema,
                default=default,
                needs=needs,
                expand={name: _as_allowed(to) for name, to in (expand or {}).items()},
                opaque=opaque,
                wildcard=wildcard,
            )
        elif default is not None or needs or expand or opaque or wildcard:
            raise InvalidOption.conflict(
                "schema", schema, "options that AllowedFields has: pass them to AllowedFields"
            )
        self.model: Final = model
        self.max_depth: Final = max_depth
        self.max_names: Final = max_names
        self.parameter: Final = parameter
        self.etag: Final = etag
        self._refuses_unknown = to_unknown(unknown) == "refuse"
        self._more = more_suffix
        self._compute = dict(compute or {})
        self._max_related = max_related if isinstance(max_related, int) else dict(max_related)
        self._fill(schema)

    def __repr__(self) -> str:
        model = f", model={self.model.__name__}" if self.model is not None else ""
        return f"{type(self).__name__}({self.allowed!r}{model})"

    def _fill(self, allowed: AllowedFields, *, strict: bool = True) -> None:
        self.allowed = allowed
        self._moved = lru_cache(MAX_MOVED)(partial(moved, allowed=allowed))
        caps = self._caps(strict)
        compute = dict(_resolve_paths("compute", allowed, self._compute, strict=strict))
        _check_markers(allowed, self._more)
        self._shapes: Shapes | None = None
        if self.model is None:
            self._items = Items(allowed, cap=caps, more=self._more, compute=compute)
            return
        # Imported late: without a model, SQLAlchemy is not needed.
        from hasten._sqlalchemy import execution  # noqa: PLC0415
        from hasten.fields._sql.shapes import Shapes  # noqa: PLC0415

        self._execution = execution
        self._shapes = Shapes(allowed, self.model, cap=caps, more=self._more, compute=compute)

    @cached_property
    def _items(self) -> Items:
        """Made late: a model may work for rows of a database but not for items in memory."""
        compute = dict(_resolve_paths("compute", self.allowed, self._compute, strict=False))
        return Items(self.allowed, cap=self._caps(strict=False), more=self._more, compute=compute)

    def _caps(self, strict: bool) -> Callable[[Field], int]:
        given = self._max_related
        if isinstance(given, int):
            usual, caps = given, {}
        else:
            usual = MAX_RELATED
            caps = dict(_resolve_paths("max_related", self.allowed, given, strict=strict))
        for value in (usual, *caps.values()):
            check_whole_number("max_related", value, 1)
        return lambda field: caps.get(field, usual)

    def without(self, *paths: str) -> Self:
        """Return the same without these fields, as if they did not exist: for some roles.

        Make it when the application starts, once for each role. What it parses can be passed to
        this selector, and to pages that use it. Raises `InvalidOption` for an unknown field.
        """
        less = FieldSelector.__new__(type(self))
        # Cached properties depend on the fields, so they are not copied.
        less.__dict__.update(
            (name, value)
            for name, value in self.__dict__.items()
            if not isinstance(getattr(type(self), name, None), cached_property)
        )
        less._fill(self.allowed.without(*paths), strict=False)
        return less

    def _own(self, fields: FieldSet) -> FieldSet:
        """Return the same set in the fields of this selector.

        Raises `InvalidOption` unless it was parsed by this selector, or by one that `without`
        returned.
        """
        if fields.allowed is self.allowed:
            return fields
        if not fields.allowed._is_made_from(self.allowed):
            raise InvalidOption(
                "fields",
                str(fields),
                "a set parsed by the same FieldSelector, or by one that its without() returned",
            )
        return self._moved(fields)

    @cached_property
    def sync(self) -> SyncFieldSelector[T]:
        """The same for blocking sessions and connections: ``users.sync.one(session, …)``."""
        return SyncFieldSelector(self)

    def parse(self, query: QueryLike, *, known: Collection[str] = ()) -> FieldSet:
        """Parse the requested fields; without any, return the default. Raises `InvalidParameter`.

        query is the query of the URL (its text, its pairs, or the object of a framework), or a
        request of Starlette, FastAPI or Litestar. known are the names of the other parameters of
        this route, for unknown="refuse".
        """
        pairs = to_query_pairs(query)
        if self._refuses_unknown:
            check_names(pairs, (self.parameter,), known)
        return self._parse(pairs)

    def _parse(self, pairs: Pairs) -> FieldSet:
        texts = [value for name, value in pairs if name == self.parameter]
        return self.allowed.parse(
            texts, parameter=self.parameter, max_depth=self.max_depth, max_names=self.max_names
        )

    async def one(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> Partial[T]:
        """Read the one row that the select finds. Raises `RowNotFound` if there is none.

        statement selects the mapped class: ``select(User).where(User.id == id)``. A missing row is
        an error rather than None, so that a handler without a check returns 404, not 200 and null.
        """
        return await self._one(self._database(db, is_async=True), statement, fields)

    async def many(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> list[Row]:
        """Read all rows that the select finds, in its order. Its LIMIT is kept."""
        return await self._many(self._database(db, is_async=True), statement, fields)

    def _one_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> Partial[T]:
        return run_without_loop(self._one(self._database(db, is_async=False), statement, fields))

    def _many_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> list[Row]:
        return run_without_loop(self._many(self._database(db, is_async=False), statement, fields))

    async def _one(self, database: Database, statement: Selection, fields: FieldSet) -> Partial[T]:
        # Two at most, which shows that the select finds several.
        rows = await self._many(database, statement, fields, 2)
        if not rows:
            assert self.model is not None
            raise RowNotFound(self.model.__name__.lower())
        if len(rows) > 1:
            raise InvalidOption(
                "statement",
                "a select of several rows",
                "a select that finds one row; for several rows use many()",
            )
        return self._partial(rows[0])

    async def _many(
        self, database: Database, statement: Selection, fields: FieldSet, most: int | None = None
    ) -> list[Row]:
        return await self._table().fetch(database, statement, self._own(fields), most=most)

    def _database(self, db: Any, *, is_async: bool) -> Database:
        self._table()
        return (
            self._execution.async_database(db)
            if is_async
            else self._execution.blocking_database(db)
        )

    def from_item(self, item: object, fields: FieldSet) -> Partial[T]:
        """Make the row of an item in memory: a dict by public name, or an object by attribute."""
        return self._partial(self._items.row(item, self._own(fields)))

    def from_items(self, items: Iterable[object], fields: FieldSet) -> list[Row]:
        """Make the rows of several items in memory."""
        own = self._own(fields)
        return [self._items.row(item, own) for item in items]

    def _table(self) -> Shapes:
        if self._shapes is None:
            raise UsageError("a FieldSelector without model= cannot read from a database")
        return self._shapes

    def _partial(self, row: Row) -> Partial[T]:
        partial: Partial[T] = Partial(row)
        if self.etag:
            partial.has_etag = True
        return partial


class SyncFieldSelector(Generic[T]):
    """`FieldSelector.sync`: reads rows with blocking sessions and connections."""

    __slots__ = ("_selector",)

    def __init__(self, selector: FieldSelector[T]) -> None:
        self._selector = selector

    def __repr__(self) -> str:
        return f"{self._selector!r}.sync"

    def one(self, db: Executor, statement: Selection, fields: FieldSet) -> Partial[T]:
        """Read the one row that the select finds, as `FieldSelector.one` does."""
        return self._selector._one_sync(db, statement, fields)

    def many(self, db: Executor, statement: Selection, fields: FieldSet) -> list[Row]:
        """Read all rows that the select finds, as `FieldSelector.many` does."""
        return self._selector._many_sync(db, statement, fields)


# Options ------------------------------------------------------------------------------------------


def _as_allowed(to: object) -> AllowedFields:
    return to if isinstance(to, AllowedFields) else AllowedFields(to)


def _resolve_paths(
    option: str, allowed: AllowedFields, values: Mapping[str, Any], *, strict: bool
) -> Iterator[tuple[Field, Any]]:
    """Yield the field of each path, and the value. Skips unknown paths, unless strict."""
    for path, value in values.items():
        *through, name = path.split(".")
        where: AllowedFields | None = allowed
        for step in through:
            field = where.fields.get(step) if where else None
            where = field.relation if field else None
        if where is not None and name in where.fields:
            yield where.fields[name], value
        elif strict:
            raise InvalidOption(option, path, "a field that exists")


def _check_markers(allowed: AllowedFields, suffix: str) -> None:
    """Raise `InvalidOption` if a marker has the name of a field."""
    seen: set[AllowedFields] = set()
    rest = [allowed]
    while rest:
        one = rest.pop()
        if one in seen:
            continue
        seen.add(one)
        for field in one.fields.values():
            if field.relation is not None:
                rest.append(field.relation)
                if field.many and field.name + suffix in one.fields:
                    raise InvalidOption(
                        "more_suffix", suffix, f"a suffix without a field {field.name + suffix!r}"
                    )
