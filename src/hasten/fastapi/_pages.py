"""Pagination and field selection for FastAPI: parameters as dependencies, pages as responses."""

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
    TypeAlias,
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
from hasten._asgi import Headers, Receive, Scope, Send, join_header_values
from hasten._responses import make_etag, send_response
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
    """A `hasten.pagination.Paginator` for FastAPI. Handlers can return its pages as responses.

    `params` is a dependency that parses the query parameters. Invalid parameters become FastAPI
    errors. With a custom envelope, use ``response_model=Posts.response_model``.
    """

    # The overloads are repeated, because the inherited ones create a Paginator for type checkers.
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
        """The dependency that parses page, limit, sort and cursor: ``Depends(Posts.params)``."""

        def parse_page(request: Request) -> PageParams:
            known = () if self._known_names is None else _find_parameter_names_of_route(request)
            return self.parse(request, known=known)

        return _make_dependency(parse_page, self._make_parameter_schemas())

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The OpenAPI responses for ``responses=`` of a route. FastAPI adds 422 by itself."""
        headers = {
            "Link": _make_header_description(
                "Links to the first, previous, next and last page. RFC 8288."
            )
        }
        responses: dict[int | str, dict[str, Any]] = {}
        if self._etag or self._version:
            headers["ETag"] = _ETAG_HEADER
            responses[304] = _NOT_MODIFIED
        if self._limits.mode != "page":
            responses[400] = {
                "description": "The cursor is invalid or belongs to another query.",
                "content": {"application/json": {"schema": _ERROR_SCHEMA}},
            }
        return {200: {"headers": headers}, **responses}

    @property
    def response_model(self) -> Any:
        """The response model for OpenAPI, with the key names of a custom envelope."""
        page, cursor_page = (
            make_response_model(self.envelope, self.schema, by_cursor=by_cursor)
            for by_cursor in (False, True)
        )
        return {"page": page, "cursor": cursor_page, "both": page | cursor_page}[self._limits.mode]

    async def _read_select_page(self, *arguments: Any) -> P:
        with http_errors():
            return await super()._read_select_page(*arguments)

    async def _read_source_page(self, *arguments: Any) -> P:
        with http_errors():
            return await super()._read_source_page(*arguments)

    def _attach_responder(self, page: Any, q: PageParams) -> P:
        """Return the page as a response of FastAPI, with its status and headers."""
        super()._attach_responder(page, q)
        response = _PageResponse(page) if isinstance(page, Page) else _CursorPageResponse(page)
        response._set_response_attributes(
            *page._responder.make_status_and_headers(page), has_etag=self._etag
        )
        response._envelope = self.envelope
        return cast("P", response)

    def _make_parameter_schemas(self) -> Mapping[str, Schema]:
        limits = self._limits
        about: dict[str, dict[str, Any]] = {}
        if limits.mode != "cursor":
            about["page"] = {
                "type": "integer", "minimum": 1,
                "description": "The page number, starting at 1.",
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
            about["sort"] = _make_list_schema(
                names, "The fields to sort by, in order of precedence; -name is descending."
            )
        if limits.mode != "page":
            about["cursor"] = {
                "type": "string",
                "description": "next_cursor or prev_cursor of a page; empty for the first page.",
            }
        if self._is_choosable:
            about[self.fields.parameter] = _make_fields_schema(self.fields)
        return about


class Fields(_fields.FieldSelector[T]):
    """A `hasten.fields.FieldSelector` for FastAPI. Handlers can return its rows as responses.

    `params` is a dependency that parses the selected fields. Invalid parameters become FastAPI
    errors, and a missing row becomes a 404 response.
    """

    @cached_property
    def params(self) -> Callable[..., FieldSet]:
        """The dependency that parses the selected fields: ``Depends(Users.params)``."""

        def parse_fields(request: Request) -> FieldSet:
            known = _find_parameter_names_of_route(request) if self._refuses_unknown else ()
            return self.parse(request, known=known)

        return _make_dependency(parse_fields, {self.parameter: _make_fields_schema(self)})

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The OpenAPI responses for ``responses=`` of a route. FastAPI adds 422 by itself."""
        detail = {"type": "object", "properties": {"detail": {"type": "string"}}}
        responses: dict[int | str, dict[str, Any]] = {
            404: {
                "description": "The row does not exist.",
                "content": {"application/json": {"schema": detail}},
            }
        }
        if self.etag:
            responses |= {200: {"headers": {"ETag": _ETAG_HEADER}}, 304: _NOT_MODIFIED}
        return responses

    async def _read_one(self, *arguments: Any) -> Partial[T]:
        with http_errors():
            return await super()._read_one(*arguments)

    def _to_partial(self, row: Row) -> Partial[T]:
        return _RowResponse(super()._to_partial(row))


