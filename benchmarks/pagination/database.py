"""The database that contestants read from, and what a request costs there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeAlias

from benchmarks.asgi import Application
from benchmarks.progress import Bar

CONNECTIONS: Final = 8

Closer: TypeAlias = Callable[[], Awaitable[None]]
Build: TypeAlias = "Callable[[Database], Awaitable[Application]]"


@dataclass(frozen=True, slots=True)
class Cost:
    """The work that requests cause in the database."""

    work: int
    """In units of `Database.unit`."""
    statements: int


class Database(ABC):
    """A database with the tables of `dataset`, and the clients that contestants have opened."""

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    nulls: ClassVar[Literal["first", "last"]]
    """Where NULLs are in ascending order."""
    callers: ClassVar[int]
    """How many requests run at the same time."""
    is_async: ClassVar[bool]
    """Whether handlers are coroutines; else they are functions in FastAPI's threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._closers: list[Closer] = []

    @classmethod
    def missing(cls) -> str | None:
        """Return what has to be installed first, None if nothing is missing."""
        return None

    @abstractmethod
    def start(self) -> None:
        """Make its folder, and start the database there."""

    @abstractmethod
    async def load(self, rows: int) -> None:
        """Make the tables and fill them."""

    @abstractmethod
    async def facts(self) -> dict[str, str]:
        """Return what the numbers depend on."""

    @abstractmethod
    async def ids(self, order: str, limit: int, offset: int) -> list[int]:
        """Return the ids of a page of posts. order is SQL; the database places the NULLs."""

    @abstractmethod
    async def cost(self, work: Callable[[], Awaitable[object]]) -> Cost:
        """Await work, and return what the database did for it."""

    @abstractmethod
    def new_engine(self) -> Any:
        """Return an engine of SQLAlchemy with `CONNECTIONS`, asynchronous if `is_async`.

        Connections are in autocommit mode, because no request writes.
        """

    @abstractmethod
    async def new_raw(self) -> Any:
        """Return the same without SQLAlchemy: a pool of asyncpg, or a connection of sqlite3."""

    async def bytes_read(self, build: Build, path: str) -> int | None:
        """Return how much an application reads over its socket for a request, None without one."""
        return None

    async def stop(self) -> None:
        while self._closers:
            await self._closers.pop()()

    def at_end(self, closer: Closer) -> None:
        self._closers.append(closer)


def loading(title: str, rows: int) -> Bar:
    return Bar(f"loading {rows:,} rows into {title}", rows)
