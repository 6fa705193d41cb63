"""The connection over which a supervisor requests reports of its processes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hasten._cli.reporting import HEALTH, METRICS, ReportClient, answer_requests
from tests.patience import DEADLINE_SECONDS


@contextmanager
def connected(
    make: Callable[[bytes], bytes],
) -> Iterator[tuple[ReportClient, threading.Event, threading.Thread]]:
    """A client, the event that the process was asked to stop, and the thread that answers."""
    ours, theirs = socket.socketpair()
    stopped = threading.Event()
    client = ReportClient(ours)
    with ours, theirs:
        thread = threading.Thread(
            target=answer_requests, args=(theirs.fileno(), stopped.set, make), daemon=True
        )
        thread.start()
        yield client, stopped, thread
        client.close()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
        assert stopped.is_set()  # the end of the connection stops the process


def test_responses_of_any_size_arrive() -> None:
    content = {HEALTH: b"", METRICS: b"line\n" * 500_000}
    with connected(lambda request: content[request]) as (client, _, _):
        for _ in range(3):
            for request, expected in content.items():
                assert client.request_report(request, DEADLINE_SECONDS) == expected


def test_health_is_answered_while_metrics_are_collected() -> None:
    may_end = threading.Event()

    def make(request: bytes) -> bytes:
        if request == METRICS:
            may_end.wait(DEADLINE_SECONDS)
        return request

    with connected(make) as (client, _, _):
        assert client.request_report(METRICS, 0.05) is None
        assert client.request_report(HEALTH, DEADLINE_SECONDS) == HEALTH
        may_end.set()
        assert client.request_report(HEALTH, DEADLINE_SECONDS) == HEALTH  # not the late response
        assert client.request_report(METRICS, DEADLINE_SECONDS) == METRICS


def test_the_process_answers_after_it_was_asked_to_stop() -> None:
    with connected(lambda request: request) as (client, stopped, _):
        client.request_stop()
        assert stopped.wait(DEADLINE_SECONDS)
        assert client.request_report(HEALTH, DEADLINE_SECONDS) == HEALTH


def test_several_threads_may_ask() -> None:
    with connected(lambda request: request * 10_000) as (client, _, _):
        found: list[bytes | None] = []

        def ask(request: bytes) -> None:
            found.extend(client.request_report(request, DEADLINE_SECONDS) for _ in range(20))

        threads = [threading.Thread(target=ask, args=(each,)) for each in (HEALTH, METRICS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (
            sorted(map(bytes, filter(None, found)))
            == [HEALTH * 10_000] * 20 + [METRICS * 10_000] * 20
        )


def test_a_closed_connection_is_an_error_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(ConnectionError):
            ReportClient(ours).request_report(HEALTH, DEADLINE_SECONDS)
        ReportClient(ours).request_stop()  # ignored
