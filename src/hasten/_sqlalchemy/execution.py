"""Execute statements on asynchronous and on blocking sessions with the same code.

Code that reads a database is written once, as coroutines that await an `Execute` function. For an
asynchronous session, this function is its ``execute`` method. For a blocking session, it is a
coroutine function that never suspends, so `hasten._coroutines.run_without_suspending` can run the
whole coroutine without an event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import ClauseElement, Connection, Executable, Result
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Mapper, Session

from hasten._loops import require_asyncio
from hasten.errors import InvalidOption

Executor: TypeAlias = Session | Connection
AsyncExecutor: TypeAlias = AsyncSession | AsyncConnection
DatabaseIdentity: TypeAlias = tuple[list[str | None], int]

if TYPE_CHECKING:
    Rows: TypeAlias = Result[*tuple[Any, ...]]
    """The result of an executed statement."""
else:
    Rows = Result

Execute: TypeAlias = Callable[[Executable, Mapping[str, Any]], Awaitable[Rows]]
"""A function that executes a statement with these parameters."""


@dataclass(frozen=True, slots=True)
class Database:
    """The session or connection that the application passed for one request."""

    executor: Any
    """The session or connection itself."""
    execute: Execute
    is_async: bool

    def find_dialect(self, mapper: Mapper[Any] | None, clause: ClauseElement | None = None) -> str:
        """Return the name of the SQL dialect, such as "postgresql".

        A session may use several databases. mapper and clause (the statement) let it choose one.
        """
        executor = self.executor
        if isinstance(executor, Connection | AsyncConnection):
            return executor.dialect.name
        # A scoped_session has get_bind(), too.
        bind: Any = executor.get_bind(mapper=mapper, clause=clause)
        name: str = bind.dialect.name
        return name

    async def call_sync_or_async(
        self, function: Callable[..., object], *arguments: object
    ) -> object:
        """Call a function of the application, and await its result if that is awaitable.

        The session or connection is passed as the first argument, before arguments. Raises
        `InvalidOption` for an async function on a blocking session.
        """
        result = function(self.executor, *arguments)
        if not isawaitable(result):
            return result
        if self.is_async:
            return await result
        if isinstance(result, Coroutine):
            result.close()
        raise InvalidOption(
            "count", "an async function", "a function that is not async: .sync.page() cannot await"
        )

    def find_schema_translation_pairs(
        self, mapper: Mapper[Any] | None, statement: Any, execution_options: Mapping[str, Any]
    ) -> list[list[str | None]]:
        """Return the ``schema_translate_map`` that applies to a statement, as sorted pairs.

        Each pair is a schema name in the table definitions and the name that replaces it. The list
        is empty if no schema is replaced. execution_options are those of the statement. A map that
        an event listener of the session sets is not found.
        """
        executor = self.executor
        if isinstance(executor, Connection | AsyncConnection):
            found = _get_schema_translate_map(executor)
        else:
            session = _unwrap_session(executor)
            bind = session.get_bind(mapper=mapper, clause=statement)
            # The connection of the current transaction; before that, the engine.
            known = getattr(session.get_transaction(), "_connections", {}).get(bind)
            found = _get_schema_translate_map(bind if known is None else known[0])
            if _TRANSLATE not in execution_options:
                # From SQLAlchemy 2.1 on, options of the session override those of its connection.
                found = getattr(session, "execution_options", {}).get(_TRANSLATE) or found
        found = found or execution_options.get(_TRANSLATE)
        return sorted(([k, v] for k, v in found.items()), key=repr) if found else []

    def make_identity(self, mapper: Mapper[Any] | None, statement: Any) -> DatabaseIdentity:
        """Return two values that together identify the database that executes a statement.

        The first is a list that is equal in every process: the names of the database and of the
        user (each user may see other tables), and the options in the URL. The second is a number
        that this process gave to the engine, because two servers may have databases with the same
        name.
        """
        bind: Any = self.executor
        if not isinstance(bind, Connection | AsyncConnection):
            bind = _unwrap_session(bind).get_bind(mapper=mapper, clause=statement)
        engine = (getattr(bind, "sync_connection", None) or bind).engine
        url = engine.url
        options = sorted(f"{name}={value}" for name, value in url.query.items())
        number = _numbers.setdefault(engine.pool, next(_counter))
        return [url.database, url.username, *options], number


def wrap_async_session(executor: AsyncExecutor) -> Database:
    """Wrap an asynchronous session or connection as a `Database`.

    Raises `AsyncioRequired` if no asyncio event loop is running.
    """
    require_asyncio(f"{type(executor).__name__} of SQLAlchemy", "use .sync in a thread")
    execute: Any = executor.execute
    return Database(executor, execute, is_async=True)


def wrap_blocking_session(executor: Executor) -> Database:
    """Wrap a blocking session or connection as a `Database`."""

    async def execute(statement: Executable, parameters: Mapping[str, Any]) -> Rows:
        rows: Any = executor.execute(statement, parameters)
        found: Rows = rows
        return found

    return Database(executor, execute, is_async=False)


_TRANSLATE: Final = "schema_translate_map"

# The numbers of `Database.make_identity`. The keys are pools, because an engine and the copies that
# engine.execution_options() makes of it share one pool.
_numbers: Final[WeakKeyDictionary[Any, int]] = WeakKeyDictionary()
_counter: Final = count(1)


def _unwrap_session(executor: Any) -> Session:
    """Return the plain `Session` behind an `AsyncSession` or a `scoped_session`."""
    if hasattr(executor, "registry"):
        executor = executor.registry()
    session: Session = getattr(executor, "sync_session", executor)
    return session


def _get_schema_translate_map(connection: Any) -> Mapping[str | None, str | None] | None:
    sync = getattr(connection, "sync_connection", None) or connection
    found: Mapping[str | None, str | None] | None = sync.get_execution_options().get(_TRANSLATE)
    return found
