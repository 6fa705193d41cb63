"""When a store is not asked any more, and when it is again."""

from __future__ import annotations

from itertools import count
from typing import Final

from hasten.ratelimit._circuit_breaker import FAILURES, PAUSE_US, Breaker


def fails(breaker: Breaker, times: int = 1, now_us: int = 0) -> bool:
    """So many questions fail, one after the other. True if the last failure opens the breaker."""
    opened = False
    for _ in range(times):
        question = next(QUESTIONS)
        opened = breaker.failed(now_us, question=question, newest=question)
    return opened


QUESTIONS: Final = count()


class TestBreaker:
    def test_some_failures_in_a_row_open_it(self) -> None:
        breaker = Breaker()
        assert not fails(breaker, FAILURES - 1)
        assert not breaker.succeeded()
        assert not fails(breaker, FAILURES - 1)
        assert fails(breaker)
        assert breaker.is_open
        assert not fails(breaker)  # it is open already

    def test_questions_that_were_under_way_together_are_one_failure(self) -> None:
        """One slow moment fails all of them."""
        breaker = Breaker()
        for first in range(0, 100 * FAILURES, 100):
            for question in range(first, first + 100):
                assert not breaker.is_open
                breaker.failed(0, question=question, newest=first + 99)
                if first == 100 * (FAILURES - 1):
                    break
        assert breaker.is_open

    def test_one_probe_is_due_in_each_pause(self) -> None:
        breaker = Breaker()
        assert not breaker.takes_probe(0)  # nobody needs one while it is closed
        fails(breaker, FAILURES)
        assert not breaker.takes_probe(PAUSE_US - 1)
        assert breaker.takes_probe(PAUSE_US)
        assert not breaker.takes_probe(2 * PAUSE_US - 1)
        assert breaker.takes_probe(2 * PAUSE_US)

    def test_a_success_closes_it(self) -> None:
        breaker = Breaker()
        fails(breaker, FAILURES)
        assert breaker.succeeded()
        assert not breaker.is_open
        assert not fails(breaker)
