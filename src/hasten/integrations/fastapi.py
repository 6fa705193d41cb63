"""Pages and fields as FastAPI knows them: typed, described, and without an app-wide hook.

    Posts = Paginate(PostOut, model=Post, sort=("created_at",), default_sort="-created_at")

    @app.get("/api/posts")
    async def posts(db: DB, q: Annotated[PageParams, Depends(Posts.params)]) -> Page[PostOut]:
        return await Posts.page(db, select(Post), q)

What a client did not mean is refused in the shape of FastAPI's own errors. The page that a handler
gets is a response already, so FastAPI sends its bytes and its Link header as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from inspect import Parameter, Signature
from re import escape
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Unpack, cast, overload

from hasten._extras import require

require("fastapi", extra="fastapi")

from fastapi import HTTPException, Query, Request, Response  # noqa: E402
from fastapi.exceptions import RequestValidationError  # noqa: E402
from pydantic import WithJsonSchema  # noqa: E402

from hasten import fields as _fields  # noqa: E402
from hasten import pagination as _pagination  # noqa: E402
from hasten.errors import InvalidOption, InvalidParameter, RowNotFound  # noqa: E402
from hasten.fields import FieldSet, Row  # noqa: E402
from hasten.pagination import CursorPage, Envelope, Page, PageParams  # noqa: E402

if TYPE_CHECKING:
    from hasten.fields.sql import AsyncExecutor, Executor, Selection
    from hasten.pagination.paginate import Options, Secret

__all__ = ["CursorPage", "FieldSet", "Fields", "Page", "PageParams", "Paginate"]

P = TypeVar("P")
T = TypeVar("T")
R = TypeVar("R")


class Paginate(_pagination.Paginate[P]):
    """`hasten.pagination.Paginate` with `params`, whose errors are answers.

    The names in the answer are the usual ones: for an envelope of your own, return
    ``Response(Posts.encode(page), media_type="application/json")``.
    """

    if TYPE_CHECKING:  # what the class above says, of this one

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

        def __init__(self, out: type, **options: Any) -> None: ...

    @cached_property
    def params(self) -> Callable[..., PageParams]:
        """What ``Depends`` takes: the parameters of a page, as OpenAPI describes them."""
        if self.envelope != Envelope():
            raise InvalidOption("envelope", self.envelope, "the usual one, which OpenAPI describes")
        return _dependency(self.parse, self._described())

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
            found = await super().page(db, statement, q, fields, scope=scope)
        return cast("P", self._answer(found, q))

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
            found = super().page_sync(db, statement, q, fields, scope=scope)
        return cast("P", self._answer(found, q))

    def _answer(self, found: Any, q: PageParams) -> object:
        link = self.link(found, q)
        headers = {} if link is None else {"link": link}
        kind = _PageAnswer if isinstance(found, Page) else _CursorPageAnswer
        return kind(found, self.encode(found), headers)

    def _described(self) -> dict[str, dict[str, Any]]:
        limits = self.limits
        about: dict[str, dict[str, Any]] = {}
        if limits.mode != "cursor":
            about["page"] = {
                "type": "integer", "minimum": 1,
                "description": "The number of the page; the first one if left out.",
            }  # fmt: skip
        about["limit"] = {
            "type": "integer", "minimum": 1, "maximum": limits.max_limit,
            "description": f"How many rows a page has; {limits.default_limit} if left out.",
        }  # fmt: skip
        if self.sorts:
            name = f"-?({'|'.join(map(escape, self.sorts))})"
            about["sort"] = {
                "type": "string", "pattern": f"^{name}(,{name})*$",
                "description": f"Names to sort by, - descends: {', '.join(self.sorts)}.",
            }  # fmt: skip
        if limits.mode != "page":
            about["cursor"] = {
                "type": "string",
                "description": "next_cursor or prev_cursor of another page; empty for the first.",
            }
        return about


class _PageAnswer(Page[Any], Response):
    """A page that is its own response."""

    def __init__(self, page: Page[Any], body: bytes, headers: Mapping[str, str]) -> None:
        Page.__init__(self, page.data, page.page, page.limit, page.count, page.has_more)
        Response.__init__(self, body, headers=headers, media_type="application/json")


class _CursorPageAnswer(CursorPage[Any], Response):
    """The same between two positions."""

    def __init__(self, page: CursorPage[Any], body: bytes, headers: Mapping[str, str]) -> None:
        CursorPage.__init__(
            self, page.data, page.limit, page.next_cursor, page.prev_cursor, page.count
        )
        Response.__init__(self, body, headers=headers, media_type="application/json")


class Fields(_fields.Fields):
    """`hasten.fields.Fields` with `params`, whose errors are answers: 404 for a missing row."""

    @cached_property
    def params(self) -> Callable[..., FieldSet]:
        """What ``Depends`` takes: the parameter for the fields, as OpenAPI describes it."""
        names = ", ".join(self.allowed.paths(self.max_depth))
        about = {"type": "string", "description": f"What to answer with, of: {names}."}
        return _dependency(self.parse, {self.parameter: about})

    async def one(self, db: AsyncExecutor, statement: Selection, fields: FieldSet) -> Row:
        with answering():
            return await super().one(db, statement, fields)

    def one_sync(self, db: Executor, statement: Selection, fields: FieldSet) -> Row:
        with answering():
            return super().one_sync(db, statement, fields)


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


def _dependency(
    read: Callable[[Sequence[tuple[str, str]]], R], about: Mapping[str, Mapping[str, Any]]
) -> Callable[..., R]:
    """A function with the parameters that are described, which reads the whole query itself.

    FastAPI would take the last of two equal ones, and "1_0" for 10.
    """

    async def params(request: Request, **_: object) -> Any:
        with answering():
            return read(request.query_params.multi_items())

    params.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter("request", Parameter.POSITIONAL_OR_KEYWORD, annotation=Request),
            *(
                Parameter(
                    name,
                    Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=Annotated[
                        str | None,
                        WithJsonSchema(
                            {key: said for key, said in schema.items() if key != "description"}
                        ),
                        Query(description=schema["description"]),
                    ],
                )
                for name, schema in about.items()
            ),
        ]
    )
    return params  # type: ignore[return-value]