# Responses ----------------------------------------------------------------------------------------

_DEPENDENCY_RESPONSE: Final = "hasten.fastapi.response"
"""The scope key of FastAPI's temporary response, on which dependencies set headers and status."""

# Headers that a response may have only once.
_ONLY_ONCE: Final = frozenset({b"content-type", b"content-length", b"etag"})


class _LazilyEncodedResponse(Response):
    """A Starlette response whose body is encoded only when it is sent.

    So changes that the handler makes to the page or row are included.
    """

    def _set_response_attributes(
        self, status: int, headers: Mapping[str, str], *, has_etag: bool
    ) -> None:
        """Set the attributes of a Starlette response, whose constructor would need the body.

        With has_etag, an ETag that is made from the body is added when the response is sent.
        """
        self.status_code = status
        self.background = None
        self.raw_headers = [
            (key.encode(), value.encode("latin-1")) for key, value in headers.items()
        ]
        self._has_etag = has_etag
        self._body: bytes | memoryview | None = None

    def __getstate__(self) -> Any:
        # copy.copy() must not share the list of headers.
        state: Any = super().__getstate__()
        own, slots = state if isinstance(state, tuple) else (state, {})
        own = {key: value for key, value in own.items() if key != "_headers"}
        own["raw_headers"] = list(own["raw_headers"])
        return own, slots

    def _encode_body_as_json(self) -> bytes:
        """Return the body as JSON. Subclasses implement it."""
        raise NotImplementedError

    @property
    def body(self) -> bytes | memoryview:
        return self._encode_body_as_json() if self._body is None else self._body

    @body.setter
    def body(self, body: bytes | memoryview) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers = self.status_code, self.raw_headers
        body = bytes(self.body)
        if self._has_etag and join_header_values(headers, b"etag") is None:
            headers = [*headers, (b"etag", make_etag(body).encode())]
        # FastAPI merges status and headers of dependencies only into responses that it creates.
        others: Response | None = scope.get(_DEPENDENCY_RESPONSE)
        if status == 200:
            of_route = getattr(scope.get("route"), "status_code", None)
            status = (others and others.status_code) or of_route or 200
        if others is not None and others.raw_headers:
            headers = _merge_dependency_headers(headers, others.raw_headers)
        await send_response(scope, send, status, headers, body)
        if self.background is not None:
            await self.background()


def _merge_dependency_headers(own: Headers, of_dependencies: Headers) -> Headers:
    """Return the headers of a response together with those that dependencies have set.

    If both have a header that may occur only once, such as ETag, that of the dependency is used.
    """
    instead = _ONLY_ONCE.intersection(name for name, _ in of_dependencies)
    return [*(each for each in own if each[0] not in instead), *of_dependencies]


