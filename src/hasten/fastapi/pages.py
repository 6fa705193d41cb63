"""Pages and fields: their parameters as dependencies, their answers as responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, Unpack, cast, overload

from fastapi import HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import json
from pydantic import WithJsonSchema
from pydantic_core import SchemaSerializer, core_schema

from hasten import fields as _fields
from hasten import pagination as _pagination
from hasten._answers import etag_of, send_answer
from hasten._asgi import Headers, Receive, Scope, Send, header_values
from hasten.errors import InvalidParameter, RowNotFound
from hasten.fields import FieldSet, Partial, encode
from hasten.pagination import CursorPage, Envelope, Page, PageParams, Source
from hasten.pagination.page import described_in

if TYPE_CHECKING:
    from hasten.fields.sql import AsyncExecutor, Executor, Selection
    from hasten.pagination.paginate import Options, Secret

P = TypeVar("P")
T = TypeVar("T")
R = TypeVar("R")

Schema = Mapping[str, Any]


class Paginate(_pagination.Paginate[P]):
    """`hasten.pagination.Paginate` with `params`, whose pages and errors are answers.

    With an envelope of your own, ``response_model=Posts.response_model`` describes it.
    """

    if TYPE_CHECKING:  # what the class above says, of this one

        @overload
        def __init__(
            self: Paginate[Page[T]],
            out: type[T],
            *,
            mode: Literal["page"] = "page",
            secret: Secret | None = None,
            **options: Unpack[Options],
        ) -> None: ...

        @overload
        def __init__(
            self: Paginate[CursorPage[T]],
            out: type[T],
            *,
            mode: Literal["cursor"],
            secret: Secret,
            **options: Unpack[Options],
        ) -> None: ...

        @overload
        def __init__(
            self: Paginate[Page[T] | CursorPage[T]],
            out: type[T],
            *,
            mode: Literal["both"],
            secret: Secret,
            **options: Unpack[Options],
        ) -> None: ...

        def __init__(self, out: type, **options: Any) -> None: ...

    @cached_property
    def params(self) -> Callable[..., PageParams]:
        """What ``Depends`` takes: the parameters of a page, as OpenAPI describes them."""

        def read(request: Request) -> PageParams:
            return self.parse(
                request.query_params.multi_items(),
                if_none_match=request.headers.get("if-none-match"),
            )

        return _dependency(read, self._described())

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """What may be answered beside 200 and 422, for ``responses=`` of a route."""
        headers = {"Link": _header("Where the pages around this one are. RFC 8288.")}
        answers: dict[int | str, dict[str, Any]] = {}
        if self._etag or self._version:
            headers["ETag"] = _ETAG
            answers[304] = _NOT_MODIFIED
        if self.limits.mode != "page":
            answers[400] = {
                "description": "The cursor is none of this list.",
                "content": {"application/json": {"schema": _DETAILS}},
            }
        return {200: {"headers": headers}, **answers}

    @property
    def response_model(self) -> Any:
        """What the answers look like, with the names of this envelope."""
        page, stretch = (
            described_in(self.envelope, self.out, by_cursor=by_cursor)
            for by_cursor in (False, True)
        )
        return {"page": page, "cursor": stretch, "both": page | stretch}[self.limits.mode]

    async def page(
        self,
        db: AsyncExecutor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        with answering():
            return await super().page(db, statement, q, fields, scope=scope)

    def page_sync(
        self,
        db: Executor,
        statement: Selection,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        with answering():
            return super().page_sync(db, statement, q, fields, scope=scope)

    async def from_source(
        self,
        source: Source,
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        with answering():
            return await super().from_source(source, q, fields, scope=scope)

    def of(
        self,
        items: Sequence[object],
        q: PageParams,
        fields: FieldSet | None = None,
        *,
        scope: object = None,
    ) -> P:
        with answering():
            return super().of(items, q, fields, scope=scope)

    def _answering(self, page: Any, q: PageParams) -> P:
        super()._answering(page, q)
        answer = _PageAnswer(page) if isinstance(page, Page) else _CursorPageAnswer(page)
        answer._begin(*self._head(page, q), has_etag=self._etag)
        answer._envelope = self.envelope
        return cast("P", answer)

    def _described(self) -> Mapping[str, Schema]:
        limits = self.limits
        about: dict[str, dict[str, Any]] = {}
        if limits.mode != "cursor":
            about["page"] = {
                "type": "integer", "minimum": 1,
                "description": "The number of the page; the first one if left out.",
            }  # fmt: skip
        if limits.mode == "page":
            # With mode="both" a page beside a cursor is refused, so no client may fill it in.
            about["page"]["default"] = 1
        about["limit"] = {
            "type": "integer", "minimum": 1, "maximum": limits.max_limit,
            "default": limits.default_limit,
            "description": f"How many rows a page has; {limits.default_limit} if left out.",
        }  # fmt: skip
        if self.sorts:
            names = [sign + name for name in self.sorts for sign in ("", "-")]
            about["sort"] = _choice(names, "What to sort by, the first name first; - descends.")
        if limits.mode != "page":
            about["cursor"] = {
                "type": "string",
                "description": "next_cursor or prev_cursor of another page; empty for the first.",
            }
        if self._is_choosable:
            about[self.fields.parameter] = _described_fields(self.fields)
        return about


class Fields(_fields.Fields[T]):
    """`hasten.fields.Fields` with `params`, whose rows and errors are answers: 404 for no row."""

    @cached_property
    def params(self) -> Callable[..., FieldSet]:
        """What ``Depends`` takes: the parameter for the fields, as OpenAPI describes it."""

        def read(request: Request) -> FieldSet:
            return self.parse(request.query_params.multi_items())

        return _dependency(read, {self.parameter: _described_fields(self)})

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """What may be answered beside 200 and 422, for ``responses=`` of a route."""
        detail = {"type": "object", "properties": {"detail": {"type": "string"}}}
        answers: dict[int | str, dict[str, Any]] = {
            404: {
                "description": "There is no such row.",
                "content": {"application/json": {"schema": detail}},
            }
        }
        if self.etag:
            answers |= {200: {"headers": {"ETag": _ETAG}}, 304: _NOT_MODIFIED}
        return answers

    async def one(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> Partial[T]:
        with answering():
            return _RowAnswer(await super().one(db, statement, fields))

    def one_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> Partial[T]:
        with answering():
            return _RowAnswer(super().one_sync(db, statement, fields))

    def of(self, item: object, fields: FieldSet) -> Partial[T]:
        return _RowAnswer(super().of(item, fields))


# Answers ------------------------------------------------------------------------------------------

_OF_DEPENDENCIES: Final = "hasten.fastapi.response"
"""Where in the scope the response is that the dependencies of a route set headers of."""

_ONLY_ONCE: Final = frozenset({b"content-type", b"content-length", b"etag"})


class _Response(Response):
    """A response that is encoded when it is sent: what a handler changes before that counts."""

    def _begin(self, status: int, headers: Mapping[str, str], *, has_etag: bool) -> None:
        """Instead of the constructor, which would need the body. has_etag is of its bytes."""
        self.status_code = status
        self.background = None
        self.raw_headers = [
            (key.encode(), value.encode("latin-1")) for key, value in headers.items()
        ]
        self._has_etag = has_etag
        self._body: bytes | memoryview | None = None

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
        # What FastAPI does with all that is no response.
        others: Response | None = scope.get(_OF_DEPENDENCIES)
        if status == 200:
            of_route = getattr(scope.get("route"), "status_code", None)
            status = (others and others.status_code) or of_route or 200
        if others is not None and others.raw_headers:
            headers = _with_others(headers, others.raw_headers)
        await send_answer(scope, send, status, headers, body)
        if self.background is not None:
            await self.background()


def _with_others(own: Headers, others: Headers) -> Headers:
    """Both, but those that may be there only once as others say."""
    instead = _ONLY_ONCE.intersection(name for name, _ in others)
    return [*(each for each in own if each[0] not in instead), *others]


class _AnyPage(_Response):
    _envelope: Envelope
    not_modified: bool

    def _encoded(self) -> bytes:
        return b"" if self.not_modified else encode(self._wrapped())

    def _wrapped(self) -> dict[str, object]:
        page: Any = self
        return self._envelope.wrap(page)

    # What FastAPI finds inside of an answer of its own it makes a dict of, by these two; or, where
    # the handler is annotated with Any, pydantic does.

    __pydantic_serializer__ = SchemaSerializer(
        core_schema.any_schema(serialization=core_schema.plain_serializer_function_ser_schema(dict))
    )

    def keys(self) -> Sequence[str]:
        return self._envelope.data, self._envelope.pagination

    def __getitem__(self, key: str) -> object:
        return json.decode(encode(self._wrapped()[key]))


class _PageAnswer(Page[Any], _AnyPage):
    """A page that is its own response."""

    def __init__(self, page: Page[Any]) -> None:
        Page.__init__(self, page.data, page.page, page.limit, page.count, page.has_more)
        _told(self, page)


class _CursorPageAnswer(CursorPage[Any], _AnyPage):
    """The same between two positions."""

    def __init__(self, page: CursorPage[Any]) -> None:
        CursorPage.__init__(
            self, page.data, page.limit, page.next_cursor, page.prev_cursor, page.count
        )
        _told(self, page)


class _RowAnswer(Partial[Any], _Response):
    """A row that is its own response."""

    # A dict has no hash, and a response is asked for one by nobody.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, row: Partial[Any]) -> None:
        Partial.__init__(self, row)
        self.has_etag = row.has_etag
        self._begin(200, _JSON, has_etag=row.has_etag)

    def _encoded(self) -> bytes:
        return encode(self)


_JSON: Final = {"content-type": "application/json"}


def _told(answer: Any, page: Any) -> None:
    answer.etag = page.etag
    answer.not_modified = page.not_modified
    answer._answer = page._answer


@contextmanager
def answering() -> Iterator[None]:
    """What hasten refuses becomes an answer of FastAPI's: 422 as all its own, 400, 404."""
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
    return {
        "type": error.code,
        "loc": ("query", error.parameter),
        "msg": str(error),
        "input": error.value,
    }


