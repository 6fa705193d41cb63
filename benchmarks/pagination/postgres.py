"""A PostgreSQL server that is started and filled for the benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from benchmarks.pagination.calls import get
from benchmarks.pagination.database import CONNECTIONS, Build, Cost, Database, loading
from benchmarks.pagination.dataset import NAMES, TABLES, Values, generate, sizes
from benchmarks.pagination.relay import Relay
from benchmarks.progress import Bar

START_SECONDS: Final = 30.0
BATCH_ROWS: Final = 10_000
DIALECT: Final[Any] = postgresql.asyncpg.dialect
WARM_UP_CALLS: Final = 20  # more than there are connections, to warm up each of them

# All tables fit into the buffers, so that the disk is not measured. Commits are not flushed,
# because the data is deleted afterwards. Query plans do not depend on the number of processors.
SETTINGS: Final = (
    "shared_buffers=3GB", "effective_cache_size=6GB", "work_mem=16MB", "maintenance_work_mem=512MB",
    "random_page_cost=1.1", "jit=off", "max_parallel_workers_per_gather=0", "autovacuum=off",
    "fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0",
    "max_wal_size=8GB", "max_connections=200",
    "shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_utility=off",
)  # fmt: skip


class Postgres(Database):
    name = "postgresql"
    title = "PostgreSQL"
    unit = "buffers"
    nulls = "last"
    callers = 4
    is_async = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._sockets = folder
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: Any = None

    @classmethod
    def missing(cls) -> str | None:
        programs = (_program("initdb"), _program("postgres"))
        return None if all(programs) else "PostgreSQL (Debian: apt-get install postgresql)"

    def start(self) -> None:
        user = _server_user()
        self.folder.mkdir(exist_ok=True)
        self.folder.parent.chmod(0o755)  # so that the other user of the server can enter it
        if user is not None:
            shutil.chown(self.folder, user)
        data = str(self.folder / "data")
        subprocess.run(
            [_program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, cwd=self.folder,
            user=user, extra_groups=None if user is None else [],
        )  # fmt: skip
        settings = [part for setting in SETTINGS for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", data, "-p", str(self._port), "-k", str(self.folder),
                 "-c", "listen_addresses=", *settings],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C does not reach it: `stop` stops it
                user=user, extra_groups=None if user is None else [],
            )  # fmt: skip

    async def _until_ready(self) -> Any:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return await asyncpg.connect(**self._address())
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    log = (self.folder / "log").read_text("utf-8")
                    raise RuntimeError(f"PostgreSQL did not start:\n{log}") from None
                await asyncio.sleep(0.05)

    def _address(self) -> dict[str, Any]:
        return {"host": str(self._sockets), "port": self._port, "user": "postgres"}

    async def stop(self) -> None:
        await super().stop()
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # an immediate shutdown, with its children
            self._process.wait()

    async def load(self, rows: int) -> None:
        self._admin = await self._until_ready()
        await self._admin.execute("CREATE EXTENSION pg_stat_statements")
        with loading(self.title, sum(sizes(rows).values())) as bar:
            for name, count in sizes(rows).items():
                table: Any = TABLES[name].__table__
                await self._admin.execute(_ddl(CreateTable(table)))
                for batch in _batches(generate(count), bar):
                    await self._admin.copy_records_to_table(name, records=batch, columns=NAMES)
                for index in sorted(table.indexes, key=lambda each: str(each.name)):
                    await self._admin.execute(_ddl(CreateIndex(index)))
                await self._admin.execute(f"VACUUM (ANALYZE) {name}")

    async def facts(self) -> dict[str, str]:
        version = str(await self._admin.fetchval("SHOW server_version")).partition(" ")[0]
        size = await self._admin.fetchval("SELECT pg_size_pretty(pg_table_size('posts'))")
        about = f"{version} on a Unix socket, {CONNECTIONS} connections; posts have {size}"
        return {"postgresql": f"{about}; {', '.join(SETTINGS)}"}

    async def ids(self, order: str, limit: int, offset: int) -> list[int]:
        found = await self._admin.fetch(
            f"SELECT id FROM posts ORDER BY {order} LIMIT {limit} OFFSET {offset}"
        )
        return [row[0] for row in found]

    async def cost(self, work: Callable[[], Awaitable[object]]) -> Cost:
        """Count the buffers of all executed statements, as EXPLAIN (ANALYZE, BUFFERS) does."""
        await self._admin.execute("SELECT pg_stat_statements_reset()")
        await work()
        found = await self._admin.fetchrow(
            "SELECT coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint,"
            " coalesce(sum(calls), 0)::bigint FROM pg_stat_statements"
            " WHERE query NOT LIKE '%pg_stat_statements%'"
        )
        return Cost(*found)

    async def bytes_read(self, build: Build, path: str) -> int:
        """Count the bytes that the server sends through a relay, after warming up."""
        name = f".s.PGSQL.{self._port}"
        async with Relay.open(self.folder / name, self.folder / "relay" / name) as relay:
            relayed = copy.copy(self)
            relayed._sockets = self.folder / "relay"
            relayed._closers = []
            app = await build(relayed)
            try:
                for _ in range(WARM_UP_CALLS):
                    await get(app, path)
                before = relay.received
                await get(app, path)
                return relay.received - before
            finally:
                await Database.stop(relayed)

    def new_engine(self) -> AsyncEngine:
        engine = create_async_engine(
            f"postgresql+asyncpg://postgres@/postgres?host={self._sockets}&port={self._port}",
            isolation_level="AUTOCOMMIT",
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_reset_on_return=None,
        )
        self.call_at_end(engine.dispose)
        return engine

    async def new_raw(self) -> Any:
        pool: Any = await asyncpg.create_pool(
            **self._address(), min_size=CONNECTIONS, max_size=CONNECTIONS, reset=_skip_reset
        )
        self.call_at_end(pool.close)
        return pool


async def _skip_reset(_: object) -> None:
    """Do nothing. No request changes the state of a connection, so none has to be reset."""


def _batches(rows: Iterable[Values], bar: Bar) -> Iterator[list[Values]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        yield batch
        bar.advance(len(batch))


def _ddl(element: Any) -> str:
    return str(element.compile(dialect=DIALECT()))


def _free_port() -> int:
    """Return a port number. It is only part of the socket's name: the server uses no network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    """Return the path of a program: the newest one of a Debian package, else the one in PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
    return str(found[-1]) if found else shutil.which(name) or ""


def _version(path: Path) -> int:
    with contextlib.suppress(ValueError):
        return int(path.parent.parent.name)
    return 0


def _server_user() -> str | None:
    """Return the user to run PostgreSQL as, if this one is root: it does not start as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None
