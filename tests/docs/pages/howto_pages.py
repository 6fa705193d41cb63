"""Run docs/howto/pages.md: pages by number and by cursor, totals, links and refusals."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import ForeignKey, Index, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tests.docs.page_session import Page

os.environ["CURSOR_SECRET"] = "a1b2c3d4e5f60718293a4b5c6d7e8f90"

engine = create_async_engine("sqlite+aiosqlite:///blog.db")


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    password_hash: Mapped[str]


class Post(Base):
    __tablename__ = "posts"
    __table_args__ = (Index("by_time", "created_at", "id"), Index("by_title", "title", "id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    title: Mapped[str]
    published: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    author: Mapped[Author] = relationship()


async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as db:
        yield db


async def check(page: Page) -> None:
    await add_100_posts()
    code = await page.run()
    async with client_of(code.app) as client:
        await check_fastapi(client)
    async with client_of(code.starlette) as client:
        await check_starlette(client)
    async with AsyncSession(engine) as db:
        for each in (code.Many, code.Hot, code.Cheap):
            assert (await each.page(db, select(Post), each.parse(""))).total == 100
    await engine.dispose()


async def add_100_posts() -> None:
    """Add posts, of which 75 are published."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as db:
        db.add(Author(id=1, name="Ada", password_hash="x"))
        for number in range(1, 101):
            day = datetime(2026, 1, 1 + number % 28, tzinfo=UTC)
            post = Post(author_id=1, title=f"Post {number}", published=number % 4 > 0)
            post.created_at = post.updated_at = day
            db.add(post)
        await db.commit()


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


async def check_fastapi(client: httpx.AsyncClient) -> None:
    first = (await client.get("/api/posts?limit=1")).json()
    assert first["pagination"] == {"page": 1, "limit": 1, "total": 75}
    assert set(first["data"][0]) == {"id", "title", "created_at"}

    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        found = (await client.get(f"/api/feed?limit=9&cursor={cursor}")).json()
        seen += [row["id"] for row in found["data"]]
        cursor = found["pagination"]["next_cursor"]
    assert len(seen) == len(set(seen)) == 75

    assert (await client.get("/api/renamed")).json()["meta"]["count"] == 100
    assert "link" not in (await client.get("/api/posts?limit=100")).headers
    too_many = await client.get("/api/posts?limit=1000")
    assert too_many.status_code == 422
    assert too_many.json()["detail"][0]["ctx"] == {"ge": 1, "le": 100}
    assert (await client.get("/api/strict?author=1")).status_code == 200
    misspelt = (await client.get("/api/strict?pgae=2")).json()["detail"][0]["msg"]
    assert misspelt.startswith("pgae='2': no such parameter; did you mean page?")


async def check_starlette(client: httpx.AsyncClient) -> None:
    second = await client.get("/posts?page=2")
    assert second.json()["pagination"]["total"] == 100
    again = await client.get("/posts?page=2", headers={"If-None-Match": second.headers["etag"]})
    assert again.status_code == 304
    refused = await client.get("/posts?page=none")
    assert refused.headers["content-type"] == "application/problem+json"
