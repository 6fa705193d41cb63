"""Return pages of rows, and only the fields that a client selects: `python examples/pages.py`.

    curl 'http://127.0.0.1:8000/api/posts?page=2&limit=3&sort=-title'
    curl 'http://127.0.0.1:8000/api/users/1?fields=id,name'

The rows are in a SQLite database in memory.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Path
from pydantic import BaseModel
from sqlalchemy import ForeignKey, Index, StaticPool, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from hasten.fastapi import Fields, FieldSet, Page, PageParams, Paginate, Partial, lifespan


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str]
    password_hash: Mapped[str]


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    created_at: Mapped[datetime]
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    author: Mapped[User] = relationship()
    # One index for each order that clients can choose.
    __table_args__ = (Index("by_time", "created_at", "id"), Index("by_title", "title", "id"))


engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)


@asynccontextmanager
async def database(app: FastAPI) -> AsyncIterator[None]:
    ada = {"name": "Ada", "email": "ada@example.org", "password_hash": "secret"}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    posts = [
        {"title": f"Post {n}", "created_at": start + timedelta(hours=n), "author_id": 1}
        for n in range(1, 1_001)
    ]
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(User), [ada])
        await connection.execute(insert(Post), posts)
    yield
    await engine.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as db:
        yield db


DB = Annotated[AsyncSession, Depends(session)]
RowId = Annotated[int, Path(ge=1, lt=2**63)]  # a larger number is 422, not an error of the driver


class UserOut(BaseModel):
    id: int
    name: str
    email: str


class PostOut(BaseModel):
    id: int
    title: str
    created_at: datetime
    author: UserOut


Posts = Paginate(PostOut, model=Post, sort=("created_at", "title"), default_sort="-created_at")
Users = Fields(UserOut, model=User, default=("id", "name", "email"))

app = FastAPI(lifespan=lifespan(database))


@app.get("/api/posts")  # ?page=2&limit=10&sort=-title
async def posts(db: DB, q: Annotated[PageParams, Depends(Posts.params)]) -> Page[PostOut]:
    return await Posts.page(db, select(Post), q)


@app.get("/api/users/{id}")  # ?fields=id,name
async def user(
    id: RowId, db: DB, fields: Annotated[FieldSet, Depends(Users.params)]
) -> Partial[UserOut]:
    return await Users.one(db, select(User).where(User.id == id), fields)


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
