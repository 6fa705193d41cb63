"""Pages of a database, or of anything in order."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
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

from hasten._queries import QueryLike, header_of, is_debug, pairs_of
from hasten._responses import EncodedResponse, etag_of, names_tag
from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields._allowed import AllowedFields, FieldSet, is_shown
from hasten.fields._items import value_of
from hasten.fields._names import Unknown, check_names, to_unknown
from hasten.fields._partial import is_partial, whole_of
from hasten.fields._rows import encode
from hasten.fields._selector import FieldSelector
from hasten.pagination import _params as params
from hasten.pagination import _sources as sources
from hasten.pagination._count_cache import CountCache
from hasten.pagination._counts import NOT_COUNTED, Cached, Count, Counting, Uncached, to_counting
from hasten.pagination._cursor import Cursor, SigningKeys, fingerprint, in_cursor
from hasten.pagination._order import Order, SortKey, check_sort, parse_sort
from hasten.pagination._page import CursorPage, Envelope, Page, Responder, link_of
from hasten.pagination._params import Limits, Mode, PageParams
from hasten.pagination._sources import Items, Reading, Source, Window

if TYPE_CHECKING:
    from hasten.fields._sql import AsyncExecutor, Executor, Selection, Steps
    from hasten.pagination._sql.planning import Plan, Version

T = TypeVar("T")
P = TypeVar("P")

Secret: TypeAlias = str | bytes | Sequence[str | bytes]
"""What cursors are signed with: one secret, or several, of which the first signs."""


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

    - schema: the model of one row of the response. No other column leaves the database. With
      ``Partial[PostOut]`` the client chooses among its fields, by ``fields=``.
    - model: the mapped class; None for pages of lists, or of a `Source`.
    - unique: the names of fields that together differ in every item, where there is no model.
      Cursors need them.
    - sort: the fields that the client may sort by, by public name. A `SortKey` says where NULLs
      stand.
    - default_sort: the order where the client chooses none, of any fields; None for the ORDER BY
      of the select. The primary key is appended to every order, so that it is total.
    - default_limit, max_limit: rows on a page. A higher limit is refused.
    - max_offset: how many rows pages by number may skip; None for no bound.
    - mode: "page" moves by numbers, "cursor" by tokens, "both" by what the client sends.
    - secret: signs cursors, and is required for them: at least 16 random bytes, the same in all
      processes. Give several to change it: the first signs, all verify.
    - count: how to count: "exact", "estimated" (PostgreSQL), "none", `Capped`, `Cached`, or a
      function of the session and the select. "auto" counts exactly for pages by number, and does
      not count for pages by cursor.
    - fields: which fields a request may choose, and how they are made; by default all fields of the
      schema, with the plain fields of nested models.
    - envelope: the names in the response.
    - etag: add an ETag, made of the bytes of the response.
    - version: an SQL expression that changes when the rows do, ``func.max(Post.updated_at)``, or
      several. It is read before the page, and makes the ETag: a client that has this version gets
      304, and no page is read. It does not see deleted rows (add ``func.count()``) or other tables.
    - unknown: "refuse" answers 422 to query parameters that nobody knows, such as ``?pgae=2``.
    - advise: warn (`PaginationWarning`), once for each of the first 100 queries, if no index has
      its order, and of other things that matter once the table is large. "auto" warns in
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
        self._count_stretches = to_counting("none" if count == "auto" else count)
        self._count_cache = CountCache(count) if isinstance(count, Cached) else None
        self._attributes = _sortable(self.fields.allowed)
        self._etag = _to_flag("etag", etag)
        self._version = _to_version(version)
        if etag and self._version:
            raise InvalidOption("etag", etag, "False beside version=, which makes the ETag")
        self._known_names = self._names(to_unknown(unknown))
        self._advise = advise if advise == "auto" else _to_flag("advise", advise)
        self._ruled: set[str] = set()
        if self.fields.model is not model:
            raise InvalidOption("fields", self.fields.model, f"fields of {_name_of(model)}")
        if model is not None:
            # Here and no earlier: who pages through a list needs no SQLAlchemy.
            from hasten.pagination._sql import planning, running  # noqa: PLC0415

            self._planning = planning
            self._running = running
            self._mapper = planning.mapper_of(model)
        self._sorts = dict(self._to_sorts(sort))
        self._default_order = self._to_order(default_sort)
        self._unique = self._to_unique(unique)
        self._check_in_cursor()
        if model is not None:
            self._plans = self._planning.Plans(
                self._mapper,
                self.fields,
                self._attributes,
                ruled=self._ruled,
                advise=in_development() if self._advise == "auto" else self._advise,
            )

    def __repr__(self) -> str:
        model = f", model={_name_of(self.model)}" if self.model is not None else ""
        sort = f", sort={self.sort_names}" if self._sorts else ""
        name = type(self).__name__
        return f"{name}({_schema_name(self.schema)}{model}{sort}, mode={self._limits.mode!r})"

    @property
    def sort_names(self) -> tuple[str, ...]:
        """The names that the client may sort by."""
        return tuple(self._sorts)

    @cached_property
    def sync(self) -> SyncPaginator[P]:
        """The same for sessions and connections that block: ``posts.sync.page(session, …)``."""
        return SyncPaginator(self)

    def parse(
        self,
        query: QueryLike,
        *,
        if_none_match: str | None = None,
        known: Collection[str] = (),
    ) -> PageParams:
        """Read what a request asks for. Raises `InvalidParameter`.

        query is the query of the URL (its text, its pairs, or the object of a framework), or a
        request of Starlette, FastAPI or Litestar. if_none_match is the header of that name, which
        version= needs; by default it is that of the request. known are the names of the other
        parameters of this route, for unknown="refuse".
        """
        pairs = pairs_of(query)
        if if_none_match is None:
            if_none_match = header_of(query, "if-none-match")
        if self._advise == "auto" and self.model is not None and is_debug(query):
            self._plans.advise = True
        q = params.parse(
            pairs,
            self._limits,
            sorts=self._sorts,
            default_order=self._default_order,
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

        fields is what each row holds, parsed by `fields` or by a selector that its `without` made,
        which then also limits what may be sorted by. None takes the fields of q, or the default.
        scope says whose rows these are, where the select does not: a cursor of one scope is refused
        in every other. Raises `InvalidParameter` (400) for a cursor of another query, before any
        SQL, and `InvalidOption` for a select that cannot be paged.
        """
        steps = self._steps(db, statement, q, fields, scope)
        return self._finished(await self._running.run_async(db, steps), q)

    def _page_sync(
        self,
        db: Executor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None,
        scope: object,
    ) -> P:
        steps = self._steps(db, statement, q, fields, scope)
        return self._finished(self._running.run(db, steps), q)

    async def from_source(
        self,
        source: Source,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """Read the page of a `Source`.

        scope tells this source from others of its class: its filter, whose items they are.
        """
        reading = self._reading(type(source).__qualname__, q, fields, scope)
        try:
            asked = next(reading)
            while True:
                if isinstance(asked, Window):
                    asked = reading.send(await source.fetch(asked))
                else:
                    asked = reading.send(await source.count(asked.cap))
        except StopIteration as end:
            return self._finished(end.value, q)

    def from_items(
        self,
        items: Sequence[object],
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """Make the page of a list of dicts by public name, or of objects by attribute.

        Objects that an ORM has loaded are refused: let the database cut the page.
        """
        known = Items(items, lambda item, name: value_of(item, name, self._attributes[name]))
        reading = self._reading("list", q, fields, scope)
        try:
            asked = next(reading)
            while True:
                asked = reading.send(known.answer(asked))
        except StopIteration as end:
            return self._finished(end.value, q)

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
        return self._responder(q)(page)

    def _responder(self, q: PageParams) -> Responder:
        return Responder(self.envelope, q, has_etag=self._etag)

    def _finished(self, page: Any, q: PageParams) -> P:
        """The page, which knows how to make its response."""
        page._responder = self._responder(q)
        return cast("P", page)

    def _names(self, unknown: Unknown) -> tuple[str, ...] | None:
        """The names of all parameters, None if others are ignored."""
        if unknown == "ignore":
            return None
        names = params.names_of(self._limits.mode)
        return (*names, self.fields.parameter) if self._is_choosable else names

    # Reading a database --------------------------------------------------------------------------

    def _steps(
        self,
        db: Executor | AsyncExecutor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None,
        scope: object,
    ) -> Steps[Page[Any] | CursorPage[Any]]:
        if self.model is None:
            raise InvalidOption("model", None, "a mapped class, for pages of a select")
        chosen, allowed = self._chosen(q, fields)
        plan = self._plans.of(statement, chosen, q.order)
        if q.page is None or self._version or self._count_cache:
            # Whose rows these are: what the caller says, and the schemas that they come from.
            schemas = self._running.schemas_of(db, plan.reading, plan.own.execution_options)
            scope = [scope, schemas] if schemas else scope
        signer = None
        if q.page is None:
            plan.check_shown(allowed)
            mark = fingerprint("cursor", self.model.__name__, scope, plan.parts())
            signer = self._signer(q, mark)
        dialect = self._running.dialect_of(db, plan.reading)
        origin = _Origin(scope, [], 0)
        if self._version or self._count_cache:
            origin = _Origin(scope, *self._running.database_of(db, plan.reading))
        return self._read(plan, statement, dialect, q, chosen, origin, signer)

    def _read(
        self,
        plan: Plan,
        statement: Selection,
        dialect: str,
        q: PageParams,
        chosen: FieldSet,
        origin: _Origin,
        signer: _Signer | None,
    ) -> Steps[Page[Any] | CursorPage[Any]]:
        tag: str | None = None
        if self._version:
            values = yield from plan.version(self._version)
            tag = _tag_of(plan, q, chosen, origin, values)
            if names_tag(q.if_none_match, tag):
                return _not_modified(q, tag)
        how = self._count_pages if signer is None else self._count_stretches
        count = yield from self._counted(plan, statement, dialect, origin, how)
        found: Page[Any] | CursorPage[Any]
        if signer is None:
            found = yield from self._numbered(plan, dialect, q, count)
        else:
            found = yield from self._stretch(plan, dialect, q, signer, count)
        found.etag = tag
        return found

    def _numbered(
        self, plan: Plan, dialect: str, q: PageParams, count: Count | Uncached
    ) -> Steps[Page[Any]]:
        found = yield from plan.numbered(
            dialect,
            limit=q.limit,
            offset=q.offset,
            count="none" if isinstance(count, Count) else count,
        )
        if not isinstance(count, Count):
            count = Count(found.total, found.relation or "eq")
        return self._page(q, found.rows, count, has_more=found.has_more)

    def _stretch(
        self, plan: Plan, dialect: str, q: PageParams, signer: _Signer, count: Count | Uncached
    ) -> Steps[CursorPage[Any]]:
        cursor = q.cursor or Cursor(())
        # A cursor without values stands before the first row, or behind the last one.
        position = cursor.values or None
        found = yield from plan.stretch(
            dialect, position, limit=q.limit, backwards=cursor.backwards
        )
        if not isinstance(count, Count):
            counted = None if count == "none" else (yield from plan.total(dialect, count))
            count = NOT_COUNTED if counted is None else Count(*counted)
        ends = (found.first, found.last)
        return self._cursor_page(q, found.rows, ends, count, signer, has_more=found.has_more)

    def _counted(
        self, plan: Plan, statement: Selection, dialect: str, origin: _Origin, how: Counting
    ) -> Steps[Count | Uncached]:
        """The total if it is known already, or else how the page is to count it."""
        if not isinstance(how, Cached):
            return how if not callable(how) else (yield from self._planning.counted(how, statement))
        assert self._count_cache is not None
        key = fingerprint("count", _name_of(self.model), *origin, plan.parts())
        known = self._count_cache.get(key)
        if known is None:
            if callable(how.count):
                known = yield from self._planning.counted(how.count, statement)
            else:
                known = Count(*(yield from plan.total(dialect, how.count)))
            self._count_cache.put(key, known)
        return known

    # Reading anything else -----------------------------------------------------------------------

    def _reading(
        self, name: str, q: PageParams, fields: FieldSet | None, scope: object
    ) -> Reading[Page[Any] | CursorPage[Any]]:
        chosen, allowed = self._chosen(q, fields)
        order = self._total_order(q.order)
        window = Window(order, q.limit, q.offset, None, chosen)
        if q.page is not None:
            return self._numbered_of(q, window, chosen)
        if not self._unique:
            raise InvalidOption("unique", (), "the names of fields that tell items apart: ('id',)")
        for key in order:
            if not is_shown(key.name, allowed):
                raise in_cursor(key.name)
        said = [[key.name, key.descending, key.nulls] for key in order]
        signer = self._signer(q, fingerprint("source", name, scope, said))
        return self._stretch_of(q, window, chosen, signer)

    def _numbered_of(self, q: PageParams, window: Window, chosen: FieldSet) -> Reading[Page[Any]]:
        part = yield from sources.numbered(window, self._count_pages)
        rows = self.fields.from_items(part.items, chosen)
        return self._page(q, rows, part.count, has_more=part.has_more)

    def _stretch_of(
        self, q: PageParams, window: Window, chosen: FieldSet, signer: _Signer
    ) -> Reading[CursorPage[Any]]:
        cursor = q.cursor or Cursor(())
        part = yield from sources.stretch(
            replace(window, after=cursor.values or None),
            self._count_stretches,
            backwards=cursor.backwards,
        )
        rows = self.fields.from_items(part.items, chosen)
        ends = [self._place(item, window) for item in (part.items[:1] + part.items[-1:])]
        first, last = ends or (None, None)
        return self._cursor_page(q, rows, (first, last), part.count, signer, has_more=part.has_more)

    def _place(self, item: object, window: Window) -> tuple[object, ...]:
        names = [key.name for key in window.order]
        return tuple([value_of(item, name, self._attributes[name]) for name in names])

    def _total_order(self, order: Order) -> Order:
        """The order, made total by the key: in the direction of the last key, as for tables."""
        descending = bool(order) and order[-1].descending
        named = {key.name for key in order}
        rest = [SortKey(name, descending) for name in self._unique if name not in named]
        return (*order, *rest)

    # Pages ---------------------------------------------------------------------------------------

    def _chosen(self, q: PageParams, fields: FieldSet | None) -> tuple[FieldSet, AllowedFields]:
        """What each row holds, in fields of this list, and the list that was chosen from.

        Raises `InvalidParameter` if the request sorts by a field that is not in that list.
        """
        chosen = fields or q.fields or self.fields.allowed.default
        if chosen.allowed is self.fields.allowed:
            return chosen, chosen.allowed
        own = self.fields._own(chosen)
        # The default order is the developer's choice, not the client's.
        if any(name == "sort" for name, _ in q.query):
            shown = [name for name in self._sorts if name in chosen.allowed.fields]
            check_sort(q.order, shown)
        return own, chosen.allowed

    def _page(self, q: PageParams, rows: Any, count: Count, *, has_more: bool) -> Page[Any]:
        assert q.page is not None
        known = count._with_page(q.offset, len(rows), has_more=has_more)
        return Page(rows, q.page, q.limit, known, has_more)

    def _cursor_page(
        self,
        q: PageParams,
        rows: Any,
        ends: tuple[tuple[object, ...] | None, tuple[object, ...] | None],
        count: Count,
        signer: _Signer,
        *,
        has_more: bool,
    ) -> CursorPage[Any]:
        first, last = ends
        cursor = q.cursor or Cursor(())
        position = cursor.values or None
        if first is not None and position in ends:
            raise InvalidOption(
                "sort",
                [key.name for key in q.order],
                "keys whose values compare as they were read: this page begins at its own cursor",
            )
        if count.total is not None:
            # Estimates, and counts before somebody inserted: what is on the page is there.
            count = replace(count, total=max(count.total, len(rows)))
        is_before = has_more if cursor.backwards else position is not None
        is_behind = position is not None if cursor.backwards else has_more
        return CursorPage(
            rows,
            q.limit,
            next_cursor=signer.sign(last, backwards=False) if is_behind else None,
            prev_cursor=signer.sign(first, backwards=True) if is_before else None,
            count=count,
        )

    def _signer(self, q: PageParams, mark: bytes) -> _Signer:
        if self._keys is None:
            raise InvalidOption("mode", self._limits.mode, "'cursor' or 'both', to move by cursor")
        if q.cursor is not None:
            q.cursor.check(mark)
        return _Signer(self._keys, mark)

    # Making --------------------------------------------------------------------------------------

    def _to_sorts(self, sort: Iterable[str | SortKey]) -> Iterable[tuple[str, SortKey]]:
        if isinstance(sort, str):
            raise InvalidOption("sort", sort, f"several names: ({sort!r},)")
        for each in sort:
            key = self._to_key(each if isinstance(each, str) else each.name, "sort")
            if isinstance(each, SortKey):
                if each.descending:
                    raise InvalidOption(
                        "sort",
                        each,
                        "no descending=: the client chooses the direction",
                    )
                self._ruled.add(key.name)
            yield key.name, key if isinstance(each, str) else replace(key, nulls=each.nulls)

    def _to_key(self, name: str, option: str) -> SortKey:
        if name not in self._attributes:
            raise InvalidOption(
                option, name, f"plain fields of the answer: {', '.join(self._attributes)}"
            )
        if self.model is None:
            return SortKey(name, nullable=True)
        nullable = self._planning.is_nullable(self._mapper, self._attributes[name])
        return SortKey(name, nullable=nullable)

    def _to_order(self, default_sort: str | None) -> Order:
        if default_sort is None:
            return ()
        known = {name: self._to_key(name, "default_sort") for name in self._attributes}
        try:
            return parse_sort(default_sort, known | self._sorts, parameter="default_sort")
        except InvalidParameter as error:
            raise InvalidOption("default_sort", default_sort, str(error)) from None

    def _to_unique(self, unique: Sequence[str]) -> tuple[str, ...]:
        if isinstance(unique, str):
            raise InvalidOption("unique", unique, f"several names: ({unique!r},)")
        if self.model is not None and unique:
            raise InvalidOption("unique", unique, "none beside a model, which has its primary key")
        return tuple(self._to_key(name, "unique").name for name in unique)

    def _check_in_cursor(self) -> None:
        if self._keys is None:
            return
        for name in [*self._sorts, *(key.name for key in self._default_order), *self._unique]:
            if not is_shown(name, self.fields.allowed):
                raise in_cursor(name)
        if self.model is None:
            if not self._unique:
                raise InvalidOption(
                    "unique", (), "the names of fields that tell items apart, as ('id',)"
                )
            return
        names = [key.name for key in (*self._sorts.values(), *self._default_order)]
        self._planning.check_in_cursor(
            self._mapper, [self._attributes[name] for name in names], "sort"
        )


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


class _Signer:
    """Makes the tokens of one query."""

    def __init__(self, keys: SigningKeys, mark: bytes) -> None:
        self._keys = keys
        self._mark = mark

    def sign(self, position: tuple[object, ...] | None, *, backwards: bool) -> str:
        return self._keys.sign(Cursor(position or (), backwards), self._mark)


def in_development() -> bool:
    """Whether Python runs in development mode: ``python -X dev``."""
    return sys.flags.dev_mode


# Options ------------------------------------------------------------------------------------------


def _all_of(schema: type, model: type | None) -> FieldSelector[Any]:
    """All fields of a schema, so that a row is a whole one of it."""
    allowed = AllowedFields(schema)
    return FieldSelector(schema, model=model, default=tuple(allowed.fields))


def _sortable(allowed: AllowedFields) -> dict[str, str]:
    """The attributes of the plain fields, by public name."""
    return {
        field.name: field.attribute
        for field in allowed.fields.values()
        if field.relation is None and not field.is_computed
    }


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


class _Origin(NamedTuple):
    """Whose rows they are: what the caller says, and where they come from."""

    scope: object
    database: list[str | None]
    """What each process calls it."""
    engine: int
    """In this process, also where two databases are called the same."""


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
    plan: Plan, q: PageParams, chosen: FieldSet, origin: _Origin, values: Sequence[object]
) -> str:
    """Of the versions of what is selected, and of all that the request asks for of it."""
    asked = [[name, value] for name, value in q.query]
    of = [origin.scope, origin.database]
    parts = fingerprint("etag", of, plan.parts(), asked, str(chosen), list(values))
    return etag_of(parts, weak=True)


def _not_modified(q: PageParams, tag: str) -> Page[Any] | CursorPage[Any]:
    found: Page[Any] | CursorPage[Any]
    if q.page is None:
        found = CursorPage([], q.limit, None, None)
    else:
        found = Page([], q.page, q.limit, NOT_COUNTED, has_more=False)
    found.etag = tag
    found.not_modified = True
    return found
