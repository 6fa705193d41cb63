"""The interface of a database that contestants read from, and the cost of a request there."""

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
    """The work of the database for a request."""

    work: int
    """The work in units of `Database.unit`, such as buffers."""
    statements: int


class Database(ABC):
    """A database with the tables of `dataset`, and the engines that contestants have opened."""

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    nulls: ClassVar[Literal["first", "last"]]
    """Where NULLs are by default in ascending order."""
    callers: ClassVar[int]
    """How many requests run at the same time."""
    is_async: ClassVar[bool]
    """Whether handlers are async. If not, FastAPI calls them in threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._closers: list[Closer] = []

    @classmethod
    def missing(cls) -> str | None:
        """Return what has to be installed for this database, None if nothing is missing."""
        return None

    @abstractmethod
    def start(self) -> None:
        """Create the folder, and start the database there."""

    @abstractmethod
    async def load(self, rows: int) -> None:
        """Create the tables and fill them."""

    @abstractmethod
    async def facts(self) -> dict[str, str]:
        """Return facts about the database that the numbers depend on."""

    @abstractmethod
    async def ids(self, order: str, limit: int, offset: int) -> list[int]:
        """Return the ids of a page of posts. order is SQL, with default NULLs."""

    @abstractmethod
    async def cost(self, work: Callable[[], Awaitable[object]]) -> Cost:
        """Await work, and return the cost of it in the database."""

    @abstractmethod
    def new_engine(self) -> Any:
        """Return a SQLAlchemy engine with `CONNECTIONS` connections, async if `is_async` is set.

        Connections are in autocommit mode, because no request writes.
        """

    @abstractmethod
    async def new_raw(self) -> Any:
        """Return a client without SQLAlchemy: a pool of asyncpg, or a connection of sqlite3."""

    async def bytes_read(self, build: Build, path: str) -> int | None:
        """Return the bytes that the database sends for a request, None if it uses no socket."""
        return None

    async def stop(self) -> None:
        while self._closers:
            await self._closers.pop()()

    def call_at_end(self, closer: Closer) -> None:
        self._closers.append(closer)


def loading(title: str, rows: int) -> Bar:
    return Bar(f"loading {rows:,} rows into {title}", rows)
