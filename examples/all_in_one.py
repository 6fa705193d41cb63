"""One application with jobs, compression, pages, fields and limits, which share one store.

    uvicorn examples.all_in_one:app

Jobs and limits are stored in the file `hasten.db`, or in the store of the environment variable
HASTEN_URL, such as `redis://localhost`. The posts are in a database in memory.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import StaticPool, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from hasten import Store
from hasten.compression import CompressionMiddleware
from hasten.fastapi import Fields, Page, PageParams, Paginate, Partial, RateLimited, lifespan
from hasten.jobs import Queue, Worker
from hasten.ratelimit import Limit, RateLimitMiddleware

store = Store.from_env()
mail = Queue("mail", store)


@mail.task(attempts=5, backoff="exponential", timeout="30s")
async def send_welcome(to: str) -> str:
    return f"sent to {to}"


class Base(DeclarativeBase):
    pass


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]


class PostOut(BaseModel):
    id: int
    title: str
    text: str


engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)


@asynccontextmanager
async def database(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        posts = [{"title": f"Post {number}", "text": "hasten " * 50} for number in range(1_000)]
        await connection.execute(insert(Post), posts)
    yield
    await engine.dispose()


async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as db:
        yield db


Posts = Paginate(
    Partial[PostOut], model=Post, sort=("id", "title"), fields=Fields(PostOut, model=Post)
)

app = FastAPI(lifespan=lifespan(store, database, mail, Worker(mail)))
app.add_middleware(RateLimitMiddleware, limits=[Limit("1000/m", name="all")], store=store)
app.add_middleware(CompressionMiddleware)


@app.post("/users", status_code=202, dependencies=[RateLimited("5/m")])
async def register(email: str) -> dict[str, str]:
    job = await send_welcome.enqueue(email)
    return {"job": job.id}


@app.get("/jobs/{id}")
async def job(id: str) -> dict[str, Any]:
    found = await mail.get(id)
    return {} if found is None else {"state": found.state, "value": found.value}


@app.get("/posts")  # ?page=2&limit=10&sort=-title&fields=id,title
async def posts(
    db: Annotated[AsyncSession, Depends(session)],
    q: Annotated[PageParams, Depends(Posts.params)],
) -> Page[Partial[PostOut]]:
    return await Posts.page(db, select(Post), q)
