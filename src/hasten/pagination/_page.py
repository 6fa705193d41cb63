"""Pages, and the JSON responses that are made of them.

A response is ``{"data": [...], "pagination": {"page": 1, "limit": 20, "total": 42}}``. Two more
keys appear only where they are needed: "total_relation" if the total is not exact, and "has_more"
if the rows were not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, get_args

from hasten._responses import EncodedResponse, RequestLike, make_etag
from hasten.errors import InvalidOption
from hasten.fields._partial import Row, is_partial, unwrap_partial
from hasten.fields._rows import encode
from hasten.pagination._counts import NOT_COUNTED, Count, Relation
from hasten.pagination._links import format_link_header, make_cursor_links, make_page_links
from hasten.pagination._params import PageParams

T = TypeVar("T")


class _BasePage:
    """The base class of pages: equality, ``repr()`` and the response.

    Pages are not dataclasses, because pydantic would ignore ``__get_pydantic_core_schema__`` of a
    generic dataclass.
    """

    __slots__ = ("_responder", "etag", "not_modified")
    __match_args__: ClassVar[tuple[str, ...]] = ()
    __hash__ = None  # type: ignore[assignment]

    _name: ClassVar[str]

    etag: str | None
    """The ETag that ``version=`` of the paginator produced; None without that option."""
    not_modified: bool
    """Whether the client has the current version: no rows were read, and the response is 304."""
    _responder: PageResponder | None

    def response(self, request: RequestLike | None = None) -> EncodedResponse:
        """Return the JSON response with its headers.

        If request is given and its If-None-Match names the ETag, the response is 304. The result is
        an ASGI application, so every ASGI framework can send it. For Django, use its ``body``,
        ``status`` and ``headers``.
        """
        response = self._responder(self) if self._responder else _make_default_response(self)
        return response if request is None else response.to(request)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__match_args__)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{self._name}({parts})"


class Page(_BasePage, Generic[T]):
    """A page by number. T is the model of one row.

    In FastAPI, the annotation ``-> Page[PostOut]`` documents the response. A returned page is
    encoded without being validated again.
    """

    __slots__ = __match_args__ = ("data", "page", "limit", "count", "has_more")

    _name = "Page"

    def __init__(
        self, data: list[Row], page: int, limit: int, count: Count, has_more: bool
    ) -> None:
        self.data = data
        self.page = page
        self.limit = limit
        self.count = count
        self.has_more = has_more
        self.etag = None
        self.not_modified = False
        self._responder = None

    @property
    def total(self) -> int | None:
        """The number of rows on all pages; None if they were not counted."""
        return self.count.total

    @property
    def total_relation(self) -> Relation:
        """How the total relates to the number of rows: "eq", "gte" (at least) or "estimate"."""
        return self.count.relation

    def pagination(self) -> dict[str, object]:
        """Return the ``pagination`` object of the response: page, limit, total and so on."""
        about: dict[str, object] = {"page": self.page, "limit": self.limit}
        if self.count.total is None:
            about["has_more"] = self.has_more
        else:
            _add_total_keys(about, self.count)
        return about

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return _make_page_schema(source, handler, _IN_PAGE)


class CursorPage(_BasePage, Generic[T]):
    """A page by cursor, with the cursors of the next and the previous page.

    T is the model of one row.
    """

    __slots__ = __match_args__ = ("data", "limit", "next_cursor", "prev_cursor", "count")

    _name = "CursorPage"

    def __init__(
        self,
        data: list[Row],
        limit: int,
        next_cursor: str | None,
        prev_cursor: str | None,
        count: Count = NOT_COUNTED,
    ) -> None:
        """Create a page. next_cursor is None on the last page, prev_cursor on the first one."""
        self.data = data
        self.limit = limit
        self.next_cursor = next_cursor
        self.prev_cursor = prev_cursor
        self.count = count
        self.etag = None
        self.not_modified = False
        self._responder = None

    @property
    def has_more(self) -> bool:
        """Whether there is a next page."""
        return self.next_cursor is not None

    @property
    def total(self) -> int | None:
        """The number of rows on all pages; None if they were not counted."""
        return self.count.total

    @property
    def total_relation(self) -> Relation:
        """How the total relates to the number of rows: "eq", "gte" (at least) or "estimate"."""
        return self.count.relation

    def pagination(self) -> dict[str, object]:
        """Return the ``pagination`` object of the response: limit, cursors, total and so on."""
        about: dict[str, object] = {
            "limit": self.limit,
            "next_cursor": self.next_cursor,
            "prev_cursor": self.prev_cursor,
            "has_more": self.has_more,
        }
        if self.count.total is not None:
            _add_total_keys(about, self.count)
        return about

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return _make_page_schema(source, handler, _IN_CURSOR_PAGE)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The names of the keys in the JSON object around the rows of a page.

    For example, ``Envelope(data="items", pagination="meta", names={"total": "count"})``. Raises
    `InvalidOption` if two keys have the same name.
    """

    data: str = "data"
    """The key of the list of rows."""
    pagination: str = "pagination"
    """The key of the object with the page number, the total and so on."""
    names: Mapping[str, str] = field(default_factory=dict)
    """New names for keys inside the pagination object, by their default name."""

    def __post_init__(self) -> None:
        if self.data == self.pagination:
            raise InvalidOption("pagination", self.pagination, "different from data=")
        unknown = [name for name in self.names if name not in _KEYS]
        if unknown:
            raise InvalidOption("names", unknown[0], f"one of {', '.join(_KEYS)}")
        if len({self.names.get(key, key) for key in _KEYS}) < len(_KEYS):
            raise InvalidOption("names", dict(self.names), "different names for different keys")

    def wrap(self, page: Page[T] | CursorPage[T]) -> dict[str, object]:
        """Return the body of the response as a dict, before it is encoded as JSON."""
        return {self.data: page.data, self.pagination: self.make_pagination_object(page)}

    def make_pagination_object(self, page: Page[T] | CursorPage[T]) -> dict[str, object]:
        """Return the pagination object of the response, with the key names of this envelope."""
        names = self.names
        if not names:
            return page.pagination()
        return {names.get(key, key): value for key, value in page.pagination().items()}


