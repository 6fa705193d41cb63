"""Open resources when an application starts, and close them when it stops."""

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

    A resource is any object with ``async with`` (`hasten.Store`, `hasten.jobs.Worker`, your own
    client), or your own lifespan: a function of the application that returns such an object.
    Resources open in the order given and close in the opposite order, except that workers start
    last and stop first: a job finds everything that it needs open.

    If a resource cannot be opened, the open ones are closed and the application does not start. A
    mapping that your own lifespan yields is the state of requests, as without hasten; several
    mappings are merged, and later ones win.

    A `hasten.jobs.Worker` can start only once. For applications that tests start several times,
    ``lambda app: Worker(mail)`` creates one for each start.

    The result is a lifespan by Starlette's protocol, for FastAPI, Starlette and Litestar. To use it
    inside of another lifespan, write ``async with lifespan(store)(app): …``. Raises
    `InvalidOption`.
    """
    for resource in resources:
        _check_resource(resource)

    @asynccontextmanager
    async def open_resources(app: Any) -> AsyncIterator[dict[str, Any] | None]:
        state: dict[str, Any] = {}
        managers = [
            (_to_context_manager(resource, app), not _is_context_manager(resource))
            for resource in resources
        ]
        async with AsyncExitStack() as stack:
            for manager, is_lifespan in sorted(managers, key=_is_worker):
                entered = await stack.enter_async_context(manager)
                if is_lifespan and isinstance(entered, Mapping):
                    state.update(entered)
            # Not every server supports state, so an empty one is not yielded.
            yield state or None

    return open_resources


def _check_resource(resource: object) -> None:
    if _is_context_manager(resource):
        return
    if inspect.isasyncgenfunction(resource) or inspect.iscoroutinefunction(resource):
        raise InvalidOption("resources", resource, _UNDECORATED)
    if not callable(resource):
        raise InvalidOption("resources", resource, _EXPECTED)


def _to_context_manager(resource: Any, app: Any) -> AbstractAsyncContextManager[Any]:
    """Return the resource itself, or what the function returns for this application."""
    manager = resource if _is_context_manager(resource) else resource(app)
    if not _is_context_manager(manager):
        raise InvalidOption("resources", resource, _EXPECTED)
    return cast("AbstractAsyncContextManager[Any]", manager)


def _is_context_manager(resource: object) -> bool:
    kind = type(resource)
    return hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__")


def _is_worker(opening: tuple[object, bool]) -> bool:
    """Return whether it is a worker. An application that has not imported jobs has none."""
    jobs = sys.modules.get("hasten.jobs._worker")
    return jobs is not None and isinstance(opening[0], jobs.Worker)
