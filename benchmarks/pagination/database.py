"""What contestants read from, and what a request costs there."""

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
    """What some requests made the database do."""

    work: int
    """In the unit that `Database.unit` names."""
    statements: int


class Database(ABC):
    """A database with the tables of `dataset`, and the clients that contestants have opened."""

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    nulls: ClassVar[Literal["first", "last"]]
    """Where they are in ascending order."""
    callers: ClassVar[int]
    """How many requests are under way at once."""
    is_async: ClassVar[bool]
    """Whether it is asked by coroutines, or by functions in FastAPI's threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._closers: list[Closer] = []

    @classmethod
    def missing(cls) -> str | None:
        """What would have to be installed first."""
        return None

    @abstractmethod
    def start(self) -> None:
        """In its folder, which is made."""

    @abstractmethod
    async def load(self, rows: int) -> None:
        """Make the tables and fill them."""

    @abstractmethod
    async def facts(self) -> dict[str, str]:
        """What the numbers depend on."""

    @abstractmethod
    async def ids(self, order: str, limit: int, offset: int) -> list[int]:
        """Those of some posts in an order of SQL, whose NULLs are where the database has them."""

    @abstractmethod
    async def cost(self, work: Callable[[], Awaitable[object]]) -> Cost:
        """Do something, and tell what the database did for it."""

    @abstractmethod
    def new_engine(self) -> Any:
        """An engine of SQLAlchemy with `CONNECTIONS`, for `is_async`.

        They commit by themselves, for none of the requests writes.
        """

    @abstractmethod
    async def new_raw(self) -> Any:
        """The same without SQLAlchemy: a pool of asyncpg, or a connection of sqlite3."""

    async def bytes_read(self, build: Build, path: str) -> int | None:
        """What an application reads over the wire for a request, None where there is no wire."""
        return None

    async def stop(self) -> None:
        while self._closers:
            await self._closers.pop()()

    def at_end(self, closer: Closer) -> None:
        self._closers.append(closer)


def loading(title: str, rows: int) -> Bar:
    return Bar(f"loading {rows:,} rows into {title}", rows)