class PageResponder:
    """Builds the response of a page: its status, headers and JSON body."""

    __slots__ = ("_envelope", "_has_etag", "_q")

    def __init__(self, envelope: Envelope, q: PageParams, *, has_etag: bool) -> None:
        """Build responses with the key names of the envelope, and with links for the request q.

        If has_etag, a response gets an ETag that is computed from its body.
        """
        self._envelope = envelope
        self._q = q
        self._has_etag = has_etag

    def __call__(self, page: Any) -> EncodedResponse:
        status, headers = self.make_status_and_headers(page)
        body = b"" if page.not_modified else encode(self._envelope.wrap(page))
        if self._has_etag and page.etag is None:
            headers["etag"] = make_etag(body)
        return EncodedResponse(body, status, headers)

    def make_status_and_headers(self, page: Any) -> tuple[int, dict[str, str]]:
        """Return the status code, and the headers that can be set before the body is known."""
        if page.not_modified:
            assert page.etag is not None
            return 304, {"etag": page.etag}
        headers = dict(_JSON)
        link = make_link_header(page, self._q)
        if link is not None:
            headers["link"] = link
        if page.etag is not None:
            headers["etag"] = page.etag
        return 200, headers


def make_link_header(
    page: Page[Any] | CursorPage[Any], q: PageParams, *, path: str = "", origin: str = ""
) -> str | None:
    """Return the value of the Link header of a page; None if it is the only page.

    path and origin are described in `format_link_header`.
    """
    if isinstance(page, Page):
        links = make_page_links(q, page.count, has_more=page.has_more)
    else:
        links = make_cursor_links(q, prev_cursor=page.prev_cursor, next_cursor=page.next_cursor)
    return format_link_header(links, path=path, origin=origin)


_JSON: Final = {"content-type": "application/json"}


def _make_default_response(page: Any) -> EncodedResponse:
    """Return the response of a page that no paginator built.

    It has the default envelope and no Link header.
    """
    return EncodedResponse(encode(Envelope().wrap(page)), 200, dict(_JSON))


_KEYS: Final = tuple("page limit total total_relation has_more next_cursor prev_cursor".split())


