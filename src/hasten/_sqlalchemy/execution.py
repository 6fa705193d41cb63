"""Execute statements with the same code on asynchronous and on blocking sessions.

Code that reads a database is written once, as coroutines that await an `Execute`. For an
asynchronous session that is a method of the session. For a blocking session it is a coroutine that
never suspends, so `hasten._coroutines.run_without_loop` can run its caller.
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

if TYPE_CHECKING:
    Rows: TypeAlias = Result[*tuple[Any, ...]]
    """The result of a statement."""
else:
    Rows = Result

Execute: TypeAlias = Callable[[Executable, Mapping[str, Any]], Awaitable[Rows]]
"""Executes a statement with its parameters."""


@dataclass(frozen=True, slots=True)
class Database:
    """The session or connection of one request."""

    executor: Any
    execute: Execute
    is_async: bool

    def dialect(self, mapper: Mapper[Any] | None, clause: ClauseElement | None = None) -> str:
        """Return the name of the dialect that a statement of this mapper is compiled for."""
        executor = self.executor
        if isinstance(executor, Connection | AsyncConnection):
            return executor.dialect.name
        # A scoped session has this method, too.
        bind: Any = executor.get_bind(mapper=mapper, clause=clause)
        name: str = bind.dialect.name
        return name

    async def call(self, function: Callable[..., object], *arguments: object) -> object:
        """Call a function of the application with the session, and await it if it is async."""
        result = function(self.executor, *arguments)
        if not isawaitable(result):
            return result
        if self.is_async:
            return await result
        if isinstance(result, Coroutine):
            result.close()
        raise InvalidOption(
            "count", "an async function", "a plain function: .sync.page() cannot await it"
        )

    def schemas(
        self, mapper: Mapper[Any] | None, statement: Any, options: Mapping[str, Any]
    ) -> list[list[str | None]]:
        """Return the schemas of ``schema_translate_map`` that a statement is executed with.

        options are the execution options of the statement. Each item is a schema of the mapping and
        the schema that replaces it; the list is empty if none is replaced. A map that a listener
        of the session sets is not found.
        """
        executor = self.executor
        if isinstance(executor, Connection | AsyncConnection):
            found = _translate_map(executor)
        else:
            session = _session_of(executor)
            bind = session.get_bind(mapper=mapper, clause=statement)
            # The connection of the current transaction, or else what it would connect to.
            known = getattr(session.get_transaction(), "_connections", {}).get(bind)
            found = _translate_map(bind if known is None else known[0])
            if _TRANSLATE not in options:
                # From SQLAlchemy 2.1 on, options of the session override those of its connection.
                found = getattr(session, "execution_options", {}).get(_TRANSLATE) or found
        found = found or options.get(_TRANSLATE)
        return sorted(([k, v] for k, v in found.items()), key=repr) if found else []

    def identity(self, mapper: Mapper[Any] | None, statement: Any) -> tuple[list[str | None], int]:
        """Return what identifies the database that a statement is executed on.

        The first part is the same in every process: the names of the database and of the user (who
        may have own tables), and the options of the URL. The second part is a number of the engine
        in this process, because databases on two servers may have the same name.
        """
        bind: Any = self.executor
        if not isinstance(bind, Connection | AsyncConnection):
            bind = _session_of(bind).get_bind(mapper=mapper, clause=statement)
        engine = (getattr(bind, "sync_connection", None) or bind).engine
        url = engine.url
        options = sorted(f"{name}={value}" for name, value in url.query.items())
        number = _numbers.setdefault(engine.pool, next(_counter))
        return [url.database, url.username, *options], number


def asynchronous(executor: AsyncExecutor) -> Database:
    """Return the database of an asynchronous session or connection.

    Raises `AsyncioRequired` where asyncio does not run.
    """
    require_asyncio(f"{type(executor).__name__} of SQLAlchemy", "use .sync in a thread")
    execute: Any = executor.execute
    return Database(executor, execute, is_async=True)


def blocking(executor: Executor) -> Database:
    """Return the database of a blocking session or connection."""

    async def execute(statement: Executable, parameters: Mapping[str, Any]) -> Rows:
        rows: Any = executor.execute(statement, parameters)
        found: Rows = rows
        return found

    return Database(executor, execute, is_async=False)


_TRANSLATE: Final = "schema_translate_map"

# By pool, because engines that execution_options() derives share one.
_numbers: Final[WeakKeyDictionary[Any, int]] = WeakKeyDictionary()
_counter: Final = count(1)


def _session_of(executor: Any) -> Session:
    """Return the blocking session within an asynchronous or scoped one."""
    if hasattr(executor, "registry"):
        executor = executor.registry()
    session: Session = getattr(executor, "sync_session", executor)
    return session


def _translate_map(connection: Any) -> Mapping[str | None, str | None] | None:
    sync = getattr(connection, "sync_connection", None) or connection
    found: Mapping[str | None, str | None] | None = sync.get_execution_options().get(_TRANSLATE)
    return found