class _PageResponseBase(_LazilyEncodedResponse):
    """The response behaviour that pages by number and pages by cursor have in common."""

    _envelope: Envelope
    not_modified: bool

    def _encode_body_as_json(self) -> bytes:
        return b"" if self.not_modified else encode(self._wrap_in_envelope())

    def _wrap_in_envelope(self) -> dict[str, object]:
        page: Any = self
        return self._envelope.wrap(page)

    # If a handler returns a page within another object, FastAPI converts it with dict(), which
    # calls keys() and __getitem__(). If the handler is annotated with Any, pydantic does the same.

    __pydantic_serializer__ = SchemaSerializer(
        core_schema.any_schema(serialization=core_schema.plain_serializer_function_ser_schema(dict))
    )

    def keys(self) -> Sequence[str]:
        """Return the keys of the JSON body, for ``dict(page)``."""
        return self._envelope.data, self._envelope.pagination

    def __getitem__(self, key: str) -> object:
        return json.decode(encode(self._wrap_in_envelope()[key]))


class _PageResponse(Page[Any], _PageResponseBase):
    """A page by number that is also the response with its JSON."""

    def __init__(self, page: Page[Any]) -> None:
        Page.__init__(self, page.data, page.page, page.limit, page.count, page.has_more)
        _copy_attributes_to_response(page, self)


class _CursorPageResponse(CursorPage[Any], _PageResponseBase):
    """A page by cursor that is also the response with its JSON."""

    def __init__(self, page: CursorPage[Any]) -> None:
        CursorPage.__init__(
            self, page.data, page.limit, page.next_cursor, page.prev_cursor, page.count
        )
        _copy_attributes_to_response(page, self)


class _RowResponse(Partial[Any], _LazilyEncodedResponse):
    """A row with selected fields that is also the response with its JSON."""

    # The base classes differ: a dict has no hash, a response has one, which nobody needs.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, row: Partial[Any]) -> None:
        Partial.__init__(self, row)
        self.has_etag = row.has_etag
        self._set_response_attributes(200, _JSON, has_etag=row.has_etag)

    def _encode_body_as_json(self) -> bytes:
        return encode(self)


_JSON: Final = {"content-type": "application/json"}


def _copy_attributes_to_response(page: Any, response: Any) -> None:
    """Copy those attributes of a page to its response that are not constructor arguments."""
    response.etag = page.etag
    response.not_modified = page.not_modified
    response._responder = page._responder


@contextmanager
def http_errors() -> Iterator[None]:
    """Convert `InvalidParameter` and `RowNotFound` to FastAPI errors, within a ``with`` block.

    An invalid parameter becomes a 422 response, an invalid cursor 400, and a missing row 404.
    """
    try:
        yield
    except InvalidParameter as error:
        detail = _to_error_detail(error)
        if error.status == 422:
            raise RequestValidationError([detail]) from error
        raise HTTPException(error.status, [detail]) from error
    except RowNotFound as error:
        raise HTTPException(404, str(error)) from error


def _to_error_detail(error: InvalidParameter) -> dict[str, Any]:
    """Return an error as an entry of FastAPI's list of validation errors."""
    detail: dict[str, Any] = {
        "type": error.code,
        "loc": ("query", error.parameter),
        "msg": str(error),
        "input": error.value,
    }
    if bounds := _to_error_context(error):
        detail["ctx"] = bounds
    return detail


_MAXIMUM_NAMES: Final = {
    "too_many": "max_length",
    "too_long": "max_length",
    "too_deep": "max_depth",
}


def _to_error_context(error: InvalidParameter) -> dict[str, Any]:
    """Return the bounds that a value violates, named as in pydantic's ctx: ``{"le": 100}``."""
    bounds: dict[str, Any] = {}
    if error.minimum is not None:
        bounds["ge"] = error.minimum
    if error.maximum is not None:
        bounds[_MAXIMUM_NAMES.get(error.code, "le")] = error.maximum
    if error.allowed:
        *rest, last = map(repr, error.allowed)
        bounds["expected"] = f"{', '.join(rest)} or {last}" if rest else last
    return bounds


# Routes -------------------------------------------------------------------------------------------

_IsInOpenAPI: TypeAlias = bool


