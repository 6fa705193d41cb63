"""When the circuit breaker of a store opens, and when it closes."""

from __future__ import annotations

from itertools import count
from typing import Final

from hasten.ratelimit._circuit_breaker import FAILURES, PAUSE_US, CircuitBreaker


def fails(breaker: CircuitBreaker, times: int = 1, now_us: int = 0) -> bool:
    """Fail several calls one after the other. Returns whether the last one opens the breaker."""
    opened = False
    for _ in range(times):
        call = next(CALLS)
        opened = breaker.record_failure(
            now_us, failed_call_number=call, last_started_call_number=call
        )
    return opened


CALLS: Final = count()


class TestCircuitBreaker:
    def test_some_failures_in_a_row_open_it(self) -> None:
        breaker = CircuitBreaker()
        assert not fails(breaker, FAILURES - 1)
        assert not breaker.record_success()
        assert not fails(breaker, FAILURES - 1)
        assert fails(breaker)
        assert breaker.is_open
        assert not fails(breaker)  # the breaker is open already

    def test_concurrent_calls_are_one_failure(self) -> None:
        """A short outage fails all of them."""
        breaker = CircuitBreaker()
        for first in range(0, 100 * FAILURES, 100):
            for call in range(first, first + 100):
                assert not breaker.is_open
                breaker.record_failure(
                    0, failed_call_number=call, last_started_call_number=first + 99
                )
                if first == 100 * (FAILURES - 1):
                    break
        assert breaker.is_open

    def test_one_probe_is_due_in_each_pause(self) -> None:
        breaker = CircuitBreaker()
        assert not breaker.start_probe_if_due(0)  # not while it is closed
        fails(breaker, FAILURES)
        assert not breaker.start_probe_if_due(PAUSE_US - 1)
        assert breaker.start_probe_if_due(PAUSE_US)
        assert not breaker.start_probe_if_due(2 * PAUSE_US - 1)
        assert breaker.start_probe_if_due(2 * PAUSE_US)

    def test_a_success_closes_it(self) -> None:
        breaker = CircuitBreaker()
        fails(breaker, FAILURES)
        assert breaker.record_success()
        assert not breaker.is_open
        assert not fails(breaker)
