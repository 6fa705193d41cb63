"""`FieldSelector`: parses the requested fields, and reads rows with only these fields."""

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
from hasten._coroutines import run_without_suspending
from hasten._queries import Pairs, QueryLike, to_query_pairs
from hasten.errors import InvalidOption, RowNotFound, UsageError
from hasten.fields._allowed import AllowedFields, Field, FieldSet, select_same_fields
from hasten.fields._items import ItemRowBuilder
from hasten.fields._mask import MAX_NAMES
from hasten.fields._names import Unknown, check_parameter_names, check_unknown_names_policy
from hasten.fields._partial import Partial, Row

if TYPE_CHECKING:
    from hasten._sqlalchemy.execution import AsyncExecutor, Database, Executor
    from hasten._sqlalchemy.selects import Selection
    from hasten.fields._sql.field_loader import FieldLoaderCache

T = TypeVar("T")

MAX_DEPTH: Final = 2
"""The default number of levels of fields: 2 for ``author.name``."""
MAX_RELATED: Final = 20
"""The default number of items that a list field of a row shows."""

MAX_CONVERTED: Final = 256
"""How many field sets of `FieldSelector.without` are cached after their conversion."""


class FieldSelectorOptions(TypedDict, total=False):
    """The options of `FieldSelector`, as keyword argument types.

    Use it in your own functions: ``**options: Unpack[FieldSelectorOptions]``.
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
    """Parses which fields a client requests, and reads rows with only these fields.

    ``FieldSelector(UserOut, model=User, default=("id", "name", "email"))``

    - schema: the model of one row of the response, a sequence of field names, or an `AllowedFields`
      (then pass the options from default to wildcard to it instead).
    - model: the SQLAlchemy class; None for objects in memory.
    - default, needs, expand, opaque, wildcard: see `AllowedFields`. expand also takes models.
    - compute: the functions of computed fields, by path: ``{"initials": function,
      "author.initials": function}``. A function is called with the attributes that ``needs`` names
      for the field, in order. Computed fields of pydantic need no function.
    - max_depth: how many levels of fields a request may name: 2 for ``author.name``.
    - max_names: how many names a request may contain.
    - max_related: how many items of a nested list a row shows, 20 by default; or a mapping from the
      paths of list fields to numbers. If there are more items, the row has a marker:
      ``{"posts": [...], "posts_has_more": true}``.
    - more_suffix: the suffix of the marker's name.
    - parameter: the name of the query parameter.
    - etag: add an ETag, computed from the body, to responses that consist of one row.
    - unknown: "ignore" ignores unknown query parameters, such as ``?field=id``; "refuse" rejects
      them with 422.

    Raises `InvalidOption` for a field that is not mapped, and for other invalid options.
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
                expand={name: _to_allowed_fields(to) for name, to in (expand or {}).items()},
                opaque=opaque,
                wildcard=wildcard,
            )
        elif default is not None or needs or expand or opaque or wildcard:
            raise InvalidOption.conflict(
                "schema",
                schema,
                "default, needs, expand, opaque and wildcard: pass them to AllowedFields",
            )
        self.model: Final = model
        self.max_depth: Final = max_depth
        self.max_names: Final = max_names
        self.parameter: Final = parameter
        self.etag: Final = etag
        self._refuses_unknown = check_unknown_names_policy(unknown) == "refuse"
        self._more = more_suffix
        self._compute = dict(compute or {})
        self._max_related = max_related if isinstance(max_related, int) else dict(max_related)
        self._set_allowed_fields(schema)

    def __repr__(self) -> str:
        model = f", model={self.model.__name__}" if self.model is not None else ""
        return f"{type(self).__name__}({self.allowed!r}{model})"

    def _set_allowed_fields(
        self, allowed: AllowedFields, *, reject_unknown_paths: bool = True
    ) -> None:
        """Set the allowed fields, and prepare to build rows with them.

        reject_unknown_paths=False ignores paths in the options that do not exist, because `without`
        removed them.
        """
        self.allowed = allowed
        self._convert = lru_cache(MAX_CONVERTED)(partial(select_same_fields, allowed=allowed))
        caps = self._make_max_related_getter(reject_unknown_paths=reject_unknown_paths)
        compute = dict(
            _resolve_paths(
                "compute", allowed, self._compute, reject_unknown_paths=reject_unknown_paths
            )
        )
        _check_truncation_marker_names(allowed, self._more)
        self._loaders: FieldLoaderCache | None = None
        if self.model is None:
            self._item_row_builder = ItemRowBuilder(
                allowed, cap=caps, more_suffix=self._more, compute=compute
            )
            return
        # Imported here, because SQLAlchemy need not be installed without a model.
        from hasten._sqlalchemy import execution  # noqa: PLC0415
        from hasten.fields._sql.field_loader import FieldLoaderCache  # noqa: PLC0415

        self._execution = execution
        self._loaders = FieldLoaderCache(
            allowed, self.model, cap=caps, more_suffix=self._more, compute=compute
        )

    @cached_property
    def _item_row_builder(self) -> ItemRowBuilder:
        """The builder of rows from items in memory.

        With a mapped class, it is created at its first use, because some schemas work for rows of a
        database but not for items in memory.
        """
        compute = dict(
            _resolve_paths("compute", self.allowed, self._compute, reject_unknown_paths=False)
        )
        cap = self._make_max_related_getter(reject_unknown_paths=False)
        return ItemRowBuilder(self.allowed, cap=cap, more_suffix=self._more, compute=compute)

    def _make_max_related_getter(self, *, reject_unknown_paths: bool) -> Callable[[Field], int]:
        """Return a function that returns how many items of a list field a row shows.

        reject_unknown_paths raises `InvalidOption` for an unknown path in the option max_related.
        Otherwise, such a path is skipped.
        """
        given = self._max_related
        if isinstance(given, int):
            usual, caps = given, {}
        else:
            usual = MAX_RELATED
            caps = dict(
                _resolve_paths(
                    "max_related", self.allowed, given, reject_unknown_paths=reject_unknown_paths
                )
            )
        for value in (usual, *caps.values()):
            check_whole_number("max_related", value, 1)
        return lambda field: caps.get(field, usual)

    def without(self, *paths: str) -> Self:
        """Return a copy of this selector in which some fields do not exist, such as for guests.

        Create the copies when the application starts, one per role. Fields that a copy parsed can
        be passed to the methods of this selector, and to a `Paginator` that uses it. Raises
        `InvalidOption` for an unknown field.
        """
        less = FieldSelector.__new__(type(self))
        # Cached properties depend on the fields, so they are not copied.
        less.__dict__.update(
            (name, value)
            for name, value in self.__dict__.items()
            if not isinstance(getattr(type(self), name, None), cached_property)
        )
        less._set_allowed_fields(self.allowed.without(*paths), reject_unknown_paths=False)
        return less

    def _to_fields_of_this_selector(self, fields: FieldSet) -> FieldSet:
        """Convert a field set of a selector that `without` returned to fields of this selector.

        Raises `InvalidOption` for a set of any other selector.
        """
        if fields.allowed is self.allowed:
            return fields
        if not fields.allowed._is_derived_from(self.allowed):
            raise InvalidOption(
                "fields",
                str(fields),
                "fields parsed by this FieldSelector, or by one that its without() returned",
            )
        return self._convert(fields)

    @cached_property
    def sync(self) -> SyncFieldSelector[T]:
        """The selector for blocking sessions and connections: ``users.sync.one(session, …)``."""
        return SyncFieldSelector(self)

    def parse(self, query: QueryLike, *, known: Collection[str] = ()) -> FieldSet:
        """Parse the requested fields; return the default fields if the request names none.

        query is a request of Starlette, FastAPI or Litestar, or the query of its URL: a string,
        pairs of names and values, or the query object of a framework. known are the names of the
        other query parameters of this endpoint, which ``unknown="refuse"`` must accept. Raises
        `InvalidParameter`.
        """
        pairs = to_query_pairs(query)
        if self._refuses_unknown:
            check_parameter_names(pairs, (self.parameter,), known)
        return self._parse(pairs)

    def _parse(self, pairs: Pairs) -> FieldSet:
        texts = [value for name, value in pairs if name == self.parameter]
        return self.allowed.parse(
            texts, parameter=self.parameter, max_depth=self.max_depth, max_names=self.max_names
        )

    async def one(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> Partial[T]:
        """Read the only row of a select, such as ``select(User).where(User.id == id)``.

        Raises `RowNotFound` if there is no row, so that a handler without a check responds with
        404. Raises `InvalidOption` if there are several rows.
        """
        return await self._read_one(self._wrap_database(db, is_async=True), statement, fields)

    async def many(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> list[Row]:
        """Read all rows of a select, in its order. LIMIT and OFFSET of the select are applied."""
        return await self._read_many(self._wrap_database(db, is_async=True), statement, fields)

    def _read_one_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> Partial[T]:
        return run_without_suspending(
            self._read_one(self._wrap_database(db, is_async=False), statement, fields)
        )

    def _read_many_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> list[Row]:
        return run_without_suspending(
            self._read_many(self._wrap_database(db, is_async=False), statement, fields)
        )

    async def _read_one(
        self, database: Database, statement: Selection, fields: FieldSet
    ) -> Partial[T]:
        # Reading up to two rows is enough to find out whether there are several.
        rows = await self._read_many(database, statement, fields, 2)
        if not rows:
            assert self.model is not None
            raise RowNotFound(self.model.__name__.lower())
        if len(rows) > 1:
            raise InvalidOption(
                "statement",
                "a select of several rows",
                "a select that finds one row; to read several rows, use many()",
            )
        return self._to_partial(rows[0])

    async def _read_many(
        self,
        database: Database,
        statement: Selection,
        fields: FieldSet,
        row_limit: int | None = None,
    ) -> list[Row]:
        return await self._require_loaders().fetch(
            database, statement, self._to_fields_of_this_selector(fields), row_limit=row_limit
        )

    def _wrap_database(self, db: Any, *, is_async: bool) -> Database:
        self._require_loaders()
        return (
            self._execution.wrap_async_session(db)
            if is_async
            else self._execution.wrap_blocking_session(db)
        )

    def from_item(self, item: object, fields: FieldSet) -> Partial[T]:
        """Build a row with these fields from an item in memory.

        The item is a dict with public field names as keys, or an object with attributes.
        """
        return self._to_partial(
            self._item_row_builder.build_row(item, self._to_fields_of_this_selector(fields))
        )

    def from_items(self, items: Iterable[object], fields: FieldSet) -> list[Row]:
        """Build rows with these fields from items in memory. See `from_item`."""
        own = self._to_fields_of_this_selector(fields)
        return [self._item_row_builder.build_row(item, own) for item in items]

    def _require_loaders(self) -> FieldLoaderCache:
        if self._loaders is None:
            raise UsageError(
                "this FieldSelector cannot read from a database: it was created without model="
            )
        return self._loaders

    def _to_partial(self, row: Row) -> Partial[T]:
        partial: Partial[T] = Partial(row)
        if self.etag:
            partial.has_etag = True
        return partial


class SyncFieldSelector(Generic[T]):
    """Reads rows with blocking sessions and connections. Obtained as `FieldSelector.sync`."""

    __slots__ = ("_selector",)

    def __init__(self, selector: FieldSelector[T]) -> None:
        self._selector = selector

    def __repr__(self) -> str:
        return f"{self._selector!r}.sync"

    def one(self, db: Executor, statement: Selection, fields: FieldSet) -> Partial[T]:
        """Read the only row of a select. See `FieldSelector.one`."""
        return self._selector._read_one_sync(db, statement, fields)

    def many(self, db: Executor, statement: Selection, fields: FieldSet) -> list[Row]:
        """Read all rows of a select. See `FieldSelector.many`."""
        return self._selector._read_many_sync(db, statement, fields)


# Options ------------------------------------------------------------------------------------------


def _to_allowed_fields(schema_or_fields: object) -> AllowedFields:
    return (
        schema_or_fields
        if isinstance(schema_or_fields, AllowedFields)
        else AllowedFields(schema_or_fields)
    )


def _resolve_paths(
    option: str, allowed: AllowedFields, values: Mapping[str, Any], *, reject_unknown_paths: bool
) -> Iterator[tuple[Field, Any]]:
    """Yield the field that each path, such as "author.posts", names, with the value for the path.

    An unknown path raises `InvalidOption` if reject_unknown_paths is true, and otherwise is
    skipped.
    """
    for path, value in values.items():
        *through, name = path.split(".")
        where: AllowedFields | None = allowed
        for step in through:
            field = where.fields.get(step) if where else None
            where = field.relation if field else None
        if where is not None and name in where.fields:
            yield where.fields[name], value
        elif reject_unknown_paths:
            raise InvalidOption(option, path, "the path of a field in the schema")


def _check_truncation_marker_names(allowed: AllowedFields, suffix: str) -> None:
    """Raise `InvalidOption` if a field has the name of a truncation marker.

    Rows have such a marker, for example ``posts_has_more``, if a list has more items than its cap.
    """
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
                        "more_suffix",
                        suffix,
                        f"another suffix, because there is a field {field.name + suffix!r}",
                    )