class _RouteParameterNames(Collection[str]):
    """The names of the query parameters of a route.

    Names that are hidden from OpenAPI are accepted by ``in``, but not listed, so that an error
    message does not reveal them.
    """

    def __init__(self, declared: Iterable[tuple[str, _IsInOpenAPI]]) -> None:
        self._is_shown = dict(declared)

    def __contains__(self, name: object) -> bool:
        return name in self._is_shown

    def __iter__(self) -> Iterator[str]:
        return (name for name, is_shown in self._is_shown.items() if is_shown)

    def __len__(self) -> int:
        return len(self._is_shown)


def _find_parameter_names_of_route(request: Request) -> _RouteParameterNames:
    """Return the names of the query parameters of a route, including those of its dependencies."""
    # Newer versions of FastAPI store the dependencies of an included router only in the scope.
    included = request.scope.get("fastapi", {}).get("effective_route_context")
    own = getattr(request.scope.get("route"), "dependant", None)
    dependant = getattr(included, "dependant", own)
    return _RouteParameterNames(() if dependant is None else _iter_query_parameters(dependant))


def _iter_query_parameters(dependant: Any) -> Iterator[tuple[str, _IsInOpenAPI]]:
    """Yield the name of each query parameter of a route, and whether OpenAPI shows it.

    dependant is FastAPI's description of the route or of one of its dependencies.
    """
    for field in dependant.query_params:
        for name in _find_parameter_names_of_model(field.field_info.annotation) or [field.alias]:
            yield name, getattr(field.field_info, "include_in_schema", True)
    if isinstance(dependant.call, APIKeyQuery):
        yield dependant.call.model.name, True
    for each in dependant.dependencies:
        yield from _iter_query_parameters(each)


def _find_parameter_names_of_model(annotation: Any) -> list[str]:
    """Return the parameter names of a pydantic model of query parameters.

    Such a parameter is declared as ``Annotated[Filter, Query()]``. For other annotations, the list
    is empty.
    """
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

_ERROR_SCHEMA: Final = {"$ref": "#/components/schemas/HTTPValidationError"}
"""A reference to the schema that FastAPI adds to OpenAPI for its own 422 responses."""


def _make_header_description(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


_ETAG_HEADER: Final = _make_header_description(
    "The version of the response. RFC 9110, section 8.8.3."
)

_NOT_MODIFIED: Final = {"description": "The client already has this version."}


def _make_list_schema(names: Sequence[str], description: str) -> dict[str, Any]:
    """Return the OpenAPI schema of a parameter that takes one or more of these names."""
    items = {"type": "string", "enum": list(names)}
    return {"type": "array", "items": items, "minItems": 1, "description": description}


def _make_fields_schema(fields: _fields.FieldSelector[Any]) -> dict[str, Any]:
    default = str(fields.allowed.default)
    return _make_list_schema(
        list(fields.allowed.paths(fields.max_depth)),
        f"The fields to return; {default} by default. Separate with commas; nested fields: a(b,c).",
    )


_NOT_IN_SCHEMA: Final = ("default", "description")
"""Keys that must be set on the parameter, because FastAPI does not read them from the schema."""


def _make_dependency(
    parse: Callable[[Request], R], schemas: Mapping[str, Schema]
) -> Callable[..., R]:
    """Return a dependency that declares query parameters for OpenAPI, and calls parse.

    schemas are the OpenAPI schemas by parameter name. FastAPI does not parse the values: of a
    repeated parameter it would only use the last one, and it would accept "1_0" as 10.
    """

    async def params(request: Request, response: Response, **_: object) -> Any:
        request.scope[_DEPENDENCY_RESPONSE] = response
        with http_errors():
            return parse(request)

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
                            {
                                key: value
                                for key, value in schema.items()
                                if key not in _NOT_IN_SCHEMA
                            }
                        ),
                        Query(description=schema["description"]),
                    ],
                )
                for name, schema in schemas.items()
            ),
        ]
    )
    return params  # type: ignore[return-value]
