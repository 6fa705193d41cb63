"""Measure the load of a process: requests in progress, their durations, lag of the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hasten._asgi import Message, Receive, Send
from hasten._loops import call_next_turn
from hasten.loadshedding._gradient import LimitBounds, LimitEstimate, MeasurementWindow, adapt_limit
from hasten.loadshedding._stats import LoadSheddingStats

# The minimum length and number of requests of one window, so that a single slow request hardly
# changes its average.
WINDOW_US: Final = 100_000
MIN_SAMPLES: Final = 10

# How often the lag of the event loop is measured while requests arrive.
LAG_EVERY_US: Final = 20_000


class LoadTracker:
    """The number of requests in progress, and the limit for them, which adapts to their durations.

    now returns the time in seconds. stats is updated with the number and the limit.
    """

    def __init__(
        self, bounds: LimitBounds, stats: LoadSheddingStats, now: Callable[[], float]
    ) -> None:
        self.stats: Final = stats
        self.now: Final = now
        self.level = LimitEstimate(bounds.minimum)
        self.in_flight = 0
        self._bounds = bounds
        self._lag = LagMeter()
        self._window = _WindowSamples(now())
        stats.limit = bounds.minimum

    def has_capacity(self, keep_free_fraction: float = 0.0) -> bool:
        """Return whether one more request fits into the limit.

        keep_free_fraction is the share of the limit that this request must leave free.
        """
        return self.in_flight < max(1, int(self.level.limit * (1 - keep_free_fraction)))

    def begin_request(self) -> None:
        """Count one more request in progress."""
        self.in_flight += 1
        self.stats.in_flight = self.in_flight
        self._window.in_flight = max(self._window.in_flight, self.in_flight)
        self._lag.start_measurement()

    def end_request(self) -> None:
        """Count one fewer request in progress."""
        self.in_flight -= 1
        self.stats.in_flight = self.in_flight

    def record_request_duration(self, seconds: float) -> None:
        """Record the time until the start of a successful response.

        At the end of a window, this adapts the limit.
        """
        window = self._window
        window.count += 1
        window.seconds += seconds
        now = self.now()
        if window.count < MIN_SAMPLES or (now - window.since) * 1_000_000 < WINDOW_US:
            return
        average_us = window.seconds / window.count * 1_000_000
        measured = MeasurementWindow(average_us, window.in_flight, self._lag.pop_highest_lag_us())
        self.level = adapt_limit(self.level, measured, self._bounds)
        self.stats.limit = int(self.level.limit)
        self._window = _WindowSamples(now, in_flight=self.in_flight)


@dataclass(slots=True)
class _WindowSamples:
    """The measurements of the current, unfinished window. Times are in seconds."""

    since: float
    count: int = 0
    seconds: float = 0.0
    in_flight: int = 0


class TrackedRequest:
    """One request while the application works on it: from its arrival to the start of its response.

    It wraps receive and send of the request, to count it in a `LoadTracker` and to measure its
    duration. While the application waits for the body of the request, the request is neither
    counted nor measured, because the client causes the wait.
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

    def __init__(self, load: LoadTracker, receive: Receive, send: Send) -> None:
        self._load = load
        self._receive = receive
        self._send = send
        self._since = load.now()
        self._has_begun_response = False
        self._is_counted = True
        self._has_body = False
        """Whether the body was received. After that, receive() only waits for a disconnect."""
        load.begin_request()

    async def receive(self) -> Message:
        """Receive a message. While it waits for a part of the body, the request is not counted."""
        if self._has_body or not self._is_counted:
            return await self._receive()
        load = self._load
        before = load.now()
        self._remove_from_in_flight_count()
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
        """Send a message. At the start of the response, the request stops being counted."""
        if not self._has_begun_response and message["type"] == "http.response.start":
            self.end_tracking()
            # Only successful responses are measured, because many errors are faster than usual.
            if message["status"] < 400:
                self._load.record_request_duration(self._load.now() - self._since)
        await self._send(message)

    def end_tracking(self) -> None:
        """Stop counting the request. Safe to call twice."""
        self._has_begun_response = True
        self._remove_from_in_flight_count()

    def _remove_from_in_flight_count(self) -> None:
        """Remove the request from the number of requests in flight, if it is counted there."""
        if self._is_counted:
            self._is_counted = False
            self._load.end_request()


class LagMeter:
    """Measures the lag of the event loop: how late it runs a callback that is due immediately.

    now returns the time in seconds. It is a monotonic timer except in tests: the lag is always
    measured in real time.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started_at: float | None = None
        self._measured_at = float("-inf")
        self._worst = 0.0

    def start_measurement(self) -> None:
        """Start to measure the lag.

        Does nothing while a measurement is running, and for `LAG_EVERY_US` after one has ended.
        """
        now = self._now()
        if self._started_at is None and (now - self._measured_at) * 1_000_000 >= LAG_EVERY_US:
            self._started_at = now
            call_next_turn(self._finish_measurement)

    def pop_highest_lag_us(self) -> int:
        """Return the highest lag since the previous call of this method, in microseconds."""
        worst, self._worst = self._worst, 0.0
        return round(worst * 1_000_000)

    def _finish_measurement(self) -> None:
        assert self._started_at is not None
        self._measured_at = self._now()
        self._worst = max(self._worst, self._measured_at - self._started_at)
        self._started_at = None
