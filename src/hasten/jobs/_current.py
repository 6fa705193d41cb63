"""The job that runs here: for its handler and everything that the handler calls."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, Protocol

from hasten.jobs._context import Context


class RunningJob(Protocol):
    """A job whose handler is running."""

    @property
    def context(self) -> Context:
        """The context of the job, made at the first access."""


running_job: Final[ContextVar[RunningJob | None]] = ContextVar("hasten_running_job", default=None)


def current_job() -> Context | None:
    """Return the context of the job whose handler runs here, None outside of handlers.

    It works in handlers of all kinds (coroutines, threads, processes), in the tasks that they
    start, in threads of `asyncio.to_thread`, and in middlewares around a run. A
    `threading.Thread` normally inherits no context variables: let it run your function with
    `contextvars.copy_context().run`.
    """
    running = running_job.get()
    return None if running is None else running.context
