"""Run docs/howto/fields.md: a client gets the fields that it selects, and no others."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tests.docs.page_session import Page

engine = create_async_engine("sqlite+aiosqlite:///users.db")


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str]
    first: Mapped[str]
    last: Mapped[str]
    password_hash: Mapped[str]
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))
    team: Mapped[Team | None] = relationship()
    posts: Mapped[list["Post"]] = relationship()


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    title: Mapped[str]


async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as db:
        yield db


async def check(page: Page) -> None:
    await add_a_user()
    code = await page.run()
    transport = httpx.ASGITransport(code.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        await check_requests(client)
    async with AsyncSession(engine) as db:
        named = await code.Named.one(db, select(User), code.Named.parse(""))
        assert named == {"id": 7, "initials": "AL"}
    events = code.Events
    assert events.from_item({"id": 2**60}, events.parse("")) == {"id": str(2**60)}
    assert "email" not in code.ForGuests.allowed.fields
    await engine.dispose()


async def add_a_user() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as db:
        db.add(Team(id=1, name="Red"))
        ada = User(id=7, name="ada", email="ada@example.org", first="Ada", last="L", team_id=1)
        ada.password_hash = "x"
        db.add(ada)
        await db.flush()
        db.add_all([Post(user_id=7, title=f"Post {number}") for number in range(30)])
        await db.commit()


async def check_requests(client: httpx.AsyncClient) -> None:
    async def get(query: str) -> Any:
        return (await client.get(f"/api/users/7{query}")).json()

    assert await get("") == {"id": 7, "name": "ada", "email": "ada@example.org"}
    assert await get("?fields=id,name") == {"id": 7, "name": "ada"}
    assert await get("?fields=name,team.name") == {"name": "ada", "team": {"name": "Red"}}
    posts = await get("?fields=id,posts(title)")
    assert len(posts["posts"]) == 20
    assert posts["posts_has_more"] is True
    hidden = (await get("?fields=password_hash"))["detail"][0]["msg"]
    unknown = (await get("?fields=passwort_hash"))["detail"][0]["msg"]
    assert hidden == unknown.replace("passwort", "password")
    assert (await client.get("/api/users/8")).status_code == 404
    assert (await client.get(f"/api/users/{'9' * 23}")).status_code == 422
    teams = (await client.get("/api/users?fields=team(name)")).json()
    assert teams["data"] == [{"team": {"name": "Red"}}]
