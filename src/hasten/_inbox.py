"""A queue for a thread that can also wake up when another process writes to a file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import select
import sys
from pathlib import Path
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# From Linux's sys/inotify.h.
IN_MODIFY: Final = 0x2
IN_ONESHOT: Final = 0x80000000


class Inbox(Generic[T]):
    """A queue of items from any thread, for one consuming thread.

    The consuming thread can wait for an item and for a write to a file at the same time.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._waker: int | None = None  # an eventfd, set while the consumer also waits for a file
        self.get_nowait = self._items.get_nowait

    def put(self, item: T) -> None:
        self._items.put(item)
        waker = self._waker
        if waker is not None:
            os.eventfd_write(waker, 1)

    def get(self, timeout: float | None, watch: FileWatch | None = None) -> T:
        """Wait for the next item and return it.

        Raises `queue.Empty` after timeout seconds, or when watch has detected a write to its file.
        """
        if watch is None:
            return self._items.get(timeout=timeout)
        # From here on, put() wakes this thread. An item that was put earlier is returned below.
        self._waker = watch.waker
        with contextlib.suppress(queue.Empty):
            item = self._items.get_nowait()
            self._waker = None
            return item
        watch.wait_for_write_or_waker(timeout)
        self._waker = None
        return self._items.get_nowait()


class FileWatch:
    """Detects a write to a file with inotify. On other systems than Linux it raises `OSError`.

    After `arm`, only the first write is detected. Further writes cost nothing until `arm` is called
    again.
    """

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError("inotify is only available on Linux")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        # Another thread writes to this file descriptor to end `wait_for_write_or_waker`.
        self.waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._watch, select.POLLIN)
        self._poll.register(self.waker, select.POLLIN)

    def arm(self, path: Path) -> None:
        """Detect the next write to the file from now on. Earlier writes are forgotten.

        Raises `OSError` if the file cannot be watched.
        """
        self.check_and_reset_written()
        mask = IN_MODIFY | IN_ONESHOT
        if self._libc.inotify_add_watch(self._watch, os.fsencode(path), ctypes.c_uint32(mask)) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path))

    def check_and_reset_written(self) -> bool:
        """Return whether a write was detected since `arm` or the previous call."""
        try:
            return bool(os.read(self._watch, 4096))
        except BlockingIOError:
            return False

    def wait_for_write_or_waker(self, timeout: float | None) -> None:
        """Wait until the file is written, or another thread writes to the file descriptor `waker`.

        Waits for at most timeout seconds.
        """
        self._poll.poll(None if timeout is None else timeout * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.waker)

    def close(self) -> None:
        """Close both file descriptors.

        No thread may write to `waker` afterwards: another file may have its number by then.
        """
        os.close(self._watch)
        os.close(self.waker)
