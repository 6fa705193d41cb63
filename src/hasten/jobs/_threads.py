"""Plain functions in threads, and how to end one of them.

A thread cannot be killed. It can be given an exception, which it raises when it next executes
Python code: that ends loops and most library code, but not a single long call in C (a sleep, a
socket without a time-out) before that returns. Handlers that must be ended whatever they do belong
in a process.

A thread that does not end is abandoned: its handler's run ends with an error, another thread takes
its place, and what comes of it later is dropped. It ends itself when the handler does.

The pool is our own for that reason: the interpreter waits at its end for the threads of the
standard library's, and one such call would keep a worker from stopping.
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

# A thread whose call was cancelled gets this long to end before that is told.
TELL_SECONDS: Final = 2.0


class Interrupted(BaseException):
    """Raised inside a handler's thread to end it. Not an Exception: handlers do not catch it."""


class Threads:
    """A pool of threads for handlers, grown as needed. Belongs to one event loop."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0  # without those that are abandoned
        self._started = 0
        self._stuck = 0  # abandoned, and not ended
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()

    @property
    def is_stuck(self) -> bool:
        """Whether as many threads are abandoned as may run: nothing more is to be run then."""
        return self._stuck >= self._size

    async def run(
        self,
        call: Callable[[], T],
        offer: Callable[[Callable[[], None], Callable[[], None]], None],
        *,
        what: str,
    ) -> T:
        """Run call in a thread. what names it in the log.

        offer is given a function that interrupts the call, and one that abandons its thread.
        """
        loop = asyncio.get_running_loop()
        guard = _Guard()
        # What the handler raises is handed over as a value. As the exception of a future,
        # GeneratorExit would close the coroutines that wait for it, and StopIteration is refused.
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        # What a handler sets in its context must not be there for the thread's next handler.
        context = contextvars.copy_context()

        def answer(result: Any, error: BaseException | None = None) -> None:
            try:
                if guard.is_abandoned:
                    _drop(result)
                    loop.call_soon_threadsafe(self._ended, what, threading.current_thread().name)
                else:
                    loop.call_soon_threadsafe(_set, future, (result, error))
            except RuntimeError:  # the loop is closed: nobody waits
                _drop(result)

        def carry_out() -> bool:
            """Returns whether the thread is still one of the pool."""
            try:
                result = context.run(guard.run, call)
            except BaseException as exc:  # noqa: BLE001  # whatever it is, it is the job's
                answer(None, exc)
            else:
                answer(result)
            return not guard.is_abandoned

        def abandon() -> None:
            if not future.done() and guard.abandon():
                self._replace()
                _set(future, (None, Interrupted()))
                self._tell_of(what, guard)

        offer(guard.interrupt, abandon)
        try:
            self._put(carry_out)
            result, error = await future
        except BaseException:
            guard.interrupt()  # nobody waits for what comes of it
            if guard.abandon():
                self._replace()
                # Most end at once. An event loop that ends cancels us, too, and never gets there.
                with contextlib.suppress(RuntimeError):  # it is closed
                    loop.call_later(TELL_SECONDS, self._tell_of, what, guard)
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

    def _put(self, carry_out: Callable[[], bool]) -> None:
        self._calls.put(carry_out)
        if not self._idle.acquire(blocking=False) and self._count < self._size:
            self._started += 1
            threading.Thread(
                target=self._serve, name=f"hasten job {self._started}", daemon=True
            ).start()
            self._count += 1

    def _serve(self) -> None:
        while (carry_out := self._calls.get()) is not None:
            _django.close_old_connections()
            stays = carry_out()
            del carry_out  # what it holds must not live until the next one
            _django.close_old_connections()
            if not stays:
                return
            self._idle.release()

    def _replace(self) -> None:
        """Let another thread take the place of one that is abandoned."""
        self._count -= 1
        self._stuck += 1

    def _tell_of(self, what: str, guard: _Guard) -> None:
        if (thread := guard.thread) is None:
            return  # it has ended meanwhile
        logger.warning(
            "%s does not end although it was told to: its run ends, and its thread goes on (%s); "
            "threads of this worker that are stuck like this: %d",
            what, _where(thread), self._stuck,
        )  # fmt: skip
        if self._stuck == self._size:
            logger.error(
                "as many threads of handlers are stuck as this worker may run (%d): it runs no "
                "more plain functions until one of them ends; give what they wait for a time-out "
                'of its own, or use run_in="process"',
                self._stuck,
            )

    def _ended(self, what: str, name: str) -> None:
        self._stuck -= 1
        logger.info(
            "%s has ended in the abandoned thread %r; threads that are still stuck: %d",
            what, name, self._stuck,
        )  # fmt: skip

    def close(self) -> None:
        """Let the threads end once they are done with what they are at."""
        for _ in range(self._count):
            self._calls.put(None)


def _set(
    future: asyncio.Future[tuple[Any, BaseException | None]],
    answer: tuple[Any, BaseException | None],
) -> None:
    if not future.done():
        future.set_result(answer)
    else:
        _drop(answer[0])


def _drop(result: Any) -> None:
    if inspect.iscoroutine(result):  # nobody will await it
        result.close()


def _where(thread: int) -> str:
    """The name of a thread, and the line that it is at."""
    names = {other.ident: other.name for other in threading.enumerate()}
    name = repr(names.get(thread, thread))
    if (frame := sys._current_frames().get(thread)) is None:
        return name
    return f"{name}, at {frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"


class _Guard:
    """Sees to it that an interruption hits the handler it is meant for, and nothing after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.thread: int | None = None  # that the handler is in
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
                    continue  # it came too late: the handler had ended

    def _leave(self) -> None:
        with self._lock:
            self.thread = None
            _set_exception(threading.get_ident(), None)  # one that is still on its way

    def interrupt(self) -> None:
        with self._lock:
            self._stopped = True
            if self.thread is not None:
                _set_exception(self.thread, Interrupted)

    def abandon(self) -> bool:
        """Give up the thread that the handler is in. False if it is in none, or given up."""
        with self._lock:
            if self.thread is None or self.is_abandoned:
                return False
            self.is_abandoned = True
            return True


def _set_exception(thread: int, kind: type[BaseException] | None) -> None:
    """Raise kind in a thread, soon; None takes back what has not been raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind)
    )
