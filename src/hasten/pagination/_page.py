"""Pages, and their shape in a response.

``{"data": [...], "pagination": {"page": 1, "limit": 20, "total": 42}}``. Other keys appear only
where they add information: how a total relates to the number of rows, and whether there are more
rows if they were not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, get_args

from hasten._responses import EncodedResponse, RequestLike, etag_of
from hasten.errors import InvalidOption
from hasten.fields._partial import Row, is_partial, whole_of
from hasten.fields._rows import encode
from hasten.pagination._counts import NOT_COUNTED, Count, Relation
from hasten.pagination._links import cursor_links, link_header, page_links
from hasten.pagination._params import PageParams

T = TypeVar("T")


class _Record:
    """Equal by its parts. Not a dataclass, because pydantic ignores the schema of a generic one."""

    __slots__ = ("_responder", "etag", "not_modified")
    __match_args__: ClassVar[tuple[str, ...]] = ()
    __hash__ = None  # type: ignore[assignment]

    _name: ClassVar[str]

    etag: str | None
    """The ETag of the version, if ``version=`` is set."""
    not_modified: bool
    """Whether the client has this version: no row was read, and the response is 304."""
    _responder: Responder | None

    def response(self, request: RequestLike | None = None) -> EncodedResponse:
        """Return the response: JSON with its headers. With the request, 304 if it is unchanged.

        Any ASGI framework can return it; for Django it has ``body``, ``status`` and ``headers``.
        """
        response = self._responder(self) if self._responder else _plain_response(self)
        return response if request is None else response.to(request)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__match_args__)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{self._name}({parts})"


class Page(_Record, Generic[T]):
    """A page with a number, of rows with the fields of T.

    In FastAPI, ``-> Page[PostOut]`` describes the response, and a returned page is encoded without
    another validation.
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
        """The number of rows on all pages, None if they were not counted."""
        return self.count.total

    @property
    def total_relation(self) -> Relation:
        """How the total relates to the number of rows."""
        return self.count.relation

    def pagination(self) -> dict[str, object]:
        """Return what the response contains beside the data."""
        about: dict[str, object] = {"page": self.page, "limit": self.limit}
        if self.count.total is None:
            about["has_more"] = self.has_more
        else:
            _add_total(about, self.count)
        return about

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return _described(source, handler, _IN_PAGE)


