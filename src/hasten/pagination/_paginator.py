"""Pages of a database, of lists, or of other sources."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from hasten._coroutines import run_without_loop
from hasten._queries import QueryLike, header_of, is_debug, pairs_of
from hasten._responses import EncodedResponse, contains_etag, etag_of
from hasten.errors import InvalidOption, UsageError
from hasten.fields._allowed import AllowedFields, FieldSet, is_shown
from hasten.fields._items import value_of
from hasten.fields._names import Unknown, check_names, to_unknown
from hasten.fields._partial import is_partial, whole_of
from hasten.fields._rows import encode
from hasten.fields._selector import FieldSelector
from hasten.pagination import _params as params
from hasten.pagination._count_cache import CountCache
from hasten.pagination._counts import NOT_COUNTED, Cached, Count, Counting, to_counting
from hasten.pagination._cursor import SigningKeys, fingerprint, hidden_in_cursor
from hasten.pagination._order import SortKey, check_sort
from hasten.pagination._page import CursorPage, Envelope, Page, Responder, link_of
from hasten.pagination._page_building import (
    START,
    CursorSigner,
    build_cursor_page,
    build_not_modified,
    build_page,
)
from hasten.pagination._params import Limits, Mode, PageParams
from hasten.pagination._sort_options import SortOptions
from hasten.pagination._sources import (
    Items,
    Source,
    Window,
    fetch_count,
    fetch_keyset_slice,
    fetch_offset_slice,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from hasten._sqlalchemy.execution import AsyncExecutor, Database, Executor
    from hasten._sqlalchemy.selects import Selection
    from hasten.pagination._sql.page_query import PageQuery

T = TypeVar("T")
P = TypeVar("P")

Secret: TypeAlias = str | bytes | Sequence[str | bytes]
"""The secrets that cursors are signed with: one, or several, of which the first one signs."""

Version: TypeAlias = "ColumnElement[Any] | Sequence[ColumnElement[Any]]"
"""An SQL expression, or several, whose values change when the rows of a select change."""


class PaginatorOptions(TypedDict, total=False):
    """The options of every mode, for ``**options: Unpack[PaginatorOptions]``. See `Paginator`."""

    model: type | None
    unique: Sequence[str]
    sort: Iterable[str | SortKey]
    default_sort: str | None
    default_limit: int
    max_limit: int
    max_offset: int | None
    count: Counting | Literal["auto"]
    fields: FieldSelector[Any] | None
    envelope: Envelope | None
    etag: bool
    version: Version | None
    unknown: Unknown
    advise: bool | Literal["auto"]


class Paginator(Generic[P]):
    """How a client may page through the rows of a mapped class.

    ``Paginator(PostOut, model=Post, sort=("created_at", "title"), default_sort="-created_at")``

    - schema: the model of one row of the response. No other column is read. With
      ``Partial[PostOut]`` the client chooses among its fields, by ``fields=``.
    - model: the mapped class; None for pages of lists, or of a `Source`.
    - unique: the names of fields that together differ in every item, where there is no model.
      Cursors need them.
    - sort: the fields that the client may sort by, by public name. A `SortKey` declares where NULLs
      are sorted.
    - default_sort: the order of requests without ``sort=``, of any fields; None for the ORDER BY of
      the select. The primary key is appended to every order, so that no two rows are equal in it.
    - default_limit, max_limit: rows on a page. A higher limit is rejected.
    - max_offset: how many rows pages by number may skip; None for no bound.
    - mode: "page" for pages by number, "cursor" for pages by cursor, "both" for either of them.
    - secret: signs cursors and is required for them: at least 16 random bytes, the same in all
      processes. Pass several to change it: the first one signs, all of them verify.
    - count: how to count: "exact", "estimated" (PostgreSQL), "none", `Capped`, `Cached`, or a
      function of the session and the select. "auto" counts exactly for pages by number, and does
      not count for pages by cursor.
    - fields: which fields a request may choose, and how they are read; by default all fields of the
      schema, with the plain fields of nested models.
    - envelope: the names in the response.
    - etag: add an ETag of the bytes of the response.
    - version: an SQL expression whose value changes when the rows change, such as
      ``func.max(Post.updated_at)``, or several. It is read before the page and becomes the ETag: if
      the client has this version, the response is 304 and no page is read. It does not change with
      deleted rows (add ``func.count()``) or rows of other tables.
    - unknown: "refuse" rejects unknown query parameters, such as ``?pgae=2``, with 422.
    - advise: warn (`PaginationWarning`), once for each of the first 100 queries, if no index has
      its order, and for other reasons that matter when the table is large. "auto" warns in
      development: with ``python -X dev``, and when `parse` gets a request of an application
      with ``debug=True`` (`params` of FastAPI does).

    Raises `InvalidOption` for a wrong option.
    """

    @overload
    def __init__(
        self: Paginator[Page[T]],
        schema: type[T],
        *,
        mode: Literal["page"] = "page",
        secret: Secret | None = None,
        **options: Unpack[PaginatorOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Paginator[CursorPage[T]],
        schema: type[T],
        *,
        mode: Literal["cursor"],
        secret: Secret,
        **options: Unpack[PaginatorOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Paginator[Page[T] | CursorPage[T]],
        schema: type[T],
        *,
        mode: Literal["both"],
        secret: Secret,
        **options: Unpack[PaginatorOptions],
    ) -> None: ...

    def __init__(
        self,
        schema: type,
        *,
        model: type | None = None,
        unique: Sequence[str] = (),
        sort: Iterable[str | SortKey] = (),
        default_sort: str | None = None,
        default_limit: int = 20,
        max_limit: int = 100,
        mode: Mode = "page",
        secret: Secret | None = None,
        max_offset: int | None = None,
        count: Counting | Literal["auto"] = "auto",
        fields: FieldSelector[Any] | None = None,
        envelope: Envelope | None = None,
        etag: bool = False,
        version: Version | None = None,
        unknown: Unknown = "ignore",
        advise: bool | Literal["auto"] = "auto",
    ) -> None:
        self.schema: Final = schema
        self.model: Final = model
        self.fields: Final = fields or _all_of(whole_of(schema), model)
        self.envelope: Final = envelope or Envelope()
        self._limits = Limits(default_limit, max_limit, max_offset, mode)
        self._is_choosable = is_partial(schema)
        self._keys = _to_keys(secret, mode)
        self._count_pages = to_counting("exact" if count == "auto" else count)
        self._count_cursor_pages = to_counting("none" if count == "auto" else count)
        self._count_cache = CountCache(count) if isinstance(count, Cached) else None
        self._etag = _to_flag("etag", etag)
        self._version = _to_version(version)
        if etag and self._version:
            raise InvalidOption.conflict("etag", etag, "version=, which makes the ETag")
        self._known_names = self._names(to_unknown(unknown))
        self._advise = advise if advise == "auto" else _to_flag("advise", advise)
        if self.fields.model is not model:
            raise InvalidOption("fields", self.fields.model, f"fields of {_name_of(model)}")
        if model is None:
            self._sorting = SortOptions(
                self.fields.allowed, sort, default_sort, unique, is_nullable=lambda _: True
            )
        else:
            if unique and not isinstance(unique, str):
                raise InvalidOption.conflict("unique", unique, "model=, which has a primary key")
            self._use_model(model, sort, default_sort, unique)
        if self._keys is not None:
            self._sorting.check_shown()
            if model is None:
                self._check_unique()

    def _use_model(
        self,
        model: type,
        sort: Iterable[str | SortKey],
        default_sort: str | None,
        unique: Sequence[str],
    ) -> None:
        # Imported late: pages of lists need no SQLAlchemy.
        from hasten._sqlalchemy import execution  # noqa: PLC0415
        from hasten._sqlalchemy.selects import mapper_of  # noqa: PLC0415
        from hasten.pagination._sql import cursor_values, query_planner  # noqa: PLC0415

        mapper = mapper_of(model)
        self._execution = execution
        self._sorting = SortOptions(
            self.fields.allowed,
            sort,
            default_sort,
            unique,
            is_nullable=lambda attribute: cursor_values.is_nullable(mapper, attribute),
        )
        if self._keys is not None:
            attributes = self._sorting.attributes_in_cursor()
            cursor_values.check_fits_in_cursor(mapper, attributes, "sort")
        self._planner = query_planner.QueryPlanner(
            mapper,
            self.fields._table(),
            self._sorting.attributes,
            explicit_nulls=self._sorting.explicit_nulls,
            advise=in_development() if self._advise == "auto" else self._advise,
        )

    def __repr__(self) -> str:
        model = f", model={_name_of(self.model)}" if self.model is not None else ""
        sort = f", sort={self.sort_names}" if self.sort_names else ""
        name = type(self).__name__
        return f"{name}({_schema_name(self.schema)}{model}{sort}, mode={self._limits.mode!r})"

    @property
    def sort_names(self) -> tuple[str, ...]:
        """The names that the client may sort by."""
        return tuple(self._sorting.sorts)

    @cached_property
    def sync(self) -> SyncPaginator[P]:
        """The same for blocking sessions and connections: ``posts.sync.page(session, …)``."""
        return SyncPaginator(self)

    def parse(
        self,
        query: QueryLike,
        *,
        if_none_match: str | None = None,
        known: Collection[str] = (),
    ) -> PageParams:
        """Parse the parameters of a request. Raises `InvalidParameter`.

        query is the query of the URL (its text, its pairs, or the object of a framework), or a
        request of Starlette, FastAPI or Litestar. if_none_match is the header of that name, which
        version= needs; by default it is that of the request. known are the names of the other
        parameters of this route, for unknown="refuse".
        """
        pairs = pairs_of(query)
        if hasattr(query, "query_params"):
            if_none_match = if_none_match or header_of(query, "if-none-match")
            if self._advise == "auto" and self.model is not None and is_debug(query):
                self._planner.advise = True
        q = params.parse(
            pairs,
            self._limits,
            sorts=self._sorting.sorts,
            default_order=self._sorting.default,
            keys=self._keys,
        )
        if self._known_names is not None:
            check_names(pairs, self._known_names, known)
        chosen = self.fields._parse(pairs) if self._is_choosable else None
        if chosen is None and if_none_match is None:
            return q
        return replace(q, fields=chosen, if_none_match=if_none_match)

    async def page(
        self,
        db: AsyncExecutor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """Read the page of a select: ``select(Post).where(Post.published)``.

        fields are the requested fields, parsed by `fields` or by a selector that its `without`
        made, which then also limits what can be sorted by. None uses the fields of q, or the
        default. scope identifies whose rows these are, where the select does not: a cursor of one
        scope is rejected in every other. Raises `InvalidParameter` (400) for a cursor of another
        query, before any SQL, and `InvalidOption` for a select that cannot be paged.
        """
        database = self._execution_module().asynchronous(db)
        return await self._select_page(database, statement, q, fields, scope)

    def _page_sync(
        self,
        db: Executor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None,
        scope: object,
    ) -> P:
        database = self._execution_module().blocking(db)
        return run_without_loop(self._select_page(database, statement, q, fields, scope))

    async def from_source(
        self,
        source: Source,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """Read the page of a `Source`.

        scope distinguishes the source from others of its class: its filter, whose items they are.
        """
        name = type(source).__qualname__
        return await self._source_page(source, name, q, fields, scope)

    def from_items(
        self,
        items: Sequence[object],
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """Make the page of a list of dicts by public name, or of objects by attribute.

        Objects of an ORM are rejected: use `page`, which reads only the rows of the page.
        """
        attributes = self._sorting.attributes
        source = Items(items, lambda item, name: value_of(item, name, attributes[name]))
        return run_without_loop(self._source_page(source, "list", q, fields, scope))

    def encode(self, page: Page[Any] | CursorPage[Any]) -> bytes:
        """Return the JSON of a page. Its rows are written as they are, not validated again."""
        return encode(self.envelope.wrap(page))

    def link(
        self, page: Page[Any] | CursorPage[Any], q: PageParams, *, path: str = "", origin: str = ""
    ) -> str | None:
        """Return the value of the Link header of a page, None if it is the only one.

        path is that of the request; "" makes links relative to it. origin
        ("https://api.example.org") makes them absolute.
        """
        return link_of(page, q, path=path, origin=origin)

    def response(self, page: Page[Any] | CursorPage[Any], q: PageParams) -> EncodedResponse:
        """Return the whole response: the JSON, its Link header, and its ETag if it has one."""
        return Responder(self.envelope, q, has_etag=self._etag)(page)

    def _finished(self, page: Any, q: PageParams) -> P:
        """Return the page with what makes its response."""
        page._responder = Responder(self.envelope, q, has_etag=self._etag)
        return cast("P", page)

    def _names(self, unknown: Unknown) -> tuple[str, ...] | None:
        """Return the names of all parameters, None if unknown parameters are ignored."""
        if unknown == "ignore":
            return None
        names = params.names_of(self._limits.mode)
        return (*names, self.fields.parameter) if self._is_choosable else names

    # Selects -------------------------------------------------------------------------------------

    def _execution_module(self) -> ModuleType:
        """Return `hasten._sqlalchemy.execution`. Raises `UsageError` without a model.

        It is imported only for paginators with a model, because it needs SQLAlchemy.
        """
        if self.model is None:
            raise UsageError("a Paginator without model= cannot read pages of a select")
        return self._execution

    async def _select_page(
        self,
        database: Database,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None,
        scope: object,
    ) -> P:
        chosen, allowed = self._chosen(q, fields)
        query = self._planner.query(database, statement, chosen, q.order)
        origin = self._origin(query, q, scope)
        signer = None
        if q.page is None:
            query.check_shown(allowed)
            signer = self._signer(q, "cursor", _name_of(self.model), origin.scope, query.identity())
        tag = None
        if self._version:
            values = await query.version(self._version)
            tag = _tag_of(query, q, chosen, origin, values)
        page: Page[Any] | CursorPage[Any]
        if tag is not None and contains_etag(q.if_none_match, tag):
            page = build_not_modified(q, tag)
        elif signer is None:
            page = await self._offset_page(query, statement, q, origin)
        else:
            page = await self._cursor_page(query, statement, q, origin, signer)
        page.etag = tag
        return self._finished(page, q)

    async def _offset_page(
        self, query: PageQuery, statement: Selection, q: PageParams, origin: _Origin
    ) -> Page[Any]:
        counting = self._count_pages
        known = None
        if isinstance(counting, Cached) or callable(counting):
            known, counting = await self._count(query, statement, origin, counting), "none"
        found = await query.offset_slice(limit=q.limit, offset=q.offset, count=counting)
        return build_page(q, found.rows, known or found.count, has_more=found.has_more)

    async def _cursor_page(
        self,
        query: PageQuery,
        statement: Selection,
        q: PageParams,
        origin: _Origin,
        signer: CursorSigner,
    ) -> CursorPage[Any]:
        cursor = q.cursor or START
        found = await query.keyset_slice(
            cursor.values or None, limit=q.limit, backwards=cursor.backwards
        )
        counting, count = self._count_cursor_pages, NOT_COUNTED
        if counting != "none":
            count = await self._count(query, statement, origin, counting)
        return build_cursor_page(q, found.rows, found, count, signer)

    async def _count(
        self, query: PageQuery, statement: Selection, origin: _Origin, counting: Counting
    ) -> Count:
        if not isinstance(counting, Cached):
            return await query.count(counting, statement)
        assert self._count_cache is not None
        key = fingerprint("count", _name_of(self.model), *origin, query.identity())
        count = self._count_cache.get(key)
        if count is None:
            count = await query.count(counting.count, statement)
            self._count_cache.put(key, count)
        return count

    def _origin(self, query: PageQuery, q: PageParams, scope: object) -> _Origin:
        """Return what distinguishes these rows from the rows of an equal query elsewhere."""
        is_needed = bool(self._version or self._count_cache)
        if q.page is not None and not is_needed:
            return _Origin(scope)
        schemas = query.schemas()
        scope = [scope, schemas] if schemas else scope
        return _Origin(scope, *query.database_identity()) if is_needed else _Origin(scope)

    # Sources -------------------------------------------------------------------------------------

    async def _source_page(
        self, source: Source, name: str, q: PageParams, fields: FieldSet | None, scope: object
    ) -> P:
        chosen, allowed = self._chosen(q, fields)
        order = self._sorting.total_order(q.order)
        window = Window(order, q.limit, q.offset, None, chosen)
        if q.page is not None:
            found = await fetch_offset_slice(source, window, self._count_pages)
            rows = self.fields.from_items(found.rows, chosen)
            page: Any = build_page(q, rows, found.count, has_more=found.has_more)
            return self._finished(page, q)
        self._check_unique()
        for key in order:
            if not is_shown(key.name, allowed):
                raise hidden_in_cursor(key.name)
        keys = [[key.name, key.descending, key.nulls] for key in order]
        signer = self._signer(q, "source", name, scope, keys)
        attributes = [(key.name, self._sorting.attributes[key.name]) for key in order]
        count = await fetch_count(source, self._count_cursor_pages)
        cursor = q.cursor or START
        part = await fetch_keyset_slice(
            source,
            replace(window, after=cursor.values or None),
            lambda item: tuple([value_of(item, *each) for each in attributes]),
            backwards=cursor.backwards,
        )
        rows = self.fields.from_items(part.rows, chosen)
        return self._finished(build_cursor_page(q, rows, part, count, signer), q)

    def _check_unique(self) -> None:
        if not self._sorting.unique:
            raise InvalidOption("unique", (), "the names of fields that identify an item: ('id',)")

    # Both ----------------------------------------------------------------------------------------

    def _chosen(self, q: PageParams, fields: FieldSet | None) -> tuple[FieldSet, AllowedFields]:
        """Return the requested fields, in fields of this list, and the list they were chosen from.

        Raises `InvalidParameter` if the request sorts by a field that is not in that list.
        """
        chosen = fields or q.fields or self.fields.allowed._default
        if chosen.allowed is self.fields.allowed:
            return chosen, chosen.allowed
        own = self.fields._own(chosen)
        # The default order is the developer's choice, not the client's.
        if any(name == "sort" for name, _ in q.query):
            shown = [name for name in self.sort_names if name in chosen.allowed.fields]
            check_sort(q.order, shown)
        return own, chosen.allowed

    def _signer(self, q: PageParams, *query: object) -> CursorSigner:
        """Return the signer for cursors of a query. Rejects a cursor of q from another query."""
        if self._keys is None:
            raise UsageError("a Paginator with mode='page' cannot read a page by cursor")
        mark = fingerprint(*query)
        if q.cursor is not None:
            q.cursor.check(mark)
        return CursorSigner(self._keys, mark)


class SyncPaginator(Generic[P]):
    """`Paginator.sync`: pages of sessions and connections that block."""

    __slots__ = ("_paginator",)

    def __init__(self, paginator: Paginator[P]) -> None:
        self._paginator = paginator

    def __repr__(self) -> str:
        return f"{self._paginator!r}.sync"

    def page(
        self,
        db: Executor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """Read the page of a select, as `Paginator.page` does."""
        return self._paginator._page_sync(db, statement, q, fields, scope)


class _Origin(NamedTuple):
    """What distinguishes the rows of a query from those of an equal query."""

    scope: object
    """The scope of the caller, and the schemas of the tables."""
    database: list[str | None] = []  # noqa: RUF012 - never changed
    """The name of the database, the same in every process."""
    engine: int = 0
    """The number of the engine in this process, because two databases may have the same name."""


def in_development() -> bool:
    """Return whether Python runs in development mode: ``python -X dev``."""
    return sys.flags.dev_mode


# Options ------------------------------------------------------------------------------------------


def _all_of(schema: type, model: type | None) -> FieldSelector[Any]:
    """Return a selector that shows all fields of a schema by default."""
    allowed = AllowedFields(schema)
    return FieldSelector(schema, model=model, default=tuple(allowed.fields))


def _to_keys(secret: Secret | None, mode: Mode) -> SigningKeys | None:
    if secret is None:
        if mode == "page":
            return None
        raise InvalidOption(
            "secret",
            None,
            "at least 16 random bytes to sign cursors with, the same in all processes: "
            "python -c 'import secrets; print(secrets.token_hex())' prints some",
        )
    return SigningKeys(secret)


def _name_of(model: type | None) -> str:
    return "no model" if model is None else model.__name__


def _schema_name(schema: Any) -> str:
    name: str = getattr(whole_of(schema), "__name__", repr(schema))
    return f"Partial[{name}]" if is_partial(schema) else name


def _to_flag(option: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    remedy = "True or False"
    if option == "etag":
        remedy += "; an expression of SQL is for version="
    raise InvalidOption(option, value, remedy)


# Versions -----------------------------------------------------------------------------------------


def _to_version(version: object) -> tuple[Any, ...]:
    if version is None:
        return ()
    parts = tuple(version) if isinstance(version, list | tuple) else (version,)
    for part in parts:
        if not hasattr(part, "__clause_element__") and not hasattr(part, "compile"):
            raise InvalidOption(
                "version", version, "an expression of SQL, or several: func.max(Post.updated_at)"
            )
    return parts


def _tag_of(
    query: PageQuery, q: PageParams, chosen: FieldSet, origin: _Origin, values: Sequence[object]
) -> str:
    """Return the ETag of the versions of the selected rows and of all parameters of the request."""
    parameters = [[name, value] for name, value in q.query]
    of = [origin.scope, origin.database]
    parts = fingerprint("etag", of, query.identity(), parameters, str(chosen), list(values))
    return etag_of(parts, weak=True)
