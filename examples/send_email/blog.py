"""Posts and their authors, in pages and with the fields that a client selects.

The data is in a SQLite file, which is created at each start in a temporary folder. The folder is
deleted when the application stops.

The environment variable CURSOR_SECRET, 16 characters or more, signs the cursors. Without it, each
process signs them with a random secret: then other processes, and the same process after a
restart, reject them with 400.
"""

import logging
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from tempfile import TemporaryDirectory
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from examples.send_email.seed import POSTS, seed
from examples.send_email.tables import Post, User
from hasten.fastapi import (
    CursorPage,
    Fields,
    FieldSet,
    Page,
    PageParams,
    Paginate,
    Partial,
)

# Columns that are not in these models, such as the password hash, are never returned.


class UserOut(BaseModel):
    id: int
    name: str
    email: str
    about: str
    joined_at: datetime


class AuthorOut(BaseModel):
    id: int
    name: str


class PostOut(BaseModel):
    id: int
    title: str
    text: str
    created_at: datetime
    author: AuthorOut


Users = Fields(UserOut, model=User, default=("id", "name", "email"), etag=True)
Posts = Paginate(
    Partial[PostOut],  # PostOut with the fields that the client selects
    model=Post,
    fields=Fields(PostOut, model=Post, default=("id", "title", "text", "created_at", "author")),
    sort=("created_at", "title"),
    default_sort="-created_at",
    mode="both",
    secret=os.environ.get("CURSOR_SECRET") or secrets.token_bytes(32),
    etag=True,
)

sessions = async_sessionmaker()


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    with TemporaryDirectory(prefix="hasten-blog-") as folder:
        engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/blog.db")
        start = time.perf_counter()
        await seed(engine)
        logging.getLogger("uvicorn.error").info(
            "created %s posts in %.1f s: %s/blog.db",
            f"{POSTS:,}",
            time.perf_counter() - start,
            folder,
        )
        sessions.configure(bind=engine)
        try:
            yield
        finally:
            await engine.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as db:
        yield db


DB = Annotated[AsyncSession, Depends(session)]

router = APIRouter(prefix="/api", lifespan=lifespan)


@router.get("/posts", responses=Posts.responses)
async def posts(
    db: DB, q: Annotated[PageParams, Depends(Posts.params)]
) -> Page[Partial[PostOut]] | CursorPage[Partial[PostOut]]:
    """Return a page by number, with the total, or by cursor. An empty `cursor`: the first page."""
    return await Posts.page(db, select(Post), q)


@router.get("/users/{id}", responses=Users.responses)
async def user(
    id: Annotated[int, Path(ge=1, lt=2**63)],
    db: DB,
    fields: Annotated[FieldSet, Depends(Users.params)],
) -> Partial[UserOut]:
    return await Users.one(db, select(User).where(User.id == id), fields)
