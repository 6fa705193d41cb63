"""What a thread waits for: something to do, or a write to a file by another process."""

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
    """Any thread puts things in, one takes them out."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._waker: int | None = None  # while the thread waits for a file, too
        self.get_nowait = self._items.get_nowait

    def put(self, item: T) -> None:
        self._items.put(item)
        waker = self._waker
        if waker is not None:
            os.eventfd_write(waker, 1)

    def get(self, timeout: float | None, watch: FileWatch | None = None) -> T:
        """The next item. Raises `queue.Empty` after timeout seconds, or when watch has noticed
        something."""
        if watch is None:
            return self._items.get(timeout=timeout)
        # Whoever puts something in after this wakes us; what was there before is found below.
        self._waker = watch.waker
        with contextlib.suppress(queue.Empty):
            item = self._items.get_nowait()
            self._waker = None
            return item
        watch.wait(timeout)
        self._waker = None
        return self._items.get_nowait()


class FileWatch:
    """Notices that a file is written to. Linux only: elsewhere making one raises `OSError`.

    It notices the first write after `arm`, and no more until it is armed again: so a file that is
    written all the time costs nothing.
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
        """Notice the next write to the file; forget those before. Raises `OSError`."""
        self.noticed()
        mask = IN_MODIFY | IN_ONESHOT
        if self._libc.inotify_add_watch(self._files, os.fsencode(path), ctypes.c_uint32(mask)) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path))

    def noticed(self) -> bool:
        """Whether the file has been written to since it was armed, or asked for the last time."""
        try:
            return bool(os.read(self._files, 4096))
        except BlockingIOError:
            return False

    def wait(self, timeout: float | None) -> None:
        """Wait for a write, for `waker` to be written to, or for timeout seconds."""
        self._poll.poll(None if timeout is None else timeout * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.waker)

    def close(self) -> None:
        """Nobody may be about to write to `waker`: its number may soon be another file's."""
        os.close(self._files)
        os.close(self.waker)
