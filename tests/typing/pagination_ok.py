"""Calls that must type-check. Read by mypy, never run; see jobs_ok.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from hasten import fastapi
from hasten.fields import Fields, Partial
from hasten.pagination import Cached, Capped, CursorPage, Page, Paginate, Window
from tests.pagination.databases import Post


class PostOut(BaseModel):
    id: int
    title: str


pages = Paginate(PostOut, model=Post, sort=("title",), default_sort="-title", count=Capped(10_000))
cursors = Paginate(PostOut, model=Post, mode="cursor", secret=["a new secret", b"an old one"])
both = Paginate(PostOut, model=Post, mode="both", secret="a secret", count="estimated")


async def the_mode_tells_what_is_returned(db: AsyncSession, connection: AsyncConnection) -> None:
    q = pages.parse([("page", "1")])
    assert_type(await pages.page(db, select(Post), q), Page[PostOut])
    assert_type(await cursors.page(connection, select(Post), q), CursorPage[PostOut])
    assert_type(await both.page(db, select(Post), q), Page[PostOut] | CursorPage[PostOut])


def and_so_it_does_without_waiting(db: Session) -> None:
    found = pages.page_sync(db, select(Post), pages.parse("page=1"))
    assert_type(found, Page[PostOut])
    assert_type(pages.encode(found), bytes)
    assert_type(pages.link(found, pages.parse("")), str | None)


async def and_in_fastapi(db: AsyncSession) -> Page[PostOut]:
    posts = fastapi.Paginate(PostOut, model=Post)
    return await posts.page(db, select(Post), posts.parse(""))


counted = Paginate(PostOut, model=Post, count=Cached("exact", 30), etag=func.max(Post.id))
chosen = Paginate(Partial[PostOut], model=Post)
listed = Paginate(PostOut, key=("id",), mode="cursor", secret="a secret")
one_post = Fields(PostOut, model=Post)
names = Fields(["id", "title"], model=Post)


async def rows_hold_what_was_asked_for(db: AsyncSession) -> None:
    q = chosen.parse("fields=id")
    assert_type(await chosen.page(db, select(Post), q), Page[Partial[PostOut]])
    assert_type(await one_post.one(db, select(Post), one_post.parse("")), Partial[PostOut])
    assert_type(one_post.of({"id": 1}, one_post.parse("")), Partial[PostOut])


class Search:
    async def fetch(self, window: Window, /) -> Sequence[object]:
        return []

    async def count(self, cap: int | None, /) -> int:
        return 0


async def anything_can_be_paged() -> None:
    assert_type(listed.of([{"id": 1}], listed.parse("")), CursorPage[PostOut])
    assert_type(await listed.from_source(Search(), listed.parse("")), CursorPage[PostOut])
