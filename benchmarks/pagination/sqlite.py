"""A SQLite file that is created and filled for the benchmark."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from benchmarks.pagination.database import CONNECTIONS, Cost, Database, loading
from benchmarks.pagination.dataset import NAMES, TABLES, Values, generate, sizes
from benchmarks.progress import Bar

MAPPED: Final = 4294967296
PAGE_BYTES: Final = 4096
READ: Final = Path("/proc/self/io")
PRAGMAS: Final = ("journal_mode=WAL", f"mmap_size={MAPPED}", "cache_size=-65536")
REPORTED_ROWS: Final = 10_000


class Sqlite(Database):
    name = "sqlite"
    title = "SQLite"
    unit = "pages"
    nulls = "first"
    # Threads share the interpreter lock: with more than one thread, each request takes longer.
    callers = 1
    is_async = False

    def __init__(self, folder: Any) -> None:
        super().__init__(folder)
        self._connections: list[sqlite3.Connection] = []

    @classmethod
    def missing(cls) -> str | None:
        return None if READ.exists() else f"Linux: {READ} shows how many pages are read"

    @property
    def _file(self) -> str:
        return str(self.folder / "posts.db")

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)

    async def load(self, rows: int) -> None:
        connection = self._connect()
        places = ", ".join("?" * len(NAMES))
        with loading(self.title, sum(sizes(rows).values())) as bar:
            connection.execute("BEGIN")
            for name, count in sizes(rows).items():
                table: Any = TABLES[name].__table__
                connection.execute(_ddl(CreateTable(table)))
                connection.executemany(
                    f"INSERT INTO {name} VALUES ({places})", _report_rows(generate(count), bar)
                )
                for index in sorted(table.indexes, key=lambda each: str(each.name)):
                    connection.execute(_ddl(CreateIndex(index)))
            connection.execute("COMMIT")
        connection.execute("ANALYZE")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def facts(self) -> dict[str, str]:
        return {"sqlite": f"{sqlite3.sqlite_version}, a file; {', '.join(PRAGMAS)}"}

    async def ids(self, order: str, limit: int, offset: int) -> list[int]:
        sql = f"SELECT id FROM posts ORDER BY {order} LIMIT {limit} OFFSET {offset}"
        return [row[0] for row in self._connections[0].execute(sql)]

    async def cost(self, work: Callable[[], Awaitable[object]]) -> Cost:
        """Count the pages that are read, with empty caches of all connections.

        Steps of the virtual machine would mislead: `count(*)` is one step, but reads an index.
        """
        statements = 0

        def count_statement(_: str) -> None:
            nonlocal statements
            statements += 1

        for connection in self._connections:
            connection.execute(
                "PRAGMA mmap_size=0"
            )  # because the reading of mapped pages cannot be counted
            connection.execute("PRAGMA shrink_memory")
            connection.set_trace_callback(count_statement)
        before = _bytes_read()
        try:
            await work()
        finally:
            pages = (_bytes_read() - before) // PAGE_BYTES
            for connection in self._connections:
                connection.set_trace_callback(None)
                connection.execute(f"PRAGMA mmap_size={MAPPED}")
        return Cost(pages, statements)

    async def stop(self) -> None:
        await super().stop()
        for connection in self._connections:
            connection.close()

    def new_engine(self) -> Engine:
        engine = create_engine(
            f"sqlite:///{self._file}",
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_reset_on_return=None,
            isolation_level="AUTOCOMMIT",
        )
        event.listen(engine, "connect", lambda connection, _: self._set_up(connection))
        return engine

    async def new_raw(self) -> sqlite3.Connection:
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
        self._set_up(connection)
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        self._connections.append(connection)


def _bytes_read() -> int:
    return int(READ.read_text().split()[1])


def _report_rows(rows: Iterable[Values], bar: Bar) -> Iterator[Values]:
    for number, (id_, created_at, *others) in enumerate(rows, 1):
        yield id_, f"{created_at:%Y-%m-%d %H:%M:%S.%f}", *others
        if number % REPORTED_ROWS == 0:
            bar.advance(REPORTED_ROWS)


def _ddl(element: Any) -> str:
    return str(element.compile(dialect=sqlite.dialect()))
