"""Calls that must type-check. Read by mypy, never run; see jobs_ok.py."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from hasten.integrations import fastapi
from hasten.pagination import Capped, CursorPage, Page, Paginate
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
