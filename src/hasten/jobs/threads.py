"""Plain functions in threads, and how to end one of them.

A thread cannot be killed. It can be given an exception, which it raises when it next executes
Python code: that ends loops and most library code, but not a single long call in C (a sleep, a
socket without a time-out) before that returns. Handlers that must be ended whatever they do belong
in a process.

The pool is our own for that reason: the interpreter waits at its end for the threads of the
standard library's, and one such call would keep a worker from stopping.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from hasten import _django

T = TypeVar("T")


class Interrupted(BaseException):
    """Raised inside a handler's thread to end it. Not an Exception: handlers do not catch it."""


class Threads:
    """A pool of threads for handlers, grown as needed. Belongs to one event loop."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run(
        self, call: Callable[[], T], offer_interrupt: Callable[[Callable[[], None]], None]
    ) -> T:
        """Run call in a thread. offer_interrupt is given a function that ends it."""
        guard = _Guard()
        offer_interrupt(guard.interrupt)
        loop = asyncio.get_running_loop()
        # What the handler raises is handed over as a value. As the exception of a future,
        # GeneratorExit would close the coroutines that wait for it, and StopIteration is refused.
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        # What a handler sets in its context must not be there for the thread's next handler.
        context = contextvars.copy_context()

        def answer(result: Any, error: BaseException | None = None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_set, future, (result, error))

        def carry_out() -> None:
            try:
                result = context.run(guard.run, call)
            except BaseException as exc:  # noqa: BLE001  # whatever it is, it is the job's
                answer(None, exc)
            else:
                answer(result)

        self._put(carry_out)
        try:
            result, error = await future
        except asyncio.CancelledError:
            guard.interrupt()  # nobody waits for what comes of it
            raise
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback holds this frame: what a handler had in its local variables
                # would stay until the garbage collector comes.
                del error, future
        returned: T = result
        return returned

    def _put(self, carry_out: Callable[[], None]) -> None:
        self._calls.put(carry_out)
        if not self._idle.acquire(blocking=False) and self._count < self._size:
            self._count += 1
            threading.Thread(
                target=self._serve, name=f"hasten job {self._count}", daemon=True
            ).start()

    def _serve(self) -> None:
        while (carry_out := self._calls.get()) is not None:
            _django.close_old_connections()
            carry_out()
            del carry_out  # what it holds must not live until the next one
            _django.close_old_connections()
            self._idle.release()

    def close(self) -> None:
        """Let the threads end once they are done with what they are at."""
        for _ in range(self._count):
            self._calls.put(None)


def _set(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


class _Guard:
    """Sees to it that an interruption hits the handler it is meant for, and nothing after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._stopped = False

    def run(self, call: Callable[[], T]) -> T:
        try:
            with self._lock:
                if self._stopped:
                    raise Interrupted
                self._thread = threading.get_ident()
            return call()
        finally:
            while True:
                try:
                    self._leave()
                    break
                except Interrupted:
                    continue  # it came too late: the handler had ended

    def _leave(self) -> None:
        with self._lock:
            self._thread = None
            _set_exception(threading.get_ident(), None)  # one that is still on its way

    def interrupt(self) -> None:
        with self._lock:
            self._stopped = True
            if self._thread is not None:
                _set_exception(self._thread, Interrupted)


def _set_exception(thread: int, kind: type[BaseException] | None) -> None:
    """Raise kind in a thread, soon; None takes back what has not been raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind)
    )
