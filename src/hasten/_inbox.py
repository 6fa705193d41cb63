"""Wait in a thread for an item, or for a write to a file by another process."""

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
    """A queue that any thread puts items into, and one thread takes them from."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._waker: int | None = None  # set while the thread also waits for a file
        self.get_nowait = self._items.get_nowait

    def put(self, item: T) -> None:
        self._items.put(item)
        waker = self._waker
        if waker is not None:
            os.eventfd_write(waker, 1)

    def get(self, timeout: float | None, watch: FileWatch | None = None) -> T:
        """Return the next item. Raises `queue.Empty` after timeout seconds, or when watch has
        noticed a write."""
        if watch is None:
            return self._items.get(timeout=timeout)
        # A put after this line wakes the thread; an earlier item is found below.
        self._waker = watch.waker
        with contextlib.suppress(queue.Empty):
            item = self._items.get_nowait()
            self._waker = None
            return item
        watch.wait(timeout)
        self._waker = None
        return self._items.get_nowait()


class FileWatch:
    """Notices a write to a file. Linux only: on other systems the constructor raises `OSError`.

    It notices the first write after `arm`, and no other until it is armed again, so a file with
    frequent writes costs nothing.
    """

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError("no inotify on this system")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._files = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._files < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self.waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._files, select.POLLIN)
        self._poll.register(self.waker, select.POLLIN)

    def arm(self, path: Path) -> None:
        """Notice the next write to the file, and drop earlier ones. Raises `OSError`."""
        self.noticed()
        mask = IN_MODIFY | IN_ONESHOT
        if self._libc.inotify_add_watch(self._files, os.fsencode(path), ctypes.c_uint32(mask)) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path))

    def noticed(self) -> bool:
        """Return whether the file was written since `arm` or the last call of this method."""
        try:
            return bool(os.read(self._files, 4096))
        except BlockingIOError:
            return False

    def wait(self, timeout: float | None) -> None:
        """Wait for a write to the file or to `waker`, or for timeout seconds."""
        self._poll.poll(None if timeout is None else timeout * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.waker)

    def close(self) -> None:
        """Close both descriptors. No thread may write to `waker`: its number is reused."""
        os.close(self._files)
        os.close(self.waker)
