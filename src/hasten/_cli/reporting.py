"""The reports that worker processes send to their supervisor when it requests them.

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
    connection_fd: int,
    request_stop: Callable[[], object],
    make_report_content: Callable[[bytes], bytes],
) -> None:
    """Answer the requests of the supervisor until the connection ends.

    Calls request_stop when the connection ends, and when the supervisor requests a stop.

    connection_fd is a file descriptor of a socket, or of a pipe on which nothing arrives.
    make_report_content is called with `HEALTH` or `METRICS`, and must not raise.
    """
    writing = threading.Lock()
    metrics_requests: SimpleQueue[bytes] = SimpleQueue()

    def answer(request: bytes) -> None:
        content = make_report_content(request[:1])
        with writing, contextlib.suppress(OSError):  # the supervisor has gone
            _write_all(connection_fd, b"%s %d\n%s" % (request[1:], len(content), content))

    def answer_metrics_requests() -> None:
        while True:
            answer(metrics_requests.get())

    # The metrics of the application may take long, and health must be answered meanwhile.
    threading.Thread(target=answer_metrics_requests, name="hasten reports", daemon=True).start()
    rest = b""
    while True:
        try:
            received = os.read(connection_fd, CHUNK_BYTES)
        except OSError:
            received = b""
        if not received:
            break
        *requests, rest = (rest + received).split(SEPARATOR)
        for request in requests:
            match request[:1]:
                case b"s":
                    request_stop()
                case b"h":
                    answer(request)
                case b"m":
                    metrics_requests.put(request)
    request_stop()


def _write_all(connection_fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(connection_fd, view) :]


class ReportClient:
    """The supervisor's end of the connection with a process. Thread-safe."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._received = b""
        self._number = 0

    def request_report(self, request: bytes, timeout_seconds: float) -> bytes | None:
        """Send `HEALTH` or `METRICS`, and return the content of the response.

        Returns None if there is no response within timeout_seconds. Raises `ConnectionError` if the
        process has closed the connection.
        """
        deadline = time.monotonic() + timeout_seconds
        if not self._lock.acquire(timeout=timeout_seconds):
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
