"""A lifespan for FastAPI that opens resources at startup, and closes them at shutdown."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final, cast

from hasten.errors import InvalidOption

_EXPECTED: Final = (
    "an async context manager such as Store(…) or Worker(…), or a function that takes the "
    "application and returns one"
)
_UNDECORATED: Final = "a function that returns an async context manager: use @asynccontextmanager"


def lifespan(
    *resources: AbstractAsyncContextManager[Any]
    | Callable[[Any], AbstractAsyncContextManager[Any]],
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """Open resources while an app runs: ``FastAPI(lifespan=lifespan(store, Worker(mail)))``.

    A resource is any async context manager (`hasten.Store`, `hasten.jobs.Worker`, your own client),
    or your own lifespan: a function that takes the application and returns an async context
    manager. Resources are opened in the given order, and closed in reverse. Workers are an
    exception: they start last and stop first, so that all resources are open while jobs run.

    If a resource cannot be opened, those already open are closed, and the application does not
    start. If your own lifespan yields a mapping, it becomes the state of requests, as in Starlette.
    Several mappings are merged: the later one wins.

    A `hasten.jobs.Worker` can start only once. If tests start the application several times, pass
    ``lambda app: Worker(mail)``, which creates a worker for each start.

    The returned lifespan works with FastAPI, Starlette and Litestar. To use it inside of another
    lifespan, write ``async with lifespan(store)(app): …``. Raises `InvalidOption`.
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
            for manager, is_lifespan in sorted(managers, key=lambda pair: _is_worker(pair[0])):
                entered = await stack.enter_async_context(manager)
                if is_lifespan and isinstance(entered, Mapping):
                    state.update(entered)
            # Yield no empty state, because not every server supports state.
            yield state or None

    return open_resources


def _check_resource(resource: object) -> None:
    """Raise `InvalidOption` if an argument of `lifespan` is certainly no resource."""
    if _is_context_manager(resource):
        return
    if inspect.isasyncgenfunction(resource) or inspect.iscoroutinefunction(resource):
        raise InvalidOption("resources", resource, _UNDECORATED)
    if not callable(resource):
        raise InvalidOption("resources", resource, _EXPECTED)


def _to_context_manager(resource: Any, app: Any) -> AbstractAsyncContextManager[Any]:
    """Return a resource as an async context manager. If it is a function, call it with the app."""
    manager = resource if _is_context_manager(resource) else resource(app)
    if not _is_context_manager(manager):
        raise InvalidOption("resources", resource, _EXPECTED)
    return cast("AbstractAsyncContextManager[Any]", manager)


def _is_context_manager(resource: object) -> bool:
    """Return whether an object supports ``async with``."""
    kind = type(resource)
    return hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__")


def _is_worker(resource: object) -> bool:
    """Return whether a resource is a `Worker`. It is a sort key, so that workers start last.

    hasten.jobs is not imported for this: if nobody has imported it, there are no workers.
    """
    jobs = sys.modules.get("hasten.jobs._worker")
    return jobs is not None and isinstance(resource, jobs.Worker)
