"""`ObservedEngine`: an engine whose calls a test can see, and hold back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, cast

from hasten.jobs._engine import Engine
from hasten.jobs._record import AddResult, NewJob, Outcome

# The operations that add jobs. Both take a list of `NewJob`.
ADDING: Final = frozenset({"add", "add_flow"})


class EngineObserver(Protocol):
    """Is called around the operations of an engine."""

    async def before_call(self, operation: str) -> None:
        """The operation with this name is about to be performed."""

    def after_add(self, jobs: Sequence[NewJob], results: Sequence[AddResult]) -> None:
        """Jobs were added. results has one `AddResult` for each of them."""

    def after_settle(self, outcomes: Sequence[Outcome]) -> None:
        """The outcomes of runs were stored."""


class ObservedEngine:
    """Performs all operations on another engine, and reports them to an observer."""

    def __init__(self, engine: Engine, observer: EngineObserver) -> None:
        self.engine = engine
        self._observer = observer

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.engine, name)
        if not inspect.iscoroutinefunction(found):
            return found
        observed = self._observe(name, found)
        setattr(self, name, observed)  # so that the next access finds it at once
        return observed

    def _observe(
        self, name: str, operation: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(operation)
        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._observer.before_call(name)
            result = await operation(*args, **kwargs)
            if name in ADDING:
                self._observer.after_add(args[0], result)
            elif name == "settle":
                self._observer.after_settle(args[1])
            return result

        return call


def observe_engine(engine: Engine, observer: EngineObserver) -> Engine:
    """Return an engine that reports its operations to an observer."""
    return cast("Engine", ObservedEngine(engine, observer))