def _add_total_keys(pagination_object: dict[str, object], count: Count) -> None:
    pagination_object["total"] = count.total
    if count.relation != "eq":
        pagination_object["total_relation"] = count.relation


# Schemas for pydantic-core, written as dicts, because pydantic may not be installed ---------------

_INT: Final = {"type": "int"}
_BOOL: Final = {"type": "bool"}
_TOKEN: Final = {"type": "nullable", "schema": {"type": "str"}}
_RELATION: Final = {"type": "literal", "expected": ["eq", "gte", "estimate"]}

_PaginationKeys: TypeAlias = Mapping[str, tuple[Mapping[str, object], bool]]
"""The keys of an object: the schema of each value, and whether the key is always present."""

_IN_PAGE: Final[_PaginationKeys] = {
    "page": (_INT, True),
    "limit": (_INT, True),
    "total": (_INT, False),
    "total_relation": (_RELATION, False),
    "has_more": (_BOOL, False),
}

_IN_CURSOR_PAGE: Final[_PaginationKeys] = {
    "limit": (_INT, True),
    "next_cursor": (_TOKEN, True),
    "prev_cursor": (_TOKEN, True),
    "has_more": (_BOOL, True),
    "total": (_INT, False),
    "total_relation": (_RELATION, False),
}


def _make_page_schema(
    page_type: Any, handler: Any, pagination_keys: _PaginationKeys, envelope: Envelope | None = None
) -> dict[str, Any]:
    """Return a pydantic-core schema that documents the response of a page.

    pagination_keys are the keys of the pagination object, with their schemas. Pages are not
    validated. page_type and handler are the arguments of ``__get_pydantic_core_schema__``.
    """
    envelope = envelope or Envelope()
    (of,) = get_args(page_type) or (Any,)
    renamed = {envelope.names.get(key, key): schema for key, schema in pagination_keys.items()}
    pagination = _make_object_schema("Pagination", renamed)
    rows = {"type": "list", "items_schema": handler.generate_schema(of)}
    parts = {envelope.data: (rows, True), envelope.pagination: (pagination, True)}
    whole = _make_object_schema(f"Page[{_type_name(of)}]", parts)
    if envelope == Envelope():
        # Pydantic shortens a ref of this form to a readable name in the OpenAPI document.
        kind = "Page" if pagination_keys is _IN_PAGE else "CursorPage"
        whole["ref"] = f"{__name__}.{kind}:0[{_make_schema_ref(of)}]"
    return {
        "type": "function-wrap",
        "function": {"type": "no-info", "function": lambda page, _: page},
        "schema": whole,
        "serialization": {"type": "function-plain", "function": envelope.wrap},
    }


def _type_name(item_type: Any) -> str:
    if is_partial(item_type):
        return f"Partial[{_type_name(unwrap_partial(item_type))}]"
    return getattr(item_type, "__name__", "object")


def _make_schema_ref(item_type: Any) -> str:
    """Return a string that identifies a class, in the form of pydantic's own schema references."""
    if is_partial(item_type):
        return f"{__name__}.Partial:0[{_make_schema_ref(unwrap_partial(item_type))}]"
    return f"{getattr(item_type, '__module__', '')}.{_type_name(item_type)}:{id(item_type)}"


def make_response_model(envelope: Envelope, row_model: Any, *, by_cursor: bool) -> type:
    """Return a class whose pydantic schema documents a page in an envelope with other key names.

    row_model is the model of one row. by_cursor selects the keys of `CursorPage` instead of `Page`.
    """
    kind: Any = CursorPage if by_cursor else Page
    keys = _IN_CURSOR_PAGE if by_cursor else _IN_PAGE

    class ResponseModel:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
            return _make_page_schema(kind[row_model], handler, keys, envelope)

    return ResponseModel


def _make_object_schema(title: str, pagination_keys: _PaginationKeys) -> dict[str, Any]:
    fields = {
        name: {"type": "typed-dict-field", "schema": dict(schema), "required": required}
        for name, (schema, required) in pagination_keys.items()
    }
    return {"type": "typed-dict", "fields": fields, "config": {"title": title}}
