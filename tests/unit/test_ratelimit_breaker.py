"""When a store is not asked any more, and when it is again."""

from __future__ import annotations

from hasten.ratelimit.breaker import FAILURES, PAUSE_US, Breaker


class TestBreaker:
    def test_some_failures_in_a_row_open_it(self) -> None:
        breaker = Breaker()
        for _ in range(FAILURES - 1):
            assert not breaker.failed(0)
        assert not breaker.succeeded()
        for _ in range(FAILURES - 1):
            assert not breaker.failed(0)
        assert breaker.failed(0)
        assert breaker.is_open
        assert not breaker.failed(0)  # it is open already

    def test_one_that_is_conclusive_opens_it(self) -> None:
        breaker = Breaker()
        assert breaker.failed(0, conclusive=True)
        assert breaker.is_open

    def test_one_probe_is_due_in_each_pause(self) -> None:
        breaker = Breaker()
        assert not breaker.takes_probe(0)  # nobody needs one while it is closed
        breaker.failed(0, conclusive=True)
        assert not breaker.takes_probe(PAUSE_US - 1)
        assert breaker.takes_probe(PAUSE_US)
        assert not breaker.takes_probe(2 * PAUSE_US - 1)
        assert breaker.takes_probe(2 * PAUSE_US)

    def test_a_success_closes_it(self) -> None:
        breaker = Breaker()
        breaker.failed(0, conclusive=True)
        assert breaker.succeeded()
        assert not breaker.is_open
        assert not breaker.failed(0)
