"""Opening what an application uses when it starts, and closing it when it stops."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, cast

from hasten.errors import InvalidOption

_EXPECTED: Final = (
    "objects with `async with`, such as Store(…) and Worker(…), or functions of the application "
    "that return one"
)
_UNDECORATED: Final = "a function that returns an async context manager: add @asynccontextmanager"


def lifespan(
    *resources: AbstractAsyncContextManager[Any]
    | Callable[[Any], AbstractAsyncContextManager[Any]],
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """Open resources while an app runs: ``FastAPI(lifespan=lifespan(store, Worker(mail)))``.

    A resource is anything with ``async with`` (`hasten.Store`, `hasten.jobs.Worker`, a client of
    your own), or a lifespan of your own: a function of the application that returns such a thing.
    They are opened in the order given and closed in the opposite order, except that workers start
    last and stop first: a job finds all that it needs open.

    If one cannot be opened, those that are open are closed again, and the application does not
    start. A mapping that a lifespan of your own yields is the state of requests, as without hasten;
    the mappings of several are merged, later ones win.

    A `hasten.jobs.Worker` starts once. ``lambda app: Worker(mail)`` makes one for each start, for
    applications that tests start several times.

    The result is a lifespan by Starlette's protocol: for FastAPI, Starlette and Litestar, and for
    use in another one: ``async with lifespan(store)(app): …``. Raises `InvalidOption`.
    """
    for resource in resources:
        _check(resource)

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[dict[str, Any] | None]:
        state: dict[str, Any] = {}
        managers = [(_manager(resource, app), not _is_manager(resource)) for resource in resources]
        async with AsyncExitStack() as stack:
            for manager, is_lifespan in sorted(managers, key=_starts_last):
                entered = await stack.enter_async_context(manager)
                if is_lifespan and isinstance(entered, Mapping):
                    state.update(entered)
            # Not every server supports state, so an empty one is not mentioned.
            yield state or None

    return run


def _check(resource: object) -> None:
    if _is_manager(resource):
        return
    if inspect.isasyncgenfunction(resource) or inspect.iscoroutinefunction(resource):
        raise InvalidOption("resources", resource, _UNDECORATED)
    if not callable(resource):
        raise InvalidOption("resources", resource, _EXPECTED)


def _manager(resource: Any, app: Any) -> AbstractAsyncContextManager[Any]:
    """The resource itself, or what the function makes for this application."""
    manager = resource if _is_manager(resource) else resource(app)
    if not _is_manager(manager):
        raise InvalidOption("resources", resource, _EXPECTED)
    return cast("AbstractAsyncContextManager[Any]", manager)


def _is_manager(resource: object) -> bool:
    kind = type(resource)
    return hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__")


def _starts_last(opening: tuple[object, bool]) -> bool:
    """Is it a worker? Applications without jobs do not load them, and so have none."""
    jobs = sys.modules.get("hasten.jobs._worker")
    return jobs is not None and isinstance(opening[0], jobs.Worker)
