"""A thread pool for work that would block the event loop.

Threads help because the compression libraries release the GIL.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from hasten._checks import check_whole_number
from hasten._loops import wait_for_concurrent_future

P = ParamSpec("P")
T = TypeVar("T")

QUEUED_PER_THREAD: Final = 8


class CompressionThreads:
    """A thread pool that reports when its queue is long or full. Threads start on first use.

    By default it has one thread for each processor, at most four.
    """

    offload_after = 250e-6
    """Callers run work in a thread if its estimated time, in seconds, is longer than this."""

    def __init__(self, name: str, threads: int | None = None) -> None:
        if threads is None:
            threads = min(4, os.cpu_count() or 1)
        self.threads = check_whole_number("threads", threads, 1)
        self.max_queue = QUEUED_PER_THREAD * self.threads
        self._name = f"hasten-{name}"
        self._lock = threading.Lock()
        self._start_executor()

    def _start_executor(self) -> None:
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix=self._name)
        self._unfinished = 0
        self._process = os.getpid()

    @property
    def queue_length(self) -> int:
        """The number of submitted calls that wait for a thread."""
        return max(self._unfinished - self.threads, 0)

    @property
    def is_queue_long(self) -> bool:
        """Whether the queue is so long that callers should choose a faster compression level."""
        return self.queue_length > 2 * self.threads

    @property
    def is_queue_full(self) -> bool:
        """Whether callers should skip optional work. The pool itself rejects nothing."""
        return self._unfinished >= self.threads + self.max_queue

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread, and return its result.

        If the caller is cancelled, a call that has not started is removed from the queue. The
        result of a call that has started is dropped.
        """
        future = self.submit(function, *args, **kwargs)
        try:
            return await wait_for_concurrent_future(future)
        except BaseException:
            future.cancel()
            raise

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue the call of a function for a thread, and return its future at once."""
        if self._process != os.getpid():
            self._start_executor()  # a forked process has no threads
        with self._lock:
            self._unfinished += 1
        try:
            future = self._executor.submit(function, *args, **kwargs)
        except BaseException:
            self._on_finished(None)
            raise
        future.add_done_callback(self._on_finished)
        return future

    def _on_finished(self, _: Future[T] | None) -> None:
        with self._lock:
            self._unfinished -= 1
