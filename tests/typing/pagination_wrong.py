"""Calls that must not type-check. Read by mypy, never run; see jobs_wrong.py."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from hasten.pagination import CursorPage, PageParams, Paginator, Window
from tests.pagination.databases import Post
from tests.typing.pagination_ok import PostOut, pages

Paginator(PostOut, model=7)  # type: ignore[call-overload]
Paginator(PostOut, model=Post, mode="cursor")  # type: ignore[call-overload]
Paginator(PostOut, model=Post, mode="endless")  # type: ignore[call-overload]
Paginator(PostOut, model=Post, count="roughly")  # type: ignore[call-overload]
Paginator(PostOut, model=Post, limit=20)  # type: ignore[call-overload]
Paginator(PostOut, model=Post, count=False)  # type: ignore[call-overload]
Paginator(PostOut, model=Post, unknown="allow")  # type: ignore[call-overload]


async def a_session_that_does_not_wait(db: Session) -> None:
    await pages.page(db, select(Post), pages.parse(""))  # type: ignore[arg-type]


async def the_other_kind_of_page(db: AsyncSession) -> CursorPage[PostOut]:
    return await pages.page(db, select(Post), pages.parse(""))  # type: ignore[return-value]


async def a_source_that_cannot_count(q: PageParams) -> None:
    class Endless:
        async def fetch(self, window: Window, /) -> list[object]:
            return []

    await pages.from_source(Endless(), q)  # type: ignore[arg-type]
