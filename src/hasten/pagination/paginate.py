"""Answers in pages, out of a database or of anything in order."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)
from urllib.parse import parse_qsl

from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields.allowed import Allowed, FieldSet
from hasten.fields.fields import Fields, Row
from hasten.fields.rows import encode
from hasten.pagination import params
from hasten.pagination.counts import NOT_COUNTED, Count, Counting, to_counting
from hasten.pagination.cursor import Cursor, Keys, fingerprint
from hasten.pagination.links import cursor_links, link_header, page_links
from hasten.pagination.order import Key, Order, parse_sort
from hasten.pagination.page import CursorPage, Envelope, Page
from hasten.pagination.params import Limits, Mode, PageParams

if TYPE_CHECKING:
    from hasten.fields.sql import AsyncExecutor, Executor, Selection, Steps
    from hasten.pagination.sql.planning import Plan

T = TypeVar("T")
P = TypeVar("P")

PER_PROCESS: Final = "per-process"
"""Instead of a secret: one that each process makes up. With several, cursors get lost."""

Secret: TypeAlias = str | bytes | Sequence[str | bytes]


class MultiItems(Protocol):
    """The query of a request, as Starlette and Litestar have it."""

    def multi_items(self) -> Iterable[tuple[str, str]]: ...


class Options(TypedDict, total=False):
    """What may be said of every mode. See `Paginate`."""

    sort: Iterable[str | Key]
    default_sort: str | None
    default_limit: int
    max_limit: int
    count: Counting | None
    max_offset: int | None
    fields: Fields | None
    envelope: Envelope | None
    advise: bool


class Paginate(Generic[P]):
    """How a client may page through the rows of a mapped class.

    ``Paginate(PostOut, model=Post, sort=("created_at", "title"), default_sort="-created_at")``

    - out: the model of one row of the answer: nothing else of a row leaves the database.
    - model: the mapped class.
    - sort: the fields that the client may sort by, by public name; a `Key` says where NULLs stand.
    - default_sort: the order where the client chooses none, of any fields; None for the ORDER BY
      of the select. In every case the primary key is appended, so that the order is total.
    - default_limit, max_limit: rows on a page. A higher limit is refused.
    - max_offset: how many rows pages by number may skip; None for as many as they like.
    - mode: "page" moves by numbers, "cursor" by tokens, "both" by what the client sends.
    - secret: what cursors are signed with, of 16 bytes at least, the same in all processes; several
      to change it (the first signs, all verify). "per-process" makes one up.
    - count: how to count: "exact", "estimated" (PostgreSQL), "none", `Capped`. By default pages
      with numbers are counted exactly, and those between cursors are not.
    - fields: which fields a request may choose, and how they are made; by default it gets all of
      out, with the plain fields of nested models.
    - envelope: the names in the answer.
    - advise: to warn (`PaginationWarning`), once for each query, where no index has its order and
      of other things that will matter once the table is large.

    Raises `InvalidOption` when it is made, for all that could not be kept when a request comes.
    """

    @overload
    def __init__(
        self: Paginate[Page[T]],
        out: type[T],
        *,
        model: type,
        mode: Literal["page"] = "page",
        secret: Secret | None = None,
        **options: Unpack[Options],
    ) -> None: ...

    @overload
    def __init__(
        self: Paginate[CursorPage[T]],
        out: type[T],
        *,
        model: type,
        mode: Literal["cursor"],
        secret: Secret,
        **options: Unpack[Options],
    ) -> None: ...

    @overload
    def __init__(
        self: Paginate[Page[T] | CursorPage[T]],
        out: type[T],
        *,
        model: type,
        mode: Literal["both"],
        secret: Secret,
        **options: Unpack[Options],
    ) -> None: ...

    def __init__(
        self,
        out: type,
        *,
        model: type,
        sort: Iterable[str | Key] = (),
        default_sort: str | None = None,
        default_limit: int = 20,
        max_limit: int = 100,
        mode: Mode = "page",
        secret: Secret | None = None,
        count: Counting | None = None,
        max_offset: int | None = None,
        fields: Fields | None = None,
        envelope: Envelope | None = None,
        advise: bool = True,
    ) -> None:
        # Here and no earlier: who pages through a list needs no SQLAlchemy.
        from hasten.pagination.sql import planning, running  # noqa: PLC0415

        self._planning = planning
        self._running = running
        self.out: Final = out
        self.model: Final = model
        self.limits: Final = Limits(default_limit, max_limit, max_offset, mode)
        self.fields: Final = fields or _all_of(out, model)
        self.envelope: Final = envelope or Envelope()
        if self.fields.model is not model:
            raise InvalidOption("fields", self.fields.model, f"fields of {model.__name__}")
        self._mapper = planning.mapper_of(model)
        self._count_pages = to_counting(count or "exact")
        self._count_stretches = to_counting(count or "none")
        self._keys = _to_keys(secret, mode)
        self._attributes = _sortable(self.fields.allowed)
        self._ruled: set[str] = set()
        self._sorts = dict(self._to_sorts(sort))
        self._default_order = self._to_order(default_sort)
        self._plans = planning.Plans(
            self._mapper,
            self.fields,
            self._attributes,
            ruled=self._ruled,
            advise=advise,
        )
        if self._keys is not None:
            names = [key.name for key in (*self._sorts.values(), *self._default_order)]
            planning.check_in_cursor(
                self._mapper, [self._attributes[name] for name in names], "sort"
            )

    @property
    def sorts(self) -> tuple[str, ...]:
        """The names that the client may sort by."""
        return tuple(self._sorts)

    def parse(self, query: str | Iterable[tuple[str, str]] | MultiItems) -> PageParams:
        """What a request asks for. Raises `InvalidParameter`.

        query is the query of the URL: its text, its pairs, or what a framework made of it.
        """
        return params.parse(
            _pairs(query),
            self.limits,
            sorts=self._sorts,
            default_order=self._default_order,
            keys=self._keys,
        )

    async def page(
        self,
        db: AsyncExecutor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """The page of a select: ``select(Post).where(Post.published)``.

        fields is what each row holds, of `fields` (None: its default). scope is whose rows these
        are, where the select does not say it: a cursor of one scope is refused in every other.
        Raises `InvalidParameter` (400) for a cursor of another query, before any SQL; and
        `InvalidOption` for a select that cannot be paged.
        """
        return await self._running.run_async(db, self._steps(db, statement, q, fields, scope))

    def page_sync(
        self,
        db: Executor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        """The same on a session or connection that does not wait."""
        return self._running.run(db, self._steps(db, statement, q, fields, scope))

    def of(self, items: Sequence[object], q: PageParams) -> Page[Any]:
        """The page of what is in memory: dicts by public name, or objects by attribute.

        Pages with numbers only. What an ORM has loaded is refused: the database can cut it, too,
        and need not send what is not shown.
        """
        if q.page is None:
            raise InvalidOption("items", type(items).__name__, "a select, where mode='cursor'")
        _check_in_memory(items)
        chosen = self.fields.allowed.default
        ordered = _sorted(items, q.order, self._attributes)
        rows = [_row_of(item, chosen) for item in ordered[q.offset : q.offset + q.limit]]
        total = len(items)
        return Page(rows, q.page, q.limit, Count(total), q.offset + q.limit < total)

    def encode(self, page: Page[Any] | CursorPage[Any]) -> bytes:
        """The JSON of an answer. Its rows are written as they are, not validated a second time."""
        return encode(self.envelope.wrap(page))

    def link(
        self, page: Page[Any] | CursorPage[Any], q: PageParams, *, path: str = "", origin: str = ""
    ) -> str | None:
        """The value of the Link header of an answer, None for none. See `link_header`."""
        if isinstance(page, Page):
            links = page_links(q, page.count, has_more=page.has_more)
        else:
            links = cursor_links(q, prev_cursor=page.prev_cursor, next_cursor=page.next_cursor)
        return link_header(links, path=path, origin=origin)

    # Reading -------------------------------------------------------------------------------------

    def _steps(
        self,
        db: Executor | AsyncExecutor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None,
        scope: object,
    ) -> Steps[P]:
        chosen = self.fields.allowed.default if fields is None else fields
        plan = self._plans.of(statement, chosen, q.order)
        if q.page is not None:
            dialect = self._running.dialect_of(db, plan.reading)
            return cast("Steps[P]", self._numbered(plan, dialect, q, q.page))
        if self._keys is None:
            raise InvalidOption("mode", self.limits.mode, "'cursor' or 'both', to move by cursor")
        plan.check_shown()
        mark = fingerprint("cursor", self._mapper.class_.__name__, scope, plan.parts())
        if q.cursor is not None:
            q.cursor.check(mark)
        dialect = self._running.dialect_of(db, plan.reading)
        return cast("Steps[P]", self._stretch(plan, dialect, q, _Signer(self._keys, mark)))

    def _numbered(self, plan: Plan, dialect: str, q: PageParams, number: int) -> Steps[Page[Any]]:
        found = yield from plan.numbered(
            dialect, limit=q.limit, offset=q.offset, count=self._count_pages
        )
        count = Count(found.total, found.relation or "eq").with_page(
            q.offset, len(found.rows), has_more=found.has_more
        )
        return Page(found.rows, number, q.limit, count, found.has_more)

    def _stretch(
        self, plan: Plan, dialect: str, q: PageParams, signer: _Signer
    ) -> Steps[CursorPage[Any]]:
        cursor = q.cursor or Cursor(())
        # A cursor without values stands before the first row, or behind the last one.
        position = cursor.values or None
        found = yield from plan.stretch(
            dialect, position, limit=q.limit, backwards=cursor.backwards
        )
        if found.first is not None and position in (found.first, found.last):
            raise InvalidOption(
                "sort",
                [key.name for key in q.order],
                "keys whose values compare as they were read: this page begins at its own cursor",
            )
        count = NOT_COUNTED
        if self._count_stretches != "none":
            total, relation = yield from plan.total(dialect, self._count_stretches)
            # Estimates, and counts before somebody inserted: what is on the page is there.
            count = Count(max(total, len(found.rows)), relation)
        is_before = found.has_more if cursor.backwards else position is not None
        is_behind = position is not None if cursor.backwards else found.has_more
        return CursorPage(
            found.rows,
            q.limit,
            next_cursor=signer.sign(found.last, backwards=False) if is_behind else None,
            prev_cursor=signer.sign(found.first, backwards=True) if is_before else None,
            count=count,
        )

    # Making --------------------------------------------------------------------------------------

    def _to_sorts(self, sort: Iterable[str | Key]) -> Iterable[tuple[str, Key]]:
        if isinstance(sort, str):
            raise InvalidOption("sort", sort, f"several names: ({sort!r},)")
        for each in sort:
            key = self._to_key(each if isinstance(each, str) else each.name, "sort")
            if isinstance(each, Key):
                self._ruled.add(key.name)
            yield key.name, key if isinstance(each, str) else replace(key, nulls=each.nulls)

    def _to_key(self, name: str, option: str) -> Key:
        if name not in self._attributes:
            raise InvalidOption(
                option, name, f"plain fields of the answer: {', '.join(self._attributes)}"
            )
        nullable = self._planning.is_nullable(self._mapper, self._attributes[name])
        return Key(name, nullable=nullable)

    def _to_order(self, default_sort: str | None) -> Order:
        if default_sort is None:
            return ()
        known = {name: self._to_key(name, "default_sort") for name in self._attributes}
        try:
            return parse_sort(default_sort, known | self._sorts, parameter="default_sort")
        except InvalidParameter as error:
            raise InvalidOption("default_sort", default_sort, str(error)) from None


class _Signer:
    """Makes the tokens of one query."""

    def __init__(self, keys: Keys, mark: bytes) -> None:
        self._keys = keys
        self._mark = mark

    def sign(self, position: tuple[object, ...] | None, *, backwards: bool) -> str:
        return self._keys.sign(Cursor(position or (), backwards), self._mark)


# Options ------------------------------------------------------------------------------------------


def _all_of(out: type, model: type) -> Fields:
    """All that is in a model, so that a row is a whole one of it."""
    allowed = Allowed(out)
    return Fields(out, model=model, default=tuple(allowed.fields))


def _sortable(allowed: Allowed) -> dict[str, str]:
    """The attributes of the plain fields, by public name."""
    return {
        field.name: field.attribute
        for field in allowed.fields.values()
        if field.relation is None and not field.is_computed
    }


def _to_keys(secret: Secret | None, mode: Mode) -> Keys | None:
    if secret == PER_PROCESS:
        secret = secrets.token_bytes(32)
    if secret is None:
        if mode == "page":
            return None
        raise InvalidOption(
            "secret",
            None,
            "a secret of at least 16 random bytes to sign cursors with, the same in all processes; "
            "or 'per-process', where there is one process only",
        )
    return Keys(secret)


def _pairs(query: str | Iterable[tuple[str, str]] | MultiItems) -> Sequence[tuple[str, str]]:
    if isinstance(query, str):
        return parse_qsl(query.removeprefix("?"), keep_blank_values=True)
    if hasattr(query, "multi_items"):
        return list(query.multi_items())
    return list(query)


# In memory ----------------------------------------------------------------------------------------


def _check_in_memory(items: object) -> None:
    is_of_orm = type(items).__module__.partition(".")[0] == "sqlalchemy"
    if isinstance(items, str | bytes) or not isinstance(items, Sequence) or is_of_orm:
        raise InvalidOption("items", type(items).__name__, "a list; for a select, page()")
    if any(hasattr(item, "_sa_instance_state") or _is_row(item) for item in items[:1]):
        raise InvalidOption(
            "items", f"{type(items).__name__} of rows", "page() with the select that they came from"
        )


def _is_row(item: object) -> bool:
    return type(item).__module__.partition(".")[0] == "sqlalchemy"


def _sorted(
    items: Sequence[object], order: Order, attributes: Mapping[str, str]
) -> Sequence[object]:
    for key in reversed(order):
        pairs = [(_value_of(item, key.name, attributes[key.name]), item) for item in items]
        known: list[Any] = [pair for pair in pairs if pair[0] is not None]
        unknown = [item for value, item in pairs if value is None]
        # Sorted in turn from the last key on: sorting is stable, in both directions.
        known.sort(key=lambda pair: pair[0], reverse=key.descending)
        found = [item for _, item in known]
        items = unknown + found if key.nulls == "first" else found + unknown
    return items


def _row_of(item: object, chosen: FieldSet) -> Row:
    row: Row = {}
    for field, inner in chosen.members:
        value: Any = _value_of(item, field.name, field.attribute)
        if inner is None or value is None:
            row[field.name] = value
        elif field.many:
            row[field.name] = [_row_of(each, inner) for each in value]
        else:
            row[field.name] = _row_of(value, inner)
    return row


def _value_of(item: object, name: str, attribute: str) -> object:
    found: object = item[name] if isinstance(item, Mapping) else getattr(item, attribute)
    return found
