"""The reports that worker processes send to their supervisor when it asks.

Standard input of a worker process is a socket that connects it with the supervisor. A request is a
line: a letter and a number. A response is a line with the same number and the size of the content,
and the content. The process ends when the supervisor requests that, or the connection is closed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

STOP: Final = b"s"
HEALTH: Final = b"h"
METRICS: Final = b"m"

CHUNK_BYTES: Final = 65_536
SEPARATOR: Final = b"\n"


def answer_requests(
    connection: int, stop: Callable[[], object], make: Callable[[bytes], bytes]
) -> None:
    """Answer the requests of the supervisor until the connection ends.

    Calls stop when the connection ends, or when the supervisor requests it.

    connection is a file descriptor of a socket, or of a pipe on which nothing arrives. make returns
    the content for `HEALTH` or `METRICS`, and must not raise.
    """
    writing = threading.Lock()
    slow_requests: SimpleQueue[bytes] = SimpleQueue()

    def answer(request: bytes) -> None:
        content = make(request[:1])
        with writing, contextlib.suppress(OSError):  # the supervisor has gone
            _write_all(connection, b"%s %d\n%s" % (request[1:], len(content), content))

    def answer_slow_requests() -> None:
        while True:
            answer(slow_requests.get())

    # The metrics of the application may take long, and health must be answered meanwhile.
    threading.Thread(target=answer_slow_requests, name="hasten reports", daemon=True).start()
    rest = b""
    while True:
        try:
            received = os.read(connection, CHUNK_BYTES)
        except OSError:
            received = b""
        if not received:
            break
        *requests, rest = (rest + received).split(SEPARATOR)
        for request in requests:
            match request[:1]:
                case b"s":
                    stop()
                case b"h":
                    answer(request)
                case b"m":
                    slow_requests.put(request)
    stop()


def _write_all(connection: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(connection, view) :]


class ReportClient:
    """The supervisor's end of the connection with a process. Thread-safe."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._received = b""
        self._number = 0

    def ask(self, request: bytes, seconds: float) -> bytes | None:
        """Return the response to a request, or None if there is none within this time.

        Raises `ConnectionError` if the process has closed the connection.
        """
        deadline = time.monotonic() + seconds
        if not self._lock.acquire(timeout=seconds):
            return None
        try:
            self._number += 1
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            self._connection.sendall(b"%s%d\n" % (request, self._number))
            while True:
                number, content = self._receive(deadline)
                if number == self._number:
                    return content
        except TimeoutError:
            return None
        except (OSError, ValueError) as exc:
            raise ConnectionError from exc
        finally:
            self._lock.release()

    def _receive(self, deadline: float) -> tuple[int, bytes]:
        """Return the next response. It may be a late one to an earlier request."""
        while SEPARATOR not in self._received:
            self._receive_more(deadline)
        head, _, _ = self._received.partition(SEPARATOR)
        number, size = map(int, head.split())
        end = len(head) + 1 + size
        while len(self._received) < end:
            self._receive_more(deadline)
        content, self._received = self._received[len(head) + 1 : end], self._received[end:]
        return number, content

    def _receive_more(self, deadline: float) -> None:
        self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
        received = self._connection.recv(CHUNK_BYTES)
        if not received:
            raise ConnectionError
        self._received += received

    def request_stop(self) -> None:
        """Let the process stop gracefully. It answers until it has stopped."""
        with contextlib.suppress(OSError):
            self._connection.sendall(STOP + SEPARATOR)

    def close(self) -> None:
        """Close the connection, which also stops the process."""
        self._connection.close()
