"""A page, and the shape that it has in an answer.

``{"data": [...], "pagination": {"page": 1, "limit": 20, "total": 42}}``, and not a key more unless
it is news: how a total is meant that is not exact, and whether there is more where nobody counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, get_args

from hasten._answers import Answer, Asked
from hasten.errors import InvalidOption
from hasten.fields.partial import is_partial, whole_of
from hasten.fields.rows import encode
from hasten.pagination.counts import NOT_COUNTED, Count, Relation

T = TypeVar("T")

Rows: TypeAlias = list[dict[str, object]]
"""By public name, ready to be written; what is changed in them until then is written, too."""


class _Record:
    """Equal by its parts. No dataclass: of one with a type variable pydantic asks no schema."""

    __slots__ = ("_answer", "etag", "not_modified")
    __match_args__: ClassVar[tuple[str, ...]] = ()
    __hash__ = None  # type: ignore[assignment]

    etag: str | None
    """The version that it was read as, where one was asked for."""
    not_modified: bool
    """The client has that version already: nothing was read, and the answer is 304."""
    _answer: Callable[[Any], Answer] | None
    """Makes its answer, of what it holds by then."""

    def response(self, request: Asked | None = None) -> Answer:
        """The answer as JSON, with its headers; with the request, 304 if the client has it already.

        Any ASGI framework can return it; for Django it has ``body``, ``status`` and ``headers``.
        """
        answer = self._answer(self) if self._answer else _plain_answer(self)
        return answer if request is None else answer.to(request)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__match_args__)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({parts})"


class Page(_Record, Generic[T]):
    """A page with a number, of rows as T describes them in an answer.

    In FastAPI ``-> Page[PostOut]`` says what is answered, and a page that is returned is written
    as it is: nothing of it is validated a second time.
    """

    __slots__ = __match_args__ = ("data", "page", "limit", "count", "has_more")

    def __init__(self, data: Rows, page: int, limit: int, count: Count, has_more: bool) -> None:
        self.data = data
        self.page = page
        self.limit = limit
        self.count = count
        self.has_more = has_more
        self.etag = None
        self.not_modified = False
        self._answer = None

    @property
    def total(self) -> int | None:
        """The number of rows on all pages, None if nobody counted."""
        return self.count.total

    @property
    def total_relation(self) -> Relation:
        return self.count.relation

    def pagination(self) -> dict[str, object]:
        """What an answer says beside the data."""
        about: dict[str, object] = {"page": self.page, "limit": self.limit}
        if self.total is None:
            return about | {"has_more": self.has_more}
        return about | _counted(self.count)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return _described(source, handler, _IN_PAGE)


class CursorPage(_Record, Generic[T]):
    """A page between two positions, of rows as T describes them in an answer."""

    __slots__ = __match_args__ = ("data", "limit", "next_cursor", "prev_cursor", "count")

    def __init__(
        self,
        data: Rows,
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
        self._answer = None

    @property
    def has_more(self) -> bool:
        return self.next_cursor is not None

    @property
    def total(self) -> int | None:
        """The number of rows on all pages, None if nobody counted."""
        return self.count.total

    @property
    def total_relation(self) -> Relation:
        return self.count.relation

    def pagination(self) -> dict[str, object]:
        """What an answer says beside the data."""
        about: dict[str, object] = {
            "limit": self.limit,
            "next_cursor": self.next_cursor,
            "prev_cursor": self.prev_cursor,
            "has_more": self.has_more,
        }
        return about | _counted(self.count)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return _described(source, handler, _IN_CURSOR_PAGE)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The names of what an answer holds. Raises `InvalidOption` if two are one.

    ``Envelope(data="items", pagination="meta", names={"total": "count"})``
    """

    data: str = "data"
    pagination: str = "pagination"
    names: Mapping[str, str] = field(default_factory=dict)
    """New names for the keys of the pagination."""

    def __post_init__(self) -> None:
        if self.data == self.pagination:
            raise InvalidOption("pagination", self.pagination, "another name than that of the data")
        unknown = [name for name in self.names if name not in _KEYS]
        if unknown:
            raise InvalidOption("names", unknown[0], f"one of {', '.join(_KEYS)}")
        if len({self.names.get(key, key) for key in _KEYS}) < len(_KEYS):
            raise InvalidOption("names", dict(self.names), "a name of its own for each key")

    def wrap(self, page: Page[T] | CursorPage[T]) -> dict[str, object]:
        """The answer as a dict: the data as it is, and what is said beside it."""
        return {self.data: page.data, self.pagination: self.about(page)}

    def about(self, page: Page[T] | CursorPage[T]) -> dict[str, object]:
        """What is said beside the data, by the names of this envelope."""
        names = self.names
        return {names.get(key, key): value for key, value in page.pagination().items()}


def _plain_answer(page: Any) -> Answer:
    """Of a page that was made by hand: in the usual envelope, and without links."""
    return Answer(encode(Envelope().wrap(page)), 200, {"content-type": "application/json"})


_KEYS: Final = tuple("page limit total total_relation has_more next_cursor prev_cursor".split())


def _counted(count: Count) -> dict[str, object]:
    if count.total is None:
        return {}
    if count.relation == "eq":
        return {"total": count.total}
    return {"total": count.total, "total_relation": count.relation}


# What pydantic asks a class for: its schemas are dicts, so none of it is imported -----------------

_INT: Final = {"type": "int"}
_BOOL: Final = {"type": "bool"}
_TOKEN: Final = {"type": "nullable", "schema": {"type": "str"}}
_RELATION: Final = {"type": "literal", "expected": ["eq", "gte", "estimate"]}

_About: TypeAlias = Mapping[str, tuple[Mapping[str, object], bool]]
"""Keys, with the schema of each and whether it is always there."""

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
    """The schema of an answer, through which a page goes untouched."""
    envelope = envelope or Envelope()
    (of,) = get_args(source) or (Any,)
    renamed = {envelope.names.get(key, key): said for key, said in keys.items()}
    pagination = _dict_of("Pagination", renamed)
    rows = {"type": "list", "items_schema": handler.generate_schema(of)}
    parts = {envelope.data: (rows, True), envelope.pagination: (pagination, True)}
    whole = _dict_of(f"Page[{_name_of(of)}]", parts)
    if envelope == Envelope():
        # In the form that pydantic makes a short name of, for the components of OpenAPI.
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
    """What pydantic takes for a page of such rows in such an envelope."""
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
