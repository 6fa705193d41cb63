"""`Threads`: runs plain (not async) functions in threads, and stops them.

A thread cannot be killed. But an exception can be set in it, which is raised when the thread
executes Python code again. This stops loops and most library code, but a long call to C code (a
sleep, a socket without a time-out) returns first. A handler that must be stoppable in any case
belongs in a process.

A thread that does not stop is abandoned: the run of its handler ends with an error, another thread
takes its place, and its result is discarded. The thread ends when its handler does.

The thread pool of the standard library cannot be used: the interpreter waits for its threads at
exit, so one long call would keep a worker from stopping.
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

# How long a thread may take to end after its call was cancelled, before a warning is logged.
WARN_AFTER_SECONDS: Final = 2.0


class Interrupted(BaseException):
    """Raised in the thread of a handler to stop it.

    It is no subclass of Exception, so that `except Exception` in a handler does not catch it.
    """


class Threads:
    """A pool of up to size threads for handlers. Belongs to one event loop."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0  # threads of the pool, without the abandoned ones
        self._started = 0  # threads that were ever started, for their names
        self._abandoned = 0  # abandoned threads that are still running
        self._idle = threading.Semaphore(0)
        self._calls: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()

    @property
    def has_only_abandoned_threads(self) -> bool:
        """Whether no thread is available, because too many are abandoned and still running."""
        return self._abandoned >= self._size

    async def run(
        self,
        call: Callable[[], T],
        set_interrupt_and_abandon: Callable[[Callable[[], None], Callable[[], None]], None],
        *,
        description: str,
    ) -> T:
        """Run call in a thread, and return its result. description names the call in the log.

        Before the call starts, set_interrupt_and_abandon is called with two functions: one
        interrupts the call, the other one abandons its thread.
        """
        loop = asyncio.get_running_loop()
        interruptible = _InterruptibleCall()
        # An exception of the handler is passed as a part of the result. As the exception of the
        # future, a GeneratorExit would close the coroutines that await it, and StopIteration is not
        # allowed.
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        # Context variables that a handler sets must not be visible to the next one.
        context = contextvars.copy_context()

        def deliver(result: Any, error: BaseException | None = None) -> None:
            try:
                if interruptible.is_abandoned:
                    _close_coroutine(result)
                    loop.call_soon_threadsafe(
                        self._log_abandoned_thread_ended,
                        description,
                        threading.current_thread().name,
                    )
                else:
                    loop.call_soon_threadsafe(_set_future_outcome, future, (result, error))
            except RuntimeError:  # the loop is closed: nobody waits
                _close_coroutine(result)

        def run_and_check_thread_kept() -> bool:
            """Run the call. Return whether the thread still belongs to the pool."""
            try:
                result = context.run(interruptible.run, call)
            except BaseException as exc:  # noqa: BLE001  # whatever the handler raises
                deliver(None, exc)
            else:
                deliver(result)
            return not interruptible.is_abandoned

        def abandon_thread() -> None:
            if not future.done() and interruptible.try_abandon_thread():
                self._count_as_abandoned()
                _set_future_outcome(future, (None, Interrupted()))
                self._warn_if_abandoned_handler_runs(description, interruptible)

        set_interrupt_and_abandon(interruptible.interrupt, abandon_thread)
        try:
            self._submit(run_and_check_thread_kept)
            result, error = await future
        except BaseException:
            interruptible.interrupt()  # nobody waits for the result any more
            if interruptible.try_abandon_thread():
                self._count_as_abandoned()
                # Later, because most threads end at once. Never, if the event loop ends.
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_later(
                        WARN_AFTER_SECONDS,
                        self._warn_if_abandoned_handler_runs,
                        description,
                        interruptible,
                    )
            raise
        if error is not None:
            try:
                raise error
            finally:
                # The traceback of the error refers to this frame, and this frame to the error. Such
                # a cycle would keep the handler's local variables alive until garbage collection.
                del error, future
        returned: T = result
        return returned

    def _submit(self, run_and_check_thread_kept: Callable[[], bool]) -> None:
        """Let a thread of the pool call the function, and start a thread if none is idle.

        The function returns whether the thread stays in the pool.
        """
        self._calls.put(run_and_check_thread_kept)
        if not self._idle.acquire(blocking=False) and self._count < self._size:
            self._started += 1
            threading.Thread(
                target=self._run_thread, name=f"hasten job {self._started}", daemon=True
            ).start()
            self._count += 1

    def _run_thread(self) -> None:
        """Execute the calls of the pool, until this thread is abandoned or the pool is closed."""
        while (run_and_check_thread_kept := self._calls.get()) is not None:
            _django.close_old_connections()
            is_kept = run_and_check_thread_kept()
            del (
                run_and_check_thread_kept
            )  # so that its objects are not kept alive until the next call
            _django.close_old_connections()
            if not is_kept:
                return
            self._idle.release()

    def _count_as_abandoned(self) -> None:
        """Count one thread as abandoned, so that the pool may start another one."""
        self._count -= 1
        self._abandoned += 1

    def _warn_if_abandoned_handler_runs(
        self, description: str, interruptible: _InterruptibleCall
    ) -> None:
        """Log that the handler of an abandoned thread is still running."""
        if (thread_id := interruptible.thread_id) is None:
            return  # the handler has ended in the meantime
        logger.warning(
            "%s is still running after being asked to stop: the worker no longer waits for "
            "it, its thread is abandoned (%s); abandoned threads of this worker: %d",
            description, _describe_thread(thread_id), self._abandoned,
        )  # fmt: skip
        if self._abandoned == self._size:
            logger.error(
                "all threads for handlers are abandoned (%d): this worker runs no more plain "
                "functions until one of the threads ends; set time-outs in the calls that block "
                'them, or use run_in="process"',
                self._abandoned,
            )

    def _log_abandoned_thread_ended(self, description: str, name: str) -> None:
        """Log that the handler of an abandoned thread has ended."""
        self._abandoned -= 1
        logger.info(
            "%s has ended in its abandoned thread %r; abandoned threads of this worker: %d",
            description, name, self._abandoned,
        )  # fmt: skip

    def close(self) -> None:
        """Let each thread end after its current call."""
        for _ in range(self._count):
            self._calls.put(None)


