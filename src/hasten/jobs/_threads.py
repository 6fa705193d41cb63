"""Run plain functions in threads, and stop them.

A thread cannot be killed. An exception can be set in it, which it raises when it next executes
Python code. That stops loops and most library code, but a long call in C (a sleep, a socket without
a time-out) returns first. A handler that must be stopped whatever it does belongs in a process.

A thread that does not stop is abandoned: the run of its handler ends with an error, another thread
takes its place, and its result is discarded. The thread ends when its handler does.

The pool of the standard library cannot be used: at its exit the interpreter waits for the threads
of that pool, so one long call would keep a worker from stopping.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import inspect
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from hasten import _django
from hasten._logs import get_logger

logger = get_logger("hasten.worker")

T = TypeVar("T")

# A thread whose call was cancelled gets this long to end before a warning is logged.
WARN_AFTER_SECONDS: Final = 2.0


class Interrupted(BaseException):
    """Raised in the thread of a handler to stop it. Not an Exception: handlers do not catch it."""


class Threads:
    """A pool of threads for handlers, which grows as needed. Belongs to one event loop."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0  # without those that are abandoned
        self._started = 0
        self._abandoned = 0  # abandoned threads that have not ended
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()

    @property
    def is_exhausted(self) -> bool:
        """Whether so many threads are abandoned that no more handlers may be started."""
        return self._abandoned >= self._size

    async def run(
        self,
        call: Callable[[], T],
        set_controls: Callable[[Callable[[], None], Callable[[], None]], None],
        *,
        what: str,
    ) -> T:
        """Run call in a thread. what names it in the log.

        set_controls is called with a function that interrupts the call, and one that abandons its
        thread.
        """
        loop = asyncio.get_running_loop()
        interruption = _Interruption()
        # What the handler raises is passed on as a value. As the exception of a future,
        # GeneratorExit would close the coroutines that wait for it, and StopIteration is not
        # allowed.
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        # Context variables that a handler sets must not be visible to the next one.
        context = contextvars.copy_context()

        def finish(result: Any, error: BaseException | None = None) -> None:
            try:
                if interruption.is_abandoned:
                    _drop(result)
                    loop.call_soon_threadsafe(self._ended, what, threading.current_thread().name)
                else:
                    loop.call_soon_threadsafe(_set, future, (result, error))
            except RuntimeError:  # the loop is closed: nobody waits
                _drop(result)

        def execute() -> bool:
            """Run the call. Returns whether the thread still belongs to the pool."""
            try:
                result = context.run(interruption.run, call)
            except BaseException as exc:  # noqa: BLE001  # an error of the job, of any kind
                finish(None, exc)
            else:
                finish(result)
            return not interruption.is_abandoned

        def abandon() -> None:
            if not future.done() and interruption.abandon():
                self._replace()
                _set(future, (None, Interrupted()))
                self._warn_of(what, interruption)

        set_controls(interruption.interrupt, abandon)
        try:
            self._put(execute)
            result, error = await future
        except BaseException:
            interruption.interrupt()  # nobody waits for its result
            if interruption.abandon():
                self._replace()
                # Most end at once. If the event loop ends, it never calls this.
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_later(WARN_AFTER_SECONDS, self._warn_of, what, interruption)
            raise
        if error is not None:
            try:
                raise error
            finally:
                # The traceback refers to this frame: the local variables of the handler would be
                # kept until the next garbage collection.
                del error, future
        returned: T = result
        return returned

    def _put(self, execute: Callable[[], bool]) -> None:
        self._calls.put(execute)
        if not self._idle.acquire(blocking=False) and self._count < self._size:
            self._started += 1
            threading.Thread(
                target=self._serve, name=f"hasten job {self._started}", daemon=True
            ).start()
            self._count += 1

    def _serve(self) -> None:
        while (execute := self._calls.get()) is not None:
            _django.close_old_connections()
            is_kept = execute()
            del execute  # it must not keep its objects alive until the next call
            _django.close_old_connections()
            if not is_kept:
                return
            self._idle.release()

    def _replace(self) -> None:
        """Make room in the pool for a thread in place of an abandoned one."""
        self._count -= 1
        self._abandoned += 1

    def _warn_of(self, what: str, interruption: _Interruption) -> None:
        if (thread := interruption.thread) is None:
            return  # it has ended in the meantime
        logger.warning(
            "%s is still running after being asked to stop: the worker no longer waits for "
            "it, its thread is abandoned (%s); abandoned threads of this worker: %d",
            what, _where(thread), self._abandoned,
        )  # fmt: skip
        if self._abandoned == self._size:
            logger.error(
                "all threads for handlers are abandoned (%d): this worker runs no more plain "
                "functions until one of them ends; set a time-out on what they wait for, or use "
                'run_in="process"',
                self._abandoned,
            )

    def _ended(self, what: str, name: str) -> None:
        self._abandoned -= 1
        logger.info(
            "%s has ended in its abandoned thread %r; abandoned threads of this worker: %d",
            what, name, self._abandoned,
        )  # fmt: skip

    def close(self) -> None:
        """Let each thread end after its current call."""
        for _ in range(self._count):
            self._calls.put(None)


def _set(
    future: asyncio.Future[tuple[Any, BaseException | None]],
    outcome: tuple[Any, BaseException | None],
) -> None:
    if not future.done():
        future.set_result(outcome)
    else:
        _drop(outcome[0])


def _drop(result: Any) -> None:
    if inspect.iscoroutine(result):  # nobody will await it
        result.close()


def _where(thread: int) -> str:
    """Return the name of a thread and the line that it executes."""
    names = {other.ident: other.name for other in threading.enumerate()}
    name = repr(names.get(thread, thread))
    if (frame := sys._current_frames().get(thread)) is None:
        return name
    return f"{name}, at {frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"


class _Interruption:
    """Interrupts one handler, and never the code that its thread runs after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.thread: int | None = None  # the one that runs the handler
        self._stopped = False
        self.is_abandoned = False

    def run(self, call: Callable[[], T]) -> T:
        try:
            with self._lock:
                if self._stopped:
                    raise Interrupted
                self.thread = threading.get_ident()
            return call()
        finally:
            while True:
                try:
                    self._leave()
                    break
                except Interrupted:
                    continue  # it came too late: the handler has ended

    def _leave(self) -> None:
        with self._lock:
            self.thread = None
            _set_exception(threading.get_ident(), None)  # clears one that is not raised yet

    def interrupt(self) -> None:
        with self._lock:
            self._stopped = True
            if self.thread is not None:
                _set_exception(self.thread, Interrupted)

    def abandon(self) -> bool:
        """Abandon the thread of the handler. False if there is none, or it is abandoned."""
        with self._lock:
            if self.thread is None or self.is_abandoned:
                return False
            self.is_abandoned = True
            return True


def _set_exception(thread: int, kind: type[BaseException] | None) -> None:
    """Raise kind in a thread, soon. None clears an exception that is not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind)
    )
