"""A few threads for work that would block the event loop. Compressors release the GIL."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from hasten._checks import check_whole_number
from hasten._loops import result_of

P = ParamSpec("P")
T = TypeVar("T")

QUEUED_PER_THREAD: Final = 8


class Pool:
    """A bounded pool of threads, which starts on first use.

    By default it has as many threads as there are processors, at most four.
    """

    offload_after = 250e-6
    """Work with a longer estimate, in seconds, runs in a thread."""

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
    def waiting(self) -> int:
        """How many work items wait for a thread."""
        return max(self._unfinished - self.threads, 0)

    @property
    def is_busy(self) -> bool:
        """Whether so much work waits that it should be made cheaper."""
        return self.waiting > 2 * self.threads

    @property
    def is_full(self) -> bool:
        return self._unfinished >= self.threads + self.max_queue

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a thread. If cancelled, it does not start, or its result is dropped."""
        future = self.submit(work, *args, **kwargs)
        try:
            return await result_of(future)
        except BaseException:
            future.cancel()
            raise

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a function in a thread, without waiting for it."""
        if self._process != os.getpid():
            self._start_executor()  # after a fork the threads are gone
        with self._lock:
            self._unfinished += 1
        try:
            future = self._executor.submit(work, *args, **kwargs)
        except BaseException:
            self._on_finished(None)
            raise
        future.add_done_callback(self._on_finished)
        return future

    def _on_finished(self, _: Future[T] | None) -> None:
        with self._lock:
            self._unfinished -= 1
