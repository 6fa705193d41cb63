"""Calls that must type-check. Read by mypy, never run; see jobs_ok.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack, assert_type

from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from hasten import fastapi
from hasten.fields import FieldSelector, FieldSelectorOptions, Partial, Row
from hasten.pagination import (
    Cached,
    Capped,
    CursorPage,
    Page,
    PageParams,
    Paginator,
    PaginatorOptions,
    Source,
    Window,
)
from tests.pagination.databases import Post


class PostOut(BaseModel):
    id: int
    title: str


pages = Paginator(PostOut, model=Post, sort=("title",), default_sort="-title", count=Capped(10_000))
cursors = Paginator(PostOut, model=Post, mode="cursor", secret=["a new secret", b"an old one"])
both = Paginator(PostOut, model=Post, mode="both", secret="a secret", count="estimated")


async def the_mode_tells_what_is_returned(db: AsyncSession, connection: AsyncConnection) -> None:
    q = pages.parse([("page", "1")])
    assert_type(await pages.page(db, select(Post), q), Page[PostOut])
    assert_type(await cursors.page(connection, select(Post), q), CursorPage[PostOut])
    assert_type(await both.page(db, select(Post), q), Page[PostOut] | CursorPage[PostOut])


def and_so_it_does_without_waiting(db: Session) -> None:
    found = pages.sync.page(db, select(Post), pages.parse("page=1"))
    assert_type(found, Page[PostOut])
    assert_type(pages.encode(found), bytes)
    assert_type(pages.link(found, pages.parse("")), str | None)


async def and_in_fastapi(db: AsyncSession) -> Page[PostOut]:
    posts = fastapi.Paginate(PostOut, model=Post)
    return await posts.page(db, select(Post), posts.parse(""))


counted = Paginator(PostOut, model=Post, count=Cached("exact", 30), version=func.max(Post.id))
chosen = Paginator(Partial[PostOut], model=Post)
listed = Paginator(PostOut, unique=("id",), mode="cursor", secret="a secret")
one_post = FieldSelector(PostOut, model=Post)
names = FieldSelector(["id", "title"], model=Post)


async def rows_hold_what_was_asked_for(db: AsyncSession) -> None:
    q = chosen.parse("fields=id")
    assert_type(await chosen.page(db, select(Post), q), Page[Partial[PostOut]])
    assert_type(await one_post.one(db, select(Post), one_post.parse("")), Partial[PostOut])
    assert_type(one_post.from_item({"id": 1}, one_post.parse("")), Partial[PostOut])


class Search:
    async def fetch(self, window: Window, /) -> Sequence[object]:
        return []

    async def count(self, cap: int | None, /) -> int:
        return 0


async def anything_can_be_paged() -> None:
    assert_type(listed.from_items([{"id": 1}], listed.parse("")), CursorPage[PostOut])
    assert_type(await listed.from_source(Search(), listed.parse("")), CursorPage[PostOut])


def options_can_be_passed_on(**options: Unpack[PaginatorOptions]) -> Paginator[Page[PostOut]]:
    return Paginator(PostOut, **options)


def those_of_fields_too(**options: Unpack[FieldSelectorOptions]) -> FieldSelector[PostOut]:
    return FieldSelector(PostOut, **options)


def rows_of_a_blocking_session(db: Session) -> None:
    fields = one_post.parse("")
    assert_type(one_post.sync.one(db, select(Post), fields), Partial[PostOut])
    assert_type(one_post.sync.many(db, select(Post), fields), list[Row])


async def a_source_of_ones_own(source: Source, q: PageParams) -> Page[PostOut]:
    return await pages.from_source(source, q)
