"""`Paginator`: parses page requests, and reads pages from a database, a list or another source."""

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

from hasten._coroutines import run_without_suspending
from hasten._queries import (
    QueryLike,
    get_header_if_request,
    is_request_of_app_in_debug_mode,
    to_query_pairs,
)
from hasten._responses import EncodedResponse, make_etag, matches_if_none_match
from hasten.errors import InvalidOption, UsageError
from hasten.fields._allowed import AllowedFields, FieldSet, is_shown_in_every_row
from hasten.fields._items import get_field_value
from hasten.fields._names import Unknown, check_parameter_names, check_unknown_names_policy
from hasten.fields._partial import is_partial, unwrap_partial
from hasten.fields._rows import encode
from hasten.fields._selector import FieldSelector
from hasten.pagination import _params as params
from hasten.pagination._count_cache import CountCache
from hasten.pagination._counts import NOT_COUNTED, Cached, Count, Counting, check_count_option
from hasten.pagination._cursor import SigningKeys, compute_fingerprint, hidden_sort_key_error
from hasten.pagination._order import SortKey, check_sort
from hasten.pagination._page import CursorPage, Envelope, Page, PageResponder, make_link_header
from hasten.pagination._page_building import (
    START,
    CursorSigner,
    build_cursor_page,
    build_not_modified_page,
    build_page,
)
from hasten.pagination._params import Mode, PageLimits, PageParams
from hasten.pagination._sort_options import SortOptions
from hasten.pagination._sources import (
    ListSource,
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
"""One or several secrets for cursors: the first one signs, all of them verify."""

Version: TypeAlias = "ColumnElement[Any] | Sequence[ColumnElement[Any]]"
"""An SQL expression, or several, whose values change when the rows of a select change."""


class PaginatorOptions(TypedDict, total=False):
    """The options of `Paginator` that do not depend on its mode, as keyword argument types.

    Use it in your own functions: ``**options: Unpack[PaginatorOptions]``.
    """

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
    """Parses page requests, reads the pages, and builds the responses. Create one per endpoint.

    ``Paginator(PostOut, model=Post, sort=("created_at", "title"), default_sort="-created_at")``

    - schema: the model of one row of the response. Only its columns are read. With
      ``Partial[PostOut]``, the client may choose among its fields with ``fields=``.
    - model: the SQLAlchemy class; None for pages of lists, or of a `Source`.
    - unique: without a model, the names of fields that together identify an item. Cursors need
      them.
    - sort: the public names of the fields that the client may sort by. Pass a `SortKey` instead of
      a name to declare where NULLs are sorted.
    - default_sort: the order of requests without ``sort=``, such as "-created_at"; None for the
      ORDER BY of the select. It may contain fields that are not in sort. The primary key is
      appended to every order, so that no two rows are equal in it.
    - default_limit, max_limit: the number of rows on a page. A request for more than max_limit rows
      is rejected.
    - max_offset: how many rows a page by number may skip; None for no bound.
    - mode: "page" for pages by number, "cursor" for pages by cursor, "both" to let clients choose.
    - secret: signs cursors, and is required for them: at least 16 random bytes, the same in all
      processes. To replace it, pass several: the first one signs, all of them verify.
    - count: how to count the rows: "exact", "estimated" (PostgreSQL only), "none", `Capped`,
      `Cached`, or a function that is called with the session and the select. "auto" counts exactly
      for pages by number, and does not count for pages by cursor.
    - fields: the fields that a request may choose, and how they are read. By default, these are all
      fields of the schema and of the models nested in it, but not of models nested in those.
    - envelope: the key names in the response.
    - etag: add an ETag that is computed from the body of the response.
    - version: one or several SQL expressions whose values change when the rows change, such as
      ``func.max(Post.updated_at)``. They are read before the page, and the ETag is computed from
      them. If the client has this version, the response is 304 and the page is not read. The
      example does not notice deleted rows (add ``func.count()``) and changes in other tables.
    - unknown: "ignore" ignores unknown query parameters, such as ``?pgae=2``; "refuse" rejects
      them with 422.
    - advise: issue a `PaginationWarning` if no index has the requested order, and about other
      things that are slow when the table is large. Each of the first 100 different queries is
      checked once. "auto" does this in development: with ``python -X dev``, and when `parse` gets
      a request of an application with ``debug=True`` (`params` of FastAPI does).

    Raises `InvalidOption` for an invalid option.
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
        self.fields: Final = fields or _select_all_fields(unwrap_partial(schema), model)
        self.envelope: Final = envelope or Envelope()
        self._limits = PageLimits(default_limit, max_limit, max_offset, mode)
        self._is_choosable = is_partial(schema)
        self._keys = _to_signing_keys(secret, mode)
        self._count_pages = check_count_option("exact" if count == "auto" else count)
        self._count_cursor_pages = check_count_option("none" if count == "auto" else count)
        self._count_cache = CountCache(count) if isinstance(count, Cached) else None
        self._etag = _to_flag("etag", etag)
        self._version = _to_version_expressions(version)
        if etag and self._version:
            raise InvalidOption.conflict("etag", etag, "version=, which sets the ETag")
        self._known_names = self._known_parameter_names(check_unknown_names_policy(unknown))
        self._advise = advise if advise == "auto" else _to_flag("advise", advise)
        if self.fields.model is not model:
            raise InvalidOption(
                "fields", self.fields.model, f"a FieldSelector with model={_get_model_name(model)}"
            )
        if model is None:
            self._sorting = SortOptions(
                self.fields.allowed, sort, default_sort, unique, is_nullable=lambda _: True
            )
        else:
            if unique and not isinstance(unique, str):
                raise InvalidOption.conflict("unique", unique, "model=, which has a primary key")
            self._set_up_model(model, sort, default_sort, unique)
        if self._keys is not None:
            self._sorting.check_cursors_reveal_no_hidden_fields()
            if model is None:
                self._require_unique_option()

    def _set_up_model(
        self,
        model: type,
        sort: Iterable[str | SortKey],
        default_sort: str | None,
        unique: Sequence[str],
    ) -> None:
        # Imported here, because SQLAlchemy need not be installed for pages of lists.
        from hasten._sqlalchemy import execution  # noqa: PLC0415
        from hasten._sqlalchemy.selects import get_mapper  # noqa: PLC0415
        from hasten.pagination._sql import cursor_values, query_planner  # noqa: PLC0415

        mapper = get_mapper(model)
        self._execution = execution
        self._sorting = SortOptions(
            self.fields.allowed,
            sort,
            default_sort,
            unique,
            is_nullable=lambda attribute: cursor_values.is_nullable(mapper, attribute),
        )
        if self._keys is not None:
            attributes = self._sorting.find_attributes_in_cursors()
            cursor_values.check_types_allowed_in_cursor(mapper, attributes, "sort")
        self._planner = query_planner.QueryPlanner(
            mapper,
            self.fields._require_loaders(),
            self._sorting.attributes,
            explicit_nulls=self._sorting.explicit_nulls,
            advise=is_development_mode() if self._advise == "auto" else self._advise,
        )

    def __repr__(self) -> str:
        model = f", model={_get_model_name(self.model)}" if self.model is not None else ""
        sort = f", sort={self.sort_names}" if self.sort_names else ""
        name = type(self).__name__
        return f"{name}({_get_schema_name(self.schema)}{model}{sort}, mode={self._limits.mode!r})"

    @property
    def sort_names(self) -> tuple[str, ...]:
        """The names of the fields that the client may sort by."""
        return tuple(self._sorting.sorts)

    @cached_property
    def sync(self) -> SyncPaginator[P]:
        """The paginator for blocking sessions and connections: ``posts.sync.page(session, …)``."""
        return SyncPaginator(self)

    def parse(
        self,
        query: QueryLike,
        *,
        if_none_match: str | None = None,
        known: Collection[str] = (),
    ) -> PageParams:
        """Parse the query parameters of a request. Raises `InvalidParameter`.

        query is a request of Starlette, FastAPI or Litestar, or the query of its URL: a string,
        pairs of names and values, or the query object of a framework. if_none_match is the
        If-None-Match header, which ``version=`` needs; by default, it is read from the request.
        known are the names of the other query parameters of this endpoint, which
        ``unknown="refuse"`` must accept.
        """
        pairs = to_query_pairs(query)
        if hasattr(query, "query_params"):
            if_none_match = if_none_match or get_header_if_request(query, "if-none-match")
            if (
                self._advise == "auto"
                and self.model is not None
                and is_request_of_app_in_debug_mode(query)
            ):
                self._planner.advise = True
        q = params.parse_page_params(
            pairs,
            self._limits,
            sorts=self._sorting.sorts,
            default_order=self._sorting.default,
            signing_keys=self._keys,
        )
        if self._known_names is not None:
            check_parameter_names(pairs, self._known_names, known)
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
        """Read the requested page of a select, such as ``select(Post).where(Post.published)``.

        db is an asynchronous session or connection, and q the result of `parse`. fields are the
        requested fields, as parsed by the `fields` selector of this paginator, or by one that
        ``fields.without(…)`` returned: then clients cannot sort by the removed fields either. None
        uses the fields of q, or the default. scope is a value that says whose rows these are, if
        the select does not show that: a cursor of one scope is rejected in every other.

        Raises `InvalidParameter` (400) for a cursor of another query, before any SQL is executed,
        and `InvalidOption` for a select that cannot be paged.
        """
        database = self._import_execution_module().wrap_async_session(db)
        return await self._read_select_page(database, statement, q, fields, scope)

    def _read_page_sync(
        self,
        db: Executor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None,
        scope: object,
    ) -> P:
        database = self._import_execution_module().wrap_blocking_session(db)
        return run_without_suspending(self._read_select_page(database, statement, q, fields, scope))

    async def from_source(
        self,
        source: Source,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """Read the requested page of a `Source`.

        scope is a value that distinguishes this source from others of its class, such as its filter
        or its user: a cursor of one scope is rejected in every other.
        """
        name = type(source).__qualname__
        return await self._read_source_page(source, name, q, fields, scope)

    def from_items(
        self,
        items: Sequence[object],
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """Return the requested page of a list.

        Items are dicts with public field names as keys, or objects with attributes. ORM objects are
        rejected: use `page`, which reads only the rows of the page from the database.
        """
        attributes = self._sorting.attributes
        source = ListSource(items, lambda item, name: get_field_value(item, name, attributes[name]))
        return run_without_suspending(self._read_source_page(source, "list", q, fields, scope))

    def encode(self, page: Page[Any] | CursorPage[Any]) -> bytes:
        """Encode a page as JSON. Its rows are not validated again."""
        return encode(self.envelope.wrap(page))

    def link(
        self, page: Page[Any] | CursorPage[Any], q: PageParams, *, path: str = "", origin: str = ""
    ) -> str | None:
        """Return the value of the Link header of a page; None if it is the only page.

        path is the path of the request; without it, the links consist of a query only. origin, such
        as "https://api.example.org", makes the links absolute.
        """
        return make_link_header(page, q, path=path, origin=origin)

    def response(self, page: Page[Any] | CursorPage[Any], q: PageParams) -> EncodedResponse:
        """Return the response of a page: JSON, with a Link header, and an ETag if configured."""
        return PageResponder(self.envelope, q, has_etag=self._etag)(page)

    def _attach_responder(self, page: Any, q: PageParams) -> P:
        """Return the page, after giving it the function that builds its response."""
        page._responder = PageResponder(self.envelope, q, has_etag=self._etag)
        return cast("P", page)

    def _known_parameter_names(self, unknown_option: Unknown) -> tuple[str, ...] | None:
        """Return the names of the query parameters that `parse` reads.

        Returns None if unknown_option, the option unknown=, is to ignore all others.
        """
        if unknown_option == "ignore":
            return None
        names = params.parameter_names(self._limits.mode)
        return (*names, self.fields.parameter) if self._is_choosable else names

    # Selects -------------------------------------------------------------------------------------

    def _import_execution_module(self) -> ModuleType:
        """Return the module `hasten._sqlalchemy.execution`. Raises `UsageError` without a model.

        Only paginators with a model import it, because SQLAlchemy need not be installed otherwise.
        """
        if self.model is None:
            raise UsageError(
                "this Paginator cannot read pages of a select: it was created without model="
            )
        return self._execution

    async def _read_select_page(
        self,
        database: Database,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None,
        scope: object,
    ) -> P:
        chosen, allowed = self._choose_fields(q, fields)
        query = self._planner.make_page_query(database, statement, chosen, q.order)
        scope_and_database = self._make_scope_and_database(query, q, scope)
        signer = None
        if q.page is None:
            query.check_cursors_reveal_no_hidden_fields(allowed)
            signer = self._make_signer(
                q,
                "cursor",
                _get_model_name(self.model),
                scope_and_database.scope,
                query.make_fingerprint_values(),
            )
        tag = None
        if self._version:
            values = await query.read_aggregates(self._version)
            tag = _make_version_etag(query, q, chosen, scope_and_database, values)
        page: Page[Any] | CursorPage[Any]
        if tag is not None and matches_if_none_match(q.if_none_match, tag):
            page = build_not_modified_page(q, tag)
        elif signer is None:
            page = await self._read_offset_page(query, statement, q, scope_and_database)
        else:
            page = await self._read_cursor_page(query, statement, q, scope_and_database, signer)
        page.etag = tag
        return self._attach_responder(page, q)

    async def _read_offset_page(
        self,
        query: PageQuery,
        statement: Selection,
        q: PageParams,
        scope_and_database: _ScopeAndDatabase,
    ) -> Page[Any]:
        counting = self._count_pages
        known = None
        if isinstance(counting, Cached) or callable(counting):
            known, counting = (
                await self._read_count(query, statement, scope_and_database, counting),
                "none",
            )
        found = await query.read_offset_slice(limit=q.limit, offset=q.offset, count=counting)
        return build_page(q, found.rows, known or found.count, has_more=found.has_more)

    async def _read_cursor_page(
        self,
        query: PageQuery,
        statement: Selection,
        q: PageParams,
        scope_and_database: _ScopeAndDatabase,
        signer: CursorSigner,
    ) -> CursorPage[Any]:
        cursor = q.cursor or START
        found = await query.read_keyset_slice(
            cursor.values or None, limit=q.limit, backwards=cursor.backwards
        )
        counting, count = self._count_cursor_pages, NOT_COUNTED
        if counting != "none":
            count = await self._read_count(query, statement, scope_and_database, counting)
        return build_cursor_page(q, found.rows, found, count, signer)

    async def _read_count(
        self,
        query: PageQuery,
        statement: Selection,
        scope_and_database: _ScopeAndDatabase,
        counting: Counting,
    ) -> Count:
        if not isinstance(counting, Cached):
            return await query.count_rows(counting, statement)
        assert self._count_cache is not None
        key = compute_fingerprint(
            "count",
            _get_model_name(self.model),
            *scope_and_database,
            query.make_fingerprint_values(),
        )
        count = self._count_cache.get(key)
        if count is None:
            count = await query.count_rows(counting.count, statement)
            self._count_cache.put(key, count)
        return count

    def _make_scope_and_database(
        self, query: PageQuery, q: PageParams, scope: object
    ) -> _ScopeAndDatabase:
        """Return the scope of the request, and the database that it reads from.

        The scope includes the translated database schemas (``schema_translate_map``).
        The database is only looked up if an ETag or a cached total depends on it.
        """
        is_needed = bool(self._version or self._count_cache)
        if q.page is not None and not is_needed:
            return _ScopeAndDatabase(scope)
        schemas = query.find_schema_translation_pairs()
        scope = [scope, schemas] if schemas else scope
        return (
            _ScopeAndDatabase(scope, *query.database_identity())
            if is_needed
            else _ScopeAndDatabase(scope)
        )

    # Sources -------------------------------------------------------------------------------------

    async def _read_source_page(
        self,
        source: Source,
        source_name: str,
        q: PageParams,
        fields: FieldSet | None,
        scope: object,
    ) -> P:
        chosen, allowed = self._choose_fields(q, fields)
        order = self._sorting.make_total_order(q.order)
        window = Window(order, q.limit, q.offset, None, chosen)
        if q.page is not None:
            found = await fetch_offset_slice(source, window, self._count_pages)
            rows = self.fields.from_items(found.rows, chosen)
            page: Any = build_page(q, rows, found.count, has_more=found.has_more)
            return self._attach_responder(page, q)
        self._require_unique_option()
        for key in order:
            if not is_shown_in_every_row(key.name, allowed):
                raise hidden_sort_key_error(key.name)
        keys = [[key.name, key.descending, key.nulls] for key in order]
        signer = self._make_signer(q, "source", source_name, scope, keys)
        attributes = [(key.name, self._sorting.attributes[key.name]) for key in order]
        count = await fetch_count(source, self._count_cursor_pages)
        cursor = q.cursor or START
        part = await fetch_keyset_slice(
            source,
            replace(window, after=cursor.values or None),
            lambda item: tuple([get_field_value(item, *each) for each in attributes]),
            backwards=cursor.backwards,
        )
        rows = self.fields.from_items(part.rows, chosen)
        return self._attach_responder(build_cursor_page(q, rows, part, count, signer), q)

    def _require_unique_option(self) -> None:
        if not self._sorting.unique:
            raise InvalidOption(
                "unique", (), "the names of fields that together identify an item, such as ('id',)"
            )

    # Selects and sources -------------------------------------------------------------------------

    def _choose_fields(
        self, q: PageParams, fields: FieldSet | None
    ) -> tuple[FieldSet, AllowedFields]:
        """Return the fields to show, and the fields that the request could choose from.

        fields may come from a selector with fewer fields, which ``fields.without(…)`` returned.
        Then they are converted to fields of this paginator. Raises `InvalidParameter` if the
        request sorts by a field that it could not choose.
        """
        chosen = fields or q.fields or self.fields.allowed._default
        if chosen.allowed is self.fields.allowed:
            return chosen, chosen.allowed
        own = self.fields._to_fields_of_this_selector(chosen)
        # The default order is the developer's choice, not the client's.
        if any(name == "sort" for name, _ in q.query):
            shown = [name for name in self.sort_names if name in chosen.allowed.fields]
            check_sort(q.order, shown)
        return own, chosen.allowed

    def _make_signer(self, q: PageParams, *query_identity: object) -> CursorSigner:
        """Return the signer for the cursors of a query.

        query_identity are the values that identify the query. Raises `InvalidParameter` if the
        cursor of the request belongs to another query.
        """
        if self._keys is None:
            raise UsageError("this Paginator cannot read pages by cursor: it has mode='page'")
        query_fingerprint = compute_fingerprint(*query_identity)
        if q.cursor is not None:
            q.cursor.check(query_fingerprint)
        return CursorSigner(self._keys, query_fingerprint)


class SyncPaginator(Generic[P]):
    """Reads pages with blocking sessions and connections. Obtained as `Paginator.sync`."""

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
        """Read the requested page of a select. See `Paginator.page` for the arguments."""
        return self._paginator._read_page_sync(db, statement, q, fields, scope)


class _ScopeAndDatabase(NamedTuple):
    """The scope and the database of a query. In another one, the same SQL may return other rows."""

    scope: object
    """The ``scope=`` of the request, with its ``schema_translate_map`` if it has one."""
    database: list[str | None] = []  # noqa: RUF012 - never changed
    """The names that identify the database, equal in every process. See `Database.identity`."""
    engine: int = 0
    """The number of the engine in this process, because two databases may have the same name."""


def is_development_mode() -> bool:
    """Return whether Python runs in development mode (``python -X dev``)."""
    return sys.flags.dev_mode


# Options ------------------------------------------------------------------------------------------


def _select_all_fields(schema: type, model: type | None) -> FieldSelector[Any]:
    """Return a selector whose default is all fields of a schema."""
    allowed = AllowedFields(schema)
    return FieldSelector(schema, model=model, default=tuple(allowed.fields))


def _to_signing_keys(secret: Secret | None, mode: Mode) -> SigningKeys | None:
    if secret is None:
        if mode == "page":
            return None
        raise InvalidOption(
            "secret",
            None,
            "at least 16 random bytes to sign cursors with, the same in all processes. To generate "
            "a secret, run python -c 'import secrets; print(secrets.token_hex())'",
        )
    return SigningKeys(secret)


def _get_model_name(model: type | None) -> str:
    return "no model" if model is None else model.__name__


def _get_schema_name(schema: Any) -> str:
    name: str = getattr(unwrap_partial(schema), "__name__", repr(schema))
    return f"Partial[{name}]" if is_partial(schema) else name


def _to_flag(option: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    remedy = "True or False"
    if option == "etag":
        remedy += "; pass an SQL expression as version= instead"
    raise InvalidOption(option, value, remedy)


# Versions -----------------------------------------------------------------------------------------


def _to_version_expressions(version: object) -> tuple[Any, ...]:
    """Return the SQL expressions of the option version=. Raises `InvalidOption`."""
    if version is None:
        return ()
    parts = tuple(version) if isinstance(version, list | tuple) else (version,)
    for part in parts:
        if not hasattr(part, "__clause_element__") and not hasattr(part, "compile"):
            raise InvalidOption(
                "version",
                version,
                "one or several SQL expressions, such as func.max(Post.updated_at)",
            )
    return parts


def _make_version_etag(
    query: PageQuery,
    q: PageParams,
    chosen: FieldSet,
    scope_and_database: _ScopeAndDatabase,
    version_values: Sequence[object],
) -> str:
    """Return the ETag of a page, computed without reading it.

    It depends on version_values, the results of the ``version=`` expressions, and on everything
    else that the response depends on: the query, its scope and database, the chosen fields
    and the query parameters.
    """
    parameters = [[name, value] for name, value in q.query]
    of = [scope_and_database.scope, scope_and_database.database]
    parts = compute_fingerprint(
        "etag", of, query.make_fingerprint_values(), parameters, str(chosen), list(version_values)
    )
    return make_etag(parts, weak=True)