def _set_future_outcome(
    future: asyncio.Future[tuple[Any, BaseException | None]],
    outcome: tuple[Any, BaseException | None],
) -> None:
    """Set the result of a future, or discard the outcome if the future is done."""
    if not future.done():
        future.set_result(outcome)
    else:
        _close_coroutine(outcome[0])


def _close_coroutine(result: Any) -> None:
    """Close a result that is a coroutine, because nobody will await it."""
    if inspect.iscoroutine(result):  # a coroutine that nobody will await
        result.close()


def _describe_thread(thread_id: int) -> str:
    """Return the name of a thread and the line of code that it is executing."""
    names = {other.ident: other.name for other in threading.enumerate()}
    name = repr(names.get(thread_id, thread_id))
    if (frame := sys._current_frames().get(thread_id)) is None:
        return name
    return f"{name}, at {frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"


class _InterruptibleCall:
    """One call of a handler in a thread, which can be interrupted.

    An interruption never reaches code that the thread runs after the call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.thread_id: int | None = None  # the id of the thread while it runs the handler
        self._stopped = False
        self.is_abandoned = False

    def run(self, call: Callable[[], T]) -> T:
        """Call the handler in the current thread. Raises `Interrupted` if it was stopped before."""
        try:
            with self._lock:
                if self._stopped:
                    raise Interrupted
                self.thread_id = threading.get_ident()
            return call()
        finally:
            while True:
                try:
                    self._mark_handler_ended()
                    break
                except Interrupted:
                    continue  # the interruptible came too late: the handler has ended

    def _mark_handler_ended(self) -> None:
        """Record that the handler has ended, so that the thread is not interrupted any more."""
        with self._lock:
            self.thread_id = None
            # Clears an Interrupted that was not raised yet.
            _raise_in_thread(threading.get_ident(), None)

    def interrupt(self) -> None:
        """Raise `Interrupted` in the handler, now or when it starts."""
        with self._lock:
            self._stopped = True
            if self.thread_id is not None:
                _raise_in_thread(self.thread_id, Interrupted)

    def try_abandon_thread(self) -> bool:
        """Mark the thread of the handler as abandoned.

        Returns False if no thread is running the handler, or it is abandoned already.
        """
        with self._lock:
            if self.thread_id is None or self.is_abandoned:
                return False
            self.is_abandoned = True
            return True


def _raise_in_thread(thread_id: int, exception_class: type[BaseException] | None) -> None:
    """Let a thread raise this exception when it next executes Python code.

    None clears an exception that was set earlier and is not raised yet.
    """
    exception = None if exception_class is None else ctypes.py_object(exception_class)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), exception)
