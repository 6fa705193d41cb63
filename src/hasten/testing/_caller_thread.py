"""Run functions in the thread of a synchronous test while it waits for a `.sync` call.

Such a call runs on an event loop in another thread. Handlers without `async` and the functions of a
test would see another database connection there than the test, for example in the transaction of
Django's `TestCase`. So they are sent to the thread that waits.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

waiting_thread: Final[ContextVar[WaitingThread | None]] = ContextVar(
    "hasten_waiting_thread", default=None
)
"""The thread that waits for the running coroutine, None if no thread does."""


class WaitingThread:
    """A thread that waits for a coroutine, and runs functions for it meanwhile."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def wait_for(self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
        """Run a coroutine on an event loop of another thread, and return its result."""
        __tracebackhide__ = True
        # The coroutine runs in a copy of this context.
        token = waiting_thread.set(self)
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        finally:
            waiting_thread.reset(token)
        future.add_done_callback(lambda _: self._calls.put(None))
        try:
            while (call := self._calls.get()) is not None:
                call()
        except BaseException:  # such as Ctrl+C in the waiting thread
            future.cancel()
            raise
        return future.result()

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in the waiting thread, and return its result."""
        loop = asyncio.get_running_loop()
        # The exception is a part of the result: a future cannot have a StopIteration.
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(result: Any, error: BaseException | None) -> None:
            if not done.done():
                done.set_result((result, error))

        def call() -> None:
            try:
                result = context.run(function)
            except BaseException as error:
                loop.call_soon_threadsafe(deliver, None, error)
                if isinstance(error, KeyboardInterrupt):
                    raise
            else:
                loop.call_soon_threadsafe(deliver, result, None)

        self._calls.put(call)
        result, error = await done
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


def wait_in_this_thread(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run a coroutine on an event loop of another thread, as `hasten._portal.wait_for` does."""
    __tracebackhide__ = True
    return WaitingThread().wait_for(coroutine, loop)


async def call_function(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the test, in the thread of a synchronous test, and await its result."""
    thread = waiting_thread.get()
    result = function(*args) if thread is None else await thread.run(lambda: function(*args))
    return await result if asyncio.iscoroutine(result) else result
