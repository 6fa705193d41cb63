"""The load of a process: requests in flight, their durations, the lag of the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hasten._asgi import Message, Receive, Send
from hasten._loops import call_next_turn
from hasten.loadshedding._gradient import Bounds, LimitEstimate, Window, adapt_limit
from hasten.loadshedding._stats import LoadSheddingStats

# The minimum length of one window, so that a single slow request hardly matters.
WINDOW_US: Final = 100_000
MIN_SAMPLES: Final = 10

# How often the lag of the event loop is measured while requests arrive.
LAG_EVERY_US: Final = 20_000


class Load:
    """The requests in flight, and the limit that follows their durations.

    now returns the time in seconds. stats receives the counts.
    """

    def __init__(self, bounds: Bounds, stats: LoadSheddingStats, now: Callable[[], float]) -> None:
        self.stats: Final = stats
        self.now: Final = now
        self.level = LimitEstimate(bounds.minimum)
        self.in_flight = 0
        self._bounds = bounds
        self._lag = LagMeter()
        self._window = _Samples(now())
        stats.limit = bounds.minimum

    def has_capacity(self, reserved: float = 0.0) -> bool:
        """Return whether one more request fits. reserved is the share of the limit to keep free."""
        return self.in_flight < max(1, int(self.level.limit * (1 - reserved)))

    def begin_request(self) -> None:
        """Count a request in."""
        self.in_flight += 1
        self.stats.in_flight = self.in_flight
        self._window.in_flight = max(self._window.in_flight, self.in_flight)
        self._lag.measure()

    def end_request(self) -> None:
        """Count a request out."""
        self.in_flight -= 1
        self.stats.in_flight = self.in_flight

    def record_duration(self, seconds: float) -> None:
        """Adapt the limit to the duration of one more successful request."""
        window = self._window
        window.count += 1
        window.seconds += seconds
        now = self.now()
        if window.count < MIN_SAMPLES or (now - window.since) * 1_000_000 < WINDOW_US:
            return
        average_us = window.seconds / window.count * 1_000_000
        measured = Window(average_us, window.in_flight, self._lag.pop_worst_us())
        self.level = adapt_limit(self.level, measured, self._bounds)
        self.stats.limit = int(self.level.limit)
        self._window = _Samples(now, in_flight=self.in_flight)


@dataclass(slots=True)
class _Samples:
    """The measurements of the current window. Times are in seconds."""

    since: float
    count: int = 0
    seconds: float = 0.0
    in_flight: int = 0


class Work:
    """The work of the application for one request.

    It begins when the request arrives and ends when the response begins. Time that is spent on
    waiting for the body of the request is the client's: it occupies no room and is not measured.
    """

    __slots__ = (
        "_has_begun_response",
        "_has_body",
        "_is_counted",
        "_load",
        "_receive",
        "_send",
        "_since",
    )  # fmt: skip

    def __init__(self, load: Load, receive: Receive, send: Send) -> None:
        self._load = load
        self._receive = receive
        self._send = send
        self._since = load.now()
        self._has_begun_response = False
        self._is_counted = True
        self._has_body = False
        """Once the body is there, the application waits only for the client to disconnect."""
        load.begin_request()

    async def receive(self) -> Message:
        """Receive a message, and count the request out while its body is incomplete."""
        if self._has_body or not self._is_counted:
            return await self._receive()
        load = self._load
        before = load.now()
        self._stop_counting()
        try:
            message = await self._receive()
        finally:
            if not self._has_begun_response:
                self._is_counted = True
                load.begin_request()
            self._since += load.now() - before
        self._has_body = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a message. The start of the response ends the work."""
        if not self._has_begun_response and message["type"] == "http.response.start":
            self.end()
            # Refusals are fast and errors may be: only successful responses show the usual time.
            if message["status"] < 400:
                self._load.record_duration(self._load.now() - self._since)
        await self._send(message)

    def end(self) -> None:
        """End the work. Safe to call twice."""
        self._has_begun_response = True
        self._stop_counting()

    def _stop_counting(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._load.end_request()


class LagMeter:
    """The lag of the event loop: how long a callback waits that is due immediately.

    The lag is a fact about the process, so it is measured in real time unless a test replaces now.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started_at: float | None = None
        self._measured_at = float("-inf")
        self._worst = 0.0

    def measure(self) -> None:
        """Measure the lag, unless a measurement is running or has just ended."""
        now = self._now()
        if self._started_at is None and (now - self._measured_at) * 1_000_000 >= LAG_EVERY_US:
            self._started_at = now
            call_next_turn(self._finish_measurement)

    def pop_worst_us(self) -> int:
        """Return the highest lag since the last call, in microseconds."""
        worst, self._worst = self._worst, 0.0
        return round(worst * 1_000_000)

    def _finish_measurement(self) -> None:
        assert self._started_at is not None
        self._measured_at = self._now()
        self._worst = max(self._worst, self._measured_at - self._started_at)
        self._started_at = None
