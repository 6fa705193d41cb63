"""A few threads for work that would hold up the event loop. Compressors release the GIL."""

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
    """A bounded pool of threads, started with the first work that it gets.

    By default there are as many threads as processors, and at most four: more would take turns.
    """

    offload_after = 250e-6
    """Work that takes longer, by estimate and in seconds, belongs into a thread."""

    def __init__(self, name: str, threads: int | None = None) -> None:
        if threads is None:
            threads = min(4, os.cpu_count() or 1)
        self.threads = check_whole_number("threads", threads, 1)
        self.max_queue = QUEUED_PER_THREAD * self.threads
        self._name = f"hasten-{name}"
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix=self._name)
        self._unfinished = 0
        self._process = os.getpid()

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for a thread."""
        return max(self._unfinished - self.threads, 0)

    @property
    def is_busy(self) -> bool:
        """Does more wait than is done soon? Then cheaper work is in place."""
        return self.waiting > 2 * self.threads

    @property
    def is_full(self) -> bool:
        return self._unfinished >= self.threads + self.max_queue

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do it in a thread. Cancelled, it is not begun, or ends and nobody learns the result."""
        future = self.submit(work, *args, **kwargs)
        try:
            return await result_of(future)
        except BaseException:
            future.cancel()
            raise

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do it in a thread, without waiting for it."""
        if self._process != os.getpid():
            self._start()  # we have been forked, and threads are not taken along
        with self._lock:
            self._unfinished += 1
        try:
            future = self._executor.submit(work, *args, **kwargs)
        except BaseException:
            self._finished(None)
            raise
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: Future[T] | None) -> None:
        with self._lock:
            self._unfinished -= 1
