"""Pages and fields in FastAPI: what is described, what is answered, what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final

import httpx
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from hasten.errors import InvalidOption
from hasten.fields import FieldSet
from hasten.integrations.fastapi import Fields, Paginate
from hasten.pagination import CursorPage, Envelope, Page, PageParams
from tests.pagination.databases import Author, Item, Post, async_engine


class AuthorOut(BaseModel):
    id: int
    name: str


class PostOut(BaseModel):
    id: int
    title: str
    author: AuthorOut | None


class ItemOut(BaseModel):
    id: int
    grade: int | None
    made: datetime


Posts = Paginate(PostOut, model=Post, sort=("id", "title"), default_sort="-id")
Items = Paginate(
    ItemOut,
    model=Item,
    sort=("grade",),
    mode="cursor",
    secret="a secret of more than 16 bytes",
    advise=False,
)
Authors = Fields(AuthorOut, model=Author, default=("id",))


async def session() -> AsyncIterator[AsyncSession]:
    with async_engine("sqlite") as made:
        async with AsyncSession(made) as opened:
            yield opened


DB = Annotated[AsyncSession, Depends(session)]

app: Final = FastAPI()


@app.get("/api/posts")
async def posts(db: DB, q: Annotated[PageParams, Depends(Posts.params)]) -> Page[PostOut]:
    return await Posts.page(db, select(Post), q)


@app.get("/api/items")
async def items(db: DB, q: Annotated[PageParams, Depends(Items.params)]) -> CursorPage[ItemOut]:
    return await Items.page(db, select(Item), q)


@app.get("/api/authors/{id}", response_model=None)
async def author(
    id: int, db: DB, fields: Annotated[FieldSet, Depends(Authors.params)]
) -> dict[str, object]:
    return await Authors.one(db, select(Author).where(Author.id == id), fields)


async def get(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


async def test_the_answer_is_exactly_that() -> None:
    answer = await get("/api/posts?page=2&limit=2")
    assert answer.json() == {
        "data": [
            {"id": 38, "title": "t2", "author": None},
            {"id": 37, "title": "t1", "author": None},
        ],
        "pagination": {"page": 2, "limit": 2, "total": 40},
    }
    assert answer.headers["content-type"] == "application/json"
    assert '<?limit=2&page=3>; rel="next"' in answer.headers["link"]


async def test_a_handler_can_look_at_its_page() -> None:
    with async_engine("sqlite") as made:
        async with AsyncSession(made) as db:
            found = await posts(db, Posts.parse("limit=1"))
    assert isinstance(found, Page)
    assert (found.data, found.total, found.has_more) == (
        [{"id": 40, "title": "t4", "author": None}], 40, True,
    )  # fmt: skip


async def test_cursors_walk_to_the_end() -> None:
    seen: list[int] = []
    token: str | None = ""
    while token is not None:
        answer = (await get(f"/api/items?sort=-grade&limit=50&cursor={token}")).json()
        seen += [row["id"] for row in answer["data"]]
        token = answer["pagination"]["next_cursor"]
    assert sorted(seen) == list(range(1, 181))


@pytest.mark.parametrize(
    ("query", "parameter", "code"),
    [
        ("page=0", "page", "out_of_range"),
        ("page=1_0", "page", "not_a_number"),
        ("page=1&page=2", "page", "duplicate"),
        ("limit=101", "limit", "out_of_range"),
        ("sort=password_hash", "sort", "unknown_name"),
    ],
)
async def test_refused_in_the_shape_of_fastapi(query: str, parameter: str, code: str) -> None:
    answer = await get(f"/api/posts?{query}")
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert set(detail) == {"type", "loc", "msg", "input"}
    assert (detail["type"], detail["loc"]) == (code, ["query", parameter])


async def test_44_48_a_cursor_that_is_not_of_this_query_is_400() -> None:
    for query in ("cursor=junk", f"sort=-grade&cursor={await a_token()}"):
        answer = await get(f"/api/items?{query}")
        assert answer.status_code == 400
        assert answer.json()["detail"][0]["loc"] == ["query", "cursor"]


async def a_token() -> str:
    token: str = (await get("/api/items?sort=grade")).json()["pagination"]["next_cursor"]
    return token


async def test_fields_of_one_row() -> None:
    assert (await get("/api/authors/1")).json() == {"id": 1}
    assert (await get("/api/authors/1?fields=name")).json() == {"name": "n0"}
    assert (await get("/api/authors/99")).status_code == 404
    assert (await get("/api/authors/99?fields=email")).status_code == 422


def test_openapi_describes_parameters_and_answer() -> None:
    schema = app.openapi()
    described = parameters(schema, "/api/posts")
    assert list(described) == ["page", "limit", "sort"]
    assert described["limit"]["required"] is False
    assert described["limit"]["schema"] | {"title": ""} == {
        "type": "integer", "minimum": 1, "maximum": 100, "title": "",
    }  # fmt: skip
    assert described["sort"]["schema"]["pattern"] == "^-?(id|title)(,-?(id|title))*$"
    assert list(parameters(schema, "/api/items")) == ["limit", "sort", "cursor"]
    answer = answered(schema, "/api/posts")
    assert answer["required"] == ["data", "pagination"]
    assert answer["properties"]["data"]["items"] == {"$ref": "#/components/schemas/PostOut"}
    assert set(answer["properties"]["pagination"]["properties"]) == {
        "page", "limit", "total", "total_relation", "has_more",
    }  # fmt: skip
    assert "422" in schema["paths"]["/api/posts"]["get"]["responses"]


def parameters(schema: dict[str, Any], path: str) -> dict[str, Any]:
    return {each["name"]: each for each in schema["paths"][path]["get"]["parameters"]}


def answered(schema: dict[str, Any], path: str) -> dict[str, Any]:
    answer = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    found: dict[str, Any] = answer["schema"]
    if "$ref" in found:
        found = schema["components"]["schemas"][found["$ref"].rpartition("/")[2]]
    return found


def test_what_openapi_describes_is_what_is_answered() -> None:
    other = Paginate(PostOut, model=Post, envelope=Envelope(data="items"))
    with pytest.raises(InvalidOption, match="envelope"):
        _ = other.params
