"""Parameters of pages and fields as dependencies, and pages and rows as responses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from inspect import Parameter, Signature
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Unpack,
    cast,
    get_args,
    overload,
)

from fastapi import HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyQuery
from msgspec import json
from pydantic import AliasChoices, BaseModel, WithJsonSchema
from pydantic_core import SchemaSerializer, core_schema

from hasten import fields as _fields
from hasten import pagination as _pagination
from hasten._asgi import Headers, Receive, Scope, Send, header_values
from hasten._responses import etag_of, send_response
from hasten.errors import InvalidParameter, RowNotFound
from hasten.fields import FieldSet, Partial, Row, encode
from hasten.pagination import CursorPage, Envelope, Page, PageParams
from hasten.pagination._page import make_response_model

if TYPE_CHECKING:
    from hasten.pagination import PaginatorOptions, Secret

P = TypeVar("P")
T = TypeVar("T")
R = TypeVar("R")

Schema = Mapping[str, Any]


class Paginate(_pagination.Paginator[P]):
    """`hasten.pagination.Paginator` with `params`, whose pages and errors are responses.

    With a custom envelope, use ``response_model=Posts.response_model``.
    """

    # A type checker would take the inherited overloads to make a Paginator, not a Paginate.
    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Paginate[Page[T]],
            schema: type[T],
            *,
            mode: Literal["page"] = "page",
            secret: Secret | None = None,
            **options: Unpack[PaginatorOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Paginate[CursorPage[T]],
            schema: type[T],
            *,
            mode: Literal["cursor"],
            secret: Secret,
            **options: Unpack[PaginatorOptions],
        ) -> None: ...

        @overload
        def __init__(
            self: Paginate[Page[T] | CursorPage[T]],
            schema: type[T],
            *,
            mode: Literal["both"],
            secret: Secret,
            **options: Unpack[PaginatorOptions],
        ) -> None: ...

        def __init__(self, schema: type, **options: Any) -> None: ...

    @cached_property
    def params(self) -> Callable[..., PageParams]:
        """The dependency that parses the parameters of a page: ``Depends(Posts.params)``."""

        def read(request: Request) -> PageParams:
            known = () if self._known_names is None else _names_of_route(request)
            return self.parse(request, known=known)

        return _dependency(read, self._described())

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The responses except 422, for ``responses=`` of a route."""
        headers = {"Link": _header("Links to the first, previous, next and last page. RFC 8288.")}
        responses: dict[int | str, dict[str, Any]] = {}
        if self._etag or self._version:
            headers["ETag"] = _ETAG
            responses[304] = _NOT_MODIFIED
        if self._limits.mode != "page":
            responses[400] = {
                "description": "The cursor is invalid or belongs to another query.",
                "content": {"application/json": {"schema": _DETAILS}},
            }
        return {200: {"headers": headers}, **responses}

    @property
    def response_model(self) -> Any:
        """The model of the responses, with the names of this envelope."""
        page, cursor_page = (
            make_response_model(self.envelope, self.schema, by_cursor=by_cursor)
            for by_cursor in (False, True)
        )
        return {"page": page, "cursor": cursor_page, "both": page | cursor_page}[self._limits.mode]

    async def _select_page(self, *arguments: Any) -> P:
        with http_errors():
            return await super()._select_page(*arguments)

    async def _source_page(self, *arguments: Any) -> P:
        with http_errors():
            return await super()._source_page(*arguments)

    def _with_responder(self, page: Any, q: PageParams) -> P:
        super()._with_responder(page, q)
        response = _PageResponse(page) if isinstance(page, Page) else _CursorPageResponse(page)
        response._begin(*page._responder.head(page), has_etag=self._etag)
        response._envelope = self.envelope
        return cast("P", response)

    def _described(self) -> Mapping[str, Schema]:
        limits = self._limits
        about: dict[str, dict[str, Any]] = {}
        if limits.mode != "cursor":
            about["page"] = {
                "type": "integer", "minimum": 1,
                "description": "The number of the page, from 1.",
            }  # fmt: skip
        if limits.mode == "page":
            # With mode="both", page cannot be combined with cursor, so clients must not send it.
            about["page"]["default"] = 1
        about["limit"] = {
            "type": "integer", "minimum": 1, "maximum": limits.max_limit,
            "default": limits.default_limit,
            "description": f"The number of rows on a page; {limits.default_limit} by default.",
        }  # fmt: skip
        if self.sort_names:
            names = [sign + name for name in self.sort_names for sign in ("", "-")]
            about["sort"] = _choice(
                names, "The fields to sort by, in order of precedence; - is descending."
            )
        if limits.mode != "page":
            about["cursor"] = {
                "type": "string",
                "description": "next_cursor or prev_cursor of another page; empty for the first.",
            }
        if self._is_choosable:
            about[self.fields.parameter] = _described_fields(self.fields)
        return about