# Descriptions -------------------------------------------------------------------------------------

_DETAILS: Final = {"$ref": "#/components/schemas/HTTPValidationError"}
"""FastAPI has it wherever a route has parameters."""


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


_ETAG: Final = _header("The version of the answer. RFC 9110, section 8.8.3.")

_NOT_MODIFIED: Final = {"description": "The client has this version already."}


def _choice(names: Sequence[str], description: str) -> dict[str, Any]:
    """Several of some names, as one list with commas or as several parameters."""
    items = {"type": "string", "enum": list(names)}
    return {"type": "array", "items": items, "minItems": 1, "description": description}


def _described_fields(fields: _fields.Fields[Any]) -> dict[str, Any]:
    default = str(fields.allowed.default)
    return _choice(
        list(fields.allowed.paths(fields.max_depth)),
        f"What to answer with; {default} if left out. Several with commas, nested ones as a(b,c).",
    )


_BESIDE: Final = ("default", "description")
"""What FastAPI takes from a parameter itself, not from its schema."""


def _dependency(read: Callable[[Request], R], about: Mapping[str, Schema]) -> Callable[..., R]:
    """A function with the parameters that are described, which reads the whole query itself.

    FastAPI would take the last of two equal ones, and "1_0" for 10.
    """

    async def params(request: Request, response: Response, **_: object) -> Any:
        request.scope[_OF_DEPENDENCIES] = response
        with answering():
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
                            {key: said for key, said in schema.items() if key not in _BESIDE}
                        ),
                        Query(description=schema["description"]),
                    ],
                )
                for name, schema in about.items()
            ),
        ]
    )
    return params  # type: ignore[return-value]