class CursorPage(_Record, Generic[T]):
    """A page between two cursors, of rows with the fields of T."""

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
        """next_cursor is None on the last page, prev_cursor on the first."""
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
        """The number of rows on all pages, None if they were not counted."""
        return self.count.total

    @property
    def total_relation(self) -> Relation:
        """How the total relates to the number of rows."""
        return self.count.relation

    def pagination(self) -> dict[str, object]:
        """Return what the response contains beside the data."""
        about: dict[str, object] = {
            "limit": self.limit,
            "next_cursor": self.next_cursor,
            "prev_cursor": self.prev_cursor,
            "has_more": self.has_more,
        }
        if self.count.total is not None:
            _add_total(about, self.count)
        return about

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return _described(source, handler, _IN_CURSOR_PAGE)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The names of the keys in a response. Raises `InvalidOption` if two are equal.

    ``Envelope(data="items", pagination="meta", names={"total": "count"})``
    """

    data: str = "data"
    pagination: str = "pagination"
    names: Mapping[str, str] = field(default_factory=dict)
    """New names for the keys of the pagination."""

    def __post_init__(self) -> None:
        if self.data == self.pagination:
            raise InvalidOption("pagination", self.pagination, "a name other than that of data=")
        unknown = [name for name in self.names if name not in _KEYS]
        if unknown:
            raise InvalidOption("names", unknown[0], f"one of {', '.join(_KEYS)}")
        if len({self.names.get(key, key) for key in _KEYS}) < len(_KEYS):
            raise InvalidOption("names", dict(self.names), "a different name for each key")

    def wrap(self, page: Page[T] | CursorPage[T]) -> dict[str, object]:
        """Return the response as a dict: the data as it is, and the pagination."""
        return {self.data: page.data, self.pagination: self.about(page)}

    def about(self, page: Page[T] | CursorPage[T]) -> dict[str, object]:
        """Return the pagination, with the names of this envelope."""
        names = self.names
        if not names:
            return page.pagination()
        return {names.get(key, key): value for key, value in page.pagination().items()}


class Responder:
    """Makes the response of a page from its current rows."""

    __slots__ = ("_envelope", "_has_etag", "_q")

    def __init__(self, envelope: Envelope, q: PageParams, *, has_etag: bool) -> None:
        """With has_etag, the response gets an ETag computed from its body."""
        self._envelope = envelope
        self._q = q
        self._has_etag = has_etag

    def __call__(self, page: Any) -> EncodedResponse:
        status, headers = self.head(page)
        body = b"" if page.not_modified else encode(self._envelope.wrap(page))
        if self._has_etag and page.etag is None:
            headers["etag"] = etag_of(body)
        return EncodedResponse(body, status, headers)

    def head(self, page: Any) -> tuple[int, dict[str, str]]:
        """Return the status, and the headers that do not depend on the body."""
        if page.not_modified:
            assert page.etag is not None
            return 304, {"etag": page.etag}
        headers = dict(_JSON)
        link = link_of(page, self._q)
        if link is not None:
            headers["link"] = link
        if page.etag is not None:
            headers["etag"] = page.etag
        return 200, headers


def link_of(
    page: Page[Any] | CursorPage[Any], q: PageParams, *, path: str = "", origin: str = ""
) -> str | None:
    """Return the value of the Link header of a page. See `link_header`."""
    if isinstance(page, Page):
        links = page_links(q, page.count, has_more=page.has_more)
    else:
        links = cursor_links(q, prev_cursor=page.prev_cursor, next_cursor=page.next_cursor)
    return link_header(links, path=path, origin=origin)


_JSON: Final = {"content-type": "application/json"}


def _plain_response(page: Any) -> EncodedResponse:
    """Return the response of a page that the application built: default envelope, no links."""
    return EncodedResponse(encode(Envelope().wrap(page)), 200, dict(_JSON))


_KEYS: Final = tuple("page limit total total_relation has_more next_cursor prev_cursor".split())


def _add_total(about: dict[str, object], count: Count) -> None:
    about["total"] = count.total
    if count.relation != "eq":
        about["total_relation"] = count.relation


# Schemas for pydantic, which are dicts, so that pydantic is not imported --------------------------

_INT: Final = {"type": "int"}
_BOOL: Final = {"type": "bool"}
_TOKEN: Final = {"type": "nullable", "schema": {"type": "str"}}
_RELATION: Final = {"type": "literal", "expected": ["eq", "gte", "estimate"]}

_About: TypeAlias = Mapping[str, tuple[Mapping[str, object], bool]]
"""The schema of each key, and whether the key is always there."""

_IN_PAGE: Final[_About] = {
    "page": (_INT, True),
    "limit": (_INT, True),
    "total": (_INT, False),
    "total_relation": (_RELATION, False),
    "has_more": (_BOOL, False),
}

_IN_CURSOR_PAGE: Final[_About] = {
    "limit": (_INT, True),
    "next_cursor": (_TOKEN, True),
    "prev_cursor": (_TOKEN, True),
    "has_more": (_BOOL, True),
    "total": (_INT, False),
    "total_relation": (_RELATION, False),
}


def _described(
    source: Any, handler: Any, keys: _About, envelope: Envelope | None = None
) -> dict[str, Any]:
    """Return the schema of a response, which does not change or validate a page."""
    envelope = envelope or Envelope()
    (of,) = get_args(source) or (Any,)
    renamed = {envelope.names.get(key, key): schema for key, schema in keys.items()}
    pagination = _dict_of("Pagination", renamed)
    rows = {"type": "list", "items_schema": handler.generate_schema(of)}
    parts = {envelope.data: (rows, True), envelope.pagination: (pagination, True)}
    whole = _dict_of(f"Page[{_name_of(of)}]", parts)
    if envelope == Envelope():
        # From this form pydantic makes a short name for the components of OpenAPI.
        kind = "Page" if keys is _IN_PAGE else "CursorPage"
        whole["ref"] = f"{__name__}.{kind}:0[{_reference(of)}]"
    return {
        "type": "function-wrap",
        "function": {"type": "no-info", "function": lambda page, _: page},
        "schema": whole,
        "serialization": {"type": "function-plain", "function": envelope.wrap},
    }


def _name_of(kind: Any) -> str:
    if is_partial(kind):
        return f"Partial[{_name_of(whole_of(kind))}]"
    return getattr(kind, "__name__", "object")


def _reference(kind: Any) -> str:
    if is_partial(kind):
        return f"{__name__}.Partial:0[{_reference(whole_of(kind))}]"
    return f"{getattr(kind, '__module__', '')}.{_name_of(kind)}:{id(kind)}"


def described_in(envelope: Envelope, of: Any, *, by_cursor: bool) -> type:
    """Return a class that pydantic describes as a page of rows of a model in an envelope."""
    kind: Any = CursorPage if by_cursor else Page
    keys = _IN_CURSOR_PAGE if by_cursor else _IN_PAGE

    class Described:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
            return _described(kind[of], handler, keys, envelope)

    return Described


def _dict_of(title: str, keys: _About) -> dict[str, Any]:
    fields = {
        name: {"type": "typed-dict-field", "schema": dict(schema), "required": required}
        for name, (schema, required) in keys.items()
    }
    return {"type": "typed-dict", "fields": fields, "config": {"title": title}}