class Fields(_fields.FieldSelector[T]):
    """`hasten.fields.FieldSelector` with `params`, whose rows and errors are responses.

    The response for a missing row is 404.
    """

    @cached_property
    def params(self) -> Callable[..., FieldSet]:
        """The dependency that parses the fields of a request: ``Depends(Users.params)``."""

        def read(request: Request) -> FieldSet:
            known = _names_of_route(request) if self._refuses_unknown else ()
            return self.parse(request, known=known)

        return _dependency(read, {self.parameter: _described_fields(self)})

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The responses except 422, for ``responses=`` of a route."""
        detail = {"type": "object", "properties": {"detail": {"type": "string"}}}
        responses: dict[int | str, dict[str, Any]] = {
            404: {
                "description": "There is no such row.",
                "content": {"application/json": {"schema": detail}},
            }
        }
        if self.etag:
            responses |= {200: {"headers": {"ETag": _ETAG}}, 304: _NOT_MODIFIED}
        return responses

    async def _one(self, *arguments: Any) -> Partial[T]:
        with http_errors():
            return await super()._one(*arguments)

    def _partial(self, row: Row) -> Partial[T]:
        return _RowResponse(super()._partial(row))


# Responses ----------------------------------------------------------------------------------------

_OF_DEPENDENCIES: Final = "hasten.fastapi.response"
"""The key in the scope of the response whose headers and status dependencies set."""

_ONLY_ONCE: Final = frozenset({b"content-type", b"content-length", b"etag"})


class _Response(Response):
    """A response that is encoded when it is sent, with all changes of the handler."""

    def _begin(self, status: int, headers: Mapping[str, str], *, has_etag: bool) -> None:
        """Replaces the constructor, which requires the body. has_etag adds an ETag of its bytes."""
        self.status_code = status
        self.background = None
        self.raw_headers = [
            (key.encode(), value.encode("latin-1")) for key, value in headers.items()
        ]
        self._has_etag = has_etag
        self._body: bytes | memoryview | None = None

    def __getstate__(self) -> Any:
        # A copy has its own headers.
        state: Any = super().__getstate__()
        own, slots = state if isinstance(state, tuple) else (state, {})
        own = {key: value for key, value in own.items() if key != "_headers"}
        own["raw_headers"] = list(own["raw_headers"])
        return own, slots

    def _encoded(self) -> bytes:
        raise NotImplementedError

    @property
    def body(self) -> bytes | memoryview:
        return self._encoded() if self._body is None else self._body

    @body.setter
    def body(self, body: bytes | memoryview) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers = self.status_code, self.raw_headers
        body = bytes(self.body)
        if self._has_etag and header_values(headers, b"etag") is None:
            headers = [*headers, (b"etag", etag_of(body).encode())]
        # FastAPI does this for everything that is not a response.
        others: Response | None = scope.get(_OF_DEPENDENCIES)
        if status == 200:
            of_route = getattr(scope.get("route"), "status_code", None)
            status = (others and others.status_code) or of_route or 200
        if others is not None and others.raw_headers:
            headers = _with_others(headers, others.raw_headers)
        await send_response(scope, send, status, headers, body)
        if self.background is not None:
            await self.background()


def _with_others(own: Headers, others: Headers) -> Headers:
    """Return both lists of headers. A header that may appear only once is taken from others."""
    instead = _ONLY_ONCE.intersection(name for name, _ in others)
    return [*(each for each in own if each[0] not in instead), *others]


class _AnyPageResponse(_Response):
    _envelope: Envelope
    not_modified: bool

    def _encoded(self) -> bytes:
        return b"" if self.not_modified else encode(self._wrapped())

    def _wrapped(self) -> dict[str, object]:
        page: Any = self
        return self._envelope.wrap(page)

    # FastAPI converts a page within another response to a dict by these two methods; pydantic does
    # so if the handler is annotated with Any.

    __pydantic_serializer__ = SchemaSerializer(
        core_schema.any_schema(serialization=core_schema.plain_serializer_function_ser_schema(dict))
    )

    def keys(self) -> Sequence[str]:
        return self._envelope.data, self._envelope.pagination

    def __getitem__(self, key: str) -> object:
        return json.decode(encode(self._wrapped()[key]))


class _PageResponse(Page[Any], _AnyPageResponse):
    """A page that is its own response."""

    def __init__(self, page: Page[Any]) -> None:
        Page.__init__(self, page.data, page.page, page.limit, page.count, page.has_more)
        _take_over(self, page)


class _CursorPageResponse(CursorPage[Any], _AnyPageResponse):
    """A page by cursor that is its own response."""

    def __init__(self, page: CursorPage[Any]) -> None:
        CursorPage.__init__(
            self, page.data, page.limit, page.next_cursor, page.prev_cursor, page.count
        )
        _take_over(self, page)


class _RowResponse(Partial[Any], _Response):
    """A row that is its own response."""

    # A dict has no hash, and nothing uses the hash of a response.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, row: Partial[Any]) -> None:
        Partial.__init__(self, row)
        self.has_etag = row.has_etag
        self._begin(200, _JSON, has_etag=row.has_etag)

    def _encoded(self) -> bytes:
        return encode(self)


_JSON: Final = {"content-type": "application/json"}


def _take_over(response: Any, page: Any) -> None:
    response.etag = page.etag
    response.not_modified = page.not_modified
    response._responder = page._responder


@contextmanager
def http_errors() -> Iterator[None]:
    """Convert `InvalidParameter` and `RowNotFound` to errors of FastAPI: 422, 400 or 404."""
    try:
        yield
    except InvalidParameter as error:
        detail = _detail(error)
        if error.status == 422:
            raise RequestValidationError([detail]) from error
        raise HTTPException(error.status, [detail]) from error
    except RowNotFound as error:
        raise HTTPException(404, str(error)) from error


def _detail(error: InvalidParameter) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "type": error.code,
        "loc": ("query", error.parameter),
        "msg": str(error),
        "input": error.value,
    }
    if bounds := _bounds(error):
        detail["ctx"] = bounds
    return detail


_MAXIMA: Final = {"too_many": "max_length", "too_long": "max_length", "too_deep": "max_depth"}


def _bounds(error: InvalidParameter) -> dict[str, Any]:
    """Return the bounds that a value violates, by their names in pydantic."""
    bounds: dict[str, Any] = {}
    if error.minimum is not None:
        bounds["ge"] = error.minimum
    if error.maximum is not None:
        bounds[_MAXIMA.get(error.code, "le")] = error.maximum
    if error.allowed:
        *rest, last = map(repr, error.allowed)
        bounds["expected"] = f"{', '.join(rest)} or {last}" if rest else last
    return bounds


# Routes -------------------------------------------------------------------------------------------


class _Names(Collection[str]):
    """The query parameters of a route. Parameters hidden from OpenAPI are known but not listed."""

    def __init__(self, declared: Iterable[tuple[str, bool]]) -> None:
        self._is_shown = dict(declared)

    def __contains__(self, name: object) -> bool:
        return name in self._is_shown

    def __iter__(self) -> Iterator[str]:
        return (name for name, is_shown in self._is_shown.items() if is_shown)

    def __len__(self) -> int:
        return len(self._is_shown)


def _names_of_route(request: Request) -> _Names:
    """Return the names of the parameters of a route and its dependencies."""
    # FastAPI does not copy included routers: their own dependencies are only in the scope.
    included = request.scope.get("fastapi", {}).get("effective_route_context")
    own = getattr(request.scope.get("route"), "dependant", None)
    dependant = getattr(included, "dependant", own)
    return _Names(() if dependant is None else _declared(dependant))


def _declared(dependant: Any) -> Iterator[tuple[str, bool]]:
    """Yield the name of each query parameter, and whether OpenAPI shows it."""
    for field in dependant.query_params:
        for name in _names_in(field.field_info.annotation) or [field.alias]:
            yield name, getattr(field.field_info, "include_in_schema", True)
    if isinstance(dependant.call, APIKeyQuery):
        yield dependant.call.model.name, True
    for each in dependant.dependencies:
        yield from _declared(each)


def _names_in(annotation: Any) -> list[str]:
    """Return the names in a model of query parameters: ``Annotated[Filter, Query()]``."""
    found: list[str] = []
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            config = kind.model_config
            by_name = config.get("populate_by_name") or config.get("validate_by_name")
            for name, info in kind.model_fields.items():
                given = info.validation_alias
                aliases = given.choices if isinstance(given, AliasChoices) else [given]
                texts = [alias for alias in aliases if isinstance(alias, str)]
                found += [*texts, name] if by_name or not texts else texts
    return found


# Descriptions -------------------------------------------------------------------------------------

_DETAILS: Final = {"$ref": "#/components/schemas/HTTPValidationError"}
"""FastAPI defines it for every route with parameters."""


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


_ETAG: Final = _header("The version of the response. RFC 9110, section 8.8.3.")

_NOT_MODIFIED: Final = {"description": "The client already has this version."}


def _choice(names: Sequence[str], description: str) -> dict[str, Any]:
    """Several of these names, separated by commas or in several parameters."""
    items = {"type": "string", "enum": list(names)}
    return {"type": "array", "items": items, "minItems": 1, "description": description}


def _described_fields(fields: _fields.FieldSelector[Any]) -> dict[str, Any]:
    default = str(fields.allowed.default)
    return _choice(
        list(fields.allowed.paths(fields.max_depth)),
        f"The fields to return; {default} by default. Separate with commas, nest as a(b,c).",
    )


_BESIDE: Final = ("default", "description")
"""Keys that FastAPI takes from the parameter, not from its schema."""


def _dependency(read: Callable[[Request], R], about: Mapping[str, Schema]) -> Callable[..., R]:
    """Return a dependency that declares the parameters for OpenAPI and parses the query itself.

    FastAPI's own parser would use the last value of a repeated parameter, and accept "1_0" as 10.
    """

    async def params(request: Request, response: Response, **_: object) -> Any:
        request.scope[_OF_DEPENDENCIES] = response
        with http_errors():
            return read(request)

    params.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter("request", Parameter.POSITIONAL_OR_KEYWORD, annotation=Request),
            Parameter("response", Parameter.POSITIONAL_OR_KEYWORD, annotation=Response),
            *(
                Parameter(
                    name,
                    Parameter.KEYWORD_ONLY,
                    default=schema.get("default"),
                    annotation=Annotated[
                        str | None,
                        WithJsonSchema(
                            {key: value for key, value in schema.items() if key not in _BESIDE}
                        ),
                        Query(description=schema["description"]),
                    ],
                )
                for name, schema in about.items()
            ),
        ]
    )
    return params  # type: ignore[return-value]
